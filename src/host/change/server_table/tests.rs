//! Tests the rules as text; and in a network namespace each, with the real nft, the packets that
//! pass between clients and other hosts.

use std::process::Command;

use super::*;
use crate::host::change::Change;
use crate::host::change::shared_setting::SharedSetting;
use crate::host::change::sysctl::SysctlKey;
use crate::host::journal::recovery::Recovery;
use crate::host::journal::state::HostState;
use crate::host::test_host::Host;
use crate::host::test_namespace::{self, ip};

const GROUP: u32 = 7;

fn networks(list: &[&str]) -> Vec<IpNetwork> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

fn table() -> ServerTable {
    ServerTable {
        group: GROUP,
        onward: networks(&["10.2.0.0/24", "10.2.0.128/25", "10.2.1.0/24", "fd02::/64"]),
        masquerade: networks(&["10.1.0.0/16", "fd01::/64"]),
        inbound: false,
        mark_passed: false,
    }
}

fn run(line: &str) -> String {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().unwrap());
    let output = command.args(words).output().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn begin(host: &Host) -> HostState {
    HostState::begin_without_device(&host.directory, &"serve".parse().unwrap()).unwrap()
}

#[test]
fn networks_are_joined_and_each_family_has_its_rules() {
    let text = table().commands("serve").unwrap();
    for there in [
        "create table inet sshvpn_serve\n",
        "from_client ip daddr { 10.2.0.0/23 } accept\n",
        "from_client ip6 daddr { fd02::/64 } accept\n",
        "nat ip saddr { 10.1.0.0/16 } ip daddr { 10.2.0.0/23 } oifgroup != 7 masquerade\n",
        "nat ip6 saddr { fd01::/64 } ip6 daddr { fd02::/64 } oifgroup != 7 masquerade\n",
    ] {
        assert!(text.contains(there), "{there} in {text}");
    }
    assert!(!text.contains("ip saddr { 10.1.0.0/16 } ip6"), "{text}");
    assert!(!text.contains("mark"), "{text}");
    let everything = ServerTable {
        onward: networks(&["0.0.0.0/0", "::/0", "10.0.0.0/8"]),
        inbound: true,
        ..table()
    };
    let text = everything.commands("serve").unwrap();
    for there in [
        "from_client meta nfproto ipv4 accept\n",
        "to_client meta nfproto ipv6 accept\n",
        "nat ip saddr { 10.1.0.0/16 } meta nfproto ipv4 oifgroup != 7 masquerade\n",
        "nat ip6 saddr { fd01::/64 } meta nfproto ipv6 oifgroup != 7 masquerade\n",
    ] {
        assert!(text.contains(there), "{there} in {text}");
    }
    assert_eq!(text.matches("masquerade").count(), 2);
    let nothing = ServerTable {
        onward: Vec::new(),
        ..table()
    };
    assert!(!nothing.commands("serve").unwrap().contains("masquerade"));
    assert!(table().commands("a;b").is_err());
}

#[test]
fn the_table_and_the_settings_are_made_replaced_and_undone() {
    test_namespace::run(async {
        let host = Host::new();
        ip("link add eth1 type veth peer name eth2");
        run("iptables -P FORWARD DROP");
        let forwarding =
            |name: &str| SysctlKey::ipv4(&name.parse().unwrap(), "forwarding").unwrap();
        let share = |name: &str| SharedSetting::ForwardIpv4(name.parse().unwrap());
        let before = run("nft list ruleset");
        for killed in [false, true] {
            let mut state = begin(&host);
            let marking = ServerTable {
                mark_passed: true,
                ..table()
            };
            state.apply(Change::ServerTable(table())).await.unwrap();
            state.apply(Change::ServerTable(marking)).await.unwrap();
            for _ in 0..2 {
                state
                    .apply(Change::ForwardPassed(Family::V4))
                    .await
                    .unwrap();
            }
            assert!(run("nft list table inet sshvpn_serve").contains("unmark"));
            let rules = run("iptables -S FORWARD");
            assert_eq!(rules.matches("sshvpn serve").count(), 1, "{rules}");
            state.share_exactly(&[share("eth1"), share("lo")]).unwrap();
            state.share_exactly(&[share("eth2"), share("lo")]).unwrap();
            assert_eq!(forwarding("eth1").read().unwrap(), "0");
            assert_eq!(forwarding("eth2").read().unwrap(), "1");
            let report = match killed {
                false => state.undo().await,
                true => {
                    drop(state);
                    let mut recovered = host.recover().await;
                    match recovered.remove(0).outcome {
                        Recovery::Undone(report) => report,
                        other => panic!("{other:?}"),
                    }
                }
            };
            assert!(report.is_clean() && report.gone.is_empty(), "{report:?}");
            assert_eq!(run("nft list ruleset"), before);
            assert_eq!(forwarding("eth2").read().unwrap(), "0");
            assert!(host.files().is_empty());
        }
    });
}

