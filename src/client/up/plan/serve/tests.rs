//! Tests of the plan for the carrier `serve`: honest and hostile offers.

use super::*;
use crate::client::up::test_request::request;
use crate::frame::control::Addresses;
use crate::host::plan::facts::{
    AddressFacts, InterfaceIndex, LinkFacts, NextHop, RouteFacts, RouteKind, TABLE_MAIN,
};
use crate::types::Mode;

fn networks(list: &[&str]) -> Vec<IpNetwork> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

fn pair(local: &str, agent: &str, prefix: u8) -> Addresses {
    Addresses {
        client: local.parse().unwrap(),
        agent: agent.parse().unwrap(),
        prefix,
    }
}

fn mtu(bytes: u32) -> Mtu {
    Mtu::new(bytes, Mode::PointToPoint).unwrap()
}

/// A typical offer.
fn offer() -> Offer {
    Offer {
        mtu: Mtu::ETHERNET,
        addresses: vec![
            pair("10.99.0.2", "10.99.0.1", 24),
            pair("fd99::2", "fd99::1", 64),
        ],
        routes: networks(&["10.20.0.0/16", "fd20::/48"]),
        dns: Dns::default(),
    }
}

fn with_addresses(addresses: &[Addresses]) -> Offer {
    Offer {
        addresses: addresses.to_vec(),
        ..offer()
    }
}

fn with_routes(routes: &[&str]) -> Offer {
    Offer {
        routes: networks(routes),
        ..offer()
    }
}

fn with_dns(servers: &[&str], search: &[&str]) -> Offer {
    Offer {
        dns: Dns {
            servers: servers.iter().map(|text| text.parse().unwrap()).collect(),
            search: search.iter().map(|text| (*text).to_owned()).collect(),
        },
        ..offer()
    }
}

/// A host on 192.168.1.0/24, with a route to 172.20.0.0/16 by a router there.
fn here() -> HostFacts {
    let index = InterfaceIndex(2);
    let link = LinkFacts {
        index,
        name: "eth0".to_owned(),
        kind: None,
        mtu: 1500,
        up: true,
        loopback: false,
        tx_queue_length: 1000,
        gso_max_size: None,
        address_generation: None,
        group: 0,
        master: None,
    };
    let address = AddressFacts {
        index,
        address: "192.168.1.7".parse().unwrap(),
        prefix: 24,
        peer: None,
        no_dad: false,
    };
    let route = |destination: &str| RouteFacts {
        destination: destination.parse().unwrap(),
        table: TABLE_MAIN,
        kind: RouteKind::Unicast,
        protocol: 4,
        metric: 0,
        source: None,
        hops: vec![NextHop {
            device: Some(index),
            gateway: Some("192.168.1.1".parse().unwrap()),
        }],
    };
    HostFacts {
        links: vec![link],
        addresses: vec![address],
        routes: vec![route("172.20.0.0/16"), route("0.0.0.0/0")].into(),
        rules: Vec::new(),
        claimed: Vec::new(),
    }
}

fn decided(request: &UpRequest, offer: &Offer) -> Result<ServePlan, OfferError> {
    decide(&OfferInput {
        host: "b",
        request,
        local: &here(),
        local_ipv6: true,
        first_hop: &[
            "203.0.113.9".parse().unwrap(),
            "::ffff:10.3.0.9".parse().unwrap(),
        ],
        offer,
    })
}

fn refused(request: &UpRequest, offer: &Offer) -> String {
    let error = decided(request, offer).err().expect("it is taken");
    let text = error.to_string();
    assert!(text.starts_with("b: "), "{text}");
    text
}

fn allowing(routes: bool, named: &[&str]) -> UpRequest {
    let mut allowing = request(&[]);
    allowing.acceptance.routes = routes;
    allowing.acceptance.networks = networks(named);
    allowing
}

fn lines(plan: &ServePlan) -> Vec<String> {
    plan.notes.iter().map(ToString::to_string).collect()
}

