//! Tests of the plan for the carrier `tun`, with facts of many kinds of hosts.

use super::*;
use crate::client::remote::shell::facts;
use crate::client::up::test_request::request;

fn remote(lines: &str) -> RemoteFacts {
    let text = format!("system Linux\nlogin alice\nip yes\ntun yes\nipv6 yes\n{lines}\nend\n");
    facts::parse("b", &text, "").unwrap()
}

const PREMADE: &str = "uid 1000\nsudo denied\ndevice tun7 0x1801 1000 1400 0x1003\n\
    device tun5 0x1801 1000 1400 0x1003\naddress tun5 10.9.0.1 10.9.0.2/32";

fn input<'a>(
    request: &'a UpRequest,
    local: &'a HostFacts,
    remote: &'a RemoteFacts,
) -> AddressInput<'a> {
    let device = remote_device("b", request, remote).unwrap();
    let mtu = mtu("b", request, device, remote).unwrap();
    AddressInput {
        host: "b",
        request,
        device,
        mtu,
        local,
        local_ipv6: true,
        remote,
        seed: 1,
    }
}

#[test]
fn the_login_decides_how_the_device_comes_about() {
    let plain = request(&[]);
    let by = |lines: &str| remote_device("b", &plain, &remote(lines));
    assert_eq!(by("uid 0").unwrap(), RemoteDevice::BySshd(UnitRequest::Any));
    let zero = Unit::new(0).unwrap();
    assert_eq!(
        by("uid 1000\nsudo yes").unwrap(),
        RemoteDevice::MadeForLogin(zero)
    );
    assert_eq!(
        by(PREMADE).unwrap(),
        RemoteDevice::Premade(Unit::new(5).unwrap())
    );
    let refused = by("uid 1000\nsudo missing").unwrap_err().to_string();
    assert!(
        refused.contains("there is no sudo") && refused.contains("ip tuntap add"),
        "{refused}"
    );
}

#[test]
fn a_unit_that_was_asked_for_is_taken_or_refused() {
    let mut asked = request(&[]);
    asked.peer_unit = Some(Unit::new(5).unwrap());
    let by = |lines: &str| remote_device("b", &asked, &remote(lines));
    assert_eq!(
        by(PREMADE).unwrap(),
        RemoteDevice::Premade(Unit::new(5).unwrap())
    );
    let foreign = by("uid 1000\nsudo yes\ndevice tun5 0x1801 7 1400 0x1002").unwrap_err();
    assert!(matches!(foreign, PlanError::ForeignDevice { .. }));
    let unit = UnitRequest::Unit(Unit::new(5).unwrap());
    assert_eq!(by("uid 0").unwrap(), RemoteDevice::BySshd(unit));
}

#[test]
fn the_mtu_follows_what_lies_behind() {
    let root = remote("uid 0");
    let of = |request: &UpRequest, remote: &RemoteFacts| {
        mtu(
            "b",
            request,
            remote_device("b", request, remote).unwrap(),
            remote,
        )
        .unwrap()
        .get()
    };
    assert_eq!(of(&request(&[]), &root), 16380);
    assert_eq!(of(&request(&["10.1.0.0/16"]), &root), 1500);
    assert_eq!(of(&request(&[]), &remote(PREMADE)), 1400);
    let mut asked = request(&["10.1.0.0/16"]);
    asked.mtu = Some(Mtu::new(9000, Mode::PointToPoint).unwrap());
    assert_eq!(of(&asked, &root), 9000);
}

#[test]
fn chosen_addresses_collide_with_nothing_at_the_remote_end() {
    let plain = request(&[]);
    let local = HostFacts::default();
    let free = remote("uid 0");
    let first = addresses(&input(&plain, &local, &free)).unwrap().pairs;
    assert_eq!(first.len(), 2);
    let taken = remote(&format!(
        "uid 0\naddress eth0 {}/24\nroute {}/64",
        first[0].remote, first[1].local
    ));
    let second = addresses(&input(&plain, &local, &taken)).unwrap().pairs;
    for network in taken.networks() {
        for pair in &second {
            assert!(
                !network.contains(pair.local) && !network.contains(pair.remote),
                "{pair:?}"
            );
        }
    }
}