#[test]
fn a_replacement_that_is_refused_leaves_the_table_as_it_is() {
    test_namespace::run(async {
        let host = Host::new();
        let mut state = begin(&host);
        state.apply(Change::ServerTable(table())).await.unwrap();
        let before = run("nft list ruleset");
        // More than a command line or a ruleset can contain.
        let wrong = ServerTable {
            group: GROUP,
            ..table()
        };
        let commands = wrong.commands("serve").unwrap();
        let nft = Nft::require().unwrap();
        let text = format!(
            "delete table inet sshvpn_serve\n{commands}add rule inet sshvpn_serve none drop\n"
        );
        assert!(nft.apply("replace", &text).await.is_err());
        assert_eq!(run("nft list ruleset"), before);
        // A removed table is made again.
        run("nft delete table inet sshvpn_serve");
        state.apply(Change::ServerTable(table())).await.unwrap();
        assert_eq!(run("nft list ruleset"), before);
        assert!(state.undo().await.is_clean());
    });
}

#[test]
fn a_server_without_a_device_has_no_link_to_change() {
    test_namespace::run(async {
        let host = Host::new();
        let mut state = begin(&host);
        let error = state.apply(Change::LinkUp).await.unwrap_err();
        assert!(error.nothing_changed(), "{error}");
        let again = HostState::begin_without_device(&host.directory, &"serve".parse().unwrap());
        assert!(again.unwrap_err().to_string().contains("is already up"));
        assert!(state.undo().await.undone.is_empty());
    });
}

/// A named namespace behind an interface of this one; dropping it removes the namespace.
struct Neighbour(String);

impl Neighbour {
    fn new(interface: &str, network: &str) -> Self {
        let name = format!("sv-st-{interface}-{}", std::process::id());
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

    fn client(interface: &str, network: &str) -> Self {
        let neighbour = Self::new(interface, network);
        ip(&format!("link set {interface} group {GROUP}"));
        neighbour
    }

    fn pings(&self, to: &str) -> bool {
        self.pings_from("0.0.0.0", to)
    }

    fn pings_from(&self, from: &str, to: &str) -> bool {
        let ping = Command::new("ip")
            .args([
                "netns", "exec", &self.0, "ping", "-c1", "-W1", "-I", from, to,
            ])
            .output();
        ping.unwrap().status.success()
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn forward() {
    "net/ipv4/conf/all/forwarding"
        .parse::<SysctlKey>()
        .and_then(|key| key.write("1"))
        .unwrap();
}

#[test]
fn clients_reach_what_is_listed_and_each_other_and_nobody_reaches_them() {
    test_namespace::run(async {
        let host = Host::new();
        let one = Neighbour::client("one0", "10.1.1");
        let two = Neighbour::client("two0", "10.1.2");
        let listed = Neighbour::new("listed0", "10.2.0");
        let other = Neighbour::new("other0", "10.3.0");
        forward();
        // Other programs' chains drop unknown packets, as on hosts with containers.
        run("iptables -P FORWARD DROP");
        let marking = ServerTable {
            mark_passed: true,
            ..table()
        };
        let mut state = begin(&host);
        state
            .apply(Change::ServerTable(marking.clone()))
            .await
            .unwrap();
        assert!(!one.pings("10.2.0.2"), "the host's own chain drops it");
        state
            .apply(Change::ForwardPassed(Family::V4))
            .await
            .unwrap();
        // They have no route back except to this host's own address.
        ip(&format!("-n {} route del default", listed.0));
        assert!(one.pings("10.2.0.2"), "with NAT");
        ip(&format!("-n {} route add default via 10.2.0.1", listed.0));
        assert!(one.pings("10.1.2.2") && two.pings("10.1.1.2"), "each other");
        assert!(!one.pings("10.3.0.2"), "not listed");
        assert!(
            !listed.pings("10.1.1.2") && !other.pings("10.1.1.2"),
            "no way in"
        );
        // A client that uses another client's address.
        ip(&format!("-n {} addr add 10.1.2.77/32 dev inside", one.0));
        assert!(!one.pings_from("10.1.2.77", "10.2.0.2"));
        let inbound = ServerTable {
            inbound: true,
            ..marking
        };
        state.apply(Change::ServerTable(inbound)).await.unwrap();
        assert!(listed.pings("10.1.1.2"), "from where clients may go");
        assert!(!other.pings("10.1.1.2"));
        assert!(state.undo().await.is_clean());
    });
}

#[test]
fn no_mark_leaves_this_host() {
    test_namespace::run(async {
        let host = Host::new();
        let one = Neighbour::client("one1", "10.1.1");
        let _two = Neighbour::client("two1", "10.1.2");
        let _listed = Neighbour::new("listed1", "10.2.0");
        forward();
        run("nft add table ip seen");
        run("nft add chain ip seen last { type filter hook postrouting priority 300 ; }");
        run("nft add rule ip seen last meta mark != 0 counter");
        let mut state = begin(&host);
        let marking = ServerTable {
            mark_passed: true,
            ..table()
        };
        state.apply(Change::ServerTable(marking)).await.unwrap();
        assert!(one.pings("10.2.0.2") && one.pings("10.1.2.2"));
        let seen = run("nft list table ip seen");
        assert!(seen.contains("counter packets 0"), "{seen}");
        assert!(state.undo().await.is_clean());
    });
}
