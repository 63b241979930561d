//! A lab for scenario tests: hosts made of Linux namespaces, cables between
//! them, the distribution's sshd, and the means to measure and compare.
//!
//! ```text
//!   lab         hosts of namespaces, cables, sshd; topologies; a host before and after
//!   program     the programs under test: `ssh` and `sshvpn`, with `-w` or `up`
//!   serve       `sshvpn serve`: the server, its clients, its lab
//!   traffic     what passes, what the wire shows, how fast (ping, TCP, UDP, iperf3, tcpdump)
//!   attack      forged frames and packets, a false router, a system call or a remote
//!               command that fails at its N-th use
//!   emulator    a long cable
//!   bench       the benchmark: ways to a host, side by side
//!   wait        polls for a condition, for a limited time
//! ```
//!
//! Nothing has a name outside its own namespaces and nothing is written to the
//! disk: a host is a process tree under an init of its own, and when that init
//! ends, be it only because the test process has died, the kernel takes
//! everything away. So scenarios run side by side.

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
