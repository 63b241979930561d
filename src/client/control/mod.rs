//! The control socket of a running connection (`-M`, `-S`, ControlPath), and the commands that
//! are sent to it (`-O`). It speaks OpenSSH's protocol (PROTOCOL.mux), so that ssh and sshvpn
//! control each other's connections; sessions are not multiplexed.

mod command;
mod listen;
mod message;

pub use command::run;
pub(super) use listen::{Control, Order};
