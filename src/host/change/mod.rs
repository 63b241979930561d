//! The changes that a tunnel makes to this host: its own interface, forwarding, firewall and name
//! servers.

pub mod client_firewall;
pub mod firewall;
pub mod iptables;
pub(super) mod kind;
pub mod legacy_accept;
pub mod link;
pub mod nft;
pub mod protection;
pub mod resolver;
pub mod server_table;
pub mod shared_setting;
pub(super) mod shared_sysctl;
pub mod sysctl;

use serde::{Deserialize, Serialize};

use super::error::NetError;
use super::journal::Journal;
use super::netlink::Netlink;
use super::plan::facts::LinkFacts;
use crate::types::family::Family;
use crate::types::{InterfaceName, Mtu};
use client_firewall::{ClientFirewall, Means};
use firewall::FirewallTable;
use iptables::FirewallRules;
use kind::{
    HostChange, HostEntry, LinkChange, LinkEntry, Outcome, ToUndo, link_of, record_and_make,
};
use legacy_accept::LegacyAccept;
use protection::Ipv6;
use resolver::ResolverChange;
use server_table::ServerTable;
use shared_setting::SharedSetting;
use sysctl::SysctlKey;

pub use super::netlink::{InterfaceAddress, TunnelRoute};

/// The length of the device's transmit queue, in packets, the default of a tun device: enough for
/// the time in which this process does not run. Packets that wait for the channel wait in our own
/// fair queue.
pub const TX_QUEUE_LENGTH: u32 = 500;

/// The size limit of a super-packet, in bytes: with its headers it fits one SSH message.
pub const GSO_MAX_SIZE: u32 = 64_000;

/// One change of the tunnel's interface, of its routes, or of this host's treatment of its packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Bring the link up.
    LinkUp,
    /// Set the MTU.
    Mtu(Mtu),
    /// Set the length of the transmit queue, in packets.
    TxQueueLength(u32),
    /// Limit the super-packets that the kernel may hand to the device, in bytes
    /// (IFLA_GSO_MAX_SIZE).
    GsoMaxSize(u32),
    /// Stop the kernel from generating IPv6 addresses for the link, so that a new tun device sends
    /// no router solicitations.
    AddressGenerationNone,
    /// Keep the peer from configuring this host through the interface: no router advertisements,
    /// redirects or source routes, and no IPv6 unless it was agreed on. Before the link is up, and
    /// after its MTU is set: below 1280 bytes the kernel has no settings for IPv6.
    Protection(Ipv6),
    /// Make the interface a port of an existing bridge.
    Bridge(InterfaceName),
    /// Stop the bridge from learning at the interface, which is a port of it, and drop frames of
    /// stations that the bridge was not given for this port.
    GuardedPort {
        /// Whether the port reaches no other isolated port.
        isolated: bool,
    },
    /// Put the interface into a group (IFLA_GROUP), by which firewall rules match it.
    Group(u32),
    /// Add an address.
    Address(InterfaceAddress),
    /// Add a route through the interface to table `main`.
    Route(TunnelRoute),
    /// Set a sysctl that belongs to the interface.
    Sysctl {
        /// The sysctl.
        key: SysctlKey,
        /// Its new value.
        value: String,
    },
    /// Set a setting beyond the interface that several tunnels share.
    Shared(SharedSetting),
    /// Make the tunnel's firewall table.
    FirewallTable(FirewallTable),
    /// Accept the tunnel's packets in iptables-nft's FORWARD chain of this family; needs a table
    /// with [`FirewallTable::mark_replies`].
    ForwardAccept(Family),
    /// Make the tunnel's firewall rules by iptables, on a host whose nft is missing or unusable.
    FirewallRules(FirewallRules),
    /// Accept packets in iptables-legacy's FORWARD chain.
    LegacyAccept(LegacyAccept),
    /// As a client, drop unrequested packets from the tunnel.
    ClientFirewall(ClientFirewall, Means),
    /// Configure name servers that are reached through the tunnel.
    NameServers(ResolverChange),
    /// Make or replace a server's firewall table.
    ServerTable(ServerTable),
    /// Accept the packets that a server's table passed in iptables-nft's FORWARD chain of this
    /// family; needs a table with [`ServerTable::mark_passed`].
    ForwardPassed(Family),
}

/// Evaluates one expression with a change's kind: a [`LinkChange`], or a [`HostChange`].
macro_rules! by_kind {
    ($change:expr, link $link:ident => $on_link:expr, host $host:ident => $on_host:expr) => {
        by_kind!(@match $change, [$link $on_link] [$host $on_host]
            link {
                Change::LinkUp => link::up::Wanted,
                Change::Mtu(mtu) => mtu,
                Change::TxQueueLength(packets) => link::queue_length::Wanted(*packets),
                Change::GsoMaxSize(bytes) => link::gso_size::Wanted(*bytes),
                Change::AddressGenerationNone => link::address_generation::Wanted,
                Change::Bridge(bridge) => link::bridge::Wanted(bridge),
                Change::GuardedPort { isolated } => link::guarded_port::Wanted { isolated: *isolated },
                Change::Group(group) => link::group::Wanted(*group),
                Change::Address(address) => address,
                Change::Route(route) => route,
                Change::Sysctl { key, value } => link::sysctl::Wanted { key, value },
            }
            host {
                Change::Protection(ipv6) => ipv6,
                Change::Shared(setting) => setting,
                Change::FirewallTable(table) => table,
                Change::ForwardAccept(family) => firewall::Accept(*family),
                Change::FirewallRules(rules) => rules,
                Change::LegacyAccept(accept) => accept,
                Change::ClientFirewall(rules, means) => client_firewall::Wanted(rules, *means),
                Change::NameServers(change) => change,
                Change::ServerTable(table) => table,
                Change::ForwardPassed(family) => server_table::Accept(*family),
            })
    };
    (@match $change:expr, [$link:ident $on_link:expr] [$host:ident $on_host:expr]
     link { $($p:pat => $l:expr,)* } host { $($q:pat => $h:expr,)* }) => {
        match $change {
            $($p => { let $link = $l; $on_link })*
            $($q => { let $host = $h; $on_host })*
        }
    };
}

