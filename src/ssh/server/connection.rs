//! The connection of a client that is logged in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use russh::Disconnect;
use russh::server::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::place::Places;
use super::stream::{self, ForwardInput, ForwardOutput};

/// How long a goodbye may take.
pub(super) const GOODBYE: Duration = Duration::from_secs(1);

/// How long a client may take to answer when a channel to it is opened.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What the identification of our own clients begins with.
const OUR_IDENTIFICATION: &str = "SSH-2.0-sshvpn_";

/// What is known of a connection, shared between its task and its users.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Why it ended or will end; the first reason that is given counts.
    reason: watch::Sender<Option<String>>,
    over: watch::Sender<bool>,
    leaving: Notify,
}

impl Shared {
    /// One side has said goodbye: the connection may last for [`GOODBYE`] yet.
    pub(super) fn leave(&self) {
        self.leaving.notify_one();
    }

    /// Waits until one side has said goodbye.
    pub(super) async fn leaving(&self) {
        self.leaving.notified().await;
    }

    /// The connection is gone.
    pub(super) fn end(&self, reason: String) {
        self.give_reason(reason);
        self.over.send_replace(true);
    }

    /// Why the connection will end.
    pub(super) fn give_reason(&self, reason: String) {
        self.reason.send_if_modified(|known| {
            let first = known.is_none();
            if first {
                *known = Some(reason);
            }
            first
        });
    }

    /// Waits until the connection has ended; yields why.
    pub(super) async fn ended(&self) -> String {
        let mut over = self.over.subscribe();
        // The sender is here, so it cannot be gone.
        let _ = over.wait_for(|over| *over).await;
        self.reason.borrow().clone().unwrap_or_default()
    }
}

/// A client's connection. Dropping it ends the connection at once.
pub struct ClientConnection {
    pub(super) handle: Handle,
    pub(super) shared: Arc<Shared>,
    pub(super) places: Places,
    pub(super) identification: String,
    /// The connection's task watches for its end.
    pub(super) _alive: watch::Sender<()>,
}

/// A connection could not be forwarded to a client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    /// It has as many channels as it may.
    #[error("the client has too many channels")]
    TooManyChannels,
    /// It refused, or did not answer.
    #[error("the client does not take the connection: {0}")]
    Refused(String),
}

impl ClientConnection {
    /// What the client says it is (RFC 4253, section 4.2).
    pub fn identification(&self) -> &str {
        &self.identification
    }

    /// Whether the client is one of ours.
    pub fn is_sshvpn(&self) -> bool {
        self.identification.starts_with(OUR_IDENTIFICATION)
    }

    /// Gives the client a connection from `originator` that came in at a listener
    /// which it had asked for by `address` and `port` (RFC 4254, section 7.2).
    pub async fn open_forwarded(
        &self,
        address: &str,
        port: u16,
        originator: SocketAddr,
    ) -> Result<(ForwardInput, ForwardOutput), ForwardError> {
        let place = self.places.take().ok_or(ForwardError::TooManyChannels)?;
        let opened = self.handle.channel_open_forwarded_tcpip(
            address,
            u32::from(port),
            originator.ip().to_string(),
            u32::from(originator.port()),
        );
        match timeout(ANSWER_TIMEOUT, opened).await {
            Ok(Ok(channel)) => Ok(stream::forward(channel, place)),
            Ok(Err(error)) => Err(ForwardError::Refused(error.to_string())),
            Err(_) => {
                place.lose();
                Err(ForwardError::Refused("no answer".to_owned()))
            }
        }
    }

    /// Says goodbye and why, and ends the connection.
    pub async fn disconnect(&self, reason: &str) {
        self.shared.give_reason(format!("disconnected: {reason}"));
        let goodbye =
            self.handle
                .disconnect(Disconnect::ByApplication, reason.to_owned(), String::new());
        // A connection that hangs does not even take it, and one that is gone
        // needs none.
        let _ = timeout(GOODBYE, goodbye).await;
        self.shared.leave();
        self.shared.ended().await;
    }

    /// Waits until the connection has ended; yields why.
    pub async fn ended(&self) -> String {
        self.shared.ended().await
    }
}
