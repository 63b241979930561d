//! Which requests are refused, and the changes for the others.

use super::*;
use crate::host::forward_path::{NftFamily, Ruleset, Rulesets};
use crate::host::plan::facts::{
    HostFacts, InterfaceIndex, LinkFacts, NextHop, RouteFacts, RouteKind, TABLE_MAIN,
};

fn networks(list: &[&str]) -> Vec<IpNetwork> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

fn pair(client: &str, agent: &str, prefix: u8) -> Addresses {
    Addresses {
        client: client.parse().unwrap(),
        agent: agent.parse().unwrap(),
        prefix,
    }
}

fn wish(forward: &[&str], nat: bool) -> SetUp {
    SetUp {
        mode: Mode::PointToPoint,
        mtu: Mtu::ETHERNET,
        device: None,
        addresses: vec![
            pair("10.1.0.0", "10.1.0.1", 31),
            pair("fd01::", "fd01::1", 127),
        ],
        forward: (!forward.is_empty()).then(|| Forward {
            networks: networks(forward),
            nat,
            inbound: false,
        }),
    }
}

fn route(destination: &str, device: u32, protocol: u8) -> RouteFacts {
    RouteFacts {
        destination: destination.parse().unwrap(),
        table: TABLE_MAIN,
        kind: RouteKind::Unicast,
        protocol,
        metric: 0,
        source: None,
        hops: vec![NextHop {
            device: Some(InterfaceIndex(device)),
            gateway: None,
        }],
    }
}

/// A host with eth1 and eth2; its IPv6 default route is an advertised one.
fn around() -> Surroundings {
    let link = |index, name: &str| LinkFacts {
        index: InterfaceIndex(index),
        name: name.to_owned(),
        kind: None,
        mtu: 1500,
        up: true,
        loopback: false,
        tx_queue_length: 1000,
        gso_max_size: None,
        address_generation: None,
        master: None,
        group: 0,
    };
    Surroundings {
        facts: HostFacts {
            links: vec![link(1, "eth1"), link(2, "eth2")],
            routes: vec![
                route("0.0.0.0/0", 1, 3),
                route("10.20.0.0/16", 2, 3),
                route("::/0", 1, 9),
            ]
            .into(),
            ..HostFacts::default()
        },
        takes_advertisements: ["eth1".parse().unwrap()].into(),
        nft: true,
        iptables: Vec::new(),
        ipv6: true,
        rulesets: Rulesets::default(),
    }
}

/// FORWARD chains that drop, of both families.
fn dropping(of: [Ruleset; 2]) -> Rulesets {
    let mut rulesets = Rulesets::default();
    for ruleset in of {
        rulesets.add_iptables(ruleset, "filter", "-P FORWARD DROP\n");
    }
    rulesets
}

const NFT: [Ruleset; 2] = [Ruleset::Nft(NftFamily::Ip), Ruleset::Nft(NftFamily::Ip6)];
const LEGACY: [Ruleset; 2] = [Ruleset::Legacy(Family::V4), Ruleset::Legacy(Family::V6)];

/// The firewall table for a request.
fn table(wish: &SetUp, around: &Surroundings) -> FirewallTable {
    let onward = super::onward(wish, around);
    let obstacles = obstacles(wish, &"sshvpn0".parse().unwrap(), &onward, around);
    let changes = firewall(wish, &onward, &obstacles, around, &Limits::default()).unwrap();
    match changes.as_slice() {
        [Change::FirewallTable(table)] => table.clone(),
        other => panic!("{other:?}"),
    }
}

fn lines(wish: &SetUp, around: &Surroundings, limits: &Limits) -> Vec<String> {
    check(wish, limits).unwrap();
    let changes = changes(wish, &"sshvpn0".parse().unwrap(), around, limits).unwrap();
    changes.iter().map(described).collect()
}

const LINK: [&str; 10] = [
    "no IPv6 address of the kernel's own",
    "transmit queue of 500 packets",
    "super-packets of at most 64000 bytes",
    "MTU 1500",
    "no router advertisements, redirects or source routes",
    "group of tunnels",
    "firewall table",
    "link up",
    "address 10.1.0.1 peer 10.1.0.0",
    "address fd01::1 peer fd01::",
];

#[test]
fn without_routes_there_is_the_link_alone() {
    let done = lines(&wish(&[], true), &around(), &Limits::default());
    assert_eq!(done, LINK);
    // Networks without a route need no forwarding.
    let nowhere = Surroundings {
        nft: true,
        ..Surroundings::default()
    };
    let done = lines(&wish(&["10.20.0.0/16"], true), &nowhere, &Limits::default());
    assert_eq!(done, LINK);
}

