//! The programs under test, `ssh` and `sshvpn`, and their tunnels.

pub mod carrier;
pub mod client;
pub mod tunnel;
pub mod vpn;
