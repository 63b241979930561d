//! Channels of an SSH connection: tunnel, process, remote socket.

pub mod process;
pub(super) mod remote_socket;
pub mod side;
pub mod tunnel;

#[cfg(test)]
pub(super) mod process_tests;
#[cfg(test)]
pub(super) mod tunnel_batch_tests;
