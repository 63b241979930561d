//! The remote end of a tunnel on a host that has sshvpn, or is sent one for the
//! time of the tunnel: an `sshvpn agent` is started there ([`start()`], [`push`])
//! and then told in control messages what to do ([`RemoteAgent`]).
//!
//! A server is met in the same way, and asked instead of told.
//!
//! ```text
//!   subsystem 'sshvpn' ─► shell line ─► push
//!            └────────────────┴───────────┴─► opening ─► FarAgent ─► the link
//! ```

pub(crate) mod error;
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
