//! How connections end that nobody is logged in over.

use std::fmt;

use crate::server::life::admission::Offence;

/// Why nobody is logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginFailed {
    /// All that was shown was denied.
    Denied,
    /// The client left, or was sent away, and had tried nothing.
    NoAttempt,
    /// It took too long.
    GraceExceeded,
    /// No SSH, or against its rules.
    Protocol(String),
    /// The server ended meanwhile.
    ServerStopping,
    /// Who would have been logged in, but there are too many.
    Full(Full),
}

/// Which limit of clients is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// That of all clients.
    Clients,
    /// That of one key.
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

    /// What its source is penalised for; nothing, where it did no wrong.
    pub fn offence(&self) -> Option<Offence> {
        match self {
            LoginFailed::Denied => Some(Offence::AuthFail),
            LoginFailed::NoAttempt => Some(Offence::NoAuth),
            LoginFailed::GraceExceeded => Some(Offence::GraceExceeded),
            LoginFailed::Protocol(_) => Some(Offence::Crash),
            LoginFailed::ServerStopping | LoginFailed::Full(_) => None,
        }
    }

    /// What else there is to say of it.
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
            Full::Clients => "this server has as many clients as it takes; try again later",
            Full::Key => "this key is logged in as often as it may be",
        })
    }
}
