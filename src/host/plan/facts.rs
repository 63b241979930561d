//! The state of this host's network as the kernel reports it: links, addresses, routes and rules.
//! Data only; `netlink` reads them.

use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

/// The kernel's number of a network interface, unique within its namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InterfaceIndex(pub u32);

/// The state at one moment: both families, all tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// Every link of this network namespace.
    pub links: Vec<LinkFacts>,
    /// Every address.
    pub addresses: Vec<AddressFacts>,
    /// Every route, the tables `local` and `default` included.
    /// Shared by copies of these facts, since a table may have hundreds of thousands.
    pub routes: Arc<Vec<RouteFacts>>,
    /// Every policy rule.
    pub rules: Vec<RuleFacts>,
    /// Addresses that other tunnels claim and may not have set yet.
    pub claimed: Vec<IpAddr>,
}

impl HostFacts {
    /// The name of the link with this index.
    pub fn link_name(&self, index: InterfaceIndex) -> Option<&str> {
        self.links
            .iter()
            .find(|link| link.index == index)
            .map(|link| link.name.as_str())
    }

    /// The networks that a tunnel's addresses must avoid: the on-link networks of all addresses,
    /// claimed addresses, and all unicast routes except default-like ones ([`is_default_like`]).
    pub fn networks_in_use(&self) -> Vec<IpNetwork> {
        let addresses = self.addresses.iter().flat_map(|address| {
            let own = IpNetwork::from(address.address);
            let peer = address.peer.map(IpNetwork::from);
            [Some(own), peer, address.network()].into_iter().flatten()
        });
        let routes = self
            .routes
            .iter()
            .filter(|route| route.kind != RouteKind::Multicast)
            .map(|route| route.destination);
        let claimed = self.claimed.iter().copied().map(IpNetwork::from);
        let mut networks: Vec<IpNetwork> = addresses
            .chain(routes)
            .chain(claimed)
            .filter(|network| !is_default_like(network))
            .collect();
        networks.sort();
        networks.dedup();
        networks
    }
}

/// Whether a route is so wide that it stands for "everything else": the default route, or a half or
/// quarter of it, as full tunnels install.
pub fn is_default_like(network: &IpNetwork) -> bool {
    network.prefix() < 7
}

/// One network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkFacts {
    /// Its number.
    pub index: InterfaceIndex,
    /// Its name when it was read.
    pub name: String,
    /// The kernel's name for its type (`tun`, `veth`, `bridge`…); hardware has none.
    pub kind: Option<String>,
    /// The MTU, in bytes.
    pub mtu: u32,
    /// IFF_UP: the link is administratively up.
    pub up: bool,
    /// IFF_LOOPBACK.
    pub loopback: bool,
    /// The limit of the transmit queue, in packets.
    pub tx_queue_length: u32,
    /// The limit of a super-packet, in bytes; `None` if the kernel does not report it.
    pub gso_max_size: Option<u32>,
    /// How the kernel generates its IPv6 addresses; `None` if the link has no IPv6.
    pub address_generation: Option<AddressGeneration>,
    /// IFLA_MASTER: the bridge or other link that it is a port of.
    pub master: Option<InterfaceIndex>,
    /// IFLA_GROUP: a number by which firewall rules match many links; 0 is the default.
    pub group: u32,
}

impl LinkFacts {
    /// Whether this is a tun or a tap device; the kernel has one kind for both.
    pub fn is_tun(&self) -> bool {
        self.kind.as_deref() == Some("tun")
    }
}

/// IFLA_INET6_ADDR_GEN_MODE (`enum in6_addr_gen_mode`, linux/if_link.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AddressGeneration(pub u8);

impl AddressGeneration {
    /// The kernel makes no address: no link-local address, hence no router solicitations.
    pub const NONE: Self = Self(1);
}

/// One address of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressFacts {
    /// The interface.
    pub index: InterfaceIndex,
    /// The interface's own address.
    pub address: IpAddr,
    /// The network's prefix length; the peer's if there is a peer.
    pub prefix: u8,
    /// The peer's address on a point-to-point link.
    pub peer: Option<IpAddr>,
    /// IFA_F_NODAD: used without duplicate address detection.
    pub no_dad: bool,
}

impl AddressFacts {
    /// The on-link network of this address.
    pub fn network(&self) -> Option<IpNetwork> {
        let base = IpNetwork::new(self.peer.unwrap_or(self.address), self.prefix).ok()?;
        IpNetwork::new(base.network(), base.prefix()).ok()
    }
}

