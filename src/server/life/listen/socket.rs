//! The sockets that a server listens at: which ones for the addresses that are
//! asked for, and how each is opened.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

use crate::server::life::activation::ActivationError;

/// Connections that may wait to be accepted, so that a burst of clients finds room.
const BACKLOG: i32 = 1024;

/// Why there is no listener.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Another program, or another server, listens there.
    #[error(
        "cannot listen at {address}: something else does (ss -ltnp shows it): stop that, or choose another port (--listen ADDR:PORT)"
    )]
    InUse {
        /// Where.
        address: SocketAddr,
    },
    /// A port that is not for everybody.
    #[error(
        "cannot listen at {address}: low ports need root or CAP_NET_BIND_SERVICE, and only at the start: restart the server with it, or choose a port from 1024 on"
    )]
    Privilege {
        /// Where.
        address: SocketAddr,
    },
    /// Not an address of this host.
    #[error(
        "cannot listen at {address}: this host does not have that address (now): [::] is all of them"
    )]
    NotHere {
        /// Where.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("cannot listen at {address}: {source}")]
    Io {
        /// Where.
        address: SocketAddr,
        /// The kernel's reason.
        source: io::Error,
    },
    /// There is nothing to listen at.
    #[error("there is no address to listen at: give one (--listen ADDR:PORT)")]
    Nothing,
    /// The service manager's sockets are no good.
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

/// Opens a socket at `address`. One for IPv6 is not for IPv4 clients too
/// (IPV6_V6ONLY, ipv6(7)). With `beside`, it may be where a socket of ours is that
/// has SO_REUSEPORT for the moment, too (socket(7)); who does not ask for that
/// finds the place taken.
pub(super) fn open(address: SocketAddr, beside: bool) -> io::Result<TcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(true)?;
    }
    // A restart must not wait for the last run's connections to time out.
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
            // Without IPv6 in the kernel, all addresses are those of IPv4.
            Err(error) if lacks_family(&error) && is_any_v6(address) => {}
            Err(error) => return Err(ListenError::new(*address, error)),
        }
    }
    Ok(opened)
}

pub(super) fn is_any_v6(address: &SocketAddr) -> bool {
    address.is_ipv6() && address.ip().is_unspecified()
}

/// All of IPv4 at the port of `address`.
pub(super) fn any_v4(address: &SocketAddr) -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, address.port()).into()
}

/// Whether one takes the connections of the other, and the kernel does not let
/// both be there without being asked to.
pub(super) fn overlap(one: &SocketAddr, other: &SocketAddr) -> bool {
    one.port() == other.port()
        && one.is_ipv4() == other.is_ipv4()
        && (one.ip().is_unspecified() || other.ip().is_unspecified())
}

/// What to open for `addresses`: each once, without those that a wildcard of
/// their family covers; for `[::]` all of IPv4 too.
pub(super) fn plan(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let both = addresses.iter().filter(|address| is_any_v6(address));
    let all: BTreeSet<SocketAddr> = both.map(any_v4).chain(addresses.iter().copied()).collect();
    let is_covered = |of: &&SocketAddr| {
        of.port() != 0 && !of.ip().is_unspecified() && all.iter().any(|other| overlap(of, other))
    };
    let needed = all.iter().filter(|address| !is_covered(address));
    needed.copied().collect()
}