#[test]
fn a_route_opens_the_way_there_and_back() {
    let done = lines(
        &wish(&["10.20.0.0/16"], true),
        &around(),
        &Limits::default(),
    );
    assert_eq!(done[6], "firewall table with NAT");
    assert_eq!(
        done[10..],
        [
            "net/ipv4/conf/sshvpn0/forwarding = 1",
            "net/ipv4/conf/eth2/forwarding = 1"
        ]
    );
    let done = lines(&wish(&["fd20::/16"], false), &around(), &Limits::default());
    assert_eq!(done[6], "firewall table");
    // accept_ra first: the kernel drops advertised routes when it begins to forward.
    assert_eq!(
        done[10..],
        [
            "net/ipv6/conf/eth1/accept_ra = 2",
            "net/ipv6/conf/all/forwarding = 1"
        ]
    );
}

/// The agent's device is named sshvpn0 here, and existed before.
#[test]
fn no_advertisements_are_taken_by_the_tunnel() {
    let mut around = around();
    around.facts.links.push(LinkFacts {
        index: InterfaceIndex(3),
        name: "sshvpn0".to_owned(),
        ..around.facts.links[0].clone()
    });
    std::sync::Arc::make_mut(&mut around.facts.routes).push(route("2000::/3", 3, 9));
    around
        .takes_advertisements
        .insert("sshvpn0".parse().unwrap());
    let done = lines(&wish(&["fd20::/16"], false), &around, &Limits::default());
    assert!(!done.iter().any(|line| line.contains("sshvpn0/accept_ra")));
    assert!(done.iter().any(|line| line.contains("eth1/accept_ra = 2")));
}

/// Before the link is up, and after the MTU, which may remove IPv6.
#[test]
fn the_local_end_cannot_configure_this_host() {
    let changes = |wish: &SetUp| {
        let device = "sshvpn0".parse().unwrap();
        changes(wish, &device, &around(), &Limits::default()).unwrap()
    };
    let both = wish(&[], false);
    let mut ipv4_alone = both.clone();
    ipv4_alone.addresses.truncate(1);
    for (wish, ipv6) in [(both, Ipv6::On), (ipv4_alone, Ipv6::Off)] {
        let changes = changes(&wish);
        let at = |wanted: Change| changes.iter().position(|change| *change == wanted).unwrap();
        let protected = at(Change::Protection(ipv6));
        assert!(at(Change::Mtu(wish.mtu)) < protected && protected < at(Change::LinkUp));
    }
}

#[test]
fn advertisements_that_a_program_takes_are_its_own_business() {
    let around = Surroundings {
        takes_advertisements: BTreeSet::new(),
        ..around()
    };
    let done = lines(&wish(&["fd20::/16"], false), &around, &Limits::default());
    assert_eq!(done[10..], ["net/ipv6/conf/all/forwarding = 1"]);
}

#[test]
fn nat_is_for_the_families_that_go_on() {
    let table = |forward: &[&str], nat| table(&wish(forward, nat), &around());
    let nat = table(&["10.20.0.0/16"], true);
    assert_eq!(nat.masquerade, ["10.1.0.0".parse::<IpAddr>().unwrap()]);
    let nat = table(&["10.20.0.0/16", "fd20::/16"], true);
    assert_eq!(nat.masquerade.len(), 2);
    assert!(table(&["10.20.0.0/16"], false).masquerade.is_empty());
    assert_eq!(table(&[], true), FirewallTable::default());
}

#[test]
fn connections_to_the_local_end_are_held_off_unless_it_asks() {
    let networks = networks(&["10.20.0.0/16", "fd20::/16"]);
    for (nat, inbound, open) in [
        (true, false, false),
        (true, true, true),
        // The networks are named, and have a route back.
        (false, false, true),
    ] {
        let forward = Forward {
            networks: networks.clone(),
            nat,
            inbound,
        };
        let wish = SetUp {
            forward: Some(forward),
            ..wish(&[], nat)
        };
        let table = table(&wish, &around());
        assert_eq!(table.inbound == networks, open, "{nat} {inbound}");
        assert!(!table.tunnels);
    }
    // A client of an earlier version does not send this.
    let earlier = r#"{"networks":["10.20.0.0/16"],"nat":true}"#;
    let forward: Forward = serde_json::from_str(earlier).unwrap();
    assert!(forward.inbound().is_empty());
}

