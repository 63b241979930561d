//! The options of `sshvpn serve`. All other settings are in /etc/sshvpn/serve.toml.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{ArgAction, Args};
use ipnetwork::IpNetwork;

use super::network;
use crate::config::serve::request::ServeRequest;
use crate::types::InterfaceName;

/// The options of `serve`.
#[derive(Debug, Args)]
#[command(
    args_override_self = true,
    after_help = "Without options and without /etc/sshvpn/serve.toml the server listens on [::]:2222. \
                  The keys in /etc/sshvpn/authorized_keys (in sshd's format) can log in, and those with \
                  tunnel=\"any\" or tunnel=\"N\" can have a tunnel. Options override the file. SIGHUP reads \
                  everything again. The [login] table of the file limits connections without a login in \
                  number (per source, per network and in total) and in time."
)]
pub struct ServeArgs {
    /// Configuration [default: /etc/sshvpn/serve.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address to listen on; may be repeated [default: port 2222 of all addresses]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Vec<SocketAddr>,
    /// File of keys that can log in; may be repeated [default: /etc/sshvpn/authorized_keys]
    #[arg(long, value_name = "FILE")]
    pub authorized_keys: Vec<PathBuf>,
    /// Host key, generated if missing; may be repeated [default: /etc/sshvpn/host_ed25519_key]
    #[arg(long = "host-key", value_name = "FILE")]
    pub host_keys: Vec<PathBuf>,
    /// Bridge that ethernet tunnels join
    #[arg(long, value_name = "NAME")]
    pub bridge: Option<InterfaceName>,
    /// Network for clients' addresses, one per family [default: unused private networks]
    #[arg(long = "pool", value_name = "CIDR", value_parser = network)]
    pub pools: Vec<IpNetwork>,
    /// Network beyond this host that clients may reach; may be repeated [default: none]
    #[arg(long = "route", value_name = "CIDR", value_parser = network)]
    pub routes: Vec<IpNetwork>,
    /// Do not replace clients' addresses by this host's in packets that it forwards
    #[arg(long)]
    pub no_nat: bool,
    /// File for the audit log, one line of JSON per event
    #[arg(long, value_name = "FILE")]
    pub audit_log: Option<PathBuf>,
    /// Address at which Prometheus can get metrics
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics: Option<SocketAddr>,
    /// Run as this user; a start as root creates what that user needs and keeps only CAP_NET_ADMIN
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Create what the user of --user needs (host key, /run/sshvpn, /var/lib/sshvpn), and exit
    #[arg(long, requires = "user", conflicts_with_all = ["check", "status"])]
    pub prepare: bool,
    /// Read all settings and keys, report errors in them, and exit
    #[arg(long)]
    pub check: bool,
    /// Show the clients that are connected to the servers on this host
    #[arg(long, conflicts_with = "check")]
    pub status: bool,
    /// Print the status as JSON
    #[arg(long, requires = "status")]
    pub json: bool,
    /// Log to standard error; may be given up to three times
    #[arg(short = 'v', action = ArgAction::Count)]
    pub verbosity: u8,
}

/// What `sshvpn serve` is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServeCommand {
    /// Serve.
    Run(ServeRequest),
    /// Read everything that serving needs, and report errors.
    Check(ServeRequest),
    /// Create what the server's own user needs.
    Prepare(ServeRequest),
    /// Query the running servers.
    Status {
        /// Print JSON instead of a table.
        json: bool,
    },
}

impl ServeArgs {
    /// The command in the types of `config`.
    pub fn to_command(&self) -> ServeCommand {
        if self.status {
            return ServeCommand::Status { json: self.json };
        }
        let request = ServeRequest {
            config: self.config.clone(),
            listen: self.listen.clone(),
            authorized_keys: self.authorized_keys.clone(),
            host_keys: self.host_keys.clone(),
            bridge: self.bridge.clone(),
            pools: self.pools.clone(),
            routes: self.routes.clone(),
            no_nat: self.no_nat,
            audit_log: self.audit_log.clone(),
            metrics: self.metrics,
            user: self.user.clone(),
            verbosity: self.verbosity,
        };
        match (self.check, self.prepare) {
            (true, _) => ServeCommand::Check(request),
            (_, true) => ServeCommand::Prepare(request),
            (false, false) => ServeCommand::Run(request),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn command(line: &str) -> ServeCommand {
        match Cli::try_parse_from(line.split_whitespace())
            .unwrap()
            .command
        {
            Some(Command::Serve(args)) => args.to_command(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn without_options_nothing_is_overridden() {
        let nothing = ServeCommand::Run(ServeRequest::default());
        assert_eq!(command("sshvpn serve"), nothing);
    }

    #[test]
    fn every_option_is_taken() {
        let line = "sshvpn serve --config c --listen 0.0.0.0:22 --listen [::1]:23 \
                    --authorized-keys a --authorized-keys b --host-key h --bridge br0 \
                    --pool 10.9.0.0/24 --pool fd09::/64 --route 10.1.0.0/16 --no-nat \
                    --audit-log log --metrics 127.0.0.1:9 --user vpn -vv";
        let ServeCommand::Run(request) = command(line) else {
            panic!("{line}");
        };
        assert_eq!(request.config, Some("c".into()));
        assert_eq!(request.listen.len(), 2);
        assert_eq!(request.authorized_keys.len(), 2);
        assert_eq!(request.host_keys, [PathBuf::from("h")]);
        assert_eq!(request.bridge, "br0".parse().ok());
        assert_eq!((request.pools.len(), request.routes.len()), (2, 1));
        assert!(request.no_nat);
        assert_eq!(request.audit_log, Some("log".into()));
        assert_eq!(request.metrics, "127.0.0.1:9".parse().ok());
        assert_eq!(request.user.as_deref(), Some("vpn"));
        assert_eq!(request.verbosity, 2);
    }

    #[test]
    fn checking_and_asking_are_commands_of_their_own() {
        let prepare = command("sshvpn serve --user vpn --prepare");
        assert!(matches!(prepare, ServeCommand::Prepare(request) if request.user.is_some()));
        let check = command("sshvpn serve --check --no-nat");
        assert!(matches!(check, ServeCommand::Check(request) if request.no_nat));
        assert_eq!(
            command("sshvpn serve --status --json"),
            ServeCommand::Status { json: true }
        );
        for wrong in [
            "sshvpn serve --json",
            "sshvpn serve --prepare",
            "sshvpn serve --check --prepare --user vpn",
            "sshvpn serve --check --status",
            "sshvpn serve --listen 2222",
            "sshvpn serve --pool 10.9.0.1/24",
            "sshvpn serve --bridge a/b",
            "sshvpn serve host",
        ] {
            assert!(Cli::try_parse_from(wrong.split(' ')).is_err(), "{wrong}");
        }
    }
}