#[test]
fn a_device_made_beforehand_keeps_its_addresses() {
    let plain = request(&[]);
    let local = HostFacts::default();
    let remote = remote(PREMADE);
    let pairs = addresses(&input(&plain, &local, &remote)).unwrap().pairs;
    assert_eq!(pairs.len(), 1);
    assert_eq!(pairs[0].remote, "10.9.0.1".parse::<IpAddr>().unwrap());
    assert_eq!(pairs[0].local, "10.9.0.2".parse::<IpAddr>().unwrap());
}

#[test]
fn a_device_without_address_is_said_to_lack_one() {
    let plain = request(&[]);
    let local = HostFacts::default();
    let remote = remote("uid 1000\nsudo denied\ndevice tun7 0x1801 1000 1400 0x1003");
    let error = addresses(&input(&plain, &local, &remote))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("tun7") && error.contains("ip addr add"),
        "{error}"
    );
}

#[test]
fn ipv6_routes_need_ipv6() {
    let six = request(&["fd12::/64"]);
    let local = HostFacts::default();
    let remote = remote("uid 0");
    let mut input = input(&six, &local, &remote);
    input.local_ipv6 = false;
    assert!(
        addresses(&input)
            .unwrap_err()
            .to_string()
            .contains("fd12::/64")
    );
}

#[test]
fn forwarding_goes_where_the_routes_go() {
    let wide = request(&["10.1.0.0/16", "192.0.2.1/32", "fd12::/64", "10.7.0.0/16"]);
    let lines = "uid 0\nnft yes\nway 10.1.0.1 eth1\nway 192.0.2.1 lo\nway fd12::1 eth2";
    let (forward, without) = forwarding("b", &wide, &remote(lines)).unwrap();
    let forward = forward.unwrap();
    assert_eq!(forward.ways4, BTreeSet::from(["eth1".parse().unwrap()]));
    assert!(forward.ipv6 && forward.nat);
    assert_eq!(without, ["10.7.0.0/16".parse().unwrap()]);
    let router = remote("uid 0\niptables yes\nway 10.1.0.1 lo\nway 10.1.0.2 eth1");
    let behind = forwarding("b", &request(&["10.1.0.0/16"]), &router)
        .unwrap()
        .0
        .unwrap();
    assert_eq!(behind.ways4, BTreeSet::from(["eth1".parse().unwrap()]));
    let bare = remote("uid 0\nway 10.1.0.1 eth1");
    let refused = forwarding("b", &request(&["10.1.0.0/16"]), &bare).unwrap_err();
    assert!(
        refused.to_string().contains("install nftables"),
        "{refused}"
    );
    let own = request(&["192.0.2.1/32"]);
    assert_eq!(forwarding("b", &own, &remote(lines)).unwrap().0, None);
    let powerless = remote("uid 1000\nsudo denied\nway 10.1.0.1 eth1");
    assert!(matches!(
        forwarding("b", &wide, &powerless),
        Err(PlanError::CannotForward { .. })
    ));
}

#[test]
fn ways_are_asked_for_where_hosts_can_be() {
    let probes = |route: &str| -> Vec<String> {
        way_probes(&route.parse().unwrap())
            .map(|address| address.to_string())
            .collect()
    };
    assert_eq!(probes("10.1.0.0/16"), ["10.1.0.1", "10.1.0.2", "10.1.0.3"]);
    assert_eq!(probes("0.0.0.0/1")[0], "1.0.0.1");
    assert_eq!(probes("192.0.2.9/32"), ["192.0.2.9"]);
    assert_eq!(probes("192.0.2.8/31"), ["192.0.2.8", "192.0.2.9"]);
    assert_eq!(probes("fd12::/64")[0], "fd12::1");
}

#[test]
fn the_seed_is_stable() {
    assert_eq!(seed("m", "u", "d", 22), seed("m", "u", "d", 22));
    assert_ne!(seed("m", "u", "d", 22), seed("m", "u", "e", 22));
}
