//! What comes of a connection: somebody who is logged in, or a reason why not.

pub mod accept;
pub(super) mod attempts;
pub mod credential;
pub mod gate;
pub(super) mod key_strength;
pub(super) mod shown;

use std::net::SocketAddr;
use std::sync::Arc;

use thiserror::Error;

use super::connection::ClientConnection;
use super::requests::Requests;
use credential::Credential;

/// Somebody who is logged in.
pub struct Login<Grant> {
    /// What was granted.
    pub grant: Arc<Grant>,
    /// The user name that was given.
    pub user: String,
    /// From where, as the gate was shown it.
    pub peer: SocketAddr,
    /// What was shown and verified.
    pub credential: Credential,
    /// Whether it was touched, as [`Attempt::touched`] has it.
    ///
    /// [`Attempt::touched`]: credential::Attempt::touched
    pub touched: bool,
    /// The connection.
    pub connection: ClientConnection,
    /// What the client asks for.
    pub requests: Requests,
}

/// Why nobody came in; as far as penalties tell it apart.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LoginFailure {
    /// No SSH was spoken, or its rules were broken.
    #[error("broke the protocol: {0}")]
    Protocol(String),
    /// No algorithm in common.
    #[error("no common algorithm: {0}")]
    Algorithms(String),
    /// The client left without trying to log in.
    #[error("left without an attempt to log in")]
    NoAttempt,
    /// The client tried, failed, and left or was told to.
    #[error("{0} failed attempts to log in")]
    Failed(usize),
    /// The grace time was over; with the number of failed attempts before.
    #[error("not logged in in time")]
    GraceTime(usize),
}
