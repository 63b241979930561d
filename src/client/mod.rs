//! The client: a connection as by ssh ([`session`]), or a VPN with both hosts set up ([`up`]).

pub(crate) mod command;
pub mod control;
pub(crate) mod escape;
pub(crate) mod forward;
pub(crate) mod remote;
pub mod session;
mod socket_name;
pub(crate) mod terminal;
pub mod up;

#[cfg(test)]
pub(crate) mod hostile_tests;