#[test]
fn without_a_word_of_the_user_addresses_and_mtu_are_taken_and_the_rest_is_named() {
    let mut offer = with_dns(&["10.99.0.1"], &["corp.example"]);
    offer.mtu = mtu(1400);
    let plan = decided(&request(&[]), &offer).unwrap();
    let ends: Vec<_> = plan
        .addresses
        .iter()
        .map(|pair| (pair.local, pair.remote))
        .collect();
    let expected = offer.addresses.iter().map(|pair| (pair.client, pair.agent));
    assert_eq!(ends, expected.collect::<Vec<_>>());
    assert_eq!(plan.mtu.get(), 1400);
    assert_eq!(plan.pushed, Pushed::default());
    assert_eq!(
        lines(&plan),
        [
            "offers routes 10.20.0.0/16, fd20::/48: --accept-routes takes them",
            "offers the name servers 10.99.0.1 for corp.example: --accept-dns takes them",
        ]
    );
    assert!(!plan.notes.iter().any(OfferNote::is_warning));
}

#[test]
fn routes_are_taken_as_far_as_they_are_allowed() {
    let all = decided(&allowing(true, &[]), &offer()).unwrap();
    assert_eq!(all.pushed.routes, offer().routes);
    assert!(all.notes.is_empty());
    let one = decided(&allowing(false, &["10.0.0.0/8"]), &offer()).unwrap();
    assert_eq!(one.pushed.routes, networks(&["10.20.0.0/16"]));
    assert_eq!(
        lines(&one),
        ["offers routes fd20::/48: --accept-routes takes them"]
    );
    let other = decided(&allowing(false, &["10.20.1.0/24"]), &offer()).unwrap();
    assert!(
        other.pushed.routes.is_empty(),
        "it is wider than what is allowed"
    );
    let wide = with_routes(&["0.0.0.0/1", "128.0.0.0/1", "fd20::/48"]);
    let plan = decided(&allowing(true, &[]), &wide).unwrap();
    assert_eq!(plan.pushed.routes, networks(&["fd20::/48"]));
    assert!(lines(&plan)[0].contains("nearly all addresses"));
}

#[test]
fn routes_that_this_host_cannot_have_are_left_out() {
    // Its own network, the SSH server's address, another route of this host, addresses
    // that no host can have.
    let odd = with_routes(&[
        "192.168.1.128/25",
        "203.0.113.0/24",
        "10.3.0.9/32",
        "172.20.0.0/16",
        "127.0.0.0/8",
        "224.0.0.0/4",
        "169.254.0.0/16",
        "fe80::/10",
        "ff00::/8",
        "::ffff:10.0.0.0/104",
        "10.20.0.0/16",
        "10.20.7.7/16",
    ]);
    let plan = decided(&allowing(true, &[]), &odd).unwrap();
    assert_eq!(plan.pushed.routes, networks(&["10.20.0.0/16"]));
    let warnings = plan.notes.iter().filter(|note| note.is_warning()).count();
    assert_eq!(warnings, 5, "{:?}", lines(&plan));
    // The user's --exclude applies to them as well.
    let mut without = allowing(true, &[]);
    without.excludes = networks(&["203.0.113.9/32"]);
    let plan = decided(&without, &with_routes(&["203.0.113.0/24"])).unwrap();
    assert_eq!(plan.pushed.routes.len(), 1);
    let only4 = Offer {
        addresses: vec![pair("10.99.0.2", "10.99.0.1", 24)],
        ..offer()
    };
    let plan = decided(&allowing(true, &[]), &only4).unwrap();
    assert_eq!(plan.pushed.routes, networks(&["10.20.0.0/16"]));
    assert!(lines(&plan)[0].contains("no address of that family"));
}

