//! The networks that a host can open to a peer: those of its table main, of which some are never
//! meant. Pure.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::facts::{HostFacts, RouteFacts, RouteKind, TABLE_MAIN, is_default_like};

/// The connected and routed networks of a host, sorted.
pub fn networks(facts: &HostFacts) -> Vec<IpNetwork> {
    let routes = facts.routes.iter().filter(|route| {
        route.table == TABLE_MAIN
            && route.kind == RouteKind::Unicast
            && is_meant(&route.destination)
            && !is_peer_of_tunnel(route, facts)
    });
    let mut networks: Vec<IpNetwork> = routes.map(|route| route.destination).collect();
    networks.sort();
    networks.dedup();
    networks
}

/// Whether a network can be meant: not everything, and neither loopback, link-local nor multicast.
pub fn is_meant(network: &IpNetwork) -> bool {
    if is_default_like(network) {
        return false;
    }
    match network.ip() {
        IpAddr::V4(address) => {
            let [first, ..] = address.octets();
            // 0.0.0.0/8 and 224.0.0.0/3 are no hosts' (RFC 6890).
            first != 0 && first < 224 && !address.is_loopback() && !address.is_link_local()
        }
        IpAddr::V6(address) => {
            let scoped = address.is_multicast() || address.is_unicast_link_local();
            !scoped && !address.is_loopback() && address.to_ipv4_mapped().is_none()
        }
    }
}

/// Whether the route is to the other end of a tunnel alone.
fn is_peer_of_tunnel(route: &RouteFacts, facts: &HostFacts) -> bool {
    let single = IpNetwork::from(route.destination.ip()).prefix() == route.destination.prefix();
    let by_tunnel = |index| {
        let mut links = facts.links.iter();
        links.any(|link| Some(link.index) == index && link.is_tun())
    };
    single && route.hops.iter().any(|hop| by_tunnel(hop.device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_networks_are_never_meant() {
        for (network, meant) in [
            ("10.0.0.0/8", true),
            ("198.51.100.0/24", true),
            ("192.0.2.1/32", true),
            ("fd00::/8", true),
            ("2001:db8::/32", true),
            ("0.0.0.0/0", false),
            ("128.0.0.0/1", false),
            ("127.0.0.0/8", false),
            ("169.254.0.0/16", false),
            ("224.0.0.0/8", false),
            ("255.255.255.255/32", false),
            ("::/0", false),
            ("2000::/3", false),
            ("::1/128", false),
            ("fe80::/64", false),
            ("ff00::/8", false),
        ] {
            assert_eq!(is_meant(&network.parse().unwrap()), meant, "{network}");
        }
    }
}
