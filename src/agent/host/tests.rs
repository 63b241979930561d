//! Tests in a fresh network namespace each: the reported facts, and the same state after a tunnel
//! as before.

use std::time::{Duration, Instant};

use super::*;
use crate::frame::control::{Addresses, Forward};
use crate::host::test_host::{Host as Place, snapshot, wait_for_routes_of};
use crate::host::test_namespace::{self, ip};
use crate::types::{Mode, Mtu};

fn wish() -> SetUp {
    let pair = |client: &str, agent: &str, prefix| Addresses {
        client: client.parse().unwrap(),
        agent: agent.parse().unwrap(),
        prefix,
    };
    SetUp {
        mode: Mode::PointToPoint,
        mtu: Mtu::ETHERNET,
        device: None,
        addresses: vec![
            pair("10.77.0.0", "10.77.0.1", 31),
            pair("fd77::", "fd77::1", 127),
        ],
        forward: Some(Forward {
            networks: vec![
                "10.20.0.0/16".parse().unwrap(),
                "fd20::/16".parse().unwrap(),
            ],
            nat: true,
            inbound: false,
        }),
    }
}

/// A host with a network on each side, and iptables rules that drop forwarded packets.
fn gateway() {
    ip("link add eth1 type veth peer name eth2");
    // Without duplicate address detection and link-local addresses, so that
    // nothing changes by itself while a test compares.
    ip("link set eth1 addrgenmode none");
    ip("link set eth2 addrgenmode none");
    ip("link set lo up");
    ip("link set eth1 up");
    ip("link set eth2 up");
    ip("addr add 10.20.0.1/16 dev eth1");
    ip("addr add fd20::1/16 dev eth1 nodad");
    ip("route add default via 10.20.0.2");
    ip("-6 route add default via fd20::2 proto ra");
    wait_for_routes_of(&["fd20::1"]);
    run("iptables -P FORWARD DROP");
    run("ip6tables -P FORWARD DROP");
}

