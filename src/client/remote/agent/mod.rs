//! Starts an `sshvpn agent` on the remote host ([`start()`]), or pushes one for as long as the
//! tunnel is up ([`push`]), and instructs it by control messages ([`RemoteAgent`]).
//!
//! A server is greeted in the same way, and then asked for an offer.
//!
//! ```text
//!   subsystem 'sshvpn' ─► shell line ─► push
//!            └────────────────┴───────────┴─► opening ─► RemoteAgent ─► the link
//! ```

pub(crate) mod error;
mod meter;
pub(crate) mod opening;
pub(crate) mod push;
pub(crate) mod session;
pub(crate) mod start;

#[cfg(test)]
pub(crate) mod push_tests;
#[cfg(test)]
pub(crate) mod start_tests;

pub use crate::link::last_words::LastWords;
pub use error::{RemoteAgentError, Role};
pub use session::{RemoteAgent, reason_text, shown};
pub use start::{AgentRequest, Started, StartedAgent, meet_server, start};
