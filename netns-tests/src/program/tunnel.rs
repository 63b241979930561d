//! A tunnel by `-w`, with the lab's addresses.

use anyhow::Result;

use crate::lab::child::Child;
use crate::lab::host::Host;
use crate::lab::link::{add_addresses, has_device};
use crate::program::client::Client;
use crate::wait::{PATIENCE, until};

/// The mode of the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// IP packets.
    PointToPoint,
    /// Ethernet frames.
    Ethernet,
}

/// The addresses that [`Tunnel::open`] gives to the local device.
pub const LOCAL: [&str; 2] = ["10.99.0.1", "fd99::1"];
/// The addresses that [`Tunnel::open`] gives to the remote device.
pub const REMOTE: [&str; 2] = ["10.99.0.2", "fd99::2"];

/// Earlier names of both.
pub use self::{LOCAL as NEAR, REMOTE as FAR};

/// How to open a tunnel.
#[derive(Debug, Clone)]
pub struct Tunnel<'a> {
    /// The program that opens it.
    pub client: Client,
    /// The mode.
    pub mode: Mode,
    /// The argument of `-w`.
    pub units: &'a str,
    /// The MTU of both devices.
    pub mtu: u32,
    /// Further arguments, before the host.
    pub arguments: &'a [&'a str],
    /// The destination.
    pub destination: &'a str,
}

impl Default for Tunnel<'_> {
    fn default() -> Self {
        Self {
            client: Client::Ssh,
            mode: Mode::PointToPoint,
            units: "3:7",
            mtu: 1500,
            arguments: &[],
            destination: "bastion",
        }
    }
}

impl Tunnel<'_> {
    /// The command line.
    pub fn command(&self) -> Result<Vec<String>> {
        let mut arguments = vec!["-N"];
        if self.mode == Mode::Ethernet {
            // Before -w, which implies Tunnel=point-to-point; the first setting counts.
            arguments.extend(["-o", "Tunnel=ethernet"]);
        }
        arguments.extend(["-w", self.units, "-o", "ExitOnForwardFailure=yes"]);
        arguments.extend(self.arguments);
        arguments.push(self.destination);
        self.client.command(&arguments)
    }

    /// Opens it from `local` to `remote`, and sets up the devices.
    pub fn open(&self, local: &Host, remote: &Host) -> Result<Child> {
        let client = local.spawn(&self.command()?)?;
        self.set_up(local, remote)?;
        Ok(client)
    }

    /// Waits for the devices and gives them their MTU and addresses.
    pub fn set_up(&self, local: &Host, remote: &Host) -> Result<()> {
        let (local_device, remote_device) = self.devices();
        for (host, device, addresses) in [
            (local, local_device, LOCAL),
            (remote, remote_device, REMOTE),
        ] {
            until(&format!("{device} of {}", host.name()), PATIENCE, || {
                has_device(host, &device).then_some(())
            })?;
            host.sh(&format!("ip link set {device} mtu {} up", self.mtu))?;
            let [v4, v6] = addresses;
            add_addresses(host, &device, &[&format!("{v4}/30"), &format!("{v6}/64")])?;
        }
        Ok(())
    }

    /// The names of the devices; `any` is the first free one.
    pub fn devices(&self) -> (String, String) {
        let prefix = match self.mode {
            Mode::PointToPoint => "tun",
            Mode::Ethernet => "tap",
        };
        let name = |unit: &str| format!("{prefix}{}", if unit == "any" { "0" } else { unit });
        let (local, remote) = self.units.split_once(':').unwrap_or((self.units, "any"));
        (name(local), name(remote))
    }
}