#[test]
fn rules_that_only_hold_connections_off_are_made_where_they_can_be() {
    let needed = |wish: &SetUp, around: &Surroundings, limits: &Limits| {
        let changes = changes(wish, &"sshvpn0".parse().unwrap(), around, limits).unwrap();
        let mut changes = changes
            .iter()
            .filter(|change| matches!(change, Change::FirewallTable(_) | Change::FirewallRules(_)));
        changes.all(is_needed)
    };
    let by_iptables = Surroundings {
        nft: false,
        iptables: vec![Family::V4],
        ..around()
    };
    for around in [around(), by_iptables] {
        let limits = Limits::default();
        assert!(!needed(&wish(&[], true), &around, &limits));
        assert!(!needed(&wish(&["10.20.0.0/16"], false), &around, &limits));
        assert!(needed(&wish(&["10.20.0.0/16"], true), &around, &limits));
    }
    let limited = Limits {
        routes: Some(Vec::new()),
        ..Limits::default()
    };
    assert!(needed(&wish(&[], false), &around(), &limited));
}

#[test]
fn a_chain_that_drops_gets_rules_for_what_goes_on() {
    let around = |of| Surroundings {
        rulesets: dropping(of),
        ..around()
    };
    let legacy = around(LEGACY);
    let done = lines(&wish(&["10.20.0.0/16"], true), &legacy, &Limits::default());
    assert_eq!(
        done.last().unwrap(),
        "rules in iptables-legacy's forward chain"
    );
    assert!(!table(&wish(&["10.20.0.0/16"], true), &legacy).mark_replies);
    let around = around(NFT);
    let done = lines(&wish(&["10.20.0.0/16"], true), &around, &Limits::default());
    assert_eq!(done.last().unwrap(), "rules in the IPv4 forward chain");
    assert!(!done.iter().any(|line| line.contains("IPv6 forward chain")));
    let wish = wish(&["10.20.0.0/16"], true);
    assert!(table(&wish, &around).mark_replies);
}

#[test]
fn without_nft_and_iptables_only_what_needs_them_fails() {
    let around = Surroundings {
        nft: false,
        ..around()
    };
    let result = |nat, limits: &Limits| {
        let wish = wish(&["10.20.0.0/16"], nat);
        changes(&wish, &"sshvpn0".parse().unwrap(), &around, limits)
    };
    let error = result(true, &Limits::default()).unwrap_err().to_string();
    assert!(
        error.contains("install nftables there") && error.contains("--no-nat"),
        "{error}"
    );
    assert!(result(false, &Limits::default()).is_ok());
    let limited = Limits {
        routes: Some(networks(&["10.0.0.0/8"])),
        ..Limits::default()
    };
    let error = result(false, &limited).unwrap_err();
    assert!(matches!(error, AgentError::NoFirewall { .. }), "{error}");
}

#[test]
fn without_nft_it_is_done_by_iptables() {
    let around = |iptables: &[Family]| Surroundings {
        nft: false,
        iptables: iptables.to_vec(),
        rulesets: dropping(NFT),
        ..around()
    };
    let both = around(&[Family::V4, Family::V6]);
    let limits = Limits::default();
    let done = lines(&wish(&["10.20.0.0/16"], true), &both, &limits);
    assert_eq!(
        done[6..9],
        [
            "rules by iptables with NAT",
            "rules by ip6tables",
            "link up"
        ]
    );
    assert!(!done.iter().any(|line| line.contains("forward chain")));
    let done = lines(&wish(&["10.20.0.0/16", "fd20::/16"], false), &both, &limits);
    assert_eq!(done[6..8], ["rules by iptables", "rules by ip6tables"]);
    // A limit applies to both families, whatever was requested.
    let limited = Limits {
        routes: Some(networks(&["10.0.0.0/8"])),
        ..Limits::default()
    };
    let changes = |around: &Surroundings| {
        let wish = wish(&["10.20.0.0/16"], true);
        changes(&wish, &"sshvpn0".parse().unwrap(), around, &limited)
    };
    let rules: Vec<FirewallRules> = changes(&both)
        .unwrap()
        .into_iter()
        .filter_map(|change| match change {
            Change::FirewallRules(rules) => Some(rules),
            _ => None,
        })
        .collect();
    let [four, six] = rules.as_slice() else {
        panic!("{rules:?}");
    };
    assert!(four.accept && four.limit == limited.routes && four.masquerade.len() == 1);
    assert!(!six.accept && six.limit == limited.routes && six.masquerade.is_empty());
    let error = changes(&around(&[Family::V4])).unwrap_err().to_string();
    assert!(error.contains("'ip6tables'"), "{error}");
    let without_ipv6 = Surroundings {
        ipv6: false,
        ..around(&[Family::V4])
    };
    assert!(changes(&without_ipv6).is_ok());
}