fn run(line: &str) -> String {
    let mut words = line.split(' ');
    let mut command = std::process::Command::new(words.next().unwrap());
    let output = command.args(words).output().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn state() -> String {
    let mut text = snapshot();
    text.push_str(&run("nft list ruleset"));
    text.push_str(&run("sysctl -a --pattern forwarding|accept_ra$"));
    text
}

fn host(place: &Place, limits: Limits) -> ThisHost {
    ThisHost {
        directory: Some(place.directory.clone()),
        ..ThisHost::new(limits)
    }
}

/// Closes a device and waits until it is gone: a child that another test starts has a copy of its
/// descriptor until exec.
fn close(device: Device) {
    let name = format!(" {}: ", device.name());
    drop(device);
    let end = Instant::now() + Duration::from_secs(20);
    while ip("link").contains(&name) {
        assert!(Instant::now() < end, "it stays");
        std::thread::sleep(Duration::from_millis(5));
    }
}

async fn set_up(host: &mut ThisHost, wish: &SetUp) -> (Device, Ready) {
    let opened = host.open(wish).await.unwrap();
    for change in opened.changes {
        let text = format!("{change:?}");
        let applied = host.apply(change).await;
        applied.unwrap_or_else(|error| panic!("{text}: {error}"));
    }
    (opened.device, opened.ready)
}

#[test]
fn a_tunnel_with_everything_is_set_up_and_undone() {
    test_namespace::run(async {
        gateway();
        let place = Place::new();
        let before = state();
        let mut host = host(&place, Limits::default());
        let (device, ready) = set_up(&mut host, &wish()).await;
        assert_eq!(ready.device.as_str(), "sshvpn0");
        let now = state();
        for there in [
            "inet 10.77.0.1 peer 10.77.0.0/32",
            "inet6 fd77::1 peer fd77::/128",
            "net.ipv4.conf.eth1.forwarding = 1",
            "net.ipv4.conf.eth2.forwarding = 0",
            "net.ipv4.conf.sshvpn0.forwarding = 1",
            "net.ipv6.conf.all.forwarding = 1",
            "net.ipv6.conf.eth1.accept_ra = 2",
            "ip saddr 10.77.0.0 oifname != \"sshvpn0\" masquerade",
            "iifname \"sshvpn0\" accept comment \"sshvpn sshvpn0\"",
        ] {
            assert!(now.contains(there), "{there} in {now}");
        }
        assert!(host.undo().await.is_empty());
        close(device);
        assert_eq!(state(), before);
        assert!(place.files().is_empty());
        assert!(host.undo().await.is_empty(), "once is enough");
    });
}

/// A process that another test starts meanwhile inherits a claim until it runs its program.
async fn unclaimed() {
    while !address_claim::claimed().is_empty() {
        tokio::task::yield_now().await;
    }
}

#[test]
fn whatever_was_done_before_a_failure_is_undone() {
    test_namespace::run(async {
        gateway();
        let place = Place::new();
        let before = state();
        let opened = host(&place, Limits::default()).open(&wish()).await;
        let changes = opened.unwrap().changes;
        unclaimed().await;
        // Its device is gone, but its empty journal is not.
        place.recover().await;
        for steps in 0..changes.len() {
            let mut host = host(&place, Limits::default());
            let opened = host.open(&wish()).await.unwrap();
            for change in opened.changes.into_iter().take(steps) {
                host.apply(change).await.unwrap();
            }
            assert!(host.undo().await.is_empty());
            close(opened.device);
            assert_eq!(state(), before, "after {steps} steps");
            drop(host);
            unclaimed().await;
        }
    });
}

#[test]
fn one_of_two_agents_is_killed_and_the_other_goes_on() {
    test_namespace::run(async {
        gateway();
        let place = Place::new();
        let before = state();
        let mut killed = host(&place, Limits::default());
        let (killed_device, first) = set_up(&mut killed, &wish()).await;
        let mut other_wish = wish();
        for pair in &mut other_wish.addresses {
            std::mem::swap(&mut pair.client, &mut pair.agent);
        }
        let mut goes_on = host(&place, Limits::default());
        let (device, second) = set_up(&mut goes_on, &other_wish).await;
        assert_ne!(first.device, second.device);
        // As by kill -9: the device disappears, nothing is undone.
        drop(killed);
        close(killed_device);
        assert_eq!(place.recover().await.len(), 1);
        let now = state();
        assert!(now.contains("net.ipv4.conf.eth1.forwarding = 1"), "{now}");
        assert!(now.contains("net.ipv6.conf.all.forwarding = 1"), "{now}");
        assert!(!now.contains("sshvpn_sshvpn0"), "{now}");
        assert!(goes_on.undo().await.is_empty());
        close(device);
        assert_eq!(state(), before);
    });
}

#[test]
fn a_refused_request_changes_nothing() {
    test_namespace::run(async {
        gateway();
        let place = Place::new();
        let before = state();
        let limits = Limits {
            no_nat: true,
            ..Limits::default()
        };
        let mut host = host(&place, limits);
        assert!(matches!(host.open(&wish()).await, Err(AgentError::Nat)));
        assert_eq!(state(), before);
        assert!(place.files().is_empty());
    });
}

#[test]
fn the_prefix_names_the_device() {
    test_namespace::run(async {
        let place = Place::new();
        let limits = Limits {
            device_prefix: Some("vpn-".parse().unwrap()),
            ..Limits::default()
        };
        let mut host = host(&place, limits);
        let (_device, ready) = set_up(&mut host, &wish()).await;
        assert_eq!(ready.device.as_str(), "vpn-0");
        assert!(host.undo().await.is_empty());
    });
}

#[test]
fn the_local_end_is_told_of_networks_ways_and_limits() {
    test_namespace::run(async {
        gateway();
        ip("route add blackhole 10.66.0.0/16");
        let place = Place::new();
        let limits = Limits {
            no_nat: true,
            ..Limits::default()
        };
        let asked = [
            "10.20.5.5",
            "10.20.0.1",
            "192.0.2.1",
            "10.66.0.1",
            "fd20::9",
        ];
        let look = Look {
            ways: asked.iter().map(|text| text.parse().unwrap()).collect(),
            routed: true,
        };
        let facts = host(&place, limits).look(&look).await.unwrap();
        let way = |address: &str| {
            let way = facts.ways.get(&address.parse().unwrap())?;
            Some((way.interface.as_str(), way.local))
        };
        assert_eq!(way("10.20.5.5"), Some(("eth1", false)));
        assert_eq!(way("10.20.0.1"), Some(("lo", true)));
        assert_eq!(way("192.0.2.1"), Some(("eth1", false)));
        assert_eq!(way("10.66.0.1"), None);
        assert_eq!(way("fd20::9"), Some(("eth1", false)));
        assert!(facts.ipv6 && !facts.permissions.nat);
        assert_eq!(facts.login, "root");
        let routed = facts.routed.unwrap();
        assert!(
            routed.contains(&"10.20.0.0/16".parse().unwrap()),
            "{routed:?}"
        );
        assert!(routed.iter().all(offered::is_meant), "{routed:?}");
        let unasked = host(&place, Limits::default());
        let unasked = unasked.look(&Look::default()).await.unwrap();
        assert_eq!(unasked.routed, None);
        let has = |network: &str| facts.networks.contains(&network.parse().unwrap());
        assert!(
            has("10.20.0.0/16") && has("10.66.0.0/16"),
            "{:?}",
            facts.networks
        );
    });
}

#[test]
fn of_too_many_networks_the_private_ones_are_told() {
    let public =
        (0..MOST_NETWORKS as u32).map(|n| IpAddr::from((0x0800_0000 + n * 512).to_be_bytes()));
    let mut networks: Vec<IpNetwork> = public.map(IpNetwork::from).collect();
    networks.push("192.168.7.0/24".parse().unwrap());
    networks.push("fd00:7::/32".parse().unwrap());
    let told = told(&networks);
    assert_eq!(told.len(), MOST_NETWORKS);
    assert!(told.contains(&"192.168.7.0/24".parse().unwrap()));
    assert!(told.contains(&"fd00:7::/32".parse().unwrap()));
    let message = crate::frame::control::Message::Look(Look {
        ways: told.iter().map(|network| network.ip()).collect(),
        ..Look::default()
    });
    assert!(message.to_json().is_ok(), "they fit one message");
}

#[test]
fn networks_that_join_to_everything_are_told_one_by_one() {
    let halves: Vec<IpNetwork> = ["0.0.0.0/7", "2.0.0.0/7", "4.0.0.0/7", "6.0.0.0/7"]
        .iter()
        .map(|text| text.parse().unwrap())
        .collect();
    assert_eq!(told(&halves), halves);
    let joined = [
        "10.0.0.0/9".parse().unwrap(),
        "10.128.0.0/9".parse().unwrap(),
    ];
    assert_eq!(told(&joined), ["10.0.0.0/8".parse().unwrap()]);
}
