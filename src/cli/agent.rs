//! The options of `sshvpn agent`, which /etc/sshvpn/agent.toml can set as well.

use clap::{ArgAction, Args};
use ipnetwork::IpNetwork;

use super::network;
use crate::agent::AgentRequest;
use crate::agent::limits::Limits;
use crate::types::{DevicePrefix, Mode, Mtu};

/// The options of `agent`.
#[derive(Debug, Args)]
#[command(
    args_override_self = true,
    after_help = "sshd starts it, as a subsystem ('Subsystem sshvpn /usr/bin/sshvpn agent' in \
                  sshd_config) or at the request of 'sshvpn up'. Without options it may do whatever its \
                  login may. /etc/sshvpn/agent.toml has the same options as keys, limits every agent of \
                  the host, and has to belong to root; the stricter of the two applies."
)]
pub struct AgentArgs {
    /// Network that the client may reach, including addresses of this host; may be repeated
    /// [default: all]
    #[arg(long = "allow-route", value_name = "CIDR", value_parser = network)]
    pub routes: Vec<IpNetwork>,
    /// Network behind the client that may send packets; may be repeated [default: none, only its
    /// tunnel address]
    #[arg(long = "allow-source", value_name = "CIDR", value_parser = network)]
    pub sources: Vec<IpNetwork>,
    /// Forward nothing: the client reaches only the tunnel address of this host
    #[arg(long)]
    pub no_forward: bool,
    /// Permit no NAT: forwarded packets keep their source address
    #[arg(long)]
    pub no_nat: bool,
    /// Network that the tunnel's addresses may be in; may be repeated [default: all]
    #[arg(long = "allow-address", value_name = "CIDR", value_parser = network)]
    pub addresses: Vec<IpNetwork>,
    /// Prefix of device names [default: sshvpn, and any name that the client requests]
    #[arg(long, value_name = "NAME")]
    pub device_prefix: Option<DevicePrefix>,
    /// The largest MTU of a tunnel
    #[arg(long, value_name = "BYTES", value_parser = mtu)]
    pub max_mtu: Option<Mtu>,
    /// Print log lines on standard error; up to three times
    #[arg(short = 'v', action = ArgAction::Count)]
    pub verbosity: u8,
    /// Remove this program and its folder, into which it was pushed for one tunnel
    #[arg(long, hide = true)]
    pub remove_self: bool,
}

impl AgentArgs {
    /// The options as the agent's request.
    pub fn to_request(&self) -> AgentRequest {
        let listed = |list: &Vec<IpNetwork>| (!list.is_empty()).then(|| list.clone());
        AgentRequest {
            limits: Limits {
                routes: match self.no_forward {
                    true => Some(Vec::new()),
                    false => listed(&self.routes),
                },
                sources: listed(&self.sources),
                addresses: listed(&self.addresses),
                no_nat: self.no_nat,
                device_prefix: self.device_prefix.clone(),
                max_mtu: self.max_mtu,
                tunnels: false,
            },
            remove_self: self.remove_self,
        }
    }
}

fn mtu(text: &str) -> Result<Mtu, String> {
    let bytes = text.parse().map_err(|_| "not a number".to_owned())?;
    Mtu::new(bytes, Mode::PointToPoint).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use crate::cli::{Cli, Command};
    use clap::Parser;

    use super::*;

    fn request(line: &str) -> AgentRequest {
        match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Some(Command::Agent(args)) => args.to_request(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn without_options_there_is_no_limit() {
        assert_eq!(request("sshvpn agent").limits, Limits::default());
    }

    #[test]
    fn every_option_is_a_limit() {
        let line = "sshvpn agent --allow-route 10.1.0.0/16 --allow-route fd00::/8 --no-nat \
                    --allow-address 10.9.0.0/16 --device-prefix vpn --max-mtu 1400";
        let limits = request(&line.split_whitespace().collect::<Vec<_>>().join(" ")).limits;
        assert_eq!(limits.routes.map(|list| list.len()), Some(2));
        assert_eq!(limits.addresses.map(|list| list.len()), Some(1));
        assert!(limits.no_nat);
        assert_eq!(limits.device_prefix, "vpn".parse().ok());
        assert_eq!(limits.max_mtu.map(Mtu::get), Some(1400));
        let behind = request("sshvpn agent --allow-source 10.77.0.0/24").limits;
        assert_eq!(behind.sources.map(|list| list.len()), Some(1));
        let none = request("sshvpn agent --allow-route 10.1.0.0/16 --no-forward").limits;
        assert_eq!(none.routes, Some(Vec::new()));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for wrong in [
            "sshvpn agent --allow-route 10.1.2.3/16",
            "sshvpn agent --max-mtu 20",
            "sshvpn agent --device-prefix a/b",
            "sshvpn agent host",
        ] {
            assert!(Cli::try_parse_from(wrong.split(' ')).is_err(), "{wrong}");
        }
    }
}
