//! In a new namespace each, checks the facts against what `ip` shows.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::{InterfaceAddress, Netlink, TunnelRoute};
use crate::host::error::{NetError, Refusal};
use crate::host::plan::facts::{
    AddressFacts, AddressGeneration, HostFacts, InterfaceIndex, LinkFacts, NextHop, RouteFacts,
    RouteKind, RuleFacts, TABLE_MAIN,
};
use crate::host::test_namespace::{self, ip};

fn network(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn route_of<'a>(facts: &'a HostFacts, destination: &str, table: u32) -> &'a RouteFacts {
    let is_it =
        |route: &&RouteFacts| route.destination == network(destination) && route.table == table;
    facts.routes.iter().find(is_it).unwrap()
}

/// Makes two links, static default routes, and further addresses, routes and policy rules.
fn furnish() {
    for command in [
        "link set lo up",
        "link add v0 type veth peer name v1",
        "link set v0 up mtu 1400 txqueuelen 77",
        "link set v1 up",
        "addr add 192.0.2.1/24 dev v0",
        "addr add 198.51.100.1 peer 198.51.100.2/32 dev v1",
        "addr add 2001:db8::1/64 dev v0 nodad",
        "route add default via 192.0.2.254 metric 10",
        "route add default via 2001:db8::fe metric 11",
        "route add 10.1.0.0/16 proto static nexthop via 192.0.2.7 nexthop dev v1",
        "route add blackhole 10.2.0.0/16",
        "route add 10.3.0.0/16 dev v1 src 198.51.100.1 table 4711",
        "rule add fwmark 0x5/0xff lookup 4711 priority 100",
        "rule add not from 10.0.0.0/8 iif v0 lookup main suppress_prefixlength 0 priority 101",
        "-6 rule add to 2001:db8:7::/48 oif v1 unreachable priority 102",
    ] {
        ip(command);
    }
}

#[test]
fn links_and_addresses_are_read() {
    test_namespace::run(async {
        furnish();
        let facts = Netlink::open().unwrap().facts().await.unwrap();
        let v0 = facts.links.iter().find(|link| link.name == "v0").unwrap();
        assert_eq!((v0.mtu, v0.tx_queue_length, v0.up), (1400, 77, true));
        assert_eq!((v0.kind.as_deref(), v0.loopback), (Some("veth"), false));
        assert_eq!(v0.address_generation, Some(AddressGeneration(0)));
        assert!(
            facts
                .links
                .iter()
                .any(|link| link.name == "lo" && link.loopback)
        );
        let of = |text: &str| {
            let is_it = |found: &&AddressFacts| found.address == address(text);
            facts.addresses.iter().find(is_it).unwrap()
        };
        assert_eq!(of("192.0.2.1").network(), Some(network("192.0.2.0/24")));
        assert_eq!(of("192.0.2.1").index, v0.index);
        assert_eq!(of("198.51.100.1").peer, Some(address("198.51.100.2")));
        assert!(of("2001:db8::1").no_dad);
        assert_eq!(
            (of("2001:db8::1").prefix, of("2001:db8::1").peer),
            (64, None)
        );
    });
}

#[test]
fn routes_of_all_tables_and_kinds_are_read() {
    test_namespace::run(async {
        furnish();
        let netlink = Netlink::open().unwrap();
        let facts = netlink.facts().await.unwrap();
        let index = |name: &str| {
            let is_it = |link: &&LinkFacts| link.name == name;
            facts.links.iter().find(is_it).unwrap().index
        };
        let default = route_of(&facts, "0.0.0.0/0", TABLE_MAIN);
        assert_eq!((default.metric, default.is_on_link()), (10, false));
        assert_eq!(
            default.hops,
            [NextHop {
                device: Some(index("v0")),
                gateway: Some(address("192.0.2.254"))
            }]
        );
        assert_eq!(route_of(&facts, "::/0", TABLE_MAIN).metric, 11);
        let several = route_of(&facts, "10.1.0.0/16", TABLE_MAIN);
        assert_eq!(several.hops.len(), 2);
        assert_eq!((several.protocol, several.is_on_link()), (4, false));
        assert!(several.leaves_by(index("v0")) && several.leaves_by(index("v1")));
        let refused = route_of(&facts, "10.2.0.0/16", TABLE_MAIN);
        assert_eq!((refused.kind, refused.hops.len()), (RouteKind::Reject, 0));
        let elsewhere = route_of(&facts, "10.3.0.0/16", 4711);
        assert_eq!(elsewhere.source, Some(address("198.51.100.1")));
        assert!(route_of(&facts, "192.0.2.0/24", TABLE_MAIN).is_on_link());
        assert_eq!(route_of(&facts, "192.0.2.1/32", 255).kind, RouteKind::Local);
        let by_v1 = netlink.routes(Some(index("v1"))).await.unwrap();
        assert!(by_v1.iter().all(|route| route.leaves_by(index("v1"))));
        assert!(by_v1.contains(elsewhere));
    });
}