/// The kernel's action on a packet that matches a route (`RTN_*`, linux/rtnetlink.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteKind {
    /// Forward the packet, by a gateway or on-link.
    Unicast,
    /// Deliver the packet on this host.
    Local,
    /// Broadcast.
    Broadcast,
    /// Anycast.
    Anycast,
    /// Multicast.
    Multicast,
    /// Reject the packet: blackhole, unreachable or prohibit.
    Reject,
    /// Any other.
    Other(u8),
}

/// One route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteFacts {
    /// The destination network.
    pub destination: IpNetwork,
    /// The routing table; 254 is `main`.
    pub table: u32,
    /// The action on a packet.
    pub kind: RouteKind,
    /// The origin of the route (`RTPROT_*`).
    pub protocol: u8,
    /// The priority; the lowest value wins.
    pub metric: u32,
    /// The source address that the kernel prefers.
    pub source: Option<IpAddr>,
    /// The next hops; more than one for a multipath route, none for a reject route.
    pub hops: Vec<NextHop>,
}

/// The routing table `main` (RT_TABLE_MAIN).
pub const TABLE_MAIN: u32 = 254;

impl RouteFacts {
    /// Whether the destination is reached without a gateway.
    pub fn is_on_link(&self) -> bool {
        self.kind == RouteKind::Unicast
            && !self.hops.is_empty()
            && self.hops.iter().all(|hop| hop.gateway.is_none())
    }

    /// Whether the route uses that interface.
    pub fn leaves_by(&self, index: InterfaceIndex) -> bool {
        self.hops.iter().any(|hop| hop.device == Some(index))
    }
}

/// One next hop of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextHop {
    /// The interface.
    pub device: Option<InterfaceIndex>,
    /// The gateway, if any.
    pub gateway: Option<IpAddr>,
}

/// One policy rule (`ip rule`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleFacts {
    /// Whether it is a rule for IPv6.
    pub ipv6: bool,
    /// The priority; the kernel tries rules in this order.
    pub priority: u32,
    /// The source network to match.
    pub source: Option<IpNetwork>,
    /// The destination network to match.
    pub destination: Option<IpNetwork>,
    /// The mark to match, and its mask.
    pub mark: Option<(u32, u32)>,
    /// The input interface to match.
    pub input_interface: Option<String>,
    /// The interface that the sending socket is bound to.
    pub output_interface: Option<String>,
    /// The table to look up; `None` for a rule with another action.
    pub table: Option<u32>,
    /// FIB_RULE_INVERT: the rule applies to packets that do not match.
    pub inverted: bool,
    /// Ignore routes with a prefix length of at most this.
    pub suppress_prefix_length: Option<u32>,
}

/// The path that a packet would take (RTM_GETROUTE).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathFacts {
    /// The outgoing interface.
    pub device: InterfaceIndex,
    /// The interface's name.
    pub device_name: String,
    /// The source address that the kernel would choose.
    pub source: Option<IpAddr>,
    /// The gateway, if any.
    pub gateway: Option<IpAddr>,
    /// Whether the destination is an address of this host.
    pub local: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(local: &str, prefix: u8, peer: Option<&str>) -> AddressFacts {
        AddressFacts {
            index: InterfaceIndex(2),
            address: local.parse().unwrap(),
            prefix,
            peer: peer.map(|peer| peer.parse().unwrap()),
            no_dad: false,
        }
    }

    #[test]
    fn the_network_of_an_address_is_the_peers_where_there_is_one() {
        let network = |address: AddressFacts| address.network().unwrap().to_string();
        assert_eq!(network(address("10.1.2.3", 16, None)), "10.1.0.0/16");
        assert_eq!(
            network(address("10.1.2.3", 32, Some("10.9.0.1"))),
            "10.9.0.1/32"
        );
        assert_eq!(network(address("fd00::5", 64, None)), "fd00::/64");
        assert_eq!(address("10.1.2.3", 33, None).network(), None);
    }

    #[test]
    fn default_routes_and_their_halves_are_no_networks_in_use() {
        let route = |destination: &str| RouteFacts {
            destination: destination.parse().unwrap(),
            table: TABLE_MAIN,
            kind: RouteKind::Unicast,
            protocol: 4,
            metric: 0,
            source: None,
            hops: vec![],
        };
        let facts = HostFacts {
            addresses: vec![address("10.1.2.3", 24, None)],
            routes: ["0.0.0.0/0", "128.0.0.0/1", "::/0", "10.0.0.0/8", "fc00::/7"]
                .map(route)
                .to_vec()
                .into(),
            ..HostFacts::default()
        };
        let networks: Vec<String> = facts
            .networks_in_use()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            networks,
            ["10.0.0.0/8", "10.1.2.0/24", "10.1.2.3/32", "fc00::/7"]
        );
    }
}
