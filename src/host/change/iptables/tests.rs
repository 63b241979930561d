//! In a new network namespace each, with the real iptables. The packets that the rules accept are
//! tested beside nft's, in the tests of `firewall`.

use std::process::Command;

use super::*;
use crate::host::change::Change;
use crate::host::journal::recovery::Recovery;
use crate::host::test_host::Host;
use crate::host::test_namespace::{self, ip};

fn run(line: &str) -> String {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().unwrap());
    let output = command.args(words).output().expect("it is installed");
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn rules(family: Family) -> FirewallRules {
    let client = match family {
        Family::V4 => "10.77.0.0",
        Family::V6 => "fd77::",
    };
    FirewallRules {
        family,
        inbound: vec!["10.20.0.0/16".parse().unwrap(), "::/0".parse().unwrap()],
        tunnels: false,
        masquerade: vec![client.parse().unwrap()],
        accept: true,
        limit: Some(vec![
            "10.0.0.0/8".parse().unwrap(),
            "192.168.7.1/32".parse().unwrap(),
            "::/0".parse().unwrap(),
        ]),
    }
}

fn everything() -> Vec<Change> {
    [Family::V4, Family::V6]
        .map(|family| Change::FirewallRules(rules(family)))
        .into()
}

/// All rules of both programs.
fn listing() -> String {
    let mut text = String::new();
    for program in ["iptables", "ip6tables"] {
        for table in TABLES {
            text += &run(&format!("{program} -t {table} -S"));
        }
    }
    text
}

/// A host whose forward chains drop, with rules that look like ours.
fn dropping() -> Host {
    let host = Host::with_tun();
    for program in ["iptables", "ip6tables"] {
        run(&format!("{program} -P FORWARD DROP"));
        for other in ["sshvpn", "sshvpn0", "sshvpn01"] {
            run(&format!(
                "{program} -A FORWARD -i sshvpn0 -m comment --comment {other} -j ACCEPT"
            ));
        }
        run(&format!("{program} -t mangle -N sshvpn-sshvpn01"));
    }
    host
}

#[test]
fn everything_is_made_and_undone() {
    test_namespace::run(async {
        let host = dropping();
        let before = listing();
        let mut state = host.begin().await;
        for change in everything() {
            state.apply(change).await.unwrap();
        }
        let now = listing();
        let named = "-m comment --comment \"sshvpn sshvpn0\"";
        for there in [
            format!("-A POSTROUTING -s 10.77.0.0/32 ! -o sshvpn0 {named} -j MASQUERADE"),
            format!("-A POSTROUTING -s fd77::/128 ! -o sshvpn0 {named} -j MASQUERADE"),
            format!("-A FORWARD -i sshvpn0 {named} -j ACCEPT"),
            format!("-A FORWARD -i sshvpn0 {named} -j sshvpn-sshvpn0"),
            "-A sshvpn-sshvpn0 -d 192.168.7.1/32 -j RETURN\n-A sshvpn-sshvpn0 -j DROP".to_owned(),
            "TCPMSS --clamp-mss-to-pmtu".to_owned(),
        ] {
            assert!(now.contains(&there), "{there} in {now}");
        }
        let report = state.undo().await;
        assert!(report.is_clean() && report.gone.is_empty(), "{report:?}");
        assert_eq!(listing(), before);
    });
}

#[test]
fn what_a_dead_tunnel_left_is_removed_without_its_device() {
    test_namespace::run(async {
        let host = dropping();
        let before = listing();
        let mut state = host.begin().await;
        for change in everything() {
            state.apply(change).await.unwrap();
        }
        drop(state);
        ip("link del sshvpn0");
        let Recovery::Undone(report) = &host.recover().await[0].outcome else {
            panic!("it was ours");
        };
        assert!(report.is_clean(), "{report:?}");
        let wanted = [
            "the ip6tables rules for sshvpn0",
            "the iptables rules for sshvpn0",
        ];
        assert_eq!(report.undone, wanted);
        assert_eq!(listing(), before);
    });
}

#[test]
fn what_is_gone_already_is_no_error() {
    test_namespace::run(async {
        let host = dropping();
        let mut state = host.begin().await;
        for change in everything() {
            state.apply(change).await.unwrap();
        }
        // A part of one family's rules, and all of the other's.
        run("iptables -F FORWARD");
        run("nft flush ruleset");
        run("iptables -t mangle -N sshvpn-sshvpn0");
        let report = state.undo().await;
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(report.undone, ["the iptables rules for sshvpn0"]);
        assert!(host.files().is_empty());
    });
}

#[test]
fn what_fails_half_way_is_undone() {
    test_namespace::run(async {
        let host = Host::with_tun();
        run("ip6tables -t mangle -L");
        let before = listing();
        let mut state = host.begin().await;
        let broken = FirewallRules {
            // Of the wrong family, in the second of the tables.
            masquerade: vec!["10.77.0.0".parse().unwrap()],
            ..rules(Family::V6)
        };
        let error = state.apply(Change::FirewallRules(broken)).await;
        let error = error.unwrap_err();
        assert!(!error.nothing_changed(), "{error}");
        assert!(
            error.to_string().contains("cannot add firewall rules"),
            "{error}"
        );
        let report = state.undo().await;
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(listing(), before);
    });
}

#[test]
fn a_table_has_what_belongs_there_alone() {
    let plain = FirewallRules {
        accept: false,
        limit: None,
        masquerade: Vec::new(),
        ..rules(Family::V4)
    };
    let text = plain.commands("tun1").unwrap();
    let chain = "*mangle\n-N sshvpnin-tun1\n-A sshvpnin-tun1 ";
    assert!(text.starts_with(chain), "{text}");
    assert!(text.contains("\n-I FORWARD -o tun1 "), "{text}");
    assert_eq!(text.matches('*').count(), 1, "{text}");
    let all = rules(Family::V6).commands("tun1").unwrap();
    assert!(all.contains("-d ::/0 -j RETURN"), "{all}");
    assert!(!all.contains("10.0.0.0"), "{all}");
    let (jump, clamp) = (all.find("-j sshvpn-tun1"), all.find("-j TCPMSS"));
    assert!(jump.is_some() && clamp.is_some(), "{all}");
}

#[test]
fn rules_are_those_of_our_comment_alone() {
    let listed = "-P FORWARD ACCEPT\n-N sshvpn-tun1\n-N sshvpn-tun10\n\
        -A FORWARD -i tun1 -m comment --comment \"sshvpn tun1\" -j ACCEPT\n\
        -A FORWARD -i tun1 -m comment --comment \"sshvpn tun10\" -j ACCEPT\n\
        -A FORWARD -i tun1 -m comment --comment \"x sshvpn tun1\" -j ACCEPT\n\
        -A sshvpn-tun1 -j DROP\n";
    let lines = removal(listed, "tun1").unwrap();
    assert_eq!(
        lines,
        "-D FORWARD -i tun1 -m comment --comment \"sshvpn tun1\" -j ACCEPT\n\
         -F sshvpn-tun1\n-X sshvpn-tun1\n"
    );
    assert_eq!(removal(listed, "tun2").unwrap(), "");
    for wrong in ["a\"b", "a+", "a;b", "a\nb", ""] {
        assert!(removal(listed, wrong).is_err(), "{wrong}");
        assert!(rules(Family::V4).commands(wrong).is_err(), "{wrong}");
    }
}
