//! Ways to the bastion by ssh and sshvpn: opened, ready to be measured, closed.

use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::bench::network::Network;
use crate::lab::child::Child;
use crate::lab::host::Host;
use crate::program::client::Client;
use crate::program::tunnel::{FAR, NEAR, Tunnel};
use crate::program::vpn::Device;
use crate::traffic::iperf3::{PORT, Target};
use crate::wait::{PATIENCE, until};

/// The cipher of everything over ssh.
pub const CIPHER: &str = "Ciphers=aes128-gcm@openssh.com";

/// A way that is open.
pub struct Opened {
    /// Its processes that the harness has started, the local end's first.
    pub children: Vec<Child>,
    /// The laptop's address on it.
    pub local: String,
    /// The address that the laptop asks for the bastion.
    pub connect: String,
    /// The bastion's own there: another one if connections are forwarded.
    pub serve: String,
    /// The MTU of its device; 0 if it has none.
    pub mtu: u32,
    /// From the start of its command to the first answered ping.
    pub start: Option<Duration>,
}

impl Opened {
    /// An IP tunnel between the lab's usual addresses, started at `started` and
    /// set up. Waits for the first answer through it.
    pub fn tunnel(children: Vec<Child>, network: &Network, started: Instant) -> Result<Self> {
        Self::tunnel_between(children, network, started, [NEAR[0], FAR[0]])
    }

    /// The same between the addresses `near` and `far`.
    pub fn tunnel_between(
        children: Vec<Child>,
        network: &Network,
        started: Instant,
        [local, remote]: [&str; 2],
    ) -> Result<Self> {
        first_ping(&network.lab.laptop, remote)?;
        let start = started.elapsed();
        let device = Device::all(&network.lab.bastion)?.into_iter().next();
        Ok(Self {
            children,
            local: local.to_owned(),
            connect: remote.to_owned(),
            serve: remote.to_owned(),
            mtu: device.map_or(0, |device| device.mtu),
            start: Some(start),
        })
    }

    /// Where iperf3 measures.
    pub fn target(&self) -> Target<'_> {
        Target {
            connect: &self.connect,
            serve: &self.serve,
        }
    }

    /// Ends its processes, the local end's first.
    pub fn close(self) -> Result<()> {
        for child in self.children {
            child.end_with(Signal::SIGTERM)?;
        }
        Ok(())
    }
}

/// No tunnel.
pub fn cable() -> Result<Opened> {
    Ok(Opened {
        children: Vec::new(),
        local: "192.0.2.1".into(),
        connect: "192.0.2.2".into(),
        serve: "192.0.2.2".into(),
        mtu: 1500,
        start: None,
    })
}

/// `-w` at MTU 1500.
pub fn tunnel(client: Client, network: &Network) -> Result<Opened> {
    let tunnel = Tunnel {
        client,
        arguments: &["-o", CIPHER],
        ..Tunnel::default()
    };
    let started = Instant::now();
    let child = tunnel.open(&network.lab.laptop, &network.lab.bastion)?;
    Opened::tunnel(vec![child], network, started)
}

/// `sshvpn up` by one carrier, at the MTU that it chooses.
pub fn up(carrier: &str, network: &Network) -> Result<Opened> {
    let addresses = ["--address", NEAR[0], "--peer-address", FAR[0]];
    let way = ["up", "--via", carrier, "-o", CIPHER];
    let command = Client::Sshvpn.command(&[&way[..], &addresses, &["bastion"]].concat())?;
    let started = Instant::now();
    let child = network.lab.laptop.spawn(&command)?;
    let opened = Opened::tunnel(vec![child], network, started)?;
    for child in &opened.children {
        child.wait_for_line("up:", PATIENCE)?;
    }
    Ok(opened)
}

/// `ssh -L`: a port here that is iperf3's there.
pub fn forward(network: &Network) -> Result<Opened> {
    let ports = format!("{PORT}:127.0.0.1:{PORT}");
    let options = ["-N", "-o", "ExitOnForwardFailure=yes", "-o", CIPHER];
    let arguments = [&options[..], &["-L", &ports, "bastion"]].concat();
    let child = network
        .lab
        .laptop
        .spawn(&Client::Ssh.command(&arguments)?)?;
    let line = format!("ss -Hltn sport = :{PORT}");
    until("the forwarded port", PATIENCE, || {
        let listening = network.lab.laptop.sh(&line).ok()?;
        (!listening.trim().is_empty()).then_some(())
    })?;
    Ok(Opened {
        children: vec![child],
        local: "127.0.0.1".into(),
        connect: "127.0.0.1".into(),
        serve: "127.0.0.1".into(),
        mtu: 0,
        start: None,
    })
}

/// Waits for the first answer of the tunnel's remote end. Each try is short, so
/// that a lost one costs little time.
fn first_ping(laptop: &Host, remote: &str) -> Result<()> {
    let command = ["ping", "-n", "-q", "-c1", "-W0.1", remote];
    until("the first ping through the tunnel", PATIENCE, || {
        let output = laptop.run(&command).ok()?;
        output.status.success().then_some(())
    })
}
