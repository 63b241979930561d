//! A client of `sshvpn serve` by `-w`, with the addresses that the server leased to it.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::lab::child::{Child, Output};
use crate::lab::host::Host;
use crate::lab::link::has_device;
use crate::program::tunnel::{Mode, Tunnel};
use crate::serve::Server;
use crate::traffic;
use crate::wait::{PATIENCE, until};

/// A client with a tunnel.
pub struct Joined {
    /// Its process.
    pub child: Child,
    /// Its device on its own host.
    pub local: String,
    /// Its device on the server's host.
    pub remote: String,
    /// Its addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// The server's addresses, in the same order.
    pub server: Vec<IpAddr>,
}

/// The user name in a destination.
fn user(destination: &str) -> &str {
    destination.split_once('@').map_or("root", |(user, _)| user)
}

impl Joined {
    /// Opens `tunnel` from `local` to `server`, and gives its local device the leased addresses.
    pub fn open(server: &Server<'_>, local: &Host, tunnel: &Tunnel<'_>) -> Result<Self> {
        let before = server.audit()?.len();
        let child = local.spawn(&tunnel.command()?)?;
        let name = user(tunnel.destination);
        let record =
            server.wait_for_record(before, "tunnel-up", |record| record["user"] == name)?;
        let (device, _) = tunnel.devices();
        until(&format!("{device} of {}", local.name()), PATIENCE, || {
            has_device(local, &device).then_some(())
        })?;
        let joined = Self::of_record(child, device, server.host(), &record)?;
        joined.set_up(local, tunnel)?;
        Ok(joined)
    }

    fn of_record(child: Child, local: String, host: &Host, record: &Value) -> Result<Self> {
        let remote = record["device"].as_str().context("no device")?.to_owned();
        let mut addresses = Vec::new();
        for address in record["addresses"].as_array().context("no addresses")? {
            let address = address.as_str().context("an address is text")?;
            addresses.push(address.parse::<IpAddr>().context(address.to_owned())?);
        }
        addresses.sort();
        let server = addresses_of(host, &remote)?;
        Ok(Self {
            child,
            local,
            remote,
            addresses,
            server,
        })
    }

    fn set_up(&self, local: &Host, tunnel: &Tunnel<'_>) -> Result<()> {
        let device = &self.local;
        local.sh(&format!("ip link set {device} mtu {} up", tunnel.mtu))?;
        for address in &self.addresses {
            let same_family = |server: &&IpAddr| server.is_ipv4() == address.is_ipv4();
            let server = self.server.iter().find(same_family);
            let server =
                server.with_context(|| format!("no address of the server for {address}"))?;
            let nodad = if address.is_ipv6() { "nodad" } else { "" };
            let what = match tunnel.mode {
                Mode::PointToPoint => format!("{address} peer {server}"),
                Mode::Ethernet if address.is_ipv4() => format!("{address}/24"),
                Mode::Ethernet => format!("{address}/64"),
            };
            local.sh(&format!("ip address add {what} dev {device} {nodad}"))?;
        }
        Ok(())
    }

    /// Waits until the server answers pings of every family.
    pub fn pings(&self, local: &Host) -> Result<()> {
        ensure!(!self.server.is_empty(), "the server has no address");
        self.server
            .iter()
            .try_for_each(|server| traffic::ping(local, &server.to_string()))
    }

    /// Routes `networks` into the tunnel.
    pub fn route(&self, local: &Host, networks: &[&str]) -> Result<()> {
        for network in networks {
            local.sh(&format!("ip route add {network} dev {}", self.local))?;
        }
        Ok(())
    }

    /// Its IPv4 address.
    pub fn v4(&self) -> Result<String> {
        let address = self.addresses.iter().find(|address| address.is_ipv4());
        Ok(address.context("no IPv4 address")?.to_string())
    }

    /// Ends the client, as Ctrl-C does.
    pub fn leave(self) -> Result<Output> {
        self.child.end_with(Signal::SIGINT)
    }
}

/// The addresses of `device` of `host`, IPv4 first, without link-local ones.
fn addresses_of(host: &Host, device: &str) -> Result<Vec<IpAddr>> {
    let list = host.sh(&format!("ip -o address show dev {device} scope global"))?;
    let mut addresses = Vec::new();
    for line in list.lines() {
        let address = line.split_whitespace().nth(3).context("no address")?;
        let bare = address.split_once('/').map_or(address, |(bare, _)| bare);
        addresses.push(bare.parse().with_context(|| line.to_owned())?);
    }
    addresses.sort();
    Ok(addresses)
}
