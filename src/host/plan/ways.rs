//! Finds the interfaces by which a packet can leave this host for a network. The replies arrive
//! there, so these interfaces have to forward. Pure.

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;

use super::facts::{HostFacts, RouteFacts, RouteKind};
use crate::types::InterfaceName;
use crate::types::family::is_within;

/// RTPROT_RA (linux/rtnetlink.h): a route from a router advertisement.
const FROM_ADVERTISEMENT: u8 = 9;

/// The interfaces by which this host reaches `networks`, according to all routing tables: those of
/// every route into a network, and of the most specific route around it.
pub fn to_networks<'a>(
    facts: &HostFacts,
    networks: impl IntoIterator<Item = &'a IpNetwork>,
) -> BTreeSet<InterfaceName> {
    let mut ways = BTreeSet::new();
    for network in networks {
        let onward = facts.routes.iter();
        let onward = onward.filter(|route| route.kind == RouteKind::Unicast);
        for route in leading_to(network, onward.map(|route| (&route.destination, route))) {
            ways.extend(interfaces(facts, route));
        }
    }
    ways
}

/// Of the routes around and in `network`, given by destination, those that lead there: every one
/// in it, and the most specific ones around it.
pub fn leading_to<'a, T>(
    network: &IpNetwork,
    routes: impl Iterator<Item = (&'a IpNetwork, T)> + Clone,
) -> Vec<T> {
    let around = routes
        .clone()
        .filter(|(destination, _)| is_within(network, destination))
        .map(|(destination, _)| destination.prefix())
        .max();
    let leads_there = |destination: &IpNetwork| {
        is_within(destination, network)
            || (is_within(network, destination) && Some(destination.prefix()) == around)
    };
    let there = routes.filter(|(destination, _)| leads_there(destination));
    there.map(|(_, route)| route).collect()
}

/// The interfaces that have routes from router advertisements.
pub fn advertised(facts: &HostFacts) -> BTreeSet<InterfaceName> {
    let learned = facts
        .routes
        .iter()
        .filter(|route| route.protocol == FROM_ADVERTISEMENT && route.destination.is_ipv6());
    learned.flat_map(|route| interfaces(facts, route)).collect()
}

/// The interfaces that a route leaves by, except loopback.
fn interfaces(facts: &HostFacts, route: &RouteFacts) -> Vec<InterfaceName> {
    let links = route.hops.iter().filter_map(|hop| {
        let index = hop.device?;
        facts.links.iter().find(|link| link.index == index)
    });
    links
        .filter(|link| !link.loopback)
        .filter_map(|link| link.name.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::plan::facts::{InterfaceIndex, LinkFacts, NextHop, TABLE_MAIN};

    fn link(index: u32, name: &str) -> LinkFacts {
        LinkFacts {
            index: InterfaceIndex(index),
            name: name.to_owned(),
            kind: None,
            mtu: 1500,
            up: true,
            loopback: name == "lo",
            tx_queue_length: 1000,
            gso_max_size: Some(65536),
            address_generation: None,
            master: None,
            group: 0,
        }
    }

    fn route(destination: &str, devices: &[u32]) -> RouteFacts {
        RouteFacts {
            destination: destination.parse().unwrap(),
            table: TABLE_MAIN,
            kind: RouteKind::Unicast,
            protocol: 3,
            metric: 0,
            source: None,
            hops: devices
                .iter()
                .map(|index| NextHop {
                    device: Some(InterfaceIndex(*index)),
                    gateway: None,
                })
                .collect(),
        }
    }

    fn host() -> HostFacts {
        HostFacts {
            links: ["lo", "eth0", "eth1", "eth2"]
                .iter()
                .enumerate()
                .map(|(at, name)| link(at as u32 + 1, name))
                .collect(),
            routes: vec![
                route("0.0.0.0/0", &[2]),
                route("10.20.0.0/16", &[3]),
                route("10.20.7.0/24", &[4, 2]),
                RouteFacts {
                    kind: RouteKind::Local,
                    ..route("10.20.0.1/32", &[1])
                },
                RouteFacts {
                    kind: RouteKind::Reject,
                    ..route("10.30.0.0/16", &[])
                },
                route("127.0.0.0/8", &[1]),
                RouteFacts {
                    protocol: FROM_ADVERTISEMENT,
                    ..route("::/0", &[3])
                },
            ]
            .into(),
            ..HostFacts::default()
        }
    }

    fn ways(networks: &[&str]) -> Vec<String> {
        let networks: Vec<IpNetwork> = networks.iter().map(|text| text.parse().unwrap()).collect();
        let ways = to_networks(&host(), &networks);
        ways.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_nearest_route_around_a_network_and_all_in_it_count() {
        assert_eq!(ways(&["10.20.0.0/16"]), ["eth0", "eth1", "eth2"]);
        assert_eq!(ways(&["10.20.5.0/24"]), ["eth1"]);
        assert_eq!(ways(&["10.20.7.9/32"]), ["eth0", "eth2"]);
        assert_eq!(ways(&["192.168.0.0/16"]), ["eth0"]);
        assert_eq!(ways(&["10.0.0.0/8"]), ["eth0", "eth1", "eth2"]);
        assert_eq!(ways(&["fd00::/8"]), ["eth1"]);
        assert!(ways(&["127.0.0.1/32"]).is_empty());
        assert!(ways(&[]).is_empty());
    }

    #[test]
    fn advertised_routes_name_their_interface() {
        let names: Vec<String> = advertised(&host())
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(names, ["eth1"]);
    }
}
