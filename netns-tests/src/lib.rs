//! A lab for scenario tests: hosts made of Linux namespaces, cables between
//! them, the distribution's sshd, and the means to measure and compare.
//!
//! ```text
//!   lab         hosts of namespaces, cables, sshd; topologies; a host before and after
//!   program     the programs under test: `ssh` and `sshvpn`, with `-w` or `up`
//!   serve       `sshvpn serve`: the server, its clients, its lab
//!   traffic     sends and captures traffic and measures it (ping, TCP, UDP, iperf3, tcpdump)
//!   attack      forged frames and packets, a false router, injected faults
//!   emulator    a long cable
//!   bench       the benchmark: compares ways to a host
//!   wait        polls for a condition, for a limited time
//! ```
//!
//! No lab has a name outside its own namespaces or writes to the disk: a host is a
//! process tree under its own init, and when that init ends, even if only because the test process
//! died, the kernel removes everything. So scenarios can run in parallel.

pub mod attack;
pub mod bench;
pub mod emulator;
pub mod lab;
pub mod program;
pub mod serve;
pub mod traffic;
pub mod wait;

pub use lab::child::{Child, Output};
pub use lab::host::Host;
pub use lab::link::{bridge, connect};
pub use lab::state::{Before, State};
pub use program::carrier::Carrier;
pub use program::client::Client;
pub use wait::{PATIENCE, until};
