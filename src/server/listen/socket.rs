//! The listening sockets: which ones the requested addresses need, and how each is
//! opened.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

use super::handed_over::ActivationError;

/// Length of the accept queue, sufficient for a burst of clients.
const BACKLOG: i32 = 1024;

/// Why the server cannot listen.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Another process listens at the address.
    #[error(
        "cannot listen at {address}: another program uses it (ss -ltnp shows it): stop that program, or choose another port (--listen ADDR:PORT)"
    )]
    InUse {
        /// The address.
        address: SocketAddr,
    },
    /// The port needs a privilege.
    #[error(
        "cannot listen at {address}: ports below 1024 need root or CAP_NET_BIND_SERVICE, and only at the start: restart the server with it, or choose a port from 1024 on"
    )]
    Privilege {
        /// The address.
        address: SocketAddr,
    },
    /// The address is not assigned to this host.
    #[error(
        "cannot listen at {address}: this host does not have that address now; use [::] for all addresses"
    )]
    NotHere {
        /// The address.
        address: SocketAddr,
    },
    /// Any other error.
    #[error("cannot listen at {address}: {source}")]
    Io {
        /// The address.
        address: SocketAddr,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The list of addresses is empty.
    #[error("there is no address to listen at: give one (--listen ADDR:PORT)")]
    Nothing,
    /// The service manager's sockets cannot be used.
    #[error(transparent)]
    Activation(#[from] ActivationError),
}

impl ListenError {
    pub(super) fn new(address: SocketAddr, source: io::Error) -> Self {
        match source.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EADDRINUSE) => ListenError::InUse { address },
            Some(Errno::EACCES) => ListenError::Privilege { address },
            Some(Errno::EADDRNOTAVAIL) => ListenError::NotHere { address },
            _ => ListenError::Io { address, source },
        }
    }
}

/// Opens a socket at `address`. An IPv6 socket does not accept IPv4 (IPV6_V6ONLY,
/// ipv6(7)). With `beside`, the address may be that of one of our sockets that has
/// SO_REUSEPORT for the moment (socket(7)); a program that does not set the option finds
/// the address in use.
pub(super) fn open(address: SocketAddr, beside: bool) -> io::Result<TcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(true)?;
    }
    // A restart must not wait until the last run's connections have timed out.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(beside)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_reuse_port(false)?;
    Ok(socket.into())
}

fn lacks_family(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EAFNOSUPPORT as i32)
}

/// Opens all of `addresses`, or none.
pub(super) fn open_all(
    addresses: &[SocketAddr],
    beside: bool,
) -> Result<Vec<(SocketAddr, TcpListener)>, ListenError> {
    let mut opened = Vec::new();
    for address in addresses {
        match open(*address, beside) {
            Ok(socket) => opened.push((*address, socket)),
            // Without IPv6 in the kernel, [::] means all IPv4 addresses.
            Err(error) if lacks_family(&error) && is_any_v6(address) => {}
            Err(error) => return Err(ListenError::new(*address, error)),
        }
    }
    Ok(opened)
}

pub(super) fn is_any_v6(address: &SocketAddr) -> bool {
    address.is_ipv6() && address.ip().is_unspecified()
}

/// The IPv4 wildcard address at the port of `address`.
pub(super) fn any_v4(address: &SocketAddr) -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, address.port()).into()
}

/// Whether one socket would accept connections of the other, so that the kernel refuses
/// the second bind without SO_REUSEPORT.
pub(super) fn overlap(one: &SocketAddr, other: &SocketAddr) -> bool {
    one.port() == other.port()
        && one.is_ipv4() == other.is_ipv4()
        && (one.ip().is_unspecified() || other.ip().is_unspecified())
}

/// The addresses to open for `addresses`: without duplicates and without those that a
/// wildcard of their family covers; for `[::]` also the IPv4 wildcard.
pub(super) fn plan(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let both = addresses.iter().filter(|address| is_any_v6(address));
    let all: BTreeSet<SocketAddr> = both.map(any_v4).chain(addresses.iter().copied()).collect();
    let is_covered = |of: &&SocketAddr| {
        of.port() != 0 && !of.ip().is_unspecified() && all.iter().any(|other| overlap(of, other))
    };
    let needed = all.iter().filter(|address| !is_covered(address));
    needed.copied().collect()
}
