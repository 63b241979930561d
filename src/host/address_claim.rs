//! Claims on the addresses of tunnels: between the choice of an address and its setting, nothing in
//! the kernel says that it is taken.
//!
//! A claim is the name of a socket in the abstract namespace (unix(7)): the kernel gives it to one
//! socket of a network namespace, and frees it when the process ends. A shell that holds the remote
//! host's part for the carrier `tun` claims by a file in the runtime directory (hold.sh). Each side
//! looks at the other's claims after it has made its own, so that one of two sees the other.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

use super::journal::owner;

/// Every unix socket of this network namespace, one a line (proc_net(5)).
const SOCKETS: &str = "/proc/thread-self/net/unix";
/// The names of the sockets are PREFIX, the address and one of [`Side::suffix`]: hold.sh has them
/// too.
const PREFIX: &str = "sshvpn/";
/// The directory and the names of the shells' files.
const SHELLS: &str = "/run/sshvpn";
const SHELL_SUFFIX: &str = ".claim";

/// The end of the tunnel that this host is. A host may dial itself, so a claim keeps out those of
/// the same side alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The client's host.
    Client,
    /// The remote host.
    Remote,
}

impl Side {
    fn suffix(self) -> &'static str {
        match self {
            Side::Client => "/client",
            Side::Remote => "/remote",
        }
    }
}

/// An address of a tunnel, claimed until this is dropped.
#[derive(Debug)]
#[must_use = "a claim that is dropped is given up"]
pub struct AddressClaim {
    address: IpAddr,
    _socket: UnixDatagram,
}

impl AddressClaim {
    /// Claims the address; `None` if another tunnel has it.
    pub fn take(address: IpAddr, side: Side) -> io::Result<Option<Self>> {
        Self::take_beside(Path::new(SHELLS), address, side)
    }

    fn take_beside(shells: &Path, address: IpAddr, side: Side) -> io::Result<Option<Self>> {
        let name = format!("{PREFIX}{address}{}", side.suffix());
        let name = SocketAddr::from_abstract_name(name)?;
        let socket = match UnixDatagram::bind_addr(&name) {
            Ok(socket) => socket,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Ok(None),
            Err(error) => return Err(error),
        };
        let claim = AddressClaim {
            address,
            _socket: socket,
        };
        let file = shells.join(format!("{address}{SHELL_SUFFIX}"));
        let is_shells = side == Side::Remote && is_of_living_shell(&file);
        Ok((!is_shells).then_some(claim))
    }

    /// The address.
    pub fn address(&self) -> IpAddr {
        self.address
    }
}

/// The addresses that tunnels of this network namespace claim.
pub fn claimed() -> Vec<IpAddr> {
    let sockets = fs::read_to_string(SOCKETS).unwrap_or_default();
    let mut claimed: Vec<IpAddr> = sockets.lines().filter_map(of_socket).collect();
    claimed.extend(by_shells(Path::new(SHELLS)));
    claimed
}

/// The kernel shows an abstract name with '@' in place of the zero byte.
fn of_socket(line: &str) -> Option<IpAddr> {
    let (_, name) = line.rsplit_once(" @")?;
    let (address, _) = name.strip_prefix(PREFIX)?.rsplit_once('/')?;
    address.parse().ok()
}

fn by_shells(directory: &Path) -> Vec<IpAddr> {
    // Only root can read the directory, and have such shells.
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let claims = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let address = name.strip_suffix(SHELL_SUFFIX)?.parse().ok()?;
        is_of_living_shell(&entry.path()).then_some(address)
    });
    claims.collect()
}

/// Whether the file names a process that runs: its number and start time. One that is not written
/// yet is a claim too.
fn is_of_living_shell(file: &Path) -> bool {
    let Ok(text) = fs::read_to_string(file) else {
        return false;
    };
    let mut words = text.split_whitespace();
    match (words.next(), words.next()) {
        (Some(pid), Some(start)) => match (pid.parse(), start.parse::<u64>()) {
            (Ok(pid), Ok(start)) => owner::start_time(pid).ok().flatten() == Some(start),
            _ => false,
        },
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::test_namespace::run;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// A process that another test starts meanwhile inherits a claim until it runs its program.
    async fn unclaimed() {
        while !claimed().is_empty() {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn an_address_has_one_claim_at_a_time() {
        run(async {
            let (one, other) = (address("10.9.0.2"), address("fd00::2"));
            let claim = AddressClaim::take(one, Side::Remote).unwrap().unwrap();
            assert_eq!(claim.address(), one);
            assert!(AddressClaim::take(one, Side::Remote).unwrap().is_none());
            // A host that dials itself.
            let own = AddressClaim::take(one, Side::Client).unwrap();
            assert!(own.is_some());
            drop(own);
            let second = AddressClaim::take(other, Side::Remote).unwrap();
            let mut all = claimed();
            all.sort();
            assert_eq!(all, [one, other]);
            drop((claim, second));
            unclaimed().await;
            assert!(AddressClaim::take(one, Side::Remote).unwrap().is_some());
        });
    }

    #[test]
    fn a_shells_claim_counts_while_the_shell_lives() {
        run(async {
            let directory = tempfile::tempdir().unwrap();
            let file = directory.path().join("10.9.0.2.claim");
            let pid = std::process::id();
            let start = owner::start_time(pid).unwrap().unwrap();
            let one = address("10.9.0.2");
            for (text, lives) in [
                (format!("{pid} {start}\n"), true),
                (format!("{pid} {}\n", start + 1), false),
                (String::new(), true),
                ("nonsense here\n".to_owned(), false),
            ] {
                fs::write(&file, &text).unwrap();
                let taken = AddressClaim::take_beside(directory.path(), one, Side::Remote).unwrap();
                assert_eq!(taken.is_none(), lives, "{text}");
                assert_eq!(by_shells(directory.path()).len(), usize::from(lives));
                drop(taken);
                unclaimed().await;
            }
        });
    }

    #[test]
    fn other_sockets_are_no_claims() {
        for line in [
            "Num RefCount Protocol Flags Type St Inode Path",
            "0000: 00000002 00000000 00000000 0002 01 1234",
            "0000: 00000002 00000000 00000000 0002 01 1234 /run/sshvpn/10.0.0.1/remote",
            "0000: 00000002 00000000 00000000 0002 01 1234 @sshvpn/nonsense/remote",
        ] {
            assert_eq!(of_socket(line), None, "{line}");
        }
        let line = "0000: 00000002 00000000 00000000 0002 01 1234 @sshvpn/10.0.0.1/remote";
        assert_eq!(of_socket(line), Some(address("10.0.0.1")));
    }
}
