//! WireGuard in user space: one of several programs makes the device, and wg(8) configures it.

use std::time::Instant;

use anyhow::Result;

use crate::bench::network::Network;
use crate::bench::opened::Opened;
use crate::bench::peers::{once_up, program};
use crate::lab::child::Child;
use crate::lab::host::Host;
use crate::program::tunnel::{LOCAL, REMOTE};

/// An implementation.
pub struct WireGuard {
    /// Its name.
    pub program: &'static str,
    /// Its arguments, before the device.
    pub arguments: &'static [&'static str],
}

/// The MTU that wg-quick(8) chooses for a path of 1500.
const MTU: u32 = 1420;
const PORT: u16 = 51820;
const DEVICE: &str = "wg0";
const KEY: &str = "/run/lab/wireguard.key";

impl WireGuard {
    /// Opens it.
    pub fn open(&self, network: &Network) -> Result<Opened> {
        let (laptop, bastion) = (&network.lab.laptop, &network.lab.bastion);
        let (ours, theirs) = (make_key(laptop)?, make_key(bastion)?);
        let started = Instant::now();
        let (local, remote) = (self.start(laptop)?, self.start(bastion)?);
        configure(bastion, &remote, &ours, LOCAL[0], "")?;
        let endpoint = format!("endpoint 192.0.2.2:{PORT}");
        configure(laptop, &local, &theirs, REMOTE[0], &endpoint)?;
        for (host, address, peer) in [
            (bastion, REMOTE[0], LOCAL[0]),
            (laptop, LOCAL[0], REMOTE[0]),
        ] {
            host.sh(&format!(
                "ip address add {address} peer {peer} dev {DEVICE}; \
                 ip link set dev {DEVICE} mtu {MTU} up"
            ))?;
        }
        Opened::tunnel(vec![local, remote], network, started)
    }

    fn start(&self, host: &Host) -> Result<Child> {
        let program = program(self.program)?;
        let command = [&[program.as_str()][..], self.arguments, &[DEVICE]].concat();
        host.spawn(&command)
    }
}

/// Makes the private key of `host`; returns the public one.
fn make_key(host: &Host) -> Result<String> {
    let text = host.sh(&format!(
        "umask 077; [ -e {KEY} ] || wg genkey >{KEY}; wg pubkey <{KEY}"
    ))?;
    Ok(text.trim().to_owned())
}

/// Configures the peer of the device of `host`, as soon as `child` has made it.
fn configure(host: &Host, child: &Child, peer: &str, address: &str, endpoint: &str) -> Result<()> {
    let line = format!(
        "wg set {DEVICE} listen-port {PORT} private-key {KEY} \
         peer {peer} allowed-ips {address}/32 {endpoint}"
    );
    once_up(child, || host.sh(&line))?;
    Ok(())
}