#[test]
fn rules_are_read() {
    test_namespace::run(async {
        furnish();
        let facts = Netlink::open().unwrap().facts().await.unwrap();
        let of = |priority: u32| {
            let is_it = |rule: &&RuleFacts| rule.priority == priority;
            facts.rules.iter().find(is_it).unwrap()
        };
        assert_eq!((of(100).mark, of(100).table), (Some((5, 0xff)), Some(4711)));
        assert!(of(101).inverted);
        assert_eq!(of(101).source, Some(network("10.0.0.0/8")));
        assert_eq!(of(101).input_interface.as_deref(), Some("v0"));
        assert_eq!(of(101).suppress_prefix_length, Some(0));
        assert_eq!((of(102).ipv6, of(102).table), (true, None));
        assert_eq!(of(102).destination, Some(network("2001:db8:7::/48")));
        assert_eq!(of(102).output_interface.as_deref(), Some("v1"));
        assert_eq!(
            (of(32766).table, of(32766).suppress_prefix_length),
            (Some(254), None)
        );
        assert_eq!(facts.rules.iter().filter(|rule| rule.ipv6).count(), 3);
    });
}

#[test]
fn the_way_to_an_address_is_the_kernels() {
    test_namespace::run(async {
        let netlink = Netlink::open().unwrap();
        let nowhere = netlink.route_to(address("203.0.113.1")).await.unwrap_err();
        assert_eq!(nowhere.refusal(), Some(Refusal::Unreachable), "{nowhere}");
        furnish();
        let path = netlink.route_to(address("203.0.113.1")).await.unwrap();
        assert_eq!(path.device_name, "v0");
        assert_eq!(path.gateway, Some(address("192.0.2.254")));
        assert_eq!(
            (path.source, path.local),
            (Some(address("192.0.2.1")), false)
        );
        let path = netlink.route_to(address("2001:db8:9::1")).await.unwrap();
        assert_eq!(path.gateway, Some(address("2001:db8::fe")));
        let path = netlink.route_to(address("198.51.100.2")).await.unwrap();
        assert_eq!((path.device_name.as_str(), path.gateway), ("v1", None));
        assert!(netlink.route_to(address("192.0.2.1")).await.unwrap().local);
    });
}

#[test]
fn links_that_are_not_there_are_named() {
    test_namespace::run(async {
        let netlink = Netlink::open().unwrap();
        let none = netlink.link_by_name("none").await;
        assert!(matches!(none, Err(NetError::NoInterface(name)) if name == "none"));
        let none = netlink.link_by_index(InterfaceIndex(4711)).await.unwrap();
        assert_eq!(none, None);
        ip("tuntap add dev sshvpn0 mode tun");
        let tun = netlink.link_by_name("sshvpn0").await.unwrap();
        assert!(tun.is_tun());
        ip("link del sshvpn0");
        let gone = netlink.set_mtu(&tun, 1400).await.unwrap_err();
        assert_eq!(gone.refusal(), Some(Refusal::NoDevice));
        assert_eq!(
            gone.to_string(),
            "cannot set the MTU of sshvpn0: the interface is gone"
        );
    });
}

#[test]
fn values_that_the_kernel_does_not_take_are_refused() {
    test_namespace::run(async {
        ip("tuntap add dev sshvpn0 mode tun");
        ip("link set sshvpn0 up");
        let netlink = Netlink::open().unwrap();
        let link = netlink.link_by_name("sshvpn0").await.unwrap();
        let refusal = |result: Result<(), NetError>| result.unwrap_err().refusal();
        let small = netlink.set_mtu(&link, 10).await;
        assert_eq!(refusal(small), Some(Refusal::Invalid));
        let ours = InterfaceAddress::Network(network("10.9.0.1/24"));
        netlink.add_address(&link, &ours).await.unwrap();
        let twice = netlink.add_address(&link, &ours).await;
        assert_eq!(refusal(twice), Some(Refusal::Exists));
        assert!(ip("addr show sshvpn0").contains("10.9.0.1/24 brd 10.9.0.255"));
        let route = TunnelRoute::to(network("0.0.0.0/0"));
        netlink.add_route(&link, &route).await.unwrap();
        let twice = netlink.add_route(&link, &route).await;
        assert_eq!(refusal(twice), Some(Refusal::Exists));
        let made = netlink.routes(Some(link.index)).await.unwrap();
        let made = made.iter().find(|found| found.is_ours(&route, link.index));
        netlink.remove_route(&link, made.unwrap()).await.unwrap();
        let twice = netlink.remove_route(&link, made.unwrap()).await;
        assert_eq!(refusal(twice), Some(Refusal::Absent));
    });
}
