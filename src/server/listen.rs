//! Where the server listens: sockets opened before the runtime and before
//! privileges are given up, and exchanged at a reload while clients stay.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as BlockingListener};
use std::task::{Context, Poll};
use std::time::Duration;

use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};

use super::activation::{ActivationError, handed_over};
use crate::message::say;

/// Connections that may wait to be accepted, so that a burst of clients finds room.
const BACKLOG: i32 = 1024;
/// How long to wait for files or memory, of which there are none left.
const PAUSE: Duration = Duration::from_millis(100);

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
    fn new(address: SocketAddr, source: io::Error) -> Self {
        match source.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EADDRINUSE) => ListenError::InUse { address },
            Some(Errno::EACCES) => ListenError::Privilege { address },
            Some(Errno::EADDRNOTAVAIL) => ListenError::NotHere { address },
            _ => ListenError::Io { address, source },
        }
    }
}

/// A socket that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    address: SocketAddr,
    /// Not for IPv4 clients too (IPV6_V6ONLY, ipv6(7)).
    only_v6: bool,
}

impl Wanted {
    fn open(&self) -> Result<BlockingListener, ListenError> {
        let opened = match self.bind(self.address) {
            // Without IPv6 in the kernel, all addresses are those of IPv4.
            Err(error) if self.is_for_both() && lacks_family(&error) => {
                self.bind((Ipv4Addr::UNSPECIFIED, self.address.port()).into())
            }
            other => other,
        };
        opened.map_err(|source| ListenError::new(self.address, source))
    }

    fn is_for_both(&self) -> bool {
        self.address.is_ipv6() && self.address.ip().is_unspecified() && !self.only_v6
    }

    fn bind(&self, address: SocketAddr) -> io::Result<BlockingListener> {
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        if domain == Domain::IPV6 {
            socket.set_only_v6(self.only_v6)?;
        }
        // A restart must not wait for the last run's connections to time out.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    }
}

fn lacks_family(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EAFNOSUPPORT as i32)
}

/// What to open for `addresses`: each once, without those that a wildcard of
/// their family covers. `[::]` takes IPv4 clients too unless its port is asked
/// for at an IPv4 address by itself.
fn plan(addresses: &[SocketAddr]) -> Vec<Wanted> {
    let all: BTreeSet<SocketAddr> = addresses.iter().copied().collect();
    let wildcard = |of: &SocketAddr| {
        let covers = |other: &SocketAddr| {
            other.ip().is_unspecified()
                && other.port() == of.port()
                && other.is_ipv4() == of.is_ipv4()
        };
        of.port() != 0 && !of.ip().is_unspecified() && all.iter().any(covers)
    };
    let with_v4 = |of: &SocketAddr| {
        all.iter()
            .any(|other| other.is_ipv4() && other.port() == of.port())
    };
    all.iter()
        .filter(|address| !wildcard(address))
        .map(|address| Wanted {
            address: *address,
            only_v6: address.is_ipv6() && with_v4(address),
        })
        .collect()
}

/// Open sockets, before there is a runtime.
#[derive(Debug)]
pub struct Bound {
    sockets: Vec<(Option<Wanted>, BlockingListener)>,
}

impl Bound {
    /// The sockets that the service manager hands over (sd_listen_fds(3)), else
    /// new ones at `addresses`.
    pub fn open(addresses: &[SocketAddr]) -> Result<Self, ListenError> {
        let given = handed_over()?;
        if !given.is_empty() {
            let sockets = given.into_iter().map(|socket| (None, socket)).collect();
            return Ok(Self { sockets });
        }
        Self::open_new(addresses)
    }

    fn open_new(addresses: &[SocketAddr]) -> Result<Self, ListenError> {
        let open = |wanted: Wanted| Ok((Some(wanted), wanted.open()?));
        let sockets: Vec<_> = plan(addresses)
            .into_iter()
            .map(open)
            .collect::<Result<_, ListenError>>()?;
        if sockets.is_empty() {
            return Err(ListenError::Nothing);
        }
        Ok(Self { sockets })
    }

    /// Hands them to the runtime that this is called in.
    pub fn start(self) -> io::Result<Listeners> {
        let start = |(wanted, socket)| {
            let listener = into_async(socket)?;
            Ok(Listener { wanted, listener })
        };
        Ok(Listeners {
            open: self
                .sockets
                .into_iter()
                .map(start)
                .collect::<io::Result<_>>()?,
            first: 0,
            exhausted: false,
        })
    }
}

