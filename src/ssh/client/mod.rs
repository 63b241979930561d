//! The client role: connects, authenticates, checks the host key, prompts.

pub mod attempts;
pub mod auth;
pub mod connect;
pub(super) mod events;
pub(super) mod greeting;
pub mod host_key;
pub mod prompt;
pub mod quick_acks;
pub(super) mod stalled;
pub(super) mod transport;

#[cfg(test)]
pub(super) mod end_tests;
#[cfg(test)]
pub(super) mod test_server;
#[cfg(test)]
pub(crate) mod wire_server;
