//! `sshvpn up`: its options.

use std::net::IpAddr;

use clap::{Args, ValueEnum};
use ipnetwork::IpNetwork;

use super::{SshFlags, network};
use crate::config::types::{DevicePrefix, InterfaceName, Mode, Mtu, Unit};
use crate::session::up::UpRequest;
use crate::tun::DeviceRequest;

/// The options of `up`.
#[derive(Debug, Args)]
#[command(
    args_override_self = true,
    after_help = "Needs root here (sudo), or once: setcap cap_net_admin+ep on the binary. At HOST: \
                  sshd with PermitTunnel yes, iproute2, and root or 'sudo -n'; or a device made for \
                  the login beforehand. All that is changed on either host is undone at the end."
)]
pub struct UpArgs {
    /// Network to reach through HOST, IPv4 or IPv6; may be repeated
    #[arg(long = "route", value_name = "CIDR", value_parser = network)]
    pub routes: Vec<IpNetwork>,
    /// Network to leave out of the routes; may be repeated
    #[arg(long = "exclude", value_name = "CIDR", value_parser = network)]
    pub excludes: Vec<IpNetwork>,
    /// Tunnel address of this host [default: chosen to collide with nothing at either end]
    #[arg(long, value_name = "ADDRESS")]
    pub address: Option<IpAddr>,
    /// Tunnel address of HOST [default: chosen likewise]
    #[arg(long, value_name = "ADDRESS")]
    pub peer_address: Option<IpAddr>,
    /// MTU of the tunnel in bytes [default: 1500 with --route, else the largest that sshd carries]
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<u32>,
    /// Let HOST put its own address on what goes on from it [default: with --route]
    #[arg(long, overrides_with = "no_nat")]
    pub nat: bool,
    /// Keep the source address; the routed networks need a route back
    #[arg(long, overrides_with = "nat")]
    pub no_nat: bool,
    /// An ethernet tunnel (tap) instead of an IP tunnel
    #[arg(long)]
    pub tap: bool,
    /// How the tunnel travels [default: tun, the only way so far]
    #[arg(long, value_name = "CARRIER")]
    pub via: Option<Via>,
    /// Name of the device here; one that is there already is used and left there [default: sshvpn0, …]
    #[arg(long, value_name = "NAME")]
    pub device: Option<InterfaceName>,
    /// Unit of the device at HOST: N for tunN or tapN [default: as ssh_config's TunnelDevice says, else a free one]
    #[arg(long, value_name = "N", value_parser = unit)]
    pub peer_unit: Option<Unit>,
    /// How to get there.
    #[command(flatten)]
    pub ssh: SshFlags,
    /// The far end.
    #[arg(help = "[user@]host, or ssh://[user@]host[:port]", value_name = "HOST")]
    pub destination: String,
}

/// The carriers that can be forced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Via {
    /// sshd's own tunnel forwarding (PermitTunnel)
    Tun,
}

impl UpArgs {
    /// The same in the terms of `session`; what does not fit together is said.
    pub fn to_request(&self) -> Result<UpRequest, String> {
        let mode = if self.tap {
            Mode::Ethernet
        } else {
            Mode::PointToPoint
        };
        let mtu = match self.mtu {
            Some(bytes) => Some(Mtu::new(bytes, mode).map_err(|error| format!("--mtu: {error}"))?),
            None => None,
        };
        if self.routes.is_empty() && !self.excludes.is_empty() {
            return Err("--exclude leaves networks out of --route: give --route too".to_owned());
        }
        Ok(UpRequest {
            args: self.ssh.to_args(&self.destination),
            background: self.ssh.background,
            routes: self.routes.clone(),
            excludes: self.excludes.clone(),
            address: self.address,
            peer_address: self.peer_address,
            mtu,
            nat: match (self.nat, self.no_nat) {
                (true, _) => Some(true),
                (_, true) => Some(false),
                _ => None,
            },
            mode,
            device: match &self.device {
                Some(name) => DeviceRequest::Named(name.clone()),
                None => DeviceRequest::FirstFree(DevicePrefix::default()),
            },
            peer_unit: self.peer_unit,
        })
    }
}

fn unit(text: &str) -> Result<Unit, String> {
    let number = text.parse().map_err(|_| "not a number".to_owned())?;
    Unit::new(number).map_err(|error| error.to_string())
}
