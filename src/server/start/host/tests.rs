//! What a server changes for all its clients is undone, and one server does not disturb
//! another; each test in a fresh network namespace.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::*;
use crate::config::serve::settings::{ClientMatch, ClientRule};
use crate::host::change::sysctl::SysctlKey;
use crate::host::forward_path::{NftFamily, Ruleset, Rulesets};
use crate::host::journal::recovery::Recovery;
use crate::host::test_host::{Host, snapshot};
use crate::host::test_namespace::{self, ip};
use crate::server::address::lease::LeasedAddress;
use crate::server::tunnel::client_device::{ClientDevice, ClientDeviceRequest, ClientUnit};
use crate::types::{Mode, Mtu, UnitRequest};

fn networks(list: &[&str]) -> Vec<IpNetwork> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

fn pools() -> Pools {
    Pools::new(&networks(&["10.9.0.0/24", "fd09::/64"])).unwrap()
}

fn with_routes(routes: &[&str]) -> ServeSettings {
    let mut settings = ServeSettings::default();
    settings.network.routes = networks(routes);
    settings
}

fn rule() -> ClientRule {
    ClientRule {
        who: ClientMatch::default(),
        tunnel: vec![Mode::PointToPoint],
        unit: None,
        addresses: Vec::new(),
        sources: Vec::new(),
        routes: None,
        groups: Vec::new(),
        permit_open: Vec::new(),
        permit_listen: Vec::new(),
        upload: None,
        download: None,
    }
}

