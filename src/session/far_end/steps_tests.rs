//! Tests of the steps: what would be run, without running it.

use super::super::facts;
use super::*;

fn host(more: &str) -> Facts {
    let text = format!("system Linux\nuid 0\nip yes\ntun yes\n{more}\nend\n");
    facts::parse("b", &text, "").unwrap()
}

fn plan(forwarding: Option<Forwarding>) -> Plan {
    let pair = |near: &str, far: &str, prefix| AddressPair {
        near: near.parse().unwrap(),
        far: far.parse().unwrap(),
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
fn two_hosts_alone_change_nothing_but_the_device() {
    let text = commands(&bring_up(&plan(None), &host("nft yes")));
    assert!(
        text.contains("ip -4 addr add 10.9.0.1 peer 10.9.0.2 dev tun3\n"),
        "{text}"
    );
    assert!(
        text.contains("ip -6 addr add fd00::1 peer fd00::2 dev tun3 nodad\n"),
        "{text}"
    );
    assert!(text.contains("mtu 1500 up") && !text.contains("nft") && !text.contains("hold"));
}

#[test]
fn a_subnet_gets_forwarding_and_nat_for_its_family_only() {
    let ways4 = BTreeSet::from(["eth1".parse().unwrap()]);
    let forwarding = Forwarding {
        nat: true,
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
        !text.contains("ip6 saddr") && !text.contains("net/ipv6"),
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
fn names_from_the_far_end_cannot_become_commands() {
    let ways4 = BTreeSet::from(["$(id)';x".parse().unwrap()]);
    let forwarding = Forwarding {
        nat: true,
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
        ways4,
        ipv6: true,
    };
    let mut plan = plan(Some(forwarding));
    plan.preexisting = true;
    let facts = host(
        "iptables yes\nip6tables yes\nforward_drop 4\nforward_drop 6\ndevice tun3 0x1801 0 1400 0x1002",
    );
    for step in bring_up(&plan, &facts) {
        assert!(!step.undo.is_empty(), "{step:?}");
    }
    let link = bring_up(&plan, &facts)
        .into_iter()
        .find(|s| s.what == "set tun3 up")
        .unwrap();
    assert_eq!(link.undo, ["ip link set dev tun3 mtu 1400 down"]);
}
