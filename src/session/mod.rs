//! What the program does from beginning to end: a tunnel as by `ssh -w`, or a
//! VPN with both ends brought up and taken down, or the far end of one.

pub mod agent;
pub mod background;
pub mod carrier;
pub mod cleanup;
mod confinement;
pub mod conversation;
mod escape;
pub mod failure;
mod far_agent;
mod far_end;
mod remote;
pub(crate) mod shutdown;
pub mod stream_link;
mod terminal;
pub mod tunnel;
pub mod up;

#[cfg(test)]
mod hostile_tests;
