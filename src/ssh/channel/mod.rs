//! Channels of an SSH connection: tunnel, process, forward.

pub mod forward;
pub mod process;
pub(in crate::ssh) mod reader;
pub mod side;
pub mod tunnel;

#[cfg(test)]
pub(super) mod process_tests;
#[cfg(test)]
pub(super) mod tunnel_batch_tests;
