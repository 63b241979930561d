//! The programs under test, `ssh` and `sshvpn`, and what they are asked for.

pub mod carrier;
pub mod client;
pub mod tunnel;
pub mod vpn;
