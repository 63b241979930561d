//! The state of this host: links, addresses, routes and sysctls; the plan of
//! what a tunnel needs of them, and the journal that takes it all back.
//!
//! ```text
//!   route_plan, addressing        what to ask for (pure; on address_range, facts,
//!     private_space, ways)
//!   state ───► journal            each change is written down,
//!     ├──────► make               and made,
//!     └──────► undo               and taken back in reverse;
//!   recovery ─► journal, undo     so is what a process left that died
//!   protection                    what keeps the other end from configuring this host
//!   netlink, sysctl, nft          what reads and changes the kernel's state
//!   shared_sysctl, firewall, server_table, client_firewall, resolver
//!                                 what reaches beyond the tunnel's interface
//!   surroundings                  what forwarding depends on here
//!   privilege                     whether we may at all
//! ```

pub mod address_range;
pub mod addressing;
pub mod change;
pub mod client_firewall;
pub mod error;
pub mod facts;
pub mod firewall;
pub mod iptables;
pub mod journal;
mod journal_format;
pub mod make;
pub mod name_servers;
pub mod netlink;
pub mod nft;
mod own_device;
pub mod owner;
pub mod private_space;
pub mod privilege;
pub mod program;
pub mod protection;
pub mod recovery;
pub mod resolver;
mod resolver_file;
mod resolver_text;
pub mod route_plan;
mod route_report;
pub mod runtime_dir;
pub mod runtime_socket;
pub mod server_table;
pub mod shared_setting;
mod shared_sysctl;
mod shell_register;
pub mod state;
pub mod surroundings;
pub mod sysctl;
mod undo;
pub mod ways;

#[cfg(test)]
pub(crate) mod test_host;
#[cfg(test)]
pub(crate) mod test_namespace;
