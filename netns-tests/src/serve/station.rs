//! An ethernet client of `sshvpn serve` on the server's bridge.

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use super::lab::ServeLab;
use super::{Serve, Server};
use crate::lab::child::Child;
use crate::lab::host::Host;
use crate::lab::link::{bridge, has_device};
use crate::program::tunnel::{Mode, Tunnel};
use crate::traffic;
use crate::wait::{PATIENCE, until};

/// The bastion's address on its bridge.
pub const BASTION: &str = "198.51.100.1";

/// The lab of `serve`, with the LAN on a bridge `br0` of the bastion.
pub fn lab() -> Result<ServeLab> {
    let lab = ServeLab::with_tunnels()?;
    bridge(&lab.bastion, "br0", &["lan"])?;
    lab.bastion.sh(&format!(
        "ip address flush dev lan; ip address add {BASTION}/24 dev br0"
    ))?;
    // So that the bridge learns its address.
    traffic::ping(&lab.lan, BASTION)?;
    Ok(lab)
}

/// Starts a server whose ethernet clients join the bridge.
pub fn serve<'a>(lab: &'a ServeLab, config: &str) -> Result<Server<'a>> {
    Serve::default()
        .config(config)
        .with(&["--bridge", "br0", "--pool", "198.51.100.128/25"])
        .with(&["--route", "198.51.100.0/24"])
        .start(&lab.bastion)
}

/// A client on the bridge, with the device tap3.
pub struct Station<'a> {
    /// The client.
    pub host: &'a Host,
    ssh: Child,
    /// Its device on the server.
    remote: &'static str,
    /// Its IPv4 address, by the server's lease.
    pub address: String,
    /// Its IPv6 address, if the server has a pool of that family.
    pub address_v6: Option<String>,
}

impl<'a> Station<'a> {
    /// Opens the tunnel; the shell line `as_whom` configures the device before it is up.
    pub fn open(server: &Server<'_>, host: &'a Host, user: &str, as_whom: &str) -> Result<Self> {
        let (units, remote) = match user {
            "alice" => ("3:7", "tap7"),
            _ => ("3:8", "tap8"),
        };
        let tunnel = Tunnel {
            mode: Mode::Ethernet,
            units,
            destination: &format!("{user}@bastion"),
            ..Tunnel::default()
        };
        let before = server.audit()?.len();
        let ssh = host.spawn(&tunnel.command()?)?;
        let record =
            server.wait_for_record(before, "tunnel-up", |record| record["user"] == user)?;
        let addresses = record["addresses"].as_array().context("no addresses")?;
        let of_family = |v6| {
            let mut texts = addresses.iter().filter_map(|address| address.as_str());
            texts.find(|text| text.contains(':') == v6)
        };
        let address = of_family(false).context("no IPv4 address")?;
        until("tap3", PATIENCE, || has_device(host, "tap3").then_some(()))?;
        host.sh(&format!(
            "{as_whom}; ip link set tap3 up; ip address add {address}/24 dev tap3"
        ))?;
        let address_v6 = of_family(true).map(str::to_owned);
        if let Some(address) = &address_v6 {
            host.sh(&format!("ip address add {address}/64 dev tap3 nodad"))?;
        }
        Ok(Station {
            host,
            ssh,
            remote,
            address: address.to_owned(),
            address_v6,
        })
    }

    /// Ends it; returns how many of its packets the server dropped, by reason.
    pub fn leave(self, server: &Server<'_>) -> Result<serde_json::Value> {
        let before = server.audit()?.len();
        self.ssh.end_with(Signal::SIGINT)?;
        let mut record = server.wait_for_record(before, "session", |_| true)?;
        until(self.remote, PATIENCE, || {
            (!has_device(server.host(), self.remote)).then_some(())
        })?;
        Ok(record["upload"]["dropped"].take())
    }
}

/// The MAC address of a device.
pub fn mac(host: &Host, device: &str) -> Result<String> {
    let shown = host.sh(&format!("ip -br link show dev {device}"))?;
    let address = shown.split_whitespace().nth(2);
    Ok(address.context("no address")?.to_owned())
}

/// The link-local address of a device, once duplicate address detection is done.
pub fn link_local(host: &Host, device: &str) -> Result<String> {
    until("a link-local address", PATIENCE, || {
        let shown = format!("ip -o -6 address show dev {device} scope link -tentative");
        let shown = host.sh(&shown).ok()?;
        let address = shown.split_whitespace().nth(3)?.split('/').next()?;
        Some(address.to_owned())
    })
}
