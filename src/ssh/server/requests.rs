//! The requests of a client that is logged in, in order, each with its reply. Dropping a
//! reply refuses the request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use russh::server::{ChannelOpenHandle, Handle};
use russh::{Channel, ChannelOpenFailure, ChannelReadHalf, ChannelWriteHalf};
use tokio::sync::{mpsc, oneshot};

use super::asking::described;
use super::connection::Shared;
use super::patience::Patience;
use super::place::Place;
use super::stream::{self, ForwardInput, ForwardOutput, SubsystemInput, SubsystemOutput};
use crate::ssh::channel::side::ServerSide;
use crate::ssh::channel::tunnel::{TunnelReceiver, TunnelSender};
use crate::types::{Mode, UnitRequest};

/// At most this many requests wait; further ones are refused.
pub(super) const QUEUE: usize = 32;

/// The requests of one connection. The receiver should take them without delay, and must
/// answer [`Request::Listen`] and [`Request::CancelListen`] without waiting for the
/// connection, because the connection waits for the answer.
pub struct Requests {
    queue: mpsc::Receiver<Request>,
    unqueued: Unqueued,
}

/// The number of refused requests that found no room in the queue and are not recorded yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Unqueued(Arc<AtomicU64>);

impl Unqueued {
    /// Counts one.
    pub(super) fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// All of them as one record.
    fn take(&self) -> Option<Request> {
        let what = match self.0.swap(0, Ordering::Relaxed) {
            0 => return None,
            1 => "1 request".to_owned(),
            count => format!("{count} requests"),
        };
        let why = "too many requests wait".to_owned();
        Some(Request::Unserved { what, why })
    }
}

/// Sends frames to a client.
pub type ServedSender = TunnelSender<ServerSide>;

/// Receives frames from a client.
pub type ServedReceiver = TunnelReceiver;

/// The origin of a connection to forward, as the client states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Originator {
    /// The address that the client states; unverified.
    pub address: String,
    /// The port that the client states; unverified.
    pub port: u32,
}

/// One request.
pub enum Request {
    /// A tunnel (OpenSSH PROTOCOL, section 2.3).
    Tunnel {
        /// The mode of the tunnel.
        mode: Mode,
        /// The requested unit on this host.
        unit: UnitRequest,
        /// To be answered.
        reply: TunnelReply,
    },
    /// A subsystem (RFC 4254, section 6.5).
    Subsystem {
        /// The subsystem's name.
        name: String,
        /// The reply.
        reply: SubsystemReply,
    },
    /// A TCP connection from this host (RFC 4254, section 7.2): -L and -D.
    Open {
        /// The destination's name or address.
        host: String,
        /// The destination's port.
        port: u16,
        /// The origin.
        originator: Originator,
        /// The reply.
        reply: OpenReply,
    },
    /// A listener on this host (RFC 4254, section 7.1): -R.
    Listen {
        /// The address or name to listen on; empty for all addresses.
        address: String,
        /// The port; 0 for any port.
        port: u16,
        /// The reply.
        reply: ListenReply,
    },
    /// The end of a listener.
    CancelListen {
        /// The address as it was requested.
        address: String,
        /// The listener's port.
        port: u16,
        /// The reply.
        reply: CancelReply,
    },
    /// A request that is refused already, because it is not supported or exceeds a limit;
    /// only to be logged.
    Unserved {
        /// The request's name in the protocol and its target; of bounded length.
        what: String,
        /// Why the request was refused.
        why: String,
    },
}

/// Why a channel is refused (RFC 4254, section 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalCode {
    /// The request is not permitted.
    Prohibited,
    /// The connection or device could not be opened.
    ConnectFailed,
    /// A limit is reached.
    ResourceShortage,
}

impl From<RefusalCode> for ChannelOpenFailure {
    fn from(code: RefusalCode) -> Self {
        match code {
            RefusalCode::Prohibited => ChannelOpenFailure::AdministrativelyProhibited,
            RefusalCode::ConnectFailed => ChannelOpenFailure::ConnectFailed,
            RefusalCode::ResourceShortage => ChannelOpenFailure::ResourceShortage,
        }
    }
}

/// Replies to [`Request::Tunnel`].
pub struct TunnelReply {
    pub(super) opening: Opening,
    pub(super) handle: Handle,
}

/// Replies to [`Request::Open`].
pub struct OpenReply(pub(super) Opening);

