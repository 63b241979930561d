//! Opens and closes the rows by ssh and sshvpn.

use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::bench::network::Network;
use crate::lab::child::Child;
use crate::lab::host::Host;
use crate::program::client::Client;
use crate::program::tunnel::{LOCAL, REMOTE, Tunnel};
use crate::program::vpn::Device;
use crate::traffic::iperf3::{PORT, Target};
use crate::wait::{PATIENCE, until};

/// The cipher of all SSH connections.
pub const CIPHER: &str = "Ciphers=aes128-gcm@openssh.com";

/// An open row.
pub struct Opened {
    /// The processes that the harness has started, the local host's first.
    pub children: Vec<Child>,
    /// The laptop's address.
    pub local: String,
    /// The address by which the laptop reaches the bastion.
    pub connect: String,
    /// The bastion's address that serves it: another one if connections are forwarded.
    pub serve: String,
    /// The MTU of its device; 0 if it has none.
    pub mtu: u32,
    /// The time from the start of its command to the first answered ping.
    pub start: Option<Duration>,
}

impl Opened {
    /// An IP tunnel between the lab's usual addresses, whose command started at `started`. Waits
    /// for the first answer through it.
    pub fn tunnel(children: Vec<Child>, network: &Network, started: Instant) -> Result<Self> {
        Self::tunnel_between(children, network, started, [LOCAL[0], REMOTE[0]])
    }

    /// An IP tunnel between the given addresses. Waits for the first answer through it.
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

    /// The target of iperf3.
    pub fn target(&self) -> Target<'_> {
        Target {
            connect: &self.connect,
            serve: &self.serve,
        }
    }

    /// Ends its processes, the local host's first.
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
    let addresses = ["--address", LOCAL[0], "--peer-address", REMOTE[0]];
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

/// `ssh -L`: forwards a local port to iperf3 on the bastion.
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

/// Waits for the first answer of the remote host through the tunnel. Each try is short, so that a
/// lost one costs little time.
fn first_ping(laptop: &Host, remote: &str) -> Result<()> {
    let command = ["ping", "-n", "-q", "-c1", "-W0.1", remote];
    until("the first ping through the tunnel", PATIENCE, || {
        let output = laptop.run(&command).ok()?;
        output.status.success().then_some(())
    })
}
