//! The client: a tunnel as by `ssh -w` ([`tunnel`]), or a VPN with both hosts set up ([`up`]).

pub(crate) mod command;
pub(crate) mod escape;
pub(crate) mod remote;
pub(crate) mod terminal;
pub mod tunnel;
pub mod up;

#[cfg(test)]
pub(crate) mod hostile_tests;
