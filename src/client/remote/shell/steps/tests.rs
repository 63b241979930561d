//! Tests of the steps' commands, without running them.

use super::*;
use crate::client::remote::shell::facts;

fn host(more: &str) -> RemoteFacts {
    let text = format!("system Linux\nuid 0\nip yes\ntun yes\n{more}\nend\n");
    facts::parse("b", &text, "").unwrap()
}

fn plan(forwarding: Option<Forwarding>) -> Plan {
    let pair = |local: &str, remote: &str, prefix| AddressPair {
        local: local.parse().unwrap(),
        remote: remote.parse().unwrap(),
        prefix,
    };
    Plan {
        unit: Unit::new(3).unwrap(),
        mode: Mode::PointToPoint,
        preexisting: false,
        addresses: vec![
            pair("10.9.0.2", "10.9.0.1", 30),
            pair("fd00::2", "fd00::1", 64),
        ],
        mtu: Mtu::ETHERNET,
        forwarding,
    }
}

fn commands(steps: &[Step]) -> String {
    steps
        .iter()
        .map(|step| format!("{}\n", step.command))
        .collect()
}

#[test]
fn two_hosts_alone_change_the_device_and_hold_connections_off() {
    let facts = host("nft yes");
    let first = protect(&plan(None), &facts);
    let steps = [vec![first], bring_up(&plan(None), &facts)].concat();
    let text = commands(&steps);
    assert!(
        text.contains("ip -4 addr add 10.9.0.1 peer 10.9.0.2 dev tun3\n"),
        "{text}"
    );
    assert!(
        text.contains("ip -6 addr add fd00::1 peer fd00::2 dev tun3 nodad 2>/dev/null || ip -6 addr add fd00::1 peer fd00::2 dev tun3\n"),
        "{text}"
    );
    assert!(
        !text.contains("masquerade") && !text.contains("hold"),
        "{text}"
    );
    // sshd made the device, and it disappears when sshd closes it.
    assert!(steps[0].undo.is_empty(), "{steps:?}");
    let mtu = text
        .find("ip link set dev tun3 mtu 1500 && each put ")
        .unwrap();
    let accept_ra = text.find("'net/ipv6/conf/tun3/accept_ra' '0'").unwrap();
    let up = text.find("ip link set dev tun3 up").unwrap();
    assert!(mtu < accept_ra && accept_ra < up, "{text}");
    assert!(!text.contains("disable_ipv6"), "{text}");
    assert!(
        text.contains("ct state established,related accept; oifname \"tun3\" drop; "),
        "{text}"
    );
    // Before any packet can pass; a failure does not stop the tunnel.
    let nft = text.lines().nth(1).unwrap();
    assert!(nft.contains("; } || echo"), "{nft}");
    let text = commands(&bring_up(&plan(None), &host("iptables yes")));
    let first = text.lines().next().unwrap();
    let chain = "iptables -w -t mangle -N sshvpnin-tun3 && ";
    assert!(first.starts_with(&format!("{{ {chain}")), "{first}");
}

#[test]
fn a_device_has_ipv6_where_it_was_agreed_on_or_there_before() {
    let mut plan = plan(None);
    plan.addresses.truncate(1);
    let off = "'net/ipv6/conf/tun3/disable_ipv6' '1'";
    let own = "device tun3 0x1801 0 1500 0x1002";
    assert!(protect(&plan, &host("")).command.contains(off));
    plan.preexisting = true;
    assert!(protect(&plan, &host(own)).command.contains(off));
    let with_address = host(&format!("{own}\naddress tun3 fd00::5/64"));
    assert!(!protect(&plan, &with_address).command.contains(off));
    // The kernel makes link-local addresses by itself.
    let link_local = host(&format!("{own}\naddress tun3 fe80::1/64"));
    assert_eq!(link_local.addresses.len(), 1);
    assert!(protect(&plan, &link_local).command.contains(off));
}

/// An interface that uses router advertisements keeps accepting them; the tunnel's device
/// accepts none.
#[test]
fn no_advertisements_are_taken_by_the_tunnel() {
    let forwarding = Forwarding {
        nat: false,
        inbound: Vec::new(),
        ways4: BTreeSet::new(),
        ipv6: true,
    };
    let facts = host("nft yes\nadvertised eth0\nadvertised tun3");
    let text = commands(&bring_up(&plan(Some(forwarding)), &facts));
    assert!(text.contains("'net/ipv6/conf/eth0/accept_ra' 2"), "{text}");
    assert!(!text.contains("tun3/accept_ra"), "{text}");
}

