//! `sshvpn serve --status`: a running server reports the live clients. It answers each
//! connection to a socket in the runtime directory with one JSON document.
//!
//! ```text
//!   watched ─► document ─► socket ┈┈► show ─► table
//! ```

pub mod document;
pub(in crate::server) mod show;
mod socket;
mod table;
pub mod watched;

pub use show::{any_server, show};
pub use socket::StatusSocket;

/// The prefix of the sockets' names; the first port at which the server listens follows.
const PREFIX: &str = "serve-";
