//! `sshvpn serve --status`: a running server says who is there. It answers at a
//! socket in the runtime directory, with one JSON document to whoever connects.
//!
//! ```text
//!   watched ─► document ─► socket ┈┈► show ─► table
//! ```

pub mod document;
pub(in crate::server) mod show;
mod socket;
mod table;
pub mod watched;

pub use show::show;
pub use socket::StatusSocket;

/// How the names of these sockets begin; the port follows that the server
/// listens at first.
const PREFIX: &str = "serve-";