impl Change {
    /// Journals the change and makes it.
    pub(in crate::host) async fn apply(
        &self,
        netlink: &Netlink,
        journal: &mut Journal,
    ) -> Result<(), NetError> {
        by_kind!(self, link _kind => {}, host kind => return kind.apply(netlink, journal).await);
        let link = link_of(netlink, journal).await?;
        match self.plan(netlink, &link).await? {
            Some(entry) => record_and_make(journal, entry, self.make(netlink, &link)).await,
            None => Ok(()),
        }
    }

    /// The entry to journal for a change of a link; `None` if nothing has to change.
    pub(in crate::host) async fn plan(
        &self,
        netlink: &Netlink,
        link: &LinkFacts,
    ) -> Result<Option<Entry>, NetError> {
        by_kind!(self, link kind => kind.plan(netlink, link).await, host _kind => Ok(None))
    }

    /// Makes a change of a link without a journal: for a link that ends with this process, along
    /// with all of its configuration.
    pub async fn make(&self, netlink: &Netlink, link: &LinkFacts) -> Result<(), NetError> {
        by_kind!(self, link kind => kind.make(netlink, link).await, host kind => {
            kind.make(link);
            Ok(())
        })
    }

    /// Whether it changes the tunnel's own device alone, so that file capabilities suffice.
    pub(in crate::host) fn is_on_device(&self) -> bool {
        by_kind!(self, link kind => kind.is_on_device(), host kind => kind.is_on_device())
    }
}

/// Defines the journal's entries: one variant for each kind.
macro_rules! entries {
    (link { $($link:ident($made:ty),)* } host { $($host:ident($held:ty),)* }) => {
        /// One journalled change, with the data that undoing needs.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(tag = "change", rename_all = "kebab-case")]
        #[allow(missing_docs, reason = "the types are documented")]
        pub enum Entry {
            $($link($made),)*
            $($host($held),)*
        }

        impl Entry {
            /// The description, for reports.
            pub(in crate::host) fn describe(&self, interface: &str) -> String {
                match self {
                    $(Entry::$link(made) => made.describe(interface),)*
                    $(Entry::$host(held) => held.describe(interface),)*
                }
            }

            /// Whether it is a change of a link.
            pub(in crate::host) fn is_of_link(&self) -> bool {
                match self {
                    $(Entry::$link(_) => true,)*
                    $(Entry::$host(_) => false,)*
                }
            }

            /// Whether undoing it changes the device `interface` alone.
            pub(in crate::host) fn is_undone_on_device(&self, interface: &str) -> bool {
                match self {
                    $(Entry::$link(made) => made.is_undone_on_device(interface),)*
                    $(Entry::$host(_) => false,)*
                }
            }

            /// Undoes a change of `link`.
            pub(in crate::host) async fn undo_on_link(
                &self,
                netlink: &Netlink,
                link: &LinkFacts,
            ) -> Result<Outcome, NetError> {
                match self {
                    $(Entry::$link(made) => made.undo(netlink, link).await,)*
                    $(Entry::$host(_) => Ok(Outcome::Gone),)*
                }
            }

            /// Undoes a change beyond the link, whose entry is at `position`.
            pub(in crate::host) async fn undo_on_host(
                &self,
                netlink: &Netlink,
                journal: &mut Journal,
                position: usize,
            ) -> Result<Outcome, NetError> {
                match self {
                    $(Entry::$link(_) => Ok(Outcome::Gone),)*
                    $(Entry::$host(held) => held.undo(netlink, journal, position).await,)*
                }
            }

            /// Adds the access that undoing needs.
            pub(in crate::host) fn add_needs(&self, needs: &mut ToUndo) {
                match self {
                    $(Entry::$link(_) => {})*
                    $(Entry::$host(held) => held.add_needs(needs),)*
                }
            }

            /// Starts the program that undoing will run.
            pub(in crate::host) async fn prepare_to_undo(&self, interface: &str) {
                match self {
                    $(Entry::$link(_) => {})*
                    $(Entry::$host(held) => held.prepare_to_undo(interface).await,)*
                }
            }
        }
    };
}

entries! {
    link {
        LinkUp(link::up::Made),
        Mtu(link::mtu::Made),
        TxQueueLength(link::queue_length::Made),
        GsoMaxSize(link::gso_size::Made),
        AddressGenerationNone(link::address_generation::Made),
        Bridge(link::bridge::Made),
        GuardedPort(link::guarded_port::Made),
        Group(link::group::Made),
        Address(link::address::Made),
        Route(link::route::Made),
        Sysctl(link::sysctl::Made),
    }
    host {
        SharedSysctl(shared_sysctl::Made),
        FirewallTable(firewall::MadeTable),
        ForwardAccept(firewall::MadeAccept),
        FirewallRules(iptables::Made),
        NameServers(resolver::Made),
    }
}