fn into_async(socket: BlockingListener) -> io::Result<TcpListener> {
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket)
}

#[derive(Debug)]
struct Listener {
    /// None for one that was handed over.
    wanted: Option<Wanted>,
    listener: TcpListener,
}

/// Open sockets that take connections.
#[derive(Debug)]
pub struct Listeners {
    open: Vec<Listener>,
    /// Which is asked first, so that none waits for the others.
    first: usize,
    exhausted: bool,
}

impl Listeners {
    /// Where they listen; the port is the kernel's choice where none was given.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let address = |one: &Listener| one.listener.local_addr().ok();
        self.open.iter().filter_map(address).collect()
    }

    /// Whether they are the service manager's, and `replace` leaves them alone.
    pub fn are_handed_over(&self) -> bool {
        self.open.iter().any(|one| one.wanted.is_none())
    }

    /// The next connection, and who it is from; an IPv4 address as such. May be
    /// dropped without losing one.
    pub async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match poll_fn(|context| self.poll_accept(context)).await {
                Ok((stream, peer)) => {
                    self.exhausted = false;
                    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                    return (stream, peer);
                }
                Err(error) if is_exhaustion(&error) => {
                    if !std::mem::replace(&mut self.exhausted, true) {
                        say(format_args!(
                            "sshvpn: new connections have to wait: {error} (ulimit -n, LimitNOFILE=)"
                        ));
                    }
                    // The kernel has no event for a file that is closed.
                    tokio::time::sleep(PAUSE).await;
                }
                // The connection is gone, not the listener (accept(2)).
                Err(error) => tracing::debug!("accept: {error}"),
            }
        }
    }

    fn poll_accept(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let count = self.open.len();
        for turn in 0..count {
            let index = (self.first + turn) % count;
            let Some(one) = self.open.get(index) else {
                continue;
            };
            if let Poll::Ready(result) = one.listener.poll_accept(context) {
                self.first = index + 1;
                return Poll::Ready(result);
            }
        }
        Poll::Pending
    }

    /// Listens at `addresses` from now on. What is in both sets goes on; what
    /// goes is closed when all that is new is open, so an error changes nothing,
    /// but where old and new are in each other's way (`0.0.0.0` and `[::]` of one
    /// port): those close first, and are opened again if that was in vain.
    /// Connections that are there stay.
    pub fn replace(&mut self, addresses: &[SocketAddr]) -> Result<(), ListenError> {
        if self.are_handed_over() {
            return Ok(());
        }
        let plan = plan(addresses);
        if plan.is_empty() {
            return Err(ListenError::Nothing);
        }
        let stays = |one: &Listener| one.wanted.is_some_and(|wanted| plan.contains(&wanted));
        let is_new = |wanted: &&Wanted| !self.open.iter().any(|one| one.wanted == Some(**wanted));
        let new: Vec<Wanted> = plan.iter().filter(is_new).copied().collect();
        let ports: BTreeSet<u16> = new.iter().map(|wanted| wanted.address.port()).collect();
        let is_in_the_way = |one: &Listener| {
            !stays(one) && ports.contains(&one.wanted.map_or(0, |w| w.address.port()))
        };
        let closed: Vec<Wanted> = self
            .open
            .extract_if(.., |one| is_in_the_way(one))
            .filter_map(|one| one.wanted)
            .collect();
        match open_all(&new) {
            Ok(opened) => {
                self.open.retain(stays);
                self.open.extend(opened);
                Ok(())
            }
            Err(error) => {
                for wanted in closed {
                    match open_all(&[wanted]) {
                        Ok(again) => self.open.extend(again),
                        Err(error) => say(format_args!("sshvpn: {error}")),
                    }
                }
                Err(error)
            }
        }
    }
}

fn open_all(wanted: &[Wanted]) -> Result<Vec<Listener>, ListenError> {
    let open = |wanted: &Wanted| {
        let failed = |source| ListenError::new(wanted.address, source);
        Ok(Listener {
            wanted: Some(*wanted),
            listener: into_async(wanted.open()?).map_err(failed)?,
        })
    };
    wanted.iter().map(open).collect()
}

/// Whether there are no descriptors or no memory for another connection.
fn is_exhaustion(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM)
    )
}

#[cfg(test)]
#[path = "listen_tests.rs"]
mod tests;
