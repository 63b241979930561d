//! What a client that is logged in asks for, one after another, each with its
//! reply. A reply that is dropped refuses.

use std::sync::Arc;
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

/// Requests that may wait; a client that asks for more is refused.
pub(super) const QUEUE: usize = 32;

/// The requests of one connection. Whoever has them should take them without
/// delay, and answer [`Request::Listen`] and [`Request::CancelListen`] without
/// waiting for the connection, which waits for the answer.
pub struct Requests(pub(super) mpsc::Receiver<Request>);

/// Frames to a client.
pub type ServedSender = TunnelSender<ServerSide>;

/// Frames from a client.
pub type ServedReceiver = TunnelReceiver;

/// From where a connection comes that is to be forwarded; the client's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Originator {
    /// An address, or anything.
    pub address: String,
    /// A port, or anything.
    pub port: u32,
}

/// One request.
pub enum Request {
    /// A tunnel (OpenSSH PROTOCOL, section 2.3).
    Tunnel {
        /// What it carries.
        mode: Mode,
        /// The device here.
        unit: UnitRequest,
        /// To be answered.
        reply: TunnelReply,
    },
    /// A subsystem (RFC 4254, section 6.5).
    Subsystem {
        /// Which.
        name: String,
        /// To be answered.
        reply: SubsystemReply,
    },
    /// A TCP connection from here (RFC 4254, section 7.2): -L and -D.
    Open {
        /// A name or address.
        host: String,
        /// The port.
        port: u16,
        /// On whose behalf.
        originator: Originator,
        /// To be answered.
        reply: OpenReply,
    },
    /// A listener here (RFC 4254, section 7.1): -R.
    Listen {
        /// Where: an address, a name, or empty for everywhere.
        address: String,
        /// The port; any, where it is zero.
        port: u16,
        /// To be answered.
        reply: ListenReply,
    },
    /// The end of such a listener.
    CancelListen {
        /// As it was asked for.
        address: String,
        /// The port that it has.
        port: u16,
        /// To be answered.
        reply: CancelReply,
    },
    /// Something that nobody gets here, or not in such a number, and that is
    /// refused already; to be written down.
    Unserved {
        /// Its name in the protocol, and what it was about; of bounded length.
        what: String,
        /// Why it is refused.
        why: String,
    },
}

/// Why a channel is refused (RFC 4254, section 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalCode {
    /// It is not allowed.
    Prohibited,
    /// It could not be connected or made.
    ConnectFailed,
    /// There is not enough of something.
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

/// Answers [`Request::Tunnel`].
pub struct TunnelReply {
    pub(super) opening: Opening,
    pub(super) handle: Handle,
}

/// Answers [`Request::Open`].
pub struct OpenReply(pub(super) Opening);

/// A channel that a client asks for.
pub(super) struct Opening {
    pub(super) channel: Channel<ServerSide>,
    pub(super) reply: ChannelOpenHandle,
    pub(super) place: Place,
    pub(super) patience: Patience,
}

/// Answers [`Request::Subsystem`].
pub struct SubsystemReply {
    pub(super) read: ChannelReadHalf,
    pub(super) write: ChannelWriteHalf<ServerSide>,
    pub(super) handle: Handle,
    pub(super) connection: Arc<Shared>,
    pub(super) place: Place,
}

/// Answers [`Request::Listen`].
pub struct ListenReply(pub(super) oneshot::Sender<u16>);

/// Answers [`Request::CancelListen`].
pub struct CancelReply(pub(super) oneshot::Sender<()>);

impl Requests {
    /// The next request, or what was refused already; nothing once the connection has ended.
    pub async fn next(&mut self) -> Option<Request> {
        self.0.recv().await
    }
}

impl Opening {
    /// Refuses it. A place that cannot be connected to costs the client no patience:
    /// it may go there.
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

    /// Refuses it. The description also goes out as a debug message, where a
    /// user with -v sees it: ssh shows that of a refused tunnel nowhere else.
    pub async fn refuse(self, code: RefusalCode, description: &str) {
        // A connection that is gone needs no reason.
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

    /// Refuses it.
    pub async fn refuse(self, code: RefusalCode, description: &str) {
        self.0.refuse(code, description).await;
    }
}

impl SubsystemReply {
    /// Starts it.
    pub async fn accept(self) -> (SubsystemOutput, SubsystemInput) {
        // A connection that is gone is seen at the halves.
        let _ = self.handle.channel_success(self.write.id()).await;
        (
            SubsystemOutput::new(self.write, self.connection, self.place),
            SubsystemInput::new(self.read),
        )
    }

    /// Refuses it.
    pub async fn refuse(self) {
        // A connection that is gone needs no answer.
        let _ = self.handle.channel_failure(self.write.id()).await;
        let _ = self.write.close().await;
    }
}

impl ListenReply {
    /// With who waits for it.
    #[cfg(test)]
    pub(crate) fn of_test() -> (Self, oneshot::Receiver<u16>) {
        let (reply, answer) = oneshot::channel();
        (ListenReply(reply), answer)
    }

    /// It listens, at this port. False where nobody waits for the answer any
    /// more: the client was told that there is no listener, or is gone.
    #[must_use = "a listener that the client does not know of has to be closed"]
    pub fn accept(self, port: u16) -> bool {
        self.0.send(port).is_ok()
    }

    /// It does not.
    pub fn refuse(self) {
        drop(self.0);
    }
}

impl CancelReply {
    /// It listens no more.
    pub fn accept(self) {
        // The connection may have ended meanwhile.
        let _ = self.0.send(());
    }

    /// There is no such listener.
    pub fn refuse(self) {
        drop(self.0);
    }
}
