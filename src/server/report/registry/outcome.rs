//! How connections without a login end.

use std::fmt;

use crate::server::admission::Offence;

/// Why a connection ended without a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginFailed {
    /// All credentials that the client tried were denied.
    Denied,
    /// The client left, or was disconnected, before any attempt.
    NoAttempt,
    /// The login exceeded the grace time.
    GraceExceeded,
    /// The peer did not speak SSH, or broke the protocol.
    Protocol(String),
    /// The server stopped meanwhile.
    ServerStopping,
    /// The login was valid, but a limit of clients is reached.
    Full(Full),
}

/// The limit that is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The limit of all clients.
    Clients,
    /// The limit of connections per key.
    Key,
}

impl LoginFailed {
    /// A short name, for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            LoginFailed::Denied => "denied",
            LoginFailed::NoAttempt => "no-attempt",
            LoginFailed::GraceExceeded => "grace-time",
            LoginFailed::Protocol(_) => "protocol",
            LoginFailed::ServerStopping => "server-stopping",
            LoginFailed::Full(Full::Clients) => "too-many-clients",
            LoginFailed::Full(Full::Key) => "too-many-of-this-key",
        }
    }

    /// The offence for which its source is penalised, if any.
    pub fn offence(&self) -> Option<Offence> {
        match self {
            LoginFailed::Denied => Some(Offence::AuthFail),
            LoginFailed::NoAttempt => Some(Offence::NoAuth),
            LoginFailed::GraceExceeded => Some(Offence::GraceExceeded),
            LoginFailed::Protocol(_) => Some(Offence::Crash),
            LoginFailed::ServerStopping | LoginFailed::Full(_) => None,
        }
    }

    /// Further details for the log.
    pub(super) fn detail(&self) -> &str {
        match self {
            LoginFailed::Protocol(detail) => detail,
            _ => "",
        }
    }
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Full::Clients => "the server is at its limit of clients; try again later",
            Full::Key => "this key is at its limit of connections; close one of them",
        })
    }
}
