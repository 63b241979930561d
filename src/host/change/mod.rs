//! The changes that a tunnel makes to this host: on its own interface, and to
//! what this host forwards.

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

use crate::types::family::Family;
use crate::types::{InterfaceName, Mtu};
use client_firewall::{ClientFirewall, Means};
use firewall::FirewallTable;
use iptables::FirewallRules;
use protection::Ipv6;
use resolver::ResolverChange;
use server_table::ServerTable;
use shared_setting::SharedSetting;
use sysctl::SysctlKey;

/// Packets in the device's queue, as many as a tun device has by default: enough
/// for the time in which this process does not run. What waits for the channel
/// waits in our own queue, which is fair.
pub const TX_QUEUE_LENGTH: u32 = 500;

/// Bytes of a super-packet: with its headers it fits one SSH message.
pub const GSO_MAX_SIZE: u32 = 64_000;

/// One change to the tunnel's interface, to what leads through it, or to what
/// this host does with packets of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Bring the link up.
    LinkUp,
    /// Set the MTU.
    Mtu(Mtu),
    /// Set the length of the transmit queue, in packets.
    TxQueueLength(u32),
    /// Set how large a super-packet the kernel may hand to the device, in bytes
    /// (IFLA_GSO_MAX_SIZE).
    GsoMaxSize(u32),
    /// Let the kernel make no IPv6 address of its own for the link, so that a
    /// fresh tun sends no router solicitations.
    AddressGenerationNone,
    /// Keep the other end from configuring this host by the interface: no router
    /// advertisements, redirects or source routes, and no IPv6 where none was
    /// agreed on. Before the link is up, and after its MTU: below 1280 bytes the
    /// kernel has no settings for IPv6.
    Protection(Ipv6),
    /// Make the interface a port of a bridge that is there.
    Bridge(InterfaceName),
    /// Let the bridge learn nothing from what comes by the interface, which is a
    /// port of it, and take no frames of stations that it was not told of there.
    GuardedPort {
        /// Whether it reaches no other port of this kind.
        isolated: bool,
    },
    /// Put the interface into a group (IFLA_GROUP), by which firewall rules know it.
    Group(u32),
    /// Add an address.
    Address(InterfaceAddress),
    /// Add a route through the interface to table `main`.
    Route(TunnelRoute),
    /// Set a sysctl that belongs to the interface.
    Sysctl {
        /// Which.
        key: SysctlKey,
        /// To what.
        value: String,
    },
    /// Set a setting beyond the interface, together with other tunnels.
    Shared(SharedSetting),
    /// Make the tunnel's firewall table.
    FirewallTable(FirewallTable),
    /// Let the tunnel's packets through the host's own forward chain of this
    /// family; needs a table with [`FirewallTable::mark_replies`].
    ForwardAccept(Family),
    /// Make the tunnel's firewall rules by iptables, where there is no nft.
    FirewallRules(FirewallRules),
    /// Close this host to what comes by the tunnel, as a client.
    ClientFirewall(ClientFirewall, Means),
    /// Make name servers known that lie behind the tunnel.
    NameServers(ResolverChange),
    /// Make a server's firewall table, or put this one in place of it.
    ServerTable(ServerTable),
    /// Let what a server's table passed through the host's own forward chain of
    /// this family; needs a table with [`ServerTable::mark_passed`].
    ForwardPassed(Family),
}

/// An address for an interface, in one of the two ways to give one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum InterfaceAddress {
    /// Ours and the peer's, for a tun device.
    PointToPoint {
        /// Ours.
        local: IpAddr,
        /// The peer's, of the same family.
        peer: IpAddr,
    },
    /// Ours in the network of the link, for a tap device.
    Network(IpNetwork),
}

impl InterfaceAddress {
    /// Our own address.
    pub fn local(&self) -> IpAddr {
        match self {
            InterfaceAddress::PointToPoint { local, .. } => *local,
            InterfaceAddress::Network(network) => network.ip(),
        }
    }

    /// The peer's address, where one is given.
    pub fn peer(&self) -> Option<IpAddr> {
        match self {
            InterfaceAddress::PointToPoint { peer, .. } => Some(*peer),
            InterfaceAddress::Network(_) => None,
        }
    }

    /// The length of the prefix: the whole address where there is a peer.
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

/// A route that leads through the tunnel's interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TunnelRoute {
    /// Where to.
    pub destination: IpNetwork,
    /// The router behind the tunnel: needed on a tap device, where the remote end
    /// is one host of many; not on a tun.
    pub gateway: Option<IpAddr>,
    /// The source address to prefer.
    pub source: Option<IpAddr>,
    /// The smaller wins; the kernel's default where none is given.
    pub metric: Option<u32>,
}

impl TunnelRoute {
    /// A route to `destination` without any particulars.
    pub fn to(destination: IpNetwork) -> Self {
        Self {
            destination,
            gateway: None,
            source: None,
            metric: None,
        }
    }

    /// The metric that the kernel gives the route: for IPv6 a zero stands for
    /// IP6_RT_PRIO_USER (net/ip6_route.h).
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
