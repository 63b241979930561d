//! Tests of a client's guard rules: by its addresses, its routes and its other networks.

use std::net::IpAddr;

use etherparse::PacketBuilder;

use super::*;
use crate::host::plan::facts::{AddressFacts, InterfaceIndex, RouteFacts, RouteKind, TABLE_MAIN};
use crate::packet::guard::Refused;
use crate::packet::guard::link::Sender;

fn networks(of: &[&str]) -> Vec<IpNetwork> {
    of.iter().map(|text| text.parse().unwrap()).collect()
}

fn pair(local: &str, remote: &str, prefix: u8) -> AddressPair {
    AddressPair {
        local: local.parse().unwrap(),
        remote: remote.parse().unwrap(),
        prefix,
    }
}

/// A host at 10.1.2.3/24 and fd44::2, with a longer route to 10.5.0.0/16.
fn local() -> HostFacts {
    let address = |text: &str, prefix| AddressFacts {
        index: InterfaceIndex(2),
        address: text.parse().unwrap(),
        prefix,
        peer: None,
        no_dad: false,
    };
    let route = RouteFacts {
        destination: "10.5.0.0/16".parse().unwrap(),
        table: TABLE_MAIN,
        kind: RouteKind::Unicast,
        protocol: 4,
        metric: 0,
        source: None,
        hops: vec![],
    };
    HostFacts {
        addresses: vec![address("10.1.2.3", 24), address("fd44::2", 64)],
        routes: vec![route].into(),
        ..HostFacts::default()
    }
}

fn judge(routes: &[&str], behind: &[&str], from: &str, to: &str) -> Result<(), Refused> {
    let rules = rules(&GuardInput {
        mode: Mode::PointToPoint,
        addresses: &[
            pair("10.9.0.1", "10.9.0.2", 30),
            pair("fd09::1", "fd09::2", 64),
        ],
        routes: &networks(routes),
        behind: &networks(behind),
        local: &local(),
    });
    let builder = match (from.parse().unwrap(), to.parse().unwrap()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64),
        mixed => panic!("{mixed:?}"),
    };
    let mut packet = Vec::new();
    builder.udp(5, 6).write(&mut packet, &[0; 30]).unwrap();
    rules.check(Mode::PointToPoint, &mut Sender::default(), &packet)
}

#[test]
fn the_peer_and_the_routes_reach_the_tunnel_address_alone() {
    let routes = ["198.51.100.0/25", "2001:db8:64::/64"];
    for (from, to, verdict) in [
        ("10.9.0.2", "10.9.0.1", Ok(())),
        ("198.51.100.7", "10.9.0.1", Ok(())),
        ("fd09::2", "fd09::1", Ok(())),
        ("2001:db8:64::7", "fd09::1", Ok(())),
        ("10.9.0.1", "10.9.0.1", Err(Refused::Source)),
        ("10.9.0.3", "10.9.0.1", Err(Refused::Source)),
        ("198.51.100.200", "10.9.0.1", Err(Refused::Source)),
        ("10.1.2.9", "10.9.0.1", Err(Refused::Source)),
        ("8.8.8.8", "10.9.0.1", Err(Refused::Source)),
        ("fd09::3", "fd09::1", Err(Refused::Source)),
        ("198.51.100.7", "10.1.2.3", Err(Refused::Destination)),
        ("10.9.0.2", "10.1.2.9", Err(Refused::Destination)),
        ("10.9.0.2", "10.9.0.3", Err(Refused::Destination)),
        ("10.9.0.2", "224.0.0.1", Err(Refused::Destination)),
        ("10.9.0.2", "255.255.255.255", Err(Refused::Destination)),
        ("fd09::2", "fd44::2", Err(Refused::Destination)),
    ] {
        assert_eq!(judge(&routes, &[], from, to), verdict, "{from} {to}");
    }
}

#[test]
fn what_this_host_reaches_by_a_longer_route_does_not_come_by_the_tunnel() {
    let routes = ["10.0.0.0/8", "10.5.6.0/24", "0.0.0.0/1", "128.0.0.0/1"];
    for (from, verdict) in [
        ("10.7.7.7", Ok(())),
        ("10.5.6.7", Ok(())),
        ("8.8.8.8", Ok(())),
        ("200.1.1.1", Ok(())),
        ("10.5.7.7", Err(Refused::Source)),
        ("10.1.2.9", Err(Refused::Source)),
        ("10.1.2.3", Err(Refused::Source)),
        ("127.0.0.1", Err(Refused::Source)),
        ("169.254.7.7", Err(Refused::Source)),
        ("224.0.0.1", Err(Refused::Source)),
        ("0.0.0.0", Err(Refused::Source)),
    ] {
        assert_eq!(judge(&routes, &[], from, "10.9.0.1"), verdict, "{from}");
    }
}

#[test]
fn networks_behind_this_host_are_reached_if_the_user_says_so() {
    let (routes, behind) = (["10.0.0.0/8"], ["10.77.0.0/24"]);
    for (from, to, verdict) in [
        ("10.9.0.2", "10.77.0.7", Ok(())),
        ("10.20.0.1", "10.77.0.7", Ok(())),
        ("10.77.0.7", "10.9.0.1", Err(Refused::Source)),
        ("10.9.0.2", "10.78.0.7", Err(Refused::Destination)),
    ] {
        assert_eq!(judge(&routes, &behind, from, to), verdict, "{from} {to}");
    }
}

#[test]
fn an_ethernet_tunnel_leads_to_a_network() {
    let input = GuardInput {
        mode: Mode::Ethernet,
        addresses: &[pair("10.9.0.1", "10.9.0.2", 24)],
        routes: &[],
        behind: &[],
        local: &local(),
    };
    let frame = |from: [u8; 4], to: [u8; 4]| {
        let builder = PacketBuilder::ethernet2([2; 6], [0xff; 6]).ipv4(from, to, 64);
        let mut frame = Vec::new();
        builder.udp(5, 6).write(&mut frame, &[0; 30]).unwrap();
        frame
    };
    let judge = |input: &GuardInput<'_>, from, to| {
        let frame = frame(from, to);
        rules(input).check(Mode::Ethernet, &mut Sender::default(), &frame)
    };
    assert_eq!(judge(&input, [10, 9, 0, 77], [10, 9, 0, 1]), Ok(()));
    assert_eq!(judge(&input, [10, 9, 0, 77], [10, 9, 0, 255]), Ok(()));
    let foreign = judge(&input, [8, 8, 8, 8], [10, 9, 0, 1]);
    assert_eq!(foreign, Err(Refused::Source));
    // Other hosts of the link give the addresses.
    let by_others = GuardInput {
        addresses: &[],
        ..input
    };
    assert_eq!(judge(&by_others, [8, 8, 8, 8], [10, 1, 1, 1]), Ok(()));
}
