//! What the server's side of SSH asks of whoever knows the rules.

use std::net::SocketAddr;

use super::credential::{Attempt, Credential};

/// Decides who comes in.
pub trait Gate: Send + Sync + 'static {
    /// What a login may do; of no concern here.
    type Grant: Send + Sync + 'static;

    /// The client has passed the key exchange and asks to log in for the first time.
    fn begun(&self) {}

    /// Whether `attempt` may come in, and what it may do then. Asked for keys that
    /// are only offered too, so an answer is not a login: [`accept`](super::accept::accept)
    /// returns with one. It has to be quick, since the connection waits.
    fn judge(&self, attempt: &Attempt<'_>) -> Option<Self::Grant>;

    /// Somebody at `peer` tried to log in as `user`, and failed.
    fn failed(&self, peer: SocketAddr, user: &str, tried: Tried<'_>);
}

/// What failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tried<'a> {
    /// A key or certificate that [`Gate::judge`] refused.
    Refused(&'a Credential),
    /// A key or certificate that somebody sent and did not prove to have, or that
    /// is no good by itself, and why. What is in it may be made up.
    Unproven(&'a Credential, &'static str),
    /// A key or certificate that is not taken, whoever has it, and why.
    Unfit(&'static str),
    /// A method that is not offered (RFC 4252), as `password`.
    Method(&'static str),
}
