//! Where the server listens: sockets opened before the runtime and before
//! privileges are given up, and exchanged at a reload while clients stay. `[::]`
//! is a socket for each family, so that it takes the place of `0.0.0.0`, or gives
//! way to it, without closing what IPv4 clients come in by.

mod handed_over;
mod socket;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener as BlockingListener};
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};

use crate::process::accept::{Accept, accept};
use crate::process::message::say;
use handed_over::handed_over;
use socket::{any_v4, is_any_v6, open_all, overlap, plan};

pub use socket::ListenError;

/// Open sockets, before there is a runtime.
#[derive(Debug)]
pub struct Bound {
    /// None for those that were handed over.
    sockets: Vec<(Option<SocketAddr>, BlockingListener)>,
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

    /// The errors of [`open`](Self::open) at these addresses, which are free again after the call.
    pub fn check(addresses: &[SocketAddr]) -> Vec<ListenError> {
        let one_by_one = plan(addresses).into_iter();
        one_by_one
            .filter_map(|address| open_all(&[address], false).err())
            .collect()
    }

    fn open_new(addresses: &[SocketAddr]) -> Result<Self, ListenError> {
        let opened = open_all(&plan(addresses), false)?;
        if opened.is_empty() {
            return Err(ListenError::Nothing);
        }
        let wanted = opened
            .into_iter()
            .map(|(address, socket)| (Some(address), socket));
        Ok(Self {
            sockets: wanted.collect(),
        })
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
            waiting: VecDeque::new(),
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
    wanted: Option<SocketAddr>,
    listener: TcpListener,
}

impl Listener {
    /// Lets another socket of this process be where this one is, or does not.
    fn set_reuse_port(&self, reuse: bool) -> io::Result<()> {
        SockRef::from(&self.listener).set_reuse_port(reuse)
    }

    /// Closes it. The connections that wait in it are taken, as many as there are
    /// descriptors for; the runtime may not know of them yet.
    fn close(self, waiting: &mut VecDeque<(TcpStream, SocketAddr)>) -> io::Result<()> {
        let listener = self.listener.into_std()?;
        loop {
            let (stream, peer) = listener.accept()?;
            stream.set_nonblocking(true)?;
            waiting.push_back((TcpStream::from_std(stream)?, peer));
        }
    }
}

/// Sockets that are open besides those that take connections.
#[derive(Debug, Default)]
#[must_use = "nothing is listened at before it is taken"]
pub struct Opened {
    /// All that is to be listened at.
    plan: Vec<SocketAddr>,
    /// What of it is new.
    opened: Vec<Listener>,
}

/// Open sockets that take connections.
#[derive(Debug)]
pub struct Listeners {
    open: Vec<Listener>,
    /// Connections that waited in sockets that are closed.
    waiting: VecDeque<(TcpStream, SocketAddr)>,
    /// Which is asked first, so that none waits for the others.
    first: usize,
    exhausted: bool,
}

impl Listeners {
    /// Where they listen; the port is the kernel's choice where none was given.
    /// `[::]` says both families.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let address = |one: &Listener| one.listener.local_addr().ok();
        let all: Vec<SocketAddr> = self.open.iter().filter_map(address).collect();
        let of_both = |other: &SocketAddr| {
            let both = all.iter().filter(|address| is_any_v6(address));
            both.map(any_v4).any(|v4| v4 == *other)
        };
        all.iter().filter(|one| !of_both(one)).copied().collect()
    }

    /// Whether they are the service manager's, and a reload leaves them alone.
    pub fn are_handed_over(&self) -> bool {
        self.open.iter().any(|one| one.wanted.is_none())
    }

    /// The next connection, and who it is from; an IPv4 address as such. May be
    /// dropped without losing one.
    pub async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        let (stream, peer) = accept(self).await;
        self.exhausted = false;
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        (stream, peer)
    }

    fn poll_accept(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        if let Some(accepted) = self.waiting.pop_front() {
            return Poll::Ready(Ok(accepted));
        }
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

    /// Opens what is needed to listen at `addresses`, and closes nothing: an error
    /// changes nothing, and neither does what is opened, if it is not taken.
    pub fn open(&self, addresses: &[SocketAddr]) -> Result<Opened, ListenError> {
        if self.are_handed_over() {
            return Ok(Opened::default());
        }
        let plan = plan(addresses);
        if plan.is_empty() {
            return Err(ListenError::Nothing);
        }
        let is_new =
            |wanted: &&SocketAddr| !self.open.iter().any(|one| one.wanted == Some(**wanted));
        let new: Vec<SocketAddr> = plan.iter().filter(is_new).copied().collect();
        let opened = self.open_beside(&new)?;
        Ok(Opened { plan, opened })
    }

    /// Listens from now on where `opened` says. What was there already goes on;
    /// what goes is closed now, so whoever connects meanwhile finds one or the
    /// other. Connections that are there, or wait to be accepted, stay.
    pub fn take(&mut self, mut opened: Opened) {
        if self.are_handed_over() {
            return;
        }
        let plan = opened.plan;
        let goes = |one: &mut Listener| !one.wanted.is_some_and(|wanted| plan.contains(&wanted));
        for closed in self.open.extract_if(.., goes) {
            // It ends with an error, mostly as nobody waits any more.
            let _ = closed.close(&mut self.waiting);
        }
        self.open.append(&mut opened.opened);
    }

    /// Opens `new` while the old ones stay, also where these are in the way.
    fn open_beside(&self, new: &[SocketAddr]) -> Result<Vec<Listener>, ListenError> {
        let in_the_way = |one: &&Listener| {
            let wanted = one.wanted.as_ref();
            wanted.is_some_and(|wanted| new.iter().any(|new| overlap(new, wanted)))
        };
        let in_the_way: Vec<&Listener> = self.open.iter().filter(in_the_way).collect();
        let share = |shared| {
            for listener in &in_the_way {
                // Where it fails, opening says what is wrong.
                if let Err(error) = listener.set_reuse_port(shared) {
                    tracing::debug!(%error, "SO_REUSEPORT");
                }
            }
        };
        share(true);
        let opened = open_all(new, !in_the_way.is_empty());
        share(false);
        let start = |(wanted, socket)| {
            let listener = into_async(socket).map_err(|error| ListenError::new(wanted, error))?;
            let wanted = Some(wanted);
            Ok(Listener { wanted, listener })
        };
        opened?.into_iter().map(start).collect()
    }

    /// Takes no more connections: who comes is refused by the kernel at once, or,
    /// where the sockets are the service manager's, waits there for the next server.
    pub fn close(&mut self) {
        self.open.clear();
        self.waiting.clear();
    }
}

impl Accept for Listeners {
    type Connection = (TcpStream, SocketAddr);

    async fn try_accept(&mut self) -> io::Result<Self::Connection> {
        poll_fn(|context| self.poll_accept(context)).await
    }

    fn pauses(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.exhausted, true) {
            say(format_args!(
                "sshvpn: new connections have to wait: {error} (ulimit -n, LimitNOFILE=)"
            ));
        }
    }
}
