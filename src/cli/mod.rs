//! The command line: its options, and their help.

pub mod agent;
pub mod serve;
mod ssh_flags;
pub mod up;
mod words;

use std::path::PathBuf;

use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand};
use ipnetwork::IpNetwork;

pub use ssh_flags::SshFlags;

use crate::config::cidr;
use crate::config::ssh::args::{ControlCommand, SshArgs};
use crate::config::ssh::forward::{Forward, ForwardError, Kind, Target};
use crate::types::TunnelDevice;

/// A VPN over SSH.
///
/// Makes a VPN out of any SSH login: `sshvpn up HOST` sets up a tunnel device,
/// addresses and routes on both hosts, and undoes all of it at Ctrl-C.
/// `sshvpn -w LOCAL[:REMOTE] HOST` does what `ssh -w` does, and -L, -R, -D and -W what
/// they do in ssh. HOST needs an sshvpn
/// that its sshd can start, or only sshd with 'PermitTunnel yes'.
#[derive(Debug, Parser)]
#[command(
    name = "sshvpn",
    version,
    args_conflicts_with_subcommands = true,
    args_override_self = true,
    subcommand_negates_reqs = true,
    override_usage = "sshvpn up [OPTIONS] [user@]HOST\n       sshvpn [-w LOCAL[:REMOTE]] [-L|-R|-D FORWARD]... [OPTIONS] [user@]HOST [COMMAND]...\n       sshvpn serve [OPTIONS]\n       sshvpn agent [OPTIONS]\n       sshvpn cleanup",
    after_help = "Exit code: the remote command's; 255 if SSH failed or (without a subcommand) the \
                  command line is wrong, 2 for a wrong command line of a subcommand, 1 if this host failed, 0 otherwise."
)]
pub struct Cli {
    /// The subcommand; none for a connection as by ssh.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// A connection as by ssh.
    #[command(flatten)]
    pub session: SessionArgs,
}

impl Cli {
    /// Whether `word` names a subcommand.
    pub fn is_subcommand(word: &str) -> bool {
        word == "help" || Self::command().find_subcommand(word).is_some()
    }
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a VPN to HOST: devices, addresses and routes on both hosts, until Ctrl-C
    Up(Box<up::UpArgs>),
    /// Run an SSH server for tunnels only
    Serve(Box<serve::ServeArgs>),
    /// Set up the remote host of a tunnel; started by sshd
    Agent(Box<agent::AgentArgs>),
    /// Undo the changes that a killed sshvpn left on this host
    Cleanup,
}

/// The options of `sshvpn [OPTIONS] HOST`.
#[derive(Debug, Args)]
pub struct SessionArgs {
    /// Tunnel devices: local and remote unit, each a number or 'any'
    #[arg(short = 'w', value_name = "LOCAL[:REMOTE]")]
    pub device: Option<TunnelDevice>,
    /// The ssh options.
    #[command(flatten)]
    pub ssh: SshFlags,
    /// Forward a local port or socket to a place that HOST reaches
    #[arg(short = 'L', value_name = "[BIND:]PORT:HOST:HOSTPORT", value_parser = local, help_heading = "As in ssh")]
    pub local: Vec<Forward>,
    /// Forward a port or socket of HOST to a place that this host reaches; without one, HOST's
    /// port is a SOCKS proxy to this host's network
    #[arg(short = 'R', value_name = "[BIND:]PORT[:HOST:HOSTPORT]", value_parser = remote, help_heading = "As in ssh")]
    pub remote: Vec<Forward>,
    /// Make a local port a SOCKS and HTTP CONNECT proxy to HOST's network
    #[arg(short = 'D', value_name = "[BIND:]PORT", value_parser = dynamic, help_heading = "As in ssh")]
    pub dynamic: Vec<Forward>,
    /// Connect standard input and output to this place, which HOST reaches
    #[arg(short = 'W', value_name = "HOST:PORT", help_heading = "As in ssh")]
    pub stdio: Option<Target>,
    /// Listen for commands of -O at the socket of -S
    #[arg(short = 'M', action = ArgAction::Count, help_heading = "As in ssh")]
    pub master: u8,
    /// Control socket, or 'none'
    #[arg(short = 'S', value_name = "PATH", help_heading = "As in ssh")]
    pub control_path: Option<PathBuf>,
    /// Send a command to the connection that listens at the control socket: check, forward,
    /// cancel, exit or stop
    #[arg(short = 'O', value_name = "COMMAND", help_heading = "As in ssh")]
    pub control: Option<ControlCommand>,
    /// Take the command for the name of a subsystem
    #[arg(short = 's', help_heading = "As in ssh")]
    pub subsystem: bool,
    /// Append messages to this file instead of standard error
    #[arg(short = 'E', value_name = "FILE", help_heading = "As in ssh")]
    pub log_file: Option<PathBuf>,
    /// Print the algorithms of a kind (cipher, mac, kex, key, …; 'help' for the kinds), and exit
    #[arg(short = 'Q', value_name = "KIND", help_heading = "As in ssh")]
    pub query: Option<String>,
    /// Print the settings that apply to HOST, and exit
    #[arg(short = 'G', help_heading = "As in ssh")]
    pub print_settings: bool,
    /// Run no remote command or shell, only the tunnel and the forwards
    #[arg(short = 'N', help_heading = "As in ssh")]
    pub no_command: bool,
    /// Take standard input from /dev/null
    #[arg(short = 'n', help_heading = "As in ssh")]
    pub stdin_null: bool,
    /// Request a terminal for the command; twice: even without a local terminal
    #[arg(short = 't', action = ArgAction::Count, overrides_with = "no_terminal", help_heading = "As in ssh")]
    pub terminal: u8,
    /// Request no terminal for the command
    #[arg(short = 'T', overrides_with = "terminal", help_heading = "As in ssh")]
    pub no_terminal: bool,
    /// Escape character of sessions with a terminal, or 'none'
    #[arg(short = 'e', value_name = "CHARACTER", help_heading = "As in ssh")]
    pub escape: Option<String>,
    /// No effect: there is no X11, agent or GSSAPI forwarding to turn off, and no compression
    #[arg(short = 'x', short_aliases = ['a', 'k', 'C'], hide = true)]
    pub no_forwarding: bool,
    /// The destination.
    #[arg(
        help = "[user@]host, or ssh://[user@]host[:port]",
        value_name = "HOST",
        required_unless_present = "query"
    )]
    pub destination: Option<String>,
    /// Command to run on HOST
    #[arg(
        value_name = "COMMAND",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub command: Vec<String>,
}

