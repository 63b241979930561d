//! Tests that a plan covers exactly the requested networks and reports every conflict.

use proptest::prelude::*;

use super::*;
use crate::host::plan::facts::{AddressFacts, InterfaceIndex, LinkFacts, NextHop};
use crate::types::family::number;

fn networks(list: &[&str]) -> Vec<IpNetwork> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

fn texts(list: &[IpNetwork]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

fn link(index: u32, name: &str) -> LinkFacts {
    LinkFacts {
        index: InterfaceIndex(index),
        name: name.to_owned(),
        kind: None,
        mtu: 1500,
        up: true,
        loopback: name == "lo",
        tx_queue_length: 1000,
        gso_max_size: None,
        address_generation: None,
        master: None,
        group: 0,
    }
}

fn address(index: u32, network: &str) -> AddressFacts {
    let network: IpNetwork = network.parse().unwrap();
    AddressFacts {
        index: InterfaceIndex(index),
        address: network.ip(),
        prefix: network.prefix(),
        peer: None,
        no_dad: false,
    }
}

fn route(destination: &str, gateway: Option<&str>, device: u32) -> RouteFacts {
    RouteFacts {
        destination: destination.parse().unwrap(),
        table: TABLE_MAIN,
        kind: RouteKind::Unicast,
        protocol: 4,
        metric: 0,
        source: None,
        hops: vec![NextHop {
            device: Some(InterfaceIndex(device)),
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
        }],
    }
}

/// A laptop: eth0 in 192.168.1.0/24 and 2001:db8:1::/64, with default routes, a route to
/// 10.8.0.0/16 by another router, and a persistent tun.
fn laptop() -> HostFacts {
    HostFacts {
        links: vec![link(1, "lo"), link(2, "eth0"), link(3, "sshvpn0")],
        addresses: vec![
            address(1, "127.0.0.1/8"),
            address(1, "::1/128"),
            address(2, "192.168.1.7/24"),
            address(2, "2001:db8:1::7/64"),
            address(2, "fe80::7/64"),
            address(3, "10.200.0.0/31"),
        ],
        routes: vec![
            route("0.0.0.0/0", Some("192.168.1.1"), 2),
            route("192.168.1.0/24", None, 2),
            route("10.8.0.0/16", Some("192.168.1.2"), 2),
            route("172.30.0.0/24", None, 2),
            route("10.201.0.0/24", None, 3),
            route("fe80::/64", None, 2),
        ]
        .into(),
        rules: vec![],
        claimed: vec![],
    }
}

fn planned(
    routes: &[&str],
    excludes: &[&str],
    servers: &[&str],
) -> Result<RoutePlan, RoutePlanError> {
    let request = RouteRequest {
        routes: networks(routes),
        excludes: networks(excludes),
        servers: servers
            .iter()
            .map(|server| server.parse().unwrap())
            .collect(),
    };
    plan(&request, &laptop(), "sshvpn0")
}

#[test]
fn excludes_are_cut_out() {
    let cut = |routes: &[&str], excludes: &[&str]| {
        texts(&subtract(&networks(routes), &networks(excludes)).unwrap())
    };
    assert_eq!(
        cut(&["10.0.0.0/30"], &["10.0.0.1/32"]),
        ["10.0.0.0/32", "10.0.0.2/31"]
    );
    assert_eq!(
        cut(&["10.1.0.0/16", "10.0.0.0/8", "10.0.0.0/8"], &[]),
        ["10.0.0.0/8"]
    );
    assert_eq!(
        cut(&["fd00::/16", "10.0.0.0/8"], &["fd00::/17"]),
        ["10.0.0.0/8", "fd00:8000::/17"]
    );
    assert_eq!(cut(&["10.0.0.0/24"], &["10.0.0.0/8"]), [""; 0]);
    assert_eq!(cut(&["0.0.0.0/0"], &["192.0.2.1/32"]).len(), 32);
    assert_eq!(cut(&["::/0"], &["2001:db8::1/128"]).len(), 128);
    assert_eq!(cut(&["::/0"], &["0.0.0.0/0"]), ["::/0"]);
}

#[test]
fn halves_do_not_become_a_default_route() {
    let cover = |routes: &[&str]| texts(&subtract(&networks(routes), &[]).unwrap());
    assert_eq!(
        cover(&["0.0.0.0/1", "128.0.0.0/1"]),
        ["0.0.0.0/1", "128.0.0.0/1"]
    );
    assert_eq!(cover(&["::/1", "8000::/1"]), ["::/1", "8000::/1"]);
    assert_eq!(cover(&["0.0.0.0/0", "128.0.0.0/1"]), ["0.0.0.0/0"]);
}

#[test]
fn too_many_pieces_are_refused() {
    let excludes: Vec<IpNetwork> = (0..2000u32)
        .map(|n| IpNetwork::from(IpAddr::from((n * 2 + 0x0a00_0000).to_be_bytes())))
        .collect();
    let result = subtract(&networks(&["10.0.0.0/8"]), &excludes);
    assert!(matches!(result, Err(RoutePlanError::TooMany(count)) if count > MAX_ROUTES));
}

#[test]
fn the_server_stays_outside() {
    let error = planned(&["203.0.113.0/24"], &[], &["203.0.113.5"]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the route 203.0.113.0/24 contains the SSH server 203.0.113.5, through which the tunnel runs; add --exclude 203.0.113.5/32"
    );
    assert!(planned(&["203.0.113.0/24"], &[], &["::ffff:203.0.113.5"]).is_err());
    assert!(planned(&["203.0.113.0/24"], &["203.0.113.5/32"], &["203.0.113.5"]).is_ok());
    assert!(planned(&["2001:db8::/32"], &["2001:db8:1::/64"], &["2001:db8:2::1"]).is_err());
}

#[test]
fn a_route_in_a_local_network_is_an_error() {
    for wrong in [
        "192.168.1.0/24",
        "192.168.1.128/25",
        "192.168.1.9/32",
        "2001:db8:1::/64",
        "172.30.0.0/25",
        "127.0.0.0/8",
    ] {
        let error = planned(&[wrong], &[], &[]).unwrap_err();
        assert!(
            matches!(error, RoutePlanError::Local { .. }),
            "{wrong}: {error}"
        );
    }
    let error = planned(&["192.168.1.0/24"], &[], &[])
        .unwrap_err()
        .to_string();
    assert!(error.contains("192.168.1.0/24 on eth0"), "{error}");
}

#[test]
fn a_route_around_a_local_network_is_a_warning() {
    let plan = planned(&["192.168.0.0/16"], &[], &[]).unwrap();
    assert_eq!(texts(&plan.routes), ["192.168.0.0/16"]);
    assert_eq!(plan.notes.len(), 1);
    assert!(plan.notes[0].is_warning());
    assert_eq!(
        plan.notes[0].to_string(),
        "the route 192.168.0.0/16 contains the local network 192.168.1.0/24 on eth0, which stays outside the tunnel"
    );
}

#[test]
fn what_every_host_has_is_no_warning() {
    let plan = planned(&["::/1", "8000::/1"], &[], &[]).unwrap();
    let interfaces: Vec<String> = plan.notes.iter().map(ToString::to_string).collect();
    assert_eq!(interfaces.len(), 1, "{interfaces:?}");
}

#[test]
fn a_link_that_is_down_or_our_own_does_not_count() {
    assert!(planned(&["10.200.0.0/31"], &[], &[]).is_ok());
    assert!(planned(&["10.201.0.0/24"], &[], &[]).is_ok());
    let mut facts = laptop();
    facts.links[1].up = false;
    let request = RouteRequest {
        routes: networks(&["192.168.1.0/24"]),
        ..RouteRequest::default()
    };
    assert!(plan(&request, &facts, "sshvpn0").is_ok());
}

#[test]
fn an_equal_route_is_an_error_and_others_are_notes() {
    let error = planned(&["10.8.0.0/16"], &[], &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "this host already has a route 10.8.0.0/16 via 192.168.1.2 on eth0; remove that route, or ask for smaller networks within it"
    );
    let error = planned(&["0.0.0.0/0"], &[], &[]).unwrap_err().to_string();
    assert!(error.contains("0.0.0.0/1 and 128.0.0.0/1"), "{error}");
    let notes = |routes: &[&str]| planned(routes, &[], &[]).unwrap().notes;
    assert!(matches!(
        notes(&["10.0.0.0/8"])[..],
        [RouteNote::ContainsRoute { .. }]
    ));
    assert!(matches!(
        notes(&["10.8.1.0/24"])[..],
        [RouteNote::InsideRoute { .. }]
    ));
    assert!(notes(&["10.9.0.0/16"]).is_empty());
}

#[test]
fn excluding_everything_is_an_error_and_asking_for_nothing_is_not() {
    assert_eq!(
        planned(&["10.1.0.0/16"], &["10.0.0.0/8"], &[]),
        Err(RoutePlanError::Nothing)
    );
    assert_eq!(
        planned(&[], &[], &["10.1.1.1"]).unwrap(),
        RoutePlan::default()
    );
}

/// Networks in 10.0.0.0/24 and an IPv6 equivalent, small enough to test every address.
fn small() -> impl Strategy<Value = IpNetwork> {
    (0u8..=255, 0u8..=8, any::<bool>()).prop_map(|(last, host, v4)| {
        let last = u128::from(last) >> host << host;
        let (family, base) = match v4 {
            true => (Family::V4, 0x0a00_0000),
            false => (Family::V6, 0xfd00 << 112),
        };
        IpNetwork::new(family.address(base + last), family.bits() - host).unwrap()
    })
}

fn any_network() -> impl Strategy<Value = IpNetwork> {
    (any::<u128>(), 0u8..=128, any::<bool>()).prop_map(|(bits, prefix, v4)| {
        let family = if v4 { Family::V4 } else { Family::V6 };
        let network = IpNetwork::new(family.address(bits), prefix % (family.bits() + 1)).unwrap();
        IpNetwork::new(network.network(), network.prefix()).unwrap()
    })
}

fn holds(list: &[IpNetwork], ip: IpAddr) -> bool {
    list.iter().any(|network| network.contains(ip))
}

proptest! {
    #[test]
    fn exactly_the_wanted_addresses_are_covered(
        routes in proptest::collection::vec(small(), 0..8),
        excludes in proptest::collection::vec(small(), 0..8),
    ) {
        let cover = subtract(&routes, &excludes).unwrap();
        for last in 0..=255u128 {
            for ip in [Family::V4.address(0x0a00_0000 + last), Family::V6.address((0xfd00 << 112) + last)] {
                let wanted = holds(&routes, ip) && !holds(&excludes, ip);
                prop_assert_eq!(holds(&cover, ip), wanted, "{}", ip);
            }
        }
    }

    #[test]
    fn the_cover_is_sorted_minimal_and_holds_at_the_edges(
        routes in proptest::collection::vec(any_network(), 0..6),
        excludes in proptest::collection::vec(any_network(), 0..6),
    ) {
        let cover = subtract(&routes, &excludes).unwrap();
        for pair in cover.windows(2) {
            let (a, b) = (pair[0], pair[1]);
            prop_assert!(a < b);
            if Family::of(a.ip()) == Family::of(b.ip()) {
                prop_assert!(!is_within(&a, &b) && !is_within(&b, &a));
                let parent = a.prefix().checked_sub(1).map(|prefix| IpNetwork::new(a.ip(), prefix).unwrap());
                let siblings = a.prefix() == b.prefix() && a.prefix() > 1 && parent.unwrap().contains(b.ip());
                prop_assert!(!siblings, "{} and {} are one network", a, b);
            }
        }
        for network in routes.iter().chain(&excludes) {
            let family = Family::of(network.ip());
            let (first, last) = (number(network.network()), number(network.broadcast()));
            for edge in [Some(first), Some(last), first.checked_sub(1), last.checked_add(1)].into_iter().flatten() {
                if family == Family::V4 && edge > u128::from(u32::MAX) {
                    continue;
                }
                let ip = family.address(edge);
                prop_assert_eq!(holds(&cover, ip), holds(&routes, ip) && !holds(&excludes, ip), "{}", ip);
            }
        }
    }
}