fn run(line: &str) -> String {
    let mut words = line.split(' ');
    let mut command = std::process::Command::new(words.next().unwrap());
    let output = command.args(words).output().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A host between two networks, whose iptables drop forwarded packets.
fn gateway() -> Host {
    for (link, there, address) in [
        ("eth1", "far1", "10.20.0.1/16"),
        ("eth2", "far2", "10.30.0.1/16"),
    ] {
        ip(&format!("link add {link} type veth peer name {there}"));
        for end in [link, there] {
            ip(&format!("link set {end} addrgenmode none"));
            ip(&format!("link set {end} up"));
        }
        ip(&format!("addr add {address} dev {link}"));
    }
    ip("addr add fd20::1/64 dev eth1 nodad");
    crate::host::test_host::wait_for_routes_of(&["fd20::1"]);
    run("iptables -P FORWARD DROP");
    Host::new()
}

fn state() -> String {
    let mut text = snapshot();
    text.push_str(&run("nft list ruleset"));
    text.push_str(&run("sysctl -a --pattern forwarding|accept_ra$"));
    text
}

fn forwarding(link: &str) -> String {
    let key = SysctlKey::ipv4(&link.parse().unwrap(), "forwarding").unwrap();
    key.read().unwrap()
}

async fn client(host: &ServeHost, last: u8) -> ClientDevice {
    let address = |client: String, server: &str, prefix| LeasedAddress {
        client: client.parse::<IpAddr>().unwrap(),
        server: server.parse().unwrap(),
        prefix,
    };
    let request = ClientDeviceRequest {
        mode: Mode::PointToPoint,
        unit: ClientUnit::New {
            asked: UnitRequest::Any,
            reserved: Arc::default(),
        },
        mtu: Mtu::ETHERNET,
        addresses: vec![
            address(format!("10.9.0.{last}"), "10.9.0.1", 24),
            address(format!("fd09::{last}"), "fd09::1", 64),
        ],
        sources: Vec::new(),
        grouped: false,
    };
    host.devices().open(request).await.unwrap()
}

#[test]
fn a_server_leaves_its_host_as_it_was() {
    test_namespace::run(async {
        let place = gateway();
        let before = state();
        let settings = with_routes(&["10.20.0.0/16", "fd20::/64"]);
        let mut host = ServeHost::start(&place.directory, &settings, &pools())
            .await
            .unwrap();
        let table = run("nft list table inet sshvpn_serve");
        assert!(
            table.contains("ip saddr 10.9.0.0/24 ip daddr 10.20.0.0/16"),
            "{table}"
        );
        assert!(
            table.contains("iifgroup 1937113088 goto from_client"),
            "{table}"
        );
        assert!(run("iptables -S FORWARD").contains("sshvpn serve"));
        assert_eq!(
            (forwarding("eth1").as_str(), forwarding("eth2").as_str()),
            ("1", "0")
        );
        assert_eq!(run("sysctl -n net.ipv6.conf.all.forwarding").trim(), "1");
        let device = client(&host, 2).await;
        let name = device.device.name();
        assert!(ip(&format!("-d link show {name}")).contains("group 1937113088"));
        // Another network; the client stays.
        let settings = with_routes(&["10.30.0.0/16"]);
        host.reload(&settings, &pools()).await.unwrap();
        let table = run("nft list table inet sshvpn_serve");
        assert!(
            table.contains("10.30.0.0/16") && !table.contains("10.20.0.0/16"),
            "{table}"
        );
        assert_eq!(
            (forwarding("eth1").as_str(), forwarding("eth2").as_str()),
            ("0", "1")
        );
        assert_eq!(run("sysctl -n net.ipv6.conf.all.forwarding").trim(), "0");
        drop(device);
        let report = host.stop().await;
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(state(), before);
        assert!(place.files().is_empty());
    });
}

#[test]
fn what_a_killed_server_with_many_clients_left_is_undone() {
    test_namespace::run(async {
        let place = gateway();
        let before = state();
        let settings = with_routes(&["10.20.0.0/16"]);
        let host = ServeHost::start(&place.directory, &settings, &pools())
            .await
            .unwrap();
        let mut clients = Vec::new();
        for last in 2..52 {
            clients.push(client(&host, last).await);
        }
        drop((host, clients));
        // A child that another test is starting may have a copy of a descriptor.
        let end = Instant::now() + Duration::from_secs(20);
        while ip("link").contains(" tun") {
            assert!(Instant::now() < end, "they stay");
            std::thread::yield_now();
        }
        let recovered = place.recover().await;
        let [only] = recovered.as_slice() else {
            panic!("{recovered:?}")
        };
        let Recovery::Undone(report) = &only.outcome else {
            panic!("{recovered:?}")
        };
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(state(), before);
        assert!(place.files().is_empty());
    });
}

#[test]
fn two_servers_on_a_host_have_a_table_each() {
    test_namespace::run(async {
        let place = gateway();
        let before = state();
        let settings = with_routes(&["10.20.0.0/16"]);
        let first = ServeHost::start(&place.directory, &settings, &pools())
            .await
            .unwrap();
        let second = ServeHost::start(&place.directory, &settings, &pools())
            .await
            .unwrap();
        assert_ne!(first.devices().group(), second.devices().group());
        assert!(run("nft list tables").contains("table inet sshvpn_serve_2222"));
        let third = ServeHost::start(&place.directory, &settings, &pools())
            .await
            .unwrap_err();
        assert!(third.to_string().contains("is already up"), "{third}");
        assert!(first.stop().await.is_clean());
        assert_eq!(forwarding("eth1"), "1");
        assert!(second.stop().await.is_clean());
        assert_eq!(state(), before);
    });
}

#[test]
fn a_start_that_fails_leaves_nothing() {
    test_namespace::run(async {
        let place = gateway();
        let before = state();
        let mut settings = with_routes(&["10.20.0.0/16"]);
        settings.network.bridge = Some("eth1".parse().unwrap());
        let error = ServeHost::start(&place.directory, &settings, &pools())
            .await
            .unwrap_err();
        assert!(error.to_string().contains("not a bridge"), "{error}");
        run("nft add table inet sshvpn_serve");
        settings.network.bridge = None;
        let error = ServeHost::start(&place.directory, &settings, &pools())
            .await
            .unwrap_err();
        assert!(error.to_string().contains("File exists"), "{error}");
        run("nft delete table inet sshvpn_serve");
        assert_eq!(state(), before);
        assert!(place.files().is_empty());
    });
}

#[test]
fn a_reload_that_fails_leaves_the_old() {
    test_namespace::run(async {
        let place = gateway();
        let mut settings = with_routes(&["10.20.0.0/16"]);
        let mut host = ServeHost::start(&place.directory, &settings, &pools())
            .await
            .unwrap();
        let before = state();
        settings.network.routes = networks(&["10.30.0.0/16"]);
        settings.network.bridge = Some("none".parse().unwrap());
        assert!(host.reload(&settings, &pools()).await.is_err());
        assert_eq!(state(), before);
        assert_eq!(host.devices().bridge(), None);
        assert!(host.stop().await.is_clean());
    });
}

#[test]
fn settings_become_what_the_host_has_to_do() {
    let mut rulesets = Rulesets::default();
    for family in [NftFamily::Ip, NftFamily::Ip6] {
        rulesets.add_iptables(Ruleset::Nft(family), "filter", "-P FORWARD DROP\n");
    }
    let around = Surroundings {
        rulesets,
        ..Surroundings::default()
    };
    let mut settings = with_routes(&["10.20.0.0/16"]);
    let wish = Wish::of(&settings, &pools(), &around, 7);
    assert_eq!(
        wish.table.masquerade,
        networks(&["10.9.0.0/24", "fd09::/64"])
    );
    assert!(wish.shared.is_empty(), "there is no way to it");
    assert!(!wish.table.mark_passed && wish.obstacles == Obstacles::default());
    settings.clients = vec![
        ClientRule {
            addresses: vec!["10.99.0.5".parse().unwrap()],
            sources: networks(&["192.168.7.0/24"]),
            ..rule()
        },
        ClientRule {
            routes: Some(networks(&["10.40.0.0/16"])),
            ..rule()
        },
    ];
    let wish = Wish::of(&settings, &pools(), &around, 7);
    assert_eq!(
        wish.table.onward,
        networks(&["10.20.0.0/16", "10.40.0.0/16"])
    );
    assert_eq!(
        wish.table.masquerade[2..],
        networks(&["10.99.0.5/32", "192.168.7.0/24"])
    );
    assert_eq!(
        wish.obstacles.iptables,
        [Family::V4],
        "the network behind a client is forwarded to"
    );
    assert!(wish.shared.is_empty());
    settings.clients[1].groups = vec!["a".to_owned()];
    let wish = Wish::of(&settings, &pools(), &around, 7);
    assert_eq!(
        wish.shared,
        [SharedSetting::ForwardIpv6],
        "clients reach each other"
    );
    assert!(wish.table.mark_passed);
    settings.network.nat = false;
    assert!(
        Wish::of(&settings, &pools(), &around, 7)
            .table
            .masquerade
            .is_empty()
    );
}

#[test]
fn without_nft_only_what_needs_it_fails() {
    let mut settings = ServeSettings::default();
    let judge = |settings: &ServeSettings| {
        without_nft(&Wish::of(settings, &pools(), &Surroundings::default(), 7))
    };
    assert!(judge(&settings).is_ok(), "nothing beyond is reached");
    settings.network.routes = networks(&["10.20.0.0/16"]);
    assert!(matches!(judge(&settings), Err(ServeHostError::NoNft(_))));
    settings.network.nat = false;
    assert!(matches!(judge(&settings), Err(ServeHostError::NoNft(_))));
    settings.network.inbound = true;
    assert!(judge(&settings).is_ok());
}