#[test]
fn thousands_of_routes_are_no_offer() {
    let routes = |count: u32| {
        let hosts =
            (0..count).map(|n| IpNetwork::from(IpAddr::from((0x0a14_0000 + n).to_be_bytes())));
        Offer {
            routes: hosts.collect(),
            ..offer()
        }
    };
    let plan = decided(&allowing(true, &[]), &routes(1024)).unwrap();
    assert_eq!(plan.pushed.routes.len(), 1024);
    let plan = decided(&request(&[]), &routes(1024)).unwrap();
    assert!(lines(&plan)[0].contains("and 1016 more"));
    assert!(refused(&request(&[]), &routes(1025)).contains("1025 routes"));
}

#[test]
fn what_the_user_wants_to_reach_has_to_be_offered() {
    for routes in [
        &["10.20.0.0/16"][..],
        &["10.20.4.0/24", "fd20::/64"],
        &["10.99.0.1/32"],
    ] {
        let plan = decided(&request(routes), &offer()).unwrap();
        assert!(plan.pushed.routes.is_empty());
    }
    // A requested route is not reported as left out.
    let plan = decided(&request(&["10.20.0.0/16", "fd20::/48"]), &offer()).unwrap();
    assert!(plan.notes.is_empty(), "{:?}", lines(&plan));
    let text = refused(&request(&["fd20::/64", "10.20.0.0/15"]), &offer());
    assert!(
        text.contains("does not offer the whole of 10.20.0.0/15 (--route)"),
        "{text}"
    );
    assert!(text.contains("it offers 10.20.0.0/16, fd20::/48"), "{text}");
    let mut without = request(&["10.20.0.0/15"]);
    without.excludes = networks(&["10.21.0.0/16"]);
    assert!(decided(&without, &offer()).is_ok());
    let text = refused(&request(&["10.20.0.0/16"]), &with_routes(&[]));
    assert!(text.contains("it offers no routes"), "{text}");
    let only4 = Offer {
        addresses: vec![pair("10.99.0.2", "10.99.0.1", 24)],
        ..offer()
    };
    let text = refused(&request(&["fd20::/64"]), &only4);
    assert!(text.contains("no IPv6 address"), "{text}");
}

#[test]
fn addresses_that_hosts_cannot_have_are_refused() {
    for (local, agent, prefix) in [
        ("127.0.0.1", "10.99.0.1", 24),
        ("10.99.0.2", "127.0.0.1", 24),
        ("0.0.0.0", "10.99.0.1", 24),
        ("224.0.0.5", "10.99.0.1", 24),
        ("255.255.255.255", "10.99.0.1", 24),
        ("169.254.1.1", "10.99.0.1", 24),
        ("240.0.0.1", "10.99.0.1", 24),
        ("10.99.0.2", "10.99.0.2", 24),
        ("10.99.0.2", "fd99::1", 24),
        ("10.99.0.2", "10.99.0.1", 33),
        ("fe80::1", "fd99::1", 64),
        ("::1", "fd99::1", 64),
        ("fd99::2", "ff02::1", 64),
        ("::ffff:10.0.0.1", "fd99::1", 64),
        ("fd99::2", "fd99::1", 129),
    ] {
        let text = refused(
            &request(&[]),
            &with_addresses(&[pair(local, agent, prefix)]),
        );
        assert!(text.contains("an invalid tunnel"), "{text}");
    }
    let twice = [
        pair("10.99.0.2", "10.99.0.1", 24),
        pair("10.98.0.2", "10.98.0.1", 24),
    ];
    let text = refused(&request(&[]), &with_addresses(&twice));
    assert!(text.contains("two pairs"), "{text}");
    assert!(refused(&request(&[]), &with_addresses(&[])).contains("it offers none"));
}

