//! The lab: hosts, the cables between them, their sshd or Dropbear, and snapshots of their state.

pub mod child;
pub mod dropbear;
pub mod host;
pub mod link;
pub mod sshd;
pub mod state;
pub mod topology;
