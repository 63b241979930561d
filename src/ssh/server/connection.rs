//! The connection of a client that is logged in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use russh::Disconnect;
use russh::server::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::channel_slots::ChannelSlots;
use super::stream::{self, ForwardInput, ForwardOutput};

/// How long a connection may last after a disconnect message.
pub(super) const GOODBYE: Duration = Duration::from_secs(1);

/// How long a client may take to reply when a channel to it is opened.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The prefix of the identification of sshvpn's clients.
const OUR_IDENTIFICATION: &str = "SSH-2.0-sshvpn_";

/// The state of a connection, shared between its task and its users.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Why the connection ended or will end; only the first reason counts.
    reason: watch::Sender<Option<String>>,
    over: watch::Sender<bool>,
    leaving: Notify,
}

impl Shared {
    /// One side has sent its disconnect: the connection lasts at most [`GOODBYE`] longer.
    pub(super) fn leave(&self) {
        self.leaving.notify_one();
    }

    /// Waits until one side has sent its disconnect.
    pub(super) async fn leaving(&self) {
        self.leaving.notified().await;
    }

    /// Marks the connection as ended.
    pub(super) fn end(&self, reason: String) {
        self.give_reason(reason);
        self.over.send_replace(true);
    }

    /// Sets why the connection will end, unless a reason is set already.
    pub(super) fn give_reason(&self, reason: String) {
        self.reason.send_if_modified(|known| {
            let first = known.is_none();
            if first {
                *known = Some(reason);
            }
            first
        });
    }

    /// Waits until the connection has ended; yields the reason.
    pub(super) async fn ended(&self) -> String {
        let mut over = self.over.subscribe();
        // `self` keeps the sender, so waiting cannot fail.
        let _ = over.wait_for(|over| *over).await;
        self.reason.borrow().clone().unwrap_or_default()
    }
}

/// A client's connection. Dropping it ends the connection at once.
pub struct ClientConnection {
    pub(super) handle: Handle,
    pub(super) shared: Arc<Shared>,
    pub(super) slots: ChannelSlots,
    pub(super) identification: String,
    /// Dropping this ends the connection's task.
    pub(super) _alive: watch::Sender<()>,
}

/// Why a connection could not be forwarded to the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    /// The client has as many channels as it may have.
    #[error("the client has too many channels")]
    TooManyChannels,
    /// The client refused, or did not reply.
    #[error("the client did not accept the connection: {0}")]
    Refused(String),
}

impl ClientConnection {
    /// The client's identification string (RFC 4253, section 4.2).
    pub fn identification(&self) -> &str {
        &self.identification
    }

    /// Whether the client is sshvpn.
    pub fn is_sshvpn(&self) -> bool {
        self.identification.starts_with(OUR_IDENTIFICATION)
    }

    /// Opens a channel to the client for a connection from `originator` that arrived at the
    /// listener that the client requested with `address` and `port` (RFC 4254, section
    /// 7.2).
    pub async fn open_forwarded(
        &self,
        address: &str,
        port: u16,
        originator: SocketAddr,
    ) -> Result<(ForwardInput, ForwardOutput), ForwardError> {
        let slot = self.slots.take().ok_or(ForwardError::TooManyChannels)?;
        let opened = self.handle.channel_open_forwarded_tcpip(
            address,
            u32::from(port),
            originator.ip().to_string(),
            u32::from(originator.port()),
        );
        match timeout(ANSWER_TIMEOUT, opened).await {
            Ok(Ok(channel)) => Ok(stream::forward(channel, slot)),
            Ok(Err(error)) => Err(ForwardError::Refused(error.to_string())),
            Err(_) => {
                slot.lose();
                Err(ForwardError::Refused("no answer".to_owned()))
            }
        }
    }

    /// Sends a disconnect with the reason, and ends the connection.
    pub async fn disconnect(&self, reason: &str) {
        self.shared.give_reason(format!("disconnected: {reason}"));
        let goodbye =
            self.handle
                .disconnect(Disconnect::ByApplication, reason.to_owned(), String::new());
        // A connection that hangs does not send it, and one that is gone does not need it.
        let _ = timeout(GOODBYE, goodbye).await;
        self.shared.leave();
        self.shared.ended().await;
    }

    /// Waits until the connection has ended; yields the reason.
    pub async fn ended(&self) -> String {
        self.shared.ended().await
    }
}
