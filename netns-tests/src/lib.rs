//! A lab for scenario tests: hosts made of Linux namespaces, cables between
//! them, the distribution's sshd, and the means to measure and compare.
//!
//! ```text
//!   topology ──► host     one machine: namespaces, its processes, its files
//!            ├─► link     cables, bridges, addresses, routes
//!            ├─► sshd     the distribution's server, keys and accounts
//!   client ────► child    the program under test: `ssh` or `sshvpn`
//!   tunnel, vpn           what it is asked for: `-w`, `up`
//!   carrier               how `up` travels
//!   serve                 `sshvpn serve`: the server, its clients, its lab
//!   state        what a host looks like, to be compared before and after
//!   forge        frames that an honest host does not send
//!   traffic, transfer, capture, iperf3: what passes, what the wire shows, how fast
//!   emulator     a long cable; datagrams: many at once, for it and for bench
//!   inject       packets with any addresses, out of a tunnel device
//!   bench        the benchmark: ways to a host, side by side
//!   router       a false router at one end of a tunnel
//!   fault        a system call or a far command that fails at its N-th use
//! ```
//!
//! Nothing has a name outside its own namespaces and nothing is written to the
//! disk: a host is a process tree under an init of its own, and when that init
//! ends, be it only because the test process has died, the kernel takes
//! everything away. So scenarios run side by side.

pub mod bench;
pub mod capture;
pub mod carrier;
pub mod child;
pub mod client;
pub mod datagrams;
pub mod emulator;
pub mod fault;
pub mod forge;
pub mod host;
pub mod inject;
pub mod iperf3;
pub mod link;
pub mod router;
pub mod serve;
pub mod sshd;
pub mod state;
pub mod topology;
pub mod traffic;
pub mod transfer;
pub mod tunnel;
pub mod vpn;
pub mod wait;

pub use carrier::Carrier;
pub use child::{Child, Output};
pub use client::Client;
pub use host::Host;
pub use link::{bridge, connect};
pub use state::{Before, State};
pub use wait::{PATIENCE, until};