/// A channel that a client requests.
pub(super) struct Opening {
    pub(super) channel: Channel<ServerSide>,
    pub(super) reply: ChannelOpenHandle,
    pub(super) place: Place,
    pub(super) patience: Patience,
}

/// Replies to [`Request::Subsystem`].
pub struct SubsystemReply {
    pub(super) read: ChannelReadHalf,
    pub(super) write: ChannelWriteHalf<ServerSide>,
    pub(super) handle: Handle,
    pub(super) connection: Arc<Shared>,
    pub(super) place: Place,
}

/// Replies to [`Request::Listen`].
pub struct ListenReply(pub(super) oneshot::Sender<u16>);

/// Replies to [`Request::CancelListen`].
pub struct CancelReply(pub(super) oneshot::Sender<()>);

impl Requests {
    /// The requests in this queue, and records of those that had no room in it.
    pub(super) fn new(queue: mpsc::Receiver<Request>, unqueued: Unqueued) -> Self {
        Requests { queue, unqueued }
    }

    /// The next request, also one that is refused already; `None` once the connection has
    /// ended.
    pub async fn next(&mut self) -> Option<Request> {
        if let Some(refused) = self.unqueued.take() {
            return Some(refused);
        }
        match self.queue.recv().await {
            None => self.unqueued.take(),
            request => request,
        }
    }
}

impl Opening {
    /// Refuses the channel. A failed connection does not count against the client's
    /// patience, because the client may go there.
    async fn refuse(self, code: RefusalCode, description: &str) {
        if code != RefusalCode::ConnectFailed {
            self.patience.refused(Instant::now());
        }
        let failure = described(code.into(), description);
        self.reply.reject(failure).await;
    }
}

impl TunnelReply {
    /// Opens the tunnel.
    pub async fn accept(self) -> (ServedSender, ServedReceiver) {
        let Opening {
            channel,
            reply,
            place,
            ..
        } = self.opening;
        let (read, write) = channel.split();
        let (sender, receiver) = (
            TunnelSender::new(write, Some(place)),
            TunnelReceiver::new(read),
        );
        reply.accept().await;
        (sender, receiver)
    }

    /// Refuses the tunnel. Sends the description also as a debug message, which ssh -v
    /// shows: ssh shows a refused tunnel's description nowhere else.
    pub async fn refuse(self, code: RefusalCode, description: &str) {
        // An error means that the connection is gone and needs no reason.
        let _ = self.handle.debug(true, description.to_owned());
        self.opening.refuse(code, description).await;
    }
}

impl OpenReply {
    /// Opens the channel.
    pub async fn accept(self) -> (ForwardInput, ForwardOutput) {
        let Opening {
            channel,
            reply,
            place,
            ..
        } = self.0;
        reply.accept().await;
        stream::forward(channel, place)
    }

    /// Refuses the channel.
    pub async fn refuse(self, code: RefusalCode, description: &str) {
        self.0.refuse(code, description).await;
    }
}

impl SubsystemReply {
    /// Starts the subsystem.
    pub async fn accept(self) -> (SubsystemOutput, SubsystemInput) {
        // If the connection is gone, the halves report it.
        let _ = self.handle.channel_success(self.write.id()).await;
        (
            SubsystemOutput::new(self.write, self.connection, self.place),
            SubsystemInput::new(self.read),
        )
    }

    /// Refuses the subsystem.
    pub async fn refuse(self) {
        // An error means that the connection is gone and needs no reply.
        let _ = self.handle.channel_failure(self.write.id()).await;
        let _ = self.write.close().await;
    }
}

impl ListenReply {
    /// A reply, and the receiver of the answer.
    #[cfg(test)]
    pub(crate) fn of_test() -> (Self, oneshot::Receiver<u16>) {
        let (reply, answer) = oneshot::channel();
        (ListenReply(reply), answer)
    }

    /// Answers that the listener listens on this port. False if the answer is too late: the
    /// client was told that there is no listener, or is gone.
    #[must_use = "a listener that the client does not know of has to be closed"]
    pub fn accept(self, port: u16) -> bool {
        self.0.send(port).is_ok()
    }

    /// Refuses the listener.
    pub fn refuse(self) {
        drop(self.0);
    }
}

impl CancelReply {
    /// Answers that the listener has ended.
    pub fn accept(self) {
        // The connection may have ended meanwhile.
        let _ = self.0.send(());
    }

    /// Answers that there is no such listener.
    pub fn refuse(self) {
        drop(self.0);
    }
}
