//! The interface by which the SSH server asks whether a client may log in.

use std::net::SocketAddr;

use super::credential::{Attempt, Credential};

/// Decides whether a client may log in.
pub trait Gate: Send + Sync + 'static {
    /// The rights of a login; this layer only passes them on.
    type Grant: Send + Sync + 'static;

    /// The client has passed the key exchange and asks to log in for the first time.
    fn begun(&self) {}

    /// Whether `attempt` may log in, and its rights. Also called for keys that are only
    /// offered, so acceptance is not a login yet: a login is what
    /// [`accept`](super::accept::accept) returns. Must be quick, because the connection
    /// waits.
    fn judge(&self, attempt: &Attempt<'_>) -> Option<Self::Grant>;

    /// A client at `peer` failed to log in as `user`.
    fn failed(&self, peer: SocketAddr, user: &str, tried: Tried<'_>);
}

/// What a client tried when a login failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tried<'a> {
    /// A key or certificate that [`Gate::judge`] refused.
    Refused(&'a Credential),
    /// A key or certificate without a valid proof of possession, or invalid by itself, and
    /// why. Its content may be made up.
    Unproven(&'a Credential, &'static str),
    /// A key or certificate that is never accepted, and why.
    Unfit(&'static str),
    /// A method that is not offered (RFC 4252), for example `password`.
    Method(&'static str),
}
