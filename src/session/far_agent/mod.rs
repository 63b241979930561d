//! The far end of a tunnel on a host that has sshvpn, or is sent one for the
//! time of the tunnel: an `sshvpn agent` is started there ([`start()`], [`push`])
//! and then told in control messages what to do ([`FarAgent`]).
//!
//! A server is met in the same way, and asked instead of told.
//!
//! ```text
//!   subsystem 'sshvpn' ─► shell line ─► push
//!            └────────────────┴───────────┴─► opening ─► FarAgent ─► the link
//! ```

mod agent;
mod error;
mod last_words;
mod opening;
mod push;
mod start;
mod stream;

#[cfg(test)]
mod push_tests;
#[cfg(test)]
mod start_tests;

pub use agent::{FarAgent, reason_text, shown};
pub use error::{FarAgentError, Role};
pub use last_words::LastWords;
pub use start::{AgentRequest, Started, StartedAgent, meet_server, start};
