//! The rows of the table: the compared ways to a host.

use anyhow::{Result, bail, ensure};

use crate::bench::column::Column;
use crate::bench::network::Network;
use crate::bench::opened::{self, Opened};
use crate::bench::peers::{openvpn, program, sshuttle, wireguard::WireGuard};
use crate::bench::served;
use crate::program::client::Client;
use std::process::Command;

/// A way to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Row {
    /// No tunnel: the cable itself.
    Veth,
    /// `ssh -w`, the reference of all others.
    SshTunnel,
    /// `ssh -L`: one forwarded port, no IP tunnel.
    SshForward,
    /// `sshvpn -w`, at the same MTU as `ssh -w`.
    SshvpnTunnel,
    /// `sshvpn up --via tun`, at its own MTU.
    UpTun,
    /// `sshvpn up --via agent`, at its own MTU.
    UpAgent,
    /// `ssh -w` into `sshvpn serve`.
    SshTunnelServe,
    /// `sshvpn -w` into `sshvpn serve`.
    SshvpnTunnelServe,
    /// `sshvpn up` into `sshvpn serve`, at MTU 1500.
    Serve,
    /// openvpn, in user space, over UDP.
    OpenVpn,
    /// wireguard-go.
    WireGuardGo,
    /// boringtun-cli.
    BoringTun,
    /// gotatun.
    GotaTun,
    /// sshuttle: TCP connections, no IP tunnel.
    Sshuttle,
}

impl Row {
    /// All rows, in the order of the table.
    pub const ALL: [Self; 14] = [
        Self::Veth,
        Self::SshTunnel,
        Self::SshForward,
        Self::SshvpnTunnel,
        Self::UpTun,
        Self::UpAgent,
        Self::SshTunnelServe,
        Self::SshvpnTunnelServe,
        Self::Serve,
        Self::OpenVpn,
        Self::WireGuardGo,
        Self::BoringTun,
        Self::GotaTun,
        Self::Sshuttle,
    ];

    /// Its name in options.
    pub fn name(self) -> &'static str {
        match self {
            Self::Veth => "veth",
            Self::SshTunnel => "ssh-w",
            Self::SshForward => "ssh-L",
            Self::SshvpnTunnel => "sshvpn-w",
            Self::UpTun => "up-tun",
            Self::UpAgent => "up-agent",
            Self::SshTunnelServe => "ssh-w-serve",
            Self::SshvpnTunnelServe => "sshvpn-w-serve",
            Self::Serve => "serve",
            Self::OpenVpn => "openvpn",
            Self::WireGuardGo => "wireguard-go",
            Self::BoringTun => "boringtun",
            Self::GotaTun => "gotatun",
            Self::Sshuttle => "sshuttle",
        }
    }

    /// Its title in the table.
    pub fn title(self) -> &'static str {
        match self {
            Self::Veth => "no tunnel (veth)",
            Self::SshTunnel => "ssh -w",
            Self::SshForward => "ssh -L",
            Self::SshvpnTunnel => "sshvpn -w",
            Self::UpTun => "sshvpn up --via tun",
            Self::UpAgent => "sshvpn up --via agent",
            Self::SshTunnelServe => "ssh -w, sshvpn serve",
            Self::SshvpnTunnelServe => "sshvpn -w, sshvpn serve",
            Self::Serve => "sshvpn up, sshvpn serve",
            _ => self.name(),
        }
    }

    /// The row that `word` names.
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|row| row.name() == word)
    }

    /// Whether it is another VPN, which is measured only on request.
    pub fn is_peer(self) -> bool {
        self >= Self::OpenVpn
    }

    /// Whether `column` can be measured for it.
    pub fn has(self, column: Column) -> bool {
        use Column as C;
        let needs_packets = matches!(
            column,
            C::UdpUp
                | C::UdpDown
                | C::PingMedian
                | C::PingWorst
                | C::PingUpMedian
                | C::PingUpWorst
                | C::PingDownMedian
                | C::PingDownWorst
                | C::Start
        );
        let needs_processes = matches!(
            column,
            C::CpuUp | C::CpuDown | C::MemoryLocal | C::MemoryRemote | C::Start
        );
        match self {
            Self::Veth => !needs_processes,
            Self::SshForward | Self::Sshuttle => !needs_packets,
            _ => true,
        }
    }

    /// Checks that this machine has what the row needs; the error says what is missing.
    pub fn is_available(self) -> Result<()> {
        match self {
            Self::Veth | Self::SshTunnel | Self::SshForward => {}
            Self::SshvpnTunnel => {
                Client::Sshvpn.program()?;
            }
            Self::UpTun => offers_carrier("tun")?,
            Self::UpAgent => offers_carrier("agent")?,
            Self::SshTunnelServe | Self::SshvpnTunnelServe => served::is_available()?,
            Self::Serve => {
                served::is_available()?;
                offers_carrier("serve")?;
            }
            Self::OpenVpn => {
                program("openvpn")?;
            }
            Self::WireGuardGo | Self::BoringTun | Self::GotaTun => {
                program("wg")?;
                program(self.wireguard().program)?;
            }
            Self::Sshuttle => {
                program("sshuttle")?;
            }
        }
        Ok(())
    }

    /// Opens it between the hosts of `network`.
    pub fn open(self, network: &Network) -> Result<Opened> {
        match self {
            Self::Veth => opened::cable(),
            Self::SshTunnel => opened::tunnel(Client::Ssh, network),
            Self::SshForward => opened::forward(network),
            Self::SshvpnTunnel => opened::tunnel(Client::Sshvpn, network),
            Self::UpTun => opened::up("tun", network),
            Self::UpAgent => opened::up("agent", network),
            Self::SshTunnelServe => served::tunnel(Client::Ssh, network),
            Self::SshvpnTunnelServe => served::tunnel(Client::Sshvpn, network),
            Self::Serve => served::up(network),
            Self::OpenVpn => openvpn::open(network),
            Self::WireGuardGo | Self::BoringTun | Self::GotaTun => self.wireguard().open(network),
            Self::Sshuttle => sshuttle::open(network),
        }
    }

    /// The WireGuard implementation of the row.
    fn wireguard(self) -> WireGuard {
        match self {
            Self::BoringTun => WireGuard {
                program: "boringtun-cli",
                arguments: &["--foreground", "--disable-drop-privileges"],
            },
            Self::GotaTun => WireGuard {
                program: "gotatun",
                arguments: &["--foreground", "--disable-drop-privileges"],
            },
            _ => WireGuard {
                program: "wireguard-go",
                arguments: &["--foreground"],
            },
        }
    }
}