#[test]
fn addresses_of_others_are_refused() {
    for (local, agent, part) in [
        // Public addresses, on either side, unless they are named.
        ("8.8.8.8", "10.99.0.1", "--accept-route 8.8.8.8/32"),
        ("10.99.0.2", "9.9.9.9", "--accept-route 9.9.9.9/32"),
        ("2001:db8::2", "fd99::1", "--accept-route 2001:db8::2/128"),
        // Addresses of this host's networks.
        ("192.168.1.7", "10.99.0.1", "192.168.1.7/32 is in use"),
        ("10.99.0.2", "192.168.1.200", "192.168.1.0/24 is in use"),
        // Addresses that this host has a route to.
        ("172.20.0.2", "10.99.0.1", "a route to 172.20.0.0/16"),
        // The SSH server's address.
        (
            "10.99.0.2",
            "10.3.0.9",
            "cut off the SSH connection to 10.3.0.9",
        ),
    ] {
        let text = refused(&request(&[]), &with_addresses(&[pair(local, agent, 24)]));
        assert!(text.contains(part), "{text}");
    }
    let named = |offered: Addresses, network| {
        decided(&allowing(false, &[network]), &with_addresses(&[offered])).is_ok()
    };
    assert!(named(pair("8.8.8.8", "8.8.8.9", 24), "8.8.8.0/24"));
    assert!(named(pair("172.20.0.2", "172.20.0.1", 24), "172.20.0.0/16"));
    assert!(!named(
        pair("192.168.1.9", "192.168.1.200", 24),
        "192.168.0.0/16"
    ));
    assert!(!named(
        pair("203.0.113.1", "203.0.113.9", 24),
        "203.0.113.0/24"
    ));
}

#[test]
fn an_address_that_was_asked_for_is_given_or_none() {
    let mut asked = request(&[]);
    asked.address = Some("10.99.0.2".parse().unwrap());
    assert!(decided(&asked, &offer()).is_ok());
    asked.address = Some("10.99.0.3".parse().unwrap());
    let text = refused(&asked, &offer());
    assert!(
        text.contains("10.99.0.2, not the requested 10.99.0.3 (--address)"),
        "{text}"
    );
    let only6 = with_addresses(&[pair("fd99::2", "fd99::1", 64)]);
    assert!(refused(&asked, &only6).contains("none, not the requested"));
    // --address accepts the user's own address, but not the server's.
    asked.address = Some("8.8.8.8".parse().unwrap());
    assert!(decided(&asked, &with_addresses(&[pair("8.8.8.8", "10.99.0.1", 24)])).is_ok());
    let both = with_addresses(&[pair("8.8.8.8", "8.8.8.9", 24)]);
    assert!(refused(&asked, &both).contains("8.8.8.9/32"));
}

#[test]
fn an_ethernet_tunnel_has_a_network_that_nobody_else_has() {
    let mut tap = request(&[]);
    tap.mode = Mode::Ethernet;
    let with = |local, agent, prefix| with_addresses(&[pair(local, agent, prefix)]);
    assert!(decided(&tap, &with("10.99.0.2", "10.99.0.1", 24)).is_ok());
    for (local, agent, prefix, part) in [
        ("10.99.0.2", "10.98.0.1", 24, "an invalid tunnel"),
        ("10.99.0.0", "10.99.0.1", 24, "an invalid tunnel"),
        ("10.99.0.2", "10.99.0.255", 24, "an invalid tunnel"),
        ("10.99.0.2", "10.99.0.1", 1, "not private"),
        ("192.168.2.2", "192.168.2.1", 16, "192.168.1.7/32 is in use"),
        ("172.20.0.2", "172.20.0.1", 12, "a route to 172.20.0.0/16"),
        ("10.3.7.7", "10.3.0.1", 16, "cut off the SSH connection"),
    ] {
        let text = refused(&tap, &with(local, agent, prefix));
        assert!(text.contains(part), "{text}");
    }
    // A bridge of the server may have a DHCP server.
    let plan = decided(&tap, &with_addresses(&[])).unwrap();
    assert!(plan.addresses.is_empty());
    assert!(lines(&plan)[0].contains("DHCP"));
}

