//! The options of `sshvpn up`.

mod checks;

use std::net::IpAddr;

use clap::{Args, ValueEnum};
use ipnetwork::IpNetwork;

use super::{SshFlags, network};
use crate::client::up::{Acceptance, Carrier, CarrierRequest, UpRequest};
use crate::tun::DeviceRequest;
use crate::types::{DevicePrefix, InterfaceName, Mode, Mtu, Unit};

/// The options of `up`.
#[derive(Debug, Args)]
#[command(
    args_override_self = true,
    after_help = "Needs root on this host (sudo), or a program file with CAP_NET_ADMIN: see SUDO AND \
                  CAPABILITIES in sshvpn(1). HOST needs one of: sshvpn in PATH (or --push, or \
                  'Subsystem sshvpn /usr/bin/sshvpn agent' in sshd_config), with a login that is root \
                  or may use 'sudo -n'; or sshd with PermitTunnel yes, and iproute2, with such a login \
                  or with a device premade for the login; or 'sshvpn serve', with a tunnel for this \
                  login. At the end all changes on both hosts are undone."
)]
pub struct UpArgs {
    /// Network to reach through HOST, IPv4 or IPv6; may be repeated
    #[arg(long = "route", value_name = "CIDR", value_parser = network)]
    pub routes: Vec<IpNetwork>,
    /// Network to leave out of the routes; may be repeated
    #[arg(long = "exclude", value_name = "CIDR", value_parser = network)]
    pub excludes: Vec<IpNetwork>,
    /// Tunnel address of this host [default: one that is unused on both hosts]
    #[arg(long, value_name = "ADDRESS")]
    pub address: Option<IpAddr>,
    /// Tunnel address of HOST [default: one that is unused on both hosts]
    #[arg(long, value_name = "ADDRESS")]
    pub peer_address: Option<IpAddr>,
    /// MTU of the tunnel in bytes [default: 1500 by agent or with --route, else the largest that sshd carries]
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<u32>,
    /// Let HOST do NAT: replace the source address of packets that it forwards [default: with
    /// --route]
    #[arg(long, conflicts_with = "no_nat")]
    pub nat: bool,
    /// Let HOST keep the source address; the routed networks need a route back
    #[arg(long)]
    pub no_nat: bool,
    /// Let HOST and the routed networks open connections to this host [default: no; with --no-nat,
    /// only the routed networks]
    #[arg(long)]
    pub inbound: bool,
    /// Network behind this host that may use the tunnel, and be reached with --inbound; may be repeated [default: none]
    #[arg(long = "forward", value_name = "CIDR", value_parser = network)]
    pub forwards: Vec<IpNetwork>,
    /// Make an ethernet tunnel (tap) instead of an IP tunnel
    #[arg(long)]
    pub tap: bool,
    /// Take all routes that a server offers, unless together they cover nearly all addresses
    #[arg(long)]
    pub accept_routes: bool,
    /// Take the routes and the tunnel address that a server offers in this network; may be repeated
    #[arg(long = "accept-route", value_name = "CIDR", value_parser = network)]
    pub accept_networks: Vec<IpNetwork>,
    /// Take the name servers that a server offers
    #[arg(long)]
    pub accept_dns: bool,
    /// Carrier of the tunnel [default: serve if HOST is such a server, else agent if one can be
    /// started, else tun]
    #[arg(long, value_name = "CARRIER")]
    pub via: Option<Via>,
    /// Command that starts the agent on HOST [default: subsystem sshvpn, else 'sshvpn agent', by
    /// 'sudo -n' if needed]
    #[arg(long, value_name = "COMMAND", conflicts_with = "push")]
    pub agent_command: Option<String>,
    /// Send this program to HOST if it has none, for as long as the tunnel is up
    #[arg(long)]
    pub push: bool,
    /// End with an error if the path is not as requested: no answer of HOST through the tunnel,
    /// packets of a route that do not take the tunnel or are refused behind it
    #[arg(long)]
    pub strict: bool,
    /// Name of the device on this host; an existing one is used and kept [default: sshvpn0, …]
    #[arg(long, value_name = "NAME")]
    pub device: Option<InterfaceName>,
    /// Unit of the device on HOST: N for tunN or tapN [default: TunnelDevice of ssh_config, else a
    /// free one]
    #[arg(long, value_name = "N", value_parser = unit)]
    pub peer_unit: Option<Unit>,
    /// The ssh options.
    #[command(flatten)]
    pub ssh: SshFlags,
    /// The destination.
    #[arg(help = "[user@]host, or ssh://[user@]host[:port]", value_name = "HOST")]
    pub destination: String,
}

/// The carriers that the user can choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Via {
    /// 'sshvpn serve' on HOST
    Serve,
    /// An sshvpn on HOST that sshd starts
    Agent,
    /// Tunnel forwarding by sshd (PermitTunnel)
    Tun,
}

impl From<Via> for Carrier {
    fn from(via: Via) -> Self {
        match via {
            Via::Serve => Carrier::Serve,
            Via::Agent => Carrier::Agent,
            Via::Tun => Carrier::Tun,
        }
    }
}

