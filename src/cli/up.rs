//! `sshvpn up`: its options.

use std::net::IpAddr;

use clap::{Args, ValueEnum};
use ipnetwork::IpNetwork;

use super::{SshFlags, network};
use crate::config::types::{DevicePrefix, InterfaceName, Mode, Mtu, Unit};
use crate::session::up::{Carrier, CarrierRequest, UpRequest};
use crate::tun::DeviceRequest;

/// The options of `up`.
#[derive(Debug, Args)]
#[command(
    args_override_self = true,
    after_help = "Needs root here (sudo), or once: setcap cap_net_admin+ep on the binary. At HOST: \
                  root or 'sudo -n', and sshvpn in PATH (or --push, or 'Subsystem sshvpn \
                  /usr/bin/sshvpn agent' in sshd_config); else sshd with PermitTunnel yes, and \
                  iproute2; or for that a device made for the login beforehand. All that is changed \
                  on either host is undone at the end."
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
    /// MTU of the tunnel in bytes [default: 1500 by agent or with --route, else the largest that sshd carries]
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
    /// How the tunnel travels [default: agent where one can be started at HOST, else tun]
    #[arg(long, value_name = "CARRIER")]
    pub via: Option<Via>,
    /// Command that starts the agent at HOST [default: subsystem sshvpn, else 'sshvpn agent', by 'sudo -n' if need be]
    #[arg(long, value_name = "COMMAND", conflicts_with = "push")]
    pub agent_command: Option<String>,
    /// Send this program to HOST if it has none, for as long as the tunnel is up
    #[arg(long)]
    pub push: bool,
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
    /// An sshvpn at HOST, which sshd starts
    Agent,
    /// sshd's own tunnel forwarding (PermitTunnel)
    Tun,
}

impl From<Via> for Carrier {
    fn from(via: Via) -> Self {
        match via {
            Via::Agent => Carrier::Agent,
            Via::Tun => Carrier::Tun,
        }
    }
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
        if self.via == Some(Via::Tun) && (self.agent_command.is_some() || self.push) {
            return Err(
                "--via tun starts no agent: leave out --agent-command and --push".to_owned(),
            );
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
            carrier: CarrierRequest {
                via: self.via.map(Carrier::from),
                agent_command: self.agent_command.clone(),
                push: self.push,
            },
        })
    }
}

fn unit(text: &str) -> Result<Unit, String> {
    let number = text.parse().map_err(|_| "not a number".to_owned())?;
    Unit::new(number).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        up: UpArgs,
    }

    fn carrier(line: &str) -> Result<CarrierRequest, String> {
        let line = Line::try_parse_from(line.split(' '));
        let request = line.map_err(|error| error.to_string())?.up.to_request();
        Ok(request?.carrier)
    }

    #[test]
    fn a_carrier_can_be_forced_and_an_agent_be_had() {
        assert_eq!(carrier("up host").unwrap(), CarrierRequest::default());
        let agent = carrier("up --via agent --push host").unwrap();
        assert_eq!((agent.via, agent.push), (Some(Carrier::Agent), true));
        let command = carrier("up --agent-command x host").unwrap();
        assert_eq!(command.agent_command.as_deref(), Some("x"));
        for wrong in [
            "up --via tun --push host",
            "up --via tun --agent-command x host",
            "up --push --agent-command x host",
            "up --via ssh host",
        ] {
            assert!(carrier(wrong).is_err(), "{wrong}");
        }
    }
}
