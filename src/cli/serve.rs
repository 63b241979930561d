//! `sshvpn serve`: its options. All else stands in /etc/sshvpn/serve.toml.

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
    after_help = "Without options and without /etc/sshvpn/serve.toml it listens on [::]:2222 and lets \
                  in the keys in /etc/sshvpn/authorized_keys (as sshd reads such a file), those with \
                  tunnel=\"any\" or tunnel=\"N\" to a tunnel. Options win over the file. SIGHUP: read \
                  everything again. How many connections may be without a login, from one source, one \
                  network and in all, and for how long, is set in the file's [login]."
)]
pub struct ServeArgs {
    /// Configuration [default: /etc/sshvpn/serve.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where to listen; may be repeated [default: port 2222 of all addresses]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Vec<SocketAddr>,
    /// Keys that may come in; may be repeated [default: /etc/sshvpn/authorized_keys]
    #[arg(long, value_name = "FILE")]
    pub authorized_keys: Vec<PathBuf>,
    /// Host key, made if it is missing; may be repeated [default: /etc/sshvpn/host_ed25519_key]
    #[arg(long = "host-key", value_name = "FILE")]
    pub host_keys: Vec<PathBuf>,
    /// Bridge that ethernet tunnels join
    #[arg(long, value_name = "NAME")]
    pub bridge: Option<InterfaceName>,
    /// Network that clients' addresses are taken from, one a family [default: unused private ones]
    #[arg(long = "pool", value_name = "CIDR", value_parser = network)]
    pub pools: Vec<IpNetwork>,
    /// Network beyond this host that clients may reach; may be repeated [default: none]
    #[arg(long = "route", value_name = "CIDR", value_parser = network)]
    pub routes: Vec<IpNetwork>,
    /// Do not put this host's address on what goes on from it
    #[arg(long)]
    pub no_nat: bool,
    /// Write down who did what, one line of JSON each
    #[arg(long, value_name = "FILE")]
    pub audit_log: Option<PathBuf>,
    /// Where Prometheus may ask for metrics
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics: Option<SocketAddr>,
    /// Run as this user; started as root, it makes what that user needs and keeps CAP_NET_ADMIN alone
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Make what the user of --user needs (host key, /run/sshvpn, /var/lib/sshvpn), and end
    #[arg(long, requires = "user", conflicts_with_all = ["check", "status"])]
    pub prepare: bool,
    /// Read all settings and keys, say what is wrong with them, and serve nobody
    #[arg(long)]
    pub check: bool,
    /// Show who is connected to the servers that run on this host
    #[arg(long, conflicts_with = "check")]
    pub status: bool,
    /// The same as JSON
    #[arg(long, requires = "status")]
    pub json: bool,
    /// Log lines on standard error; up to three times
    #[arg(short = 'v', action = ArgAction::Count)]
    pub verbosity: u8,
}

/// What `sshvpn serve` is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServeCommand {
    /// Serve.
    Run(ServeRequest),
    /// Read all that serving would take, and tell what is wrong with it.
    Check(ServeRequest),
    /// Make what the server's own user needs.
    Prepare(ServeRequest),
    /// Ask the servers that run.
    Status {
        /// For programs.
        json: bool,
    },
}

impl ServeArgs {
    /// The same in the terms of `config`.
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