#[test]
fn a_limited_agent_holds_to_its_list_before_the_link_is_up() {
    let limits = Limits {
        routes: Some(networks(&["10.20.0.0/16"])),
        ..Limits::default()
    };
    for forward in [&["10.20.7.0/24"][..], &[]] {
        let wish = wish(forward, false);
        check(&wish, &limits).unwrap();
        let changes = changes(&wish, &"sshvpn0".parse().unwrap(), &around(), &limits).unwrap();
        let table = changes.iter().position(
            |change| matches!(change, Change::FirewallTable(table) if table.limit == limits.routes),
        );
        let up = changes.iter().position(|change| *change == Change::LinkUp);
        assert!(table.is_some() && table < up, "{changes:?}");
    }
}

#[test]
fn what_is_not_allowed_is_refused() {
    let limits = Limits {
        routes: Some(networks(&["10.20.0.0/16"])),
        sources: None,
        addresses: Some(networks(&["10.1.0.0/24", "fd01::/64"])),
        no_nat: true,
        device_prefix: Some("vpn".parse().unwrap()),
        max_mtu: Some(Mtu::ETHERNET),
        tunnels: false,
    };
    let refused = |wish: SetUp| {
        let error = check(&wish, &limits).unwrap_err();
        assert_eq!(
            error.reason(),
            crate::frame::control::CloseReason::NotPermitted
        );
        error
    };
    check(&wish(&["10.20.1.0/24"], false), &limits).unwrap();
    let error = refused(wish(&["10.0.0.0/8"], false));
    assert!(
        error
            .to_string()
            .contains("does not permit forwarding to 10.0.0.0/8"),
        "{error}"
    );
    assert!(matches!(
        refused(wish(&["10.20.0.0/16"], true)),
        AgentError::Nat
    ));
    for addresses in [
        pair("10.1.0.1", "10.2.0.1", 31),
        pair("10.2.0.1", "10.1.0.1", 31),
    ] {
        let wish = SetUp {
            addresses: vec![addresses],
            ..wish(&[], false)
        };
        assert!(matches!(refused(wish), AgentError::Address(_)));
    }
    let named = SetUp {
        device: Some("tun0".parse().unwrap()),
        ..wish(&[], false)
    };
    assert!(matches!(refused(named), AgentError::Device(_)));
    let large = SetUp {
        mtu: Mtu::MAX_POINT_TO_POINT,
        ..wish(&[], false)
    };
    assert!(matches!(refused(large), AgentError::Mtu { .. }));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let small = Mtu::new(1000, Mode::PointToPoint).unwrap();
    let with = |addresses: Vec<Addresses>| SetUp {
        addresses,
        ..wish(&[], false)
    };
    let ethernet = |addresses: Addresses| SetUp {
        mode: Mode::Ethernet,
        ..with(vec![addresses])
    };
    for wrong in [
        with(vec![]),
        with(vec![pair("10.1.0.0", "fd00::1", 31)]),
        with(vec![pair("10.1.0.1", "10.1.0.1", 31)]),
        with(vec![pair("0.0.0.0", "10.1.0.1", 31)]),
        with(vec![pair("10.1.0.0", "127.0.0.1", 31)]),
        with(vec![pair("224.0.0.1", "10.1.0.1", 31)]),
        with(vec![pair("fd00::1", "ff02::1", 64)]),
        with(vec![pair("255.255.255.255", "10.1.0.1", 31)]),
        with(vec![
            pair("10.1.0.0", "10.1.0.1", 31),
            pair("10.2.0.0", "10.2.0.1", 31),
        ]),
        ethernet(pair("10.1.0.1", "10.1.0.2", 33)),
        ethernet(pair("10.1.0.1", "10.2.0.2", 24)),
        SetUp {
            mode: Mode::Ethernet,
            mtu: Mtu::MAX_POINT_TO_POINT,
            ..with(vec![pair("10.1.0.1", "10.1.0.2", 24)])
        },
        SetUp {
            mtu: small,
            ..wish(&[], false)
        },
        SetUp {
            forward: Some(Forward {
                networks: vec!["10.0.0.0/8".parse().unwrap(); MOST_NETWORKS + 1],
                nat: false,
                inbound: false,
            }),
            ..wish(&[], false)
        },
    ] {
        let error = check(&wrong, &Limits::default()).unwrap_err();
        assert!(
            matches!(error, AgentError::Nonsense(_)),
            "{error}: {wrong:?}"
        );
    }
    check(
        &ethernet(pair("10.1.0.1", "10.1.0.2", 24)),
        &Limits::default(),
    )
    .unwrap();
}
