//! Hosts, the cables between them, their sshd, and what they look like before and after.

pub mod child;
pub mod host;
pub mod link;
pub mod sshd;
pub mod state;
pub mod topology;