impl UpArgs {
    /// The options as a request; an error names options that contradict each other.
    pub fn to_request(&self) -> Result<UpRequest, String> {
        let mode = if self.tap {
            Mode::Ethernet
        } else {
            Mode::PointToPoint
        };
        checks::check(self, mode)?;
        let mtu = match self.mtu {
            Some(bytes) => Some(Mtu::new(bytes, mode).map_err(|error| format!("--mtu: {error}"))?),
            None => None,
        };
        let accepts_routes = self.accept_routes || !self.accept_networks.is_empty();
        if self.routes.is_empty() && !accepts_routes && !self.excludes.is_empty() {
            return Err("--exclude needs --route, --accept-routes or --accept-route".to_owned());
        }
        self.check_carrier()?;
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
            inbound: self.inbound,
            forward: self.forwards.clone(),
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
            acceptance: Acceptance {
                routes: self.accept_routes,
                networks: self.accept_networks.clone(),
                name_servers: self.accept_dns,
            },
            strict: self.strict,
        })
    }

    /// Refuses options that the requested carrier does not support.
    fn check_carrier(&self) -> Result<(), String> {
        let given = |options: &[(bool, &str)]| {
            let names: Vec<&str> = options.iter().filter(|it| it.0).map(|it| it.1).collect();
            (!names.is_empty()).then(|| names.join(", "))
        };
        let agents =
            self.via != Some(Via::Serve) && (self.via.is_some() || self.agent_command.is_some());
        let wrong = if self.via == Some(Via::Serve) {
            given(&[
                (self.peer_address.is_some(), "--peer-address"),
                (self.peer_unit.is_some(), "--peer-unit"),
                (self.nat, "--nat"),
                (self.no_nat, "--no-nat"),
                (self.push, "--push"),
                (self.agent_command.is_some(), "--agent-command"),
            ])
        } else if agents {
            given(&[
                (self.accept_routes, "--accept-routes"),
                (!self.accept_networks.is_empty(), "--accept-route"),
                (self.accept_dns, "--accept-dns"),
            ])
        } else {
            None
        };
        match (wrong, agents) {
            (None, _) => Ok(()),
            (Some(names), true) => Err(format!(
                "{names}: only a server makes offers: leave these options out, or use --via serve"
            )),
            (Some(names), false) => Err(format!(
                "--via serve: the server decides this: leave out {names}"
            )),
        }
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
    pub(super) struct Line {
        #[command(flatten)]
        pub(super) up: UpArgs,
    }

    pub(super) fn request(line: &str) -> Result<UpRequest, String> {
        let line = Line::try_parse_from(line.split(' '));
        line.map_err(|error| error.to_string())?.up.to_request()
    }

    #[test]
    fn nat_is_asked_for_or_refused_and_not_both() {
        assert_eq!(request("up --nat host").unwrap().nat, Some(true));
        assert_eq!(request("up --no-nat host").unwrap().nat, Some(false));
        for line in ["up --nat --no-nat host", "up --no-nat --nat host"] {
            assert!(
                request(line).unwrap_err().contains("cannot be used with"),
                "{line}"
            );
        }
    }

    fn carrier(line: &str) -> Result<CarrierRequest, String> {
        Ok(request(line)?.carrier)
    }

    #[test]
    fn a_server_may_push_what_is_named_and_nothing_else() {
        assert!(request("up host").unwrap().acceptance.is_empty());
        let line = "up --accept-routes --accept-route 10.0.0.0/8 --accept-route fd00::/8 --accept-dns host";
        let all = request(line).unwrap().acceptance;
        assert!(all.routes && all.name_servers && all.networks.len() == 2);
        assert!(request("up --exclude 10.1.0.0/16 --accept-routes host").is_ok());
        assert!(request("up --exclude 10.1.0.0/16 --accept-dns host").is_err());
        assert!(request("up --accept-route 10.1.2.3/8 host").is_err());
    }

    #[test]
    fn what_a_server_decides_cannot_be_asked_of_it_and_an_agent_offers_nothing() {
        let serve = carrier("up --via serve --accept-dns --address 10.1.0.7 host").unwrap();
        assert_eq!(serve.via, Some(Carrier::Serve));
        for option in [
            "--peer-address 10.0.0.1",
            "--peer-unit 3",
            "--nat",
            "--no-nat",
            "--push",
            "--agent-command x",
        ] {
            let error = carrier(&format!("up --via serve {option} host")).unwrap_err();
            let name = option.split(' ').next().unwrap();
            assert!(error.contains(name), "{error}");
        }
        for (carrier_option, option) in [
            ("--via agent", "--accept-routes"),
            ("--via tun", "--accept-dns"),
            ("--agent-command x", "--accept-route 10.0.0.0/8"),
        ] {
            let error = carrier(&format!("up {carrier_option} {option} host")).unwrap_err();
            assert!(error.contains("--via serve"), "{error}");
        }
        // With an automatic carrier, it is reported once the carrier is known.
        assert!(carrier("up --no-nat --accept-dns host").is_ok());
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
