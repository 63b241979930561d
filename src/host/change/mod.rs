//! The changes that a tunnel makes to this host: its own interface, forwarding, firewall and name
//! servers.

pub mod client_firewall;
pub mod firewall;
pub mod iptables;
pub mod nft;
pub mod protection;
pub mod resolver;
pub mod server_table;
pub mod shared_setting;
pub(super) mod shared_sysctl;
pub mod sysctl;

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::plan::address_range::Family;
use crate::types::{InterfaceName, Mtu};
use client_firewall::{ClientFirewall, Means};
use firewall::FirewallTable;
use iptables::FirewallRules;
use protection::Ipv6;
use resolver::ResolverChange;
use server_table::ServerTable;
use shared_setting::SharedSetting;
use sysctl::SysctlKey;

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
    /// Accept the tunnel's packets in the host's own forward chain of this family; needs a table
    /// with [`FirewallTable::mark_replies`].
    ForwardAccept(Family),
    /// Make the tunnel's firewall rules by iptables, on a host without nft.
    FirewallRules(FirewallRules),
    /// As a client, drop unrequested packets from the tunnel.
    ClientFirewall(ClientFirewall, Means),
    /// Configure name servers that are reached through the tunnel.
    NameServers(ResolverChange),
    /// Make or replace a server's firewall table.
    ServerTable(ServerTable),
    /// Accept the packets that a server's table passed in the host's own forward chain of this
    /// family; needs a table with [`ServerTable::mark_passed`].
    ForwardPassed(Family),
}

/// An address of an interface, in one of two forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum InterfaceAddress {
    /// A local and a peer address, for a tun device.
    PointToPoint {
        /// The local address.
        local: IpAddr,
        /// The peer's address, of the same family.
        peer: IpAddr,
    },
    /// A local address in the link's network, for a tap device.
    Network(IpNetwork),
}

impl InterfaceAddress {
    /// The local address.
    pub fn local(&self) -> IpAddr {
        match self {
            InterfaceAddress::PointToPoint { local, .. } => *local,
            InterfaceAddress::Network(network) => network.ip(),
        }
    }

    /// The peer's address, if one is given.
    pub fn peer(&self) -> Option<IpAddr> {
        match self {
            InterfaceAddress::PointToPoint { peer, .. } => Some(*peer),
            InterfaceAddress::Network(_) => None,
        }
    }

    /// The prefix length: the length of a whole address if there is a peer.
    pub fn prefix(&self) -> u8 {
        match self {
            InterfaceAddress::PointToPoint { local, .. } => IpNetwork::from(*local).prefix(),
            InterfaceAddress::Network(network) => network.prefix(),
        }
    }
}

impl fmt::Display for InterfaceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InterfaceAddress::PointToPoint { local, peer } => write!(f, "{local} peer {peer}"),
            InterfaceAddress::Network(network) => network.fmt(f),
        }
    }
}

/// A route through the tunnel's interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TunnelRoute {
    /// The destination network.
    pub destination: IpNetwork,
    /// The gateway behind the tunnel: needed on a tap device, where the remote host is one of many;
    /// not on a tun device.
    pub gateway: Option<IpAddr>,
    /// The preferred source address.
    pub source: Option<IpAddr>,
    /// The priority; the lowest value wins. `None` is the kernel's default.
    pub metric: Option<u32>,
}

impl TunnelRoute {
    /// A route to `destination` without further attributes.
    pub fn to(destination: IpNetwork) -> Self {
        Self {
            destination,
            gateway: None,
            source: None,
            metric: None,
        }
    }

    /// The metric that the kernel gives the route: for IPv6 it replaces zero by IP6_RT_PRIO_USER
    /// (net/ip6_route.h).
    pub fn effective_metric(&self) -> u32 {
        match (self.destination, self.metric.unwrap_or(0)) {
            (IpNetwork::V6(_), 0) => 1024,
            (_, metric) => metric,
        }
    }
}

impl fmt::Display for TunnelRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.destination.fmt(f)?;
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        Ok(())
    }
}
