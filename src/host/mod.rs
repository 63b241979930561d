//! The state of this host: links, addresses, routes and sysctls; the plan of
//! what a tunnel needs of them, and the journal that takes it all back.
//!
//! ```text
//!   route_plan, addressing        what to ask for (pure; on types::address_set, facts,
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

pub mod change;
pub mod error;
pub mod journal;
pub mod netlink;
mod own_device;
pub mod plan;
pub mod privilege;
pub mod program;
pub mod runtime_socket;

#[cfg(test)]
pub(crate) mod test_host;
#[cfg(test)]
pub(crate) mod test_namespace;
