//! In a fresh network namespace each, with the real nft and iptables.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::host::change::Change;
use crate::host::change::iptables::{self, FirewallRules};
use crate::host::change::sysctl::SysctlKey;
use crate::host::error::NetError;
use crate::host::journal::recovery::Recovery;
use crate::host::test_host::Host;
use crate::host::test_namespace::{self, ip};

/// Runs a command in this thread's namespace and returns its output.
fn run(line: &str) -> String {
    let mut words = line.split(' ');
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .expect("it is installed");
    assert!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn table() -> FirewallTable {
    FirewallTable {
        inbound: vec!["10.20.0.0/16".parse().unwrap(), "::/0".parse().unwrap()],
        tunnels: false,
        masquerade: vec!["10.77.0.0".parse().unwrap(), "fd77::1".parse().unwrap()],
        mark_replies: true,
        limit: Some(vec![
            "10.0.0.0/8".parse().unwrap(),
            "192.168.7.1/32".parse().unwrap(),
            "::/0".parse().unwrap(),
        ]),
    }
}

fn everything() -> Vec<Change> {
    vec![
        Change::FirewallTable(table()),
        Change::ForwardAccept(Family::V4),
        Change::ForwardAccept(Family::V6),
    ]
}

/// A host whose forward chains drop, with another program's rules.
fn dropping() -> Host {
    let host = Host::with_tun();
    for program in ["iptables", "ip6tables"] {
        run(&format!("{program} -P FORWARD DROP"));
        run(&format!(
            "{program} -A FORWARD -i eth7 -m comment --comment sshvpn -j ACCEPT"
        ));
    }
    host
}

#[test]
fn everything_is_made_and_undone() {
    test_namespace::run(async {
        let host = dropping();
        let before = run("nft list ruleset");
        let mut state = host.begin().await;
        for change in everything() {
            state.apply(change).await.unwrap();
        }
        let now = run("nft list ruleset");
        for there in [
            "table inet sshvpn_sshvpn0",
            "ip saddr 10.77.0.0 oifname != \"sshvpn0\" masquerade",
            "ip6 saddr fd77::1 oifname != \"sshvpn0\" masquerade",
            "iifname \"sshvpn0\" tcp flags syn tcp option maxseg size set rt mtu",
            "oifname \"sshvpn0\" tcp flags syn tcp option maxseg size set rt mtu",
        ] {
            assert!(now.contains(there), "{there} in {now}");
        }
        for program in ["iptables", "ip6tables"] {
            let rules = run(&format!("{program} -S FORWARD"));
            let rules: Vec<&str> = rules.lines().collect();
            assert!(rules[1].contains("-i sshvpn0"), "{rules:?}");
            assert!(rules[2].contains("-o sshvpn0"), "{rules:?}");
            assert!(rules[3].contains("-i eth7"), "{rules:?}");
        }
        let report = state.undo().await;
        assert!(report.is_clean() && report.gone.is_empty(), "{report:?}");
        assert_eq!(run("nft list ruleset"), before);
    });
}

#[test]
fn what_a_dead_tunnel_left_is_removed_without_its_device() {
    test_namespace::run(async {
        let host = dropping();
        let before = run("nft list ruleset");
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
        assert_eq!(report.undone.len(), 3);
        assert_eq!(run("nft list ruleset"), before);
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
        run("nft flush ruleset");
        let report = state.undo().await;
        assert!(report.is_clean() && report.undone.is_empty(), "{report:?}");
        assert!(host.files().is_empty());
    });
}

#[test]
fn a_table_of_somebody_elses_is_refused_and_stays() {
    test_namespace::run(async {
        let host = Host::with_tun();
        run("nft add table inet sshvpn_sshvpn0");
        let mut state = host.begin().await;
        let error = state
            .apply(Change::FirewallTable(table()))
            .await
            .unwrap_err();
        assert!(matches!(error, NetError::Nft(_)), "{error}");
        assert!(error.to_string().contains("File exists"), "{error}");
        // There is no chain to add rules to.
        let error = state
            .apply(Change::ForwardAccept(Family::V4))
            .await
            .unwrap_err();
        assert!(error.nothing_changed(), "{error}");
        assert!(state.undo().await.undone.is_empty());
        assert!(run("nft list tables").contains("sshvpn_sshvpn0"));
    });
}

#[test]
fn two_tunnels_have_rules_of_their_own() {
    test_namespace::run(async {
        let host = dropping();
        ip("tuntap add dev sshvpn mode tun");
        ip("tuntap add dev my-vpn.5 mode tun");
        let before = run("nft list ruleset");
        let mut states = Vec::new();
        for name in ["sshvpn", "sshvpn0", "my-vpn.5"] {
            let name = name.parse().unwrap();
            let mut state = crate::host::journal::state::HostState::begin(&host.directory, &name)
                .await
                .unwrap();
            for change in everything() {
                state.apply(change).await.unwrap();
            }
            states.push(state);
        }
        for state in states.drain(1..) {
            assert_eq!(state.undo().await.undone.len(), 3);
        }
        let rules = run("iptables -S FORWARD");
        assert_eq!(rules.matches("-i sshvpn ").count(), 1, "{rules}");
        for state in states {
            assert_eq!(state.undo().await.undone.len(), 3);
        }
        assert_eq!(run("nft list ruleset"), before);
    });
}

/// A named namespace behind an interface of this one; dropping it removes the namespace.
struct Neighbour(String);

impl Neighbour {
    fn new(interface: &str, network: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("sv-fw-{interface}-{}-{number}", std::process::id());
        ip(&format!("netns add {name}"));
        let neighbour = Neighbour(name);
        let Neighbour(name) = &neighbour;
        ip(&format!(
            "link add {interface} type veth peer name inside netns {name}"
        ));
        ip(&format!("addr add {network}.1/24 dev {interface}"));
        ip(&format!("link set {interface} up"));
        ip(&format!("-n {name} addr add {network}.2/24 dev inside"));
        ip(&format!("-n {name} link set inside up"));
        ip(&format!("-n {name} route add default via {network}.1"));
        neighbour
    }

    fn pings(&self, to: &str) -> bool {
        let ping = Command::new("ip")
            .args(["netns", "exec", &self.0, "ping", "-c1", "-W1", to])
            .output();
        ping.unwrap().status.success()
    }

    /// The line of its ICMP counters that contains the number of echo requests received.
    fn echo_requests(&self) -> String {
        let counters = run(&format!("ip netns exec {} cat /proc/net/snmp", self.0));
        let mut icmp = counters.lines().filter(|line| line.starts_with("IcmpMsg"));
        icmp.next_back().unwrap().to_owned()
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn forwards() {
    "net/ipv4/conf/all/forwarding"
        .parse::<SysctlKey>()
        .and_then(|key| key.write("1"))
        .unwrap();
}

/// Makes these changes without a journal, for a tunnel of this name.
async fn make_all(name: &str, changes: Vec<Change>) {
    for change in changes {
        let made = match &change {
            Change::FirewallTable(table) => make_table(name, table).await,
            Change::ForwardAccept(family) => add_accept(name, *family).await,
            Change::FirewallRules(rules) => iptables::make(name, rules).await,
            _ => panic!("{change:?}"),
        };
        made.unwrap();
    }
}

fn by_iptables(accept: bool, limit: Option<Vec<IpNetwork>>) -> Change {
    Change::FirewallRules(FirewallRules {
        family: Family::V4,
        inbound: Vec::new(),
        tunnels: false,
        masquerade: Vec::new(),
        accept,
        limit,
    })
}

/// Tests that with these changes only replies pass a forward chain that drops.
fn only_replies_come_back(changes: Vec<Change>) {
    test_namespace::run(async {
        let client = Neighbour::new("near0", "10.1.0");
        let behind = Neighbour::new("behind0", "10.2.0");
        forwards();
        run("iptables -P FORWARD DROP");
        assert!(!client.pings("10.2.0.2"));
        make_all("near0", changes).await;
        assert!(
            client.pings("10.2.0.2"),
            "the client's connections pass, with replies"
        );
        assert!(
            !behind.pings("10.1.0.2"),
            "connections to the client do not pass"
        );
    });
}

#[test]
fn only_replies_come_back_by_nft() {
    let table = FirewallTable {
        mark_replies: true,
        ..FirewallTable::default()
    };
    let accept = Change::ForwardAccept(Family::V4);
    only_replies_come_back(vec![Change::FirewallTable(table), accept]);
}

#[test]
fn only_replies_come_back_by_iptables() {
    only_replies_come_back(vec![by_iptables(true, None)]);
}

/// Tests that with this change a tunnel reaches only 10.2.0.0/24, and only from its own address.
fn is_limited(change: Change) {
    test_namespace::run(async {
        let client = Neighbour::new("near1", "10.1.0");
        let listed = Neighbour::new("listed0", "10.2.0");
        let _other = Neighbour::new("other0", "10.3.0");
        forwards();
        assert!(client.pings("10.3.0.2"));
        make_all("near1", vec![change]).await;
        assert!(client.pings("10.2.0.2"));
        assert!(client.pings("10.1.0.1"), "this host itself");
        assert!(!client.pings("10.3.0.2"));
        assert!(listed.pings("10.3.0.2"), "not out of the tunnel");
        // The client uses an address of the third network.
        let Neighbour(name) = &client;
        ip(&format!("-n {name} addr add 10.3.0.77/32 dev inside"));
        ip(&format!(
            "-n {name} route replace default via 10.1.0.1 src 10.3.0.77"
        ));
        let heard = listed.echo_requests();
        assert!(!client.pings("10.2.0.2"));
        assert_eq!(listed.echo_requests(), heard);
    });
}

#[test]
fn a_tunnel_is_limited_by_nft() {
    is_limited(Change::FirewallTable(FirewallTable {
        limit: Some(vec!["10.2.0.0/24".parse().unwrap()]),
        ..FirewallTable::default()
    }));
}

#[test]
fn a_tunnel_is_limited_by_iptables() {
    let limit = vec!["10.2.0.0/24".parse().unwrap()];
    is_limited(by_iptables(false, Some(limit)));
}

#[test]
fn a_name_that_would_be_more_than_a_name_is_refused() {
    for wrong in ["a\"b", "a*", "a;b", "a{", "a b", ""] {
        assert!(table().commands(wrong).is_err(), "{wrong}");
        assert!(table_name(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn handles_are_those_of_our_comment_alone() {
    let listing = "\
        \t\tiifname \"a\" accept comment \"sshvpn tun1\" # handle 7\n\
        \t\tiifname \"a\" accept comment \"sshvpn tun10\" # handle 8\n\
        \t\taccept comment \"x sshvpn tun1\" # handle 9\n\
        \t\tlog prefix \"comment \\\"sshvpn tun1\\\"\" # handle 10\n\
        \t\taccept comment \"sshvpn tun1\" # handle x\n\
        \tchain FORWARD { # handle 1\n";
    assert_eq!(handles_of(listing, &comment("tun1")), [7]);
}
