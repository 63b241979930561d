//! What is true of this host's network: links, addresses, routes and rules, as
//! the kernel reports them. Data only; `netlink` reads them.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

/// The kernel's number of a network interface, unique within its namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InterfaceIndex(pub u32);

/// Everything at one moment, both families, all tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// Every link of this network namespace.
    pub links: Vec<LinkFacts>,
    /// Every address.
    pub addresses: Vec<AddressFacts>,
    /// Every route, the tables `local` and `default` included.
    pub routes: Vec<RouteFacts>,
    /// Every policy rule.
    pub rules: Vec<RuleFacts>,
}

impl HostFacts {
    /// The name of the link with this index.
    pub fn link_name(&self, index: InterfaceIndex) -> Option<&str> {
        self.links
            .iter()
            .find(|link| link.index == index)
            .map(|link| link.name.as_str())
    }

    /// The networks that a tunnel's addresses have to keep clear of: on-link
    /// networks of all addresses, and all unicast routes except those of a
    /// default kind ([`is_default_like`]).
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
        let mut networks: Vec<IpNetwork> = addresses
            .chain(routes)
            .filter(|network| !is_default_like(network))
            .collect();
        networks.sort();
        networks.dedup();
        networks
    }
}

/// Whether a route is so wide that it names no network but "everything else":
/// the default route, and the halves and quarters that full tunnels install.
pub fn is_default_like(network: &IpNetwork) -> bool {
    network.prefix() < 7
}

/// One network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkFacts {
    /// Its number.
    pub index: InterfaceIndex,
    /// Its name at the moment of reading.
    pub name: String,
    /// The kernel's word for its type (`tun`, `veth`, `bridge`…); hardware has none.
    pub kind: Option<String>,
    /// Bytes of one packet.
    pub mtu: u32,
    /// IFF_UP: somebody has brought it up.
    pub up: bool,
    /// IFF_LOOPBACK.
    pub loopback: bool,
    /// Packets in its transmit queue at most.
    pub tx_queue_length: u32,
    /// Bytes of a super-packet at most; none where the kernel does not tell.
    pub gso_max_size: Option<u32>,
    /// How it makes its IPv6 addresses; none where it has no IPv6.
    pub address_generation: Option<AddressGeneration>,
    /// IFLA_MASTER: the bridge, or another link, that it is a port of.
    pub master: Option<InterfaceIndex>,
    /// IFLA_GROUP: what firewall rules know many links by; 0 is the usual one.
    pub group: u32,
}

impl LinkFacts {
    /// Whether this is a tun or a tap device (one kind to the kernel).
    pub fn is_tun(&self) -> bool {
        self.kind.as_deref() == Some("tun")
    }
}

/// IFLA_INET6_ADDR_GEN_MODE (`enum in6_addr_gen_mode`, linux/if_link.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AddressGeneration(pub u8);

impl AddressGeneration {
    /// No address is made: no link-local address, hence no router solicitations.
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
    /// The length of the network's prefix; of the peer's where there is one.
    pub prefix: u8,
    /// The address at the other end of a point-to-point link.
    pub peer: Option<IpAddr>,
    /// IFA_F_NODAD: taken into use without duplicate address detection.
    pub no_dad: bool,
}

impl AddressFacts {
    /// The network that this address makes directly reachable.
    pub fn network(&self) -> Option<IpNetwork> {
        let base = IpNetwork::new(self.peer.unwrap_or(self.address), self.prefix).ok()?;
        IpNetwork::new(base.network(), base.prefix()).ok()
    }
}

/// What the kernel does with a packet that a route fits (`RTN_*`, linux/rtnetlink.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteKind {
    /// Sent on, by gateway or on-link.
    Unicast,
    /// Taken in by this host.
    Local,
    /// Broadcast.
    Broadcast,
    /// Anycast.
    Anycast,
    /// Multicast.
    Multicast,
    /// Refused: blackhole, unreachable or prohibit.
    Reject,
    /// Any other.
    Other(u8),
}

/// One route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteFacts {
    /// Where to.
    pub destination: IpNetwork,
    /// The routing table; 254 is `main`.
    pub table: u32,
    /// What happens to packets.
    pub kind: RouteKind,
    /// Who made it (`RTPROT_*`).
    pub protocol: u8,
    /// The smaller wins.
    pub metric: u32,
    /// The source address that the kernel prefers.
    pub source: Option<IpAddr>,
    /// Ways to go; more than one for a multipath route, none for a refusal.
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

    /// Whether it leads out through that interface.
    pub fn leaves_by(&self, index: InterfaceIndex) -> bool {
        self.hops.iter().any(|hop| hop.device == Some(index))
    }
}

/// One way of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextHop {
    /// The interface.
    pub device: Option<InterfaceIndex>,
    /// The router, where there is one.
    pub gateway: Option<IpAddr>,
}

/// One policy rule (`ip rule`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleFacts {
    /// Whether it is a rule for IPv6.
    pub ipv6: bool,
    /// Rules are tried in this order.
    pub priority: u32,
    /// From where.
    pub source: Option<IpNetwork>,
    /// Where to.
    pub destination: Option<IpNetwork>,
    /// The mark to match, and under which mask.
    pub mark: Option<(u32, u32)>,
    /// Name of the interface by which the packet came in.
    pub input_interface: Option<String>,
    /// Name of the interface that the sender is bound to.
    pub output_interface: Option<String>,
    /// The table to look in; none for a rule that does not look.
    pub table: Option<u32>,
    /// Whether the rule is for packets that it does not fit (FIB_RULE_INVERT).
    pub inverted: bool,
    /// Ignore routes of this prefix length and shorter ones.
    pub suppress_prefix_length: Option<u32>,
}

/// The way a packet would go (RTM_GETROUTE).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathFacts {
    /// The interface it would leave by.
    pub device: InterfaceIndex,
    /// Its name.
    pub device_name: String,
    /// The source address it would get.
    pub source: Option<IpAddr>,
    /// The router it would go to first.
    pub gateway: Option<IpAddr>,
    /// The destination is this host itself.
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
                .to_vec(),
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
