//! The result of a connection's login: a client that is logged in, or the reason of the
//! failure.

pub mod accept;
pub(super) mod attempts;
pub(super) mod conversion;
pub mod credential;
pub mod gate;
pub(super) mod key_strength;

use std::net::SocketAddr;
use std::sync::Arc;

use thiserror::Error;

use super::connection::ClientConnection;
use super::requests::Requests;
use credential::Credential;

/// A client that is logged in.
pub struct Login<Grant> {
    /// The rights that the gate granted.
    pub grant: Arc<Grant>,
    /// The user name of the login.
    pub user: String,
    /// The client's address, as the gate saw it.
    pub peer: SocketAddr,
    /// The verified credential.
    pub credential: Credential,
    /// Whether the security key was touched, see [`Attempt::touched`].
    ///
    /// [`Attempt::touched`]: credential::Attempt::touched
    pub touched: bool,
    /// The connection.
    pub connection: ClientConnection,
    /// The client's requests.
    pub requests: Requests,
}

/// Why a login failed, as far as penalties distinguish it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LoginFailure {
    /// The client did not speak SSH, or violated the protocol.
    #[error("broke the protocol: {0}")]
    Protocol(String),
    /// No common algorithm.
    #[error("no common algorithm: {0}")]
    Algorithms(String),
    /// The client left without trying to log in.
    #[error("left without an attempt to log in")]
    NoAttempt,
    /// The client tried, failed, and left or was disconnected.
    #[error("{0} failed attempts to log in")]
    Failed(usize),
    /// The grace time has passed; with the number of failed attempts.
    #[error("not logged in within the grace time")]
    GraceTime(usize),
}