impl SessionArgs {
    /// The options in the form that `config` takes.
    pub fn to_args(&self) -> SshArgs {
        let mut args = self
            .ssh
            .to_args(self.destination.as_deref().unwrap_or_default());
        args.tunnel_device = self.device;
        args.command = self.command.clone();
        for (kind, forwards) in [
            (Kind::Local, &self.local),
            (Kind::Remote, &self.remote),
            (Kind::Dynamic, &self.dynamic),
        ] {
            let of_kind = forwards.iter().map(|forward| (kind, forward.clone()));
            args.forwards.extend(of_kind);
        }
        args.stdio_forward.clone_from(&self.stdio);
        args.control_path.clone_from(&self.control_path);
        let mut set = |option: &str| args.options.push(option.to_owned());
        match self.master {
            0 => {}
            1 => set("ControlMaster=yes"),
            _ => set("ControlMaster=ask"),
        }
        if self.subsystem {
            set("SessionType=subsystem");
        }
        if self.stdio.is_some() {
            set("SessionType=none");
            set("RequestTTY=no");
        }
        if self.no_command {
            set("SessionType=none");
        }
        if self.ssh.background {
            set("ForkAfterAuthentication=yes");
        }
        // ssh's -f implies -n.
        if self.stdin_null || self.ssh.background {
            set("StdinNull=yes");
        }
        match (self.terminal, self.no_terminal) {
            (_, true) => set("RequestTTY=no"),
            (0, _) => {}
            (1, _) => set("RequestTTY=yes"),
            _ => set("RequestTTY=force"),
        }
        if let Some(escape) = &self.escape {
            set(&format!("EscapeChar={escape}"));
        }
        args
    }
}

fn local(text: &str) -> Result<Forward, ForwardError> {
    Kind::Local.parse(text)
}

fn remote(text: &str) -> Result<Forward, ForwardError> {
    Kind::Remote.parse(text)
}

fn dynamic(text: &str) -> Result<Forward, ForwardError> {
    Kind::Dynamic.parse(text)
}

/// Parses an option's network.
fn network(text: &str) -> Result<IpNetwork, String> {
    cidr::parse_network(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Cli {
        Cli::try_parse_from(line.split(' ')).unwrap()
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_line_for_ssh_reads_as_ssh_reads_it() {
        let cli = parse("sshvpn -NTfw 0:1 -p 2222 -oTunnel=ethernet -J a,b root@host -v id -u");
        let args = cli.session.to_args();
        assert!(cli.command.is_none());
        assert_eq!(args.destination, "root@host");
        assert_eq!(args.port, Some(2222));
        assert_eq!(args.jump.as_deref(), Some("a,b"));
        assert_eq!(args.tunnel_device, Some("0:1".parse().unwrap()));
        assert_eq!(args.verbosity, 1);
        assert_eq!(args.command, ["id", "-u"]);
        for option in [
            "Tunnel=ethernet",
            "SessionType=none",
            "StdinNull=yes",
            "RequestTTY=no",
        ] {
            assert!(args.options.iter().any(|known| known == option), "{option}");
        }
    }

    #[test]
    fn an_option_may_come_twice_as_with_ssh() {
        let args = parse("sshvpn -NN -F a -F b -w 0:1 -i x -i y host")
            .session
            .to_args();
        assert_eq!(args.config_file.as_deref(), Some("b".as_ref()));
        assert_eq!(args.identities.len(), 2);
        assert!(Cli::try_parse_from(["sshvpn", "up", "-qq", "host"]).is_ok());
    }

    #[test]
    fn subcommands_stand_alone() {
        assert!(matches!(
            parse("sshvpn cleanup").command,
            Some(Command::Cleanup)
        ));
        assert!(Cli::try_parse_from(["sshvpn"]).is_err());
        assert!(Cli::try_parse_from(["sshvpn", "-w", "x", "host"]).is_err());
    }

    #[test]
    fn a_name_that_the_kernel_would_refuse_is_refused() {
        let line = ["sshvpn", "up", "--device", "sixteen-letters-", "host"];
        let error = Cli::try_parse_from(line).unwrap_err().to_string();
        assert!(
            error.contains("--device") && error.contains("1 to 15 characters"),
            "{error}"
        );
    }

    #[test]
    fn the_manual_page_has_every_option() {
        let page = include_str!("../../docs/sshvpn.1").replace("\\-", "-");
        let sub = |name| Cli::command().find_subcommand(name).cloned();
        let commands = [Some(Cli::command()), sub("up"), sub("serve"), sub("agent")];
        for command in commands.into_iter().flatten() {
            for option in command
                .get_arguments()
                .filter(|option| !option.is_positional() && !option.is_hide_set())
            {
                let long = option.get_long().map(|long| format!("--{long}"));
                let short = option.get_short().map(|short| format!("-{short}"));
                for name in [long, short].into_iter().flatten() {
                    assert!(page.contains(&name), "{name}");
                }
            }
        }
    }
}
