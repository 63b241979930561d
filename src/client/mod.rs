//! What the program does from beginning to end: a tunnel as by `ssh -w`, or a
//! VPN with both ends brought up and taken down, or the remote end of one.

pub(crate) mod command;
pub(crate) mod escape;
pub(crate) mod remote;
pub(crate) mod terminal;
pub mod tunnel;
pub mod up;

#[cfg(test)]
pub(crate) mod hostile_tests;
