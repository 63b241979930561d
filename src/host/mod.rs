//! The network state of this host: reads it, plans a tunnel's changes, makes them and undoes them.
//!
//! ```text
//!   route_plan, addressing        plan the changes (pure; on types::address_set, facts,
//!     private_space, ways)
//!   state ───► change             each kind: plan, journal entry, make, undo, description
//!     ├──────► journal            writes down each change before it is made
//!     └──────► undo               undoes the changes in reverse order
//!   recovery ─► journal, undo     undoes the changes of a process that died
//!   protection                    keeps the peer from configuring this host
//!   netlink, sysctl, nft          read and change the kernel's state
//!   shared_sysctl, firewall, server_table, client_firewall, resolver
//!                                 changes beyond the tunnel's interface
//!   surroundings                  the state of this host that forwarding depends on
//!   privilege                     checks the rights of this process
//!   probe                         asks other hosts whether packets reach them
//! ```

pub mod change;
pub mod error;
pub mod journal;
pub mod netlink;
mod own_device;
pub mod plan;
pub mod privilege;
pub mod probe;
pub mod program;
pub mod runtime_socket;

#[cfg(test)]
pub(crate) mod test_host;
#[cfg(test)]
pub(crate) mod test_namespace;