/// Checks that `sshvpn up --via` accepts `carrier`.
fn offers_carrier(carrier: &str) -> Result<()> {
    let command = Client::Sshvpn.command(&["up", "--help"])?;
    let Some((program, arguments)) = command.split_first() else {
        bail!("an empty command");
    };
    let output = Command::new(program).args(arguments).output()?;
    let help = String::from_utf8_lossy(&output.stdout);
    ensure!(
        names_carrier(&help, carrier),
        "this sshvpn has no --via {carrier}"
    );
    Ok(())
}

/// Whether `help` lists `carrier` among the possible values of --via, with one line per value or
/// all in one.
fn names_carrier(help: &str, carrier: &str) -> bool {
    let lines = help.lines().map(str::trim_start);
    let mut values = lines
        .skip_while(|line| !line.starts_with("--via"))
        .skip(1)
        .take_while(|line| !line.starts_with("--"));
    let item = format!("- {carrier}:");
    values.any(|line| {
        let all = line.split_once("[possible values: ");
        let mut all = all.into_iter().flat_map(|(_, all)| all.split([',', ']']));
        line.starts_with(&item) || all.any(|value| value.trim() == carrier)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_by_its_name() {
        for row in Row::ALL {
            assert_eq!(Row::named(row.name()), Some(row));
        }
        assert_eq!(Row::named("ssh"), None);
        assert!(Row::ALL.is_sorted());
    }

    #[test]
    fn a_carrier_is_offered_only_as_a_value_of_via() {
        let help = "      --via <CARRIER>\n          How\n\n          Possible values:\n          \
                    - tun: a tunnel\n\n      --device <NAME>\n          - agent: no\n";
        assert!(names_carrier(help, "tun"));
        assert!(!names_carrier(help, "agent"));
        assert!(!names_carrier("", "tun"));
        let help = "  --via <CARRIER>\n    How, as with --tap [possible values: tun, agent]\n";
        assert!(names_carrier(help, "agent") && !names_carrier(help, "serve"));
    }
}
