//! The carriers of `sshvpn up`. Most scenarios run by each of them: a tunnel's behaviour must not
//! depend on its carrier.

use anyhow::Result;

use crate::lab::child::Child;
use crate::lab::host::Host;
use crate::program::client::Client;
use crate::program::vpn;

/// How packets travel inside SSH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// Tunnel forwarding by sshd.
    Tun,
    /// An agent on the remote host.
    Agent,
}

/// The path to which [`install`] copies the program.
pub const INSTALLED: &str = "/usr/local/sbin/sshvpn";

impl Carrier {
    /// Prepares `remote` for tunnels by this carrier.
    pub fn prepare(self, remote: &Host) -> Result<()> {
        match self {
            Carrier::Tun => Ok(()),
            Carrier::Agent => install(remote),
        }
    }

    /// The arguments of `sshvpn up` that require this carrier, then `more`.
    pub fn arguments<'a>(self, more: &[&'a str]) -> Vec<&'a str> {
        let via = match self {
            Carrier::Tun => "tun",
            Carrier::Agent => "agent",
        };
        [&["--via", via], more].concat()
    }

    /// Starts `sshvpn up` by this carrier on `host`, and waits until it is up.
    pub fn up(self, host: &Host, more: &[&str]) -> Result<Child> {
        vpn::up(host, &self.arguments(more))
    }
}

/// Installs sshvpn on `host` only, for every login there.
pub fn install(host: &Host) -> Result<()> {
    let program = Client::Sshvpn.program()?;
    host.sh(&format!(
        "mount -t tmpfs -o mode=755 tmpfs /usr/local/sbin; install -m 755 {program} {INSTALLED}"
    ))?;
    Ok(())
}

/// Makes a test of each named function for each carrier: `tun::NAME`, `agent::NAME`.
#[macro_export]
macro_rules! with_each_carrier {
    ($($(#[$attribute:meta])* $name:ident),* $(,)?) => {
        mod tun {
            $(#[test] $(#[$attribute])* fn $name() -> anyhow::Result<()> {
                super::$name($crate::Carrier::Tun)
            })*
        }
        mod agent {
            $(#[test] $(#[$attribute])* fn $name() -> anyhow::Result<()> {
                super::$name($crate::Carrier::Agent)
            })*
        }
    };
}