#[test]
fn the_mtu_is_what_was_asked_for_at_most_and_of_use() {
    let offered = |wanted: Option<u32>, bytes: u32, mode: Mode| {
        let mut asked = request(&[]);
        (asked.mtu, asked.mode) = (wanted.map(mtu), mode);
        let offer = Offer {
            mtu: mtu(bytes),
            addresses: vec![pair("10.99.0.2", "10.99.0.1", 24)],
            ..with_routes(&[])
        };
        decided(&asked, &offer).map(|plan| plan.mtu.get())
    };
    let tun = Mode::PointToPoint;
    assert_eq!(offered(None, 16380, tun).unwrap(), 16380);
    assert_eq!(offered(Some(1400), 1300, tun).unwrap(), 1300);
    assert_eq!(offered(Some(68), 68, tun).unwrap(), 68);
    for (wanted, bytes, mode, part) in [
        (Some(1400), 1500, tun, "above the limit of 1400"),
        (None, 68, tun, "unusually small"),
        (Some(1400), 575, tun, "unusually small"),
        (None, 16380, Mode::Ethernet, "16380"),
    ] {
        let text = offered(wanted, bytes, mode).unwrap_err().to_string();
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn without_ipv6_here_only_ipv4_is_taken() {
    let decided = |offer: &Offer| {
        decide(&OfferInput {
            host: "b",
            request: &request(&[]),
            local: &here(),
            local_ipv6: false,
            first_hop: &[],
            offer,
        })
    };
    let plan = decided(&offer()).unwrap();
    assert_eq!(plan.addresses.len(), 1);
    assert!(lines(&plan)[0].contains("IPv6 is disabled on this host"));
    let only6 = with_addresses(&[pair("fd99::2", "fd99::1", 64)]);
    assert!(
        decided(&only6)
            .err()
            .unwrap()
            .to_string()
            .contains("only IPv6")
    );
    let small = Offer {
        mtu: mtu(1200),
        ..offer()
    };
    let plan = super::decide(&OfferInput {
        host: "b",
        request: &request(&[]),
        local: &here(),
        local_ipv6: true,
        first_hop: &[],
        offer: &small,
    });
    assert_eq!(plan.unwrap().addresses.len(), 1);
}

#[test]
fn name_servers_are_taken_where_allowed_and_checked_in_any_case() {
    let mut accepting = allowing(false, &["10.20.0.0/16"]);
    accepting.acceptance.name_servers = true;
    let plan = decided(
        &accepting,
        &with_dns(&["10.20.0.53", "10.99.0.1", "9.9.9.9"], &["Corp.Example"]),
    )
    .unwrap();
    let taken = plan.pushed.name_servers.as_ref().unwrap();
    assert_eq!(taken.servers.len(), 3);
    assert_eq!(taken.domains[0].as_str(), "corp.example");
    let warnings: Vec<String> = lines(&plan)
        .into_iter()
        .filter(|it| it.contains("name server"))
        .collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].contains("leads to the name server 9.9.9.9"),
        "{warnings:?}"
    );
    let plan = decided(&accepting, &with_dns(&[], &["corp.example"])).unwrap();
    assert_eq!(plan.pushed.name_servers, None);
    for request in [accepting, request(&[])] {
        for (offer, part) in [
            (with_dns(&["127.0.0.1"], &[]), "name server 127.0.0.1"),
            (with_dns(&["fe80::1"], &[]), "name server fe80::1"),
            (with_dns(&["224.0.0.251"], &[]), "name server 224.0.0.251"),
            (with_dns(&["10.0.0.1"; 9], &[]), "9 name servers"),
            (with_dns(&["10.0.0.1"], &["a"; 33]), "33 search domains"),
            (
                with_dns(&["10.0.0.1"], &["x\nnameserver 6.6.6.6"]),
                "search domain",
            ),
            (with_dns(&["10.0.0.1"], &["--help"]), "search domain"),
            (with_dns(&["10.0.0.1"], &["\u{1b}[2J"]), "search domain"),
        ] {
            let text = refused(&request, &offer);
            assert!(text.contains(part), "{text}");
            assert!(!text.contains(['\n', '\u{1b}']), "{text:?}");
        }
    }
}