#[test]
fn hosts_that_were_asked_for_may_open_connections() {
    let forwarding = Forwarding {
        nat: true,
        inbound: vec![
            "10.20.0.0/16".parse().unwrap(),
            "fd20::/16".parse().unwrap(),
        ],
        ways4: BTreeSet::from(["eth1".parse().unwrap()]),
        ipv6: true,
    };
    let by = |facts: &str| commands(&bring_up(&plan(Some(forwarding.clone())), &host(facts)));
    let text = by("nft yes\nforward_drop 4");
    for rule in [
        "oifname \"tun3\" iifgroup 0x73760000-0x7377ffff drop; ",
        "oifname \"tun3\" ip saddr { 10.20.0.0/16 } accept; ",
        "oifname \"tun3\" ip6 saddr { fd20::/16 } accept; oifname \"tun3\" drop; ",
    ] {
        assert!(text.contains(rule), "{rule}: {text}");
    }
    assert!(
        text.contains("-I FORWARD -s 10.20.0.0/16 -o tun3 -j ACCEPT"),
        "{text}"
    );
    let text = by("ipv6 yes\niptables yes\nip6tables yes");
    assert!(
        text.contains("iptables -w -t mangle -A sshvpnin-tun3 -s 10.20.0.0/16 -j RETURN"),
        "{text}"
    );
    assert!(
        text.contains("ip6tables -w -t mangle -A sshvpnin-tun3 -s fd20::/16 -j RETURN"),
        "{text}"
    );
}

#[test]
fn a_subnet_gets_forwarding_and_nat_for_its_family_only() {
    let ways4 = BTreeSet::from(["eth1".parse().unwrap()]);
    let forwarding = Forwarding {
        nat: true,
        inbound: Vec::new(),
        ways4,
        ipv6: false,
    };
    let text = commands(&bring_up(
        &plan(Some(forwarding.clone())),
        &host("nft yes\nforward_drop 4"),
    ));
    assert!(
        text.contains("hold 'net/ipv4/conf/eth1/forwarding' 1"),
        "{text}"
    );
    assert!(
        text.contains("ip saddr 10.9.0.2 oifname != \"tun3\" masquerade"),
        "{text}"
    );
    assert!(
        !text.contains("ip6 saddr fd") && !text.contains("net/ipv6"),
        "{text}"
    );
    assert!(
        text.contains("iptables -w -t filter -I FORWARD -i tun3 -j ACCEPT"),
        "{text}"
    );
    let text = commands(&bring_up(&plan(Some(forwarding)), &host("iptables yes")));
    assert!(
        text.contains("iptables -w -t nat -A POSTROUTING -s 10.9.0.2 ! -o tun3"),
        "{text}"
    );
    assert!(
        !text.contains("ip6tables") && !text.contains("nft"),
        "{text}"
    );
}

#[test]
fn no_nat_keeps_the_clamp() {
    let forwarding = Forwarding {
        nat: false,
        inbound: Vec::new(),
        ways4: BTreeSet::new(),
        ipv6: true,
    };
    let facts = host("nft yes\nadvertised eth0");
    let text = commands(&bring_up(&plan(Some(forwarding)), &facts));
    assert!(
        !text.contains("masquerade") && text.contains("maxseg"),
        "{text}"
    );
    let accept_ra = text.find("net/ipv6/conf/eth0/accept_ra' 2").unwrap();
    assert!(
        accept_ra < text.find("net/ipv6/conf/all/forwarding' 1").unwrap(),
        "{text}"
    );
}

#[test]
fn names_from_the_remote_end_cannot_become_commands() {
    let ways4 = BTreeSet::from(["$(id)';x".parse().unwrap()]);
    let forwarding = Forwarding {
        nat: true,
        inbound: Vec::new(),
        ways4,
        ipv6: false,
    };
    let text = commands(&bring_up(&plan(Some(forwarding)), &host("nft yes")));
    assert!(
        text.contains(r"hold 'net/ipv4/conf/$(id)'\'';x/forwarding' 1"),
        "{text}"
    );
    assert!(
        make_device(Unit::default(), Mode::Ethernet, "a b")
            .command
            .ends_with("user 'a b'")
    );
}

#[test]
fn every_change_has_its_undo() {
    let ways4 = BTreeSet::from(["eth1".parse().unwrap()]);
    let forwarding = Forwarding {
        nat: true,
        inbound: Vec::new(),
        ways4,
        ipv6: true,
    };
    let mut plan = plan(Some(forwarding));
    plan.preexisting = true;
    let facts = host(
        "iptables yes\nip6tables yes\nforward_drop 4\nforward_drop 6\ndevice tun3 0x1801 0 1400 0x1002 5",
    );
    let first = protect(&plan, &facts);
    assert!(first.command.contains(" && each hold "), "{first:?}");
    // Undone in reverse: the settings, then the MTU, which may take them away.
    assert_eq!(first.undo[0], "ip link set dev tun3 mtu 1400");
    assert_eq!(
        first.undo.len(),
        first.command.matches("net/ipv").count() + 1
    );
    for step in bring_up(&plan, &facts) {
        assert!(!step.undo.is_empty(), "{step:?}");
    }
    let link = bring_up(&plan, &facts)
        .into_iter()
        .find(|s| s.what == "set tun3 up")
        .unwrap();
    assert_eq!(
        link.undo,
        ["ip link set dev tun3 group 5", "ip link set dev tun3 down"]
    );
}
