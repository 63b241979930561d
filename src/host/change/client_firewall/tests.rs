//! In a new network namespace each, with the real nft and iptables. The rules are tested between
//! hosts in netns-tests/tests/trust/unasked.rs.

use std::process::Command;

use super::*;
use crate::host::change::Change;
use crate::host::journal::recovery::Recovery;
use crate::host::test_host::Host;
use crate::host::test_namespace::{self, ip};

const EVERY_MEANS: [Means; 4] = [
    Means::Nft,
    Means::NftStateless,
    Means::Iptables(Family::V4),
    Means::Iptables(Family::V6),
];

fn run(line: &str) -> String {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().unwrap());
    let output = command.args(words).output().expect("it is installed");
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn networks(list: &[&str]) -> Vec<IpNetwork> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

/// Firewalls with no exceptions, with every kind, and with the widest.
fn firewalls() -> [ClientFirewall; 3] {
    let all = ClientFirewall {
        inbound: networks(&["10.9.0.2/32", "10.20.0.0/16", "fd09::2/128"]),
        forward: networks(&["172.17.0.0/16", "fd17::/64"]),
    };
    let widest = ClientFirewall {
        inbound: networks(&["0.0.0.0/0", "::/0"]),
        ..all.clone()
    };
    [ClientFirewall::default(), all, widest]
}

/// A host whose programs have made the tables that they make at first use, with other programs'
/// chains and rules whose names are like ours.
fn host() -> Host {
    let host = Host::with_tun();
    for program in ["iptables", "ip6tables"] {
        for chain in ["INPUT", "FORWARD"] {
            run(&format!("{program} -t mangle -N sshvpnin-sshvpn01-{chain}"));
            run(&format!(
                "{program} -t mangle -A {chain} -i sshvpn01 -m comment --comment sshvpn01 -j ACCEPT"
            ));
        }
    }
    host
}

fn listing() -> String {
    let mut text = run("nft list tables");
    for program in ["iptables", "ip6tables"] {
        text += &run(&format!("{program} -t mangle -S"));
    }
    text
}

#[test]
fn every_kind_of_rules_is_made_and_undone() {
    test_namespace::run(async {
        let host = host();
        let before = listing();
        for firewall in firewalls() {
            for means in EVERY_MEANS {
                let mut state = host.begin().await;
                let change = Change::ClientFirewall(firewall.clone(), means);
                state.apply(change).await.unwrap();
                assert_ne!(listing(), before, "{means:?}");
                let report = state.undo().await;
                assert!(report.is_clean() && report.gone.is_empty(), "{report:?}");
                assert_eq!(listing(), before, "{means:?}");
            }
        }
    });
}

#[test]
fn what_a_dead_client_left_is_removed_without_its_device() {
    test_namespace::run(async {
        let host = host();
        let before = listing();
        let mut state = host.begin().await;
        let [_, firewall, _] = firewalls();
        for means in EVERY_MEANS {
            if means != Means::NftStateless {
                let change = Change::ClientFirewall(firewall.clone(), means);
                state.apply(change).await.unwrap();
            }
        }
        drop(state);
        ip("link del sshvpn0");
        let Recovery::Undone(report) = &host.recover().await[0].outcome else {
            panic!("it was ours");
        };
        assert!(report.is_clean(), "{report:?}");
        assert_eq!((report.undone.len(), listing()), (3, before));
    });
}

#[test]
fn a_network_behind_is_opened_by_inbound_alone() {
    let [_, both, _] = firewalls();
    let forward = ClientFirewall {
        inbound: Vec::new(),
        ..both.clone()
    };
    let onward = |firewall: &ClientFirewall| {
        let text = firewall.table("sshvpn0", false).unwrap();
        let rules = text.lines().filter(|line| {
            line.contains("forward iifname")
                && line.ends_with("accept")
                && !line.contains("ct state")
        });
        rules.map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(onward(&forward).is_empty());
    // No rule combines both families, which nft would refuse.
    assert_eq!(onward(&both).len(), 2);
}

#[test]
fn a_name_that_rules_cannot_hold_is_refused() {
    let firewall = ClientFirewall::default();
    assert!(firewall.table("a\"b", false).is_err());
    assert!(firewall.rules("a b", Family::V4).is_err());
}
