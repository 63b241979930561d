//! Tests of the plan for the carrier `agent`.

use super::*;
use crate::client::up::test_request::request;
use crate::frame::control::Way;
use crate::types::{Mode, Unit};

fn networks(list: &[&str]) -> Vec<IpNetwork> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

/// An agent's host, with ways "ADDRESS INTERFACE"; addresses by lo are its own.
fn remote(ways: &[&str], permissions: Permissions) -> AgentFacts {
    let way = |line: &&str| {
        let (address, interface) = line.split_once(' ').unwrap();
        let way = Way {
            interface: interface.parse().unwrap(),
            local: interface == "lo",
        };
        (address.parse().unwrap(), way)
    };
    AgentFacts {
        login: "root".to_owned(),
        networks: networks(&["192.0.2.0/24"]),
        ipv6: true,
        ways: ways.iter().map(way).collect(),
        permissions,
        routed: None,
    }
}

fn decided(request: &UpRequest, remote: &AgentFacts) -> Result<AgentPlan, PlanError> {
    decide(&AgentInput {
        host: "b",
        request,
        local: &HostFacts::default(),
        local_ipv6: true,
        remote,
        seed: 1,
    })
}

/// The error for an agent with the permissions that `limit` leaves.
fn refused(request: &UpRequest, limit: impl Fn(&mut Permissions)) -> String {
    let mut permissions = Permissions::all();
    limit(&mut permissions);
    let remote = remote(&["10.1.0.1 eth1"], permissions);
    decided(request, &remote)
        .err()
        .expect("it is permitted")
        .to_string()
}

#[test]
fn without_routes_nothing_is_forwarded() {
    let plan = decided(&request(&[]), &remote(&[], Permissions::all())).unwrap();
    assert_eq!(plan.set_up.forward, None);
    assert_eq!(plan.set_up.mtu, Mtu::ETHERNET);
    assert_eq!(plan.set_up.device, None);
    assert_eq!(plan.addresses.len(), 2);
    for (pair, told) in plan.addresses.iter().zip(&plan.set_up.addresses) {
        assert_eq!((pair.local, pair.remote), (told.client, told.agent));
    }
}

#[test]
fn what_lies_behind_the_agent_is_forwarded_to() {
    let wide = request(&["10.1.0.0/16", "192.0.2.1/32", "fd12::/64", "10.7.0.0/16"]);
    let ways = [
        "10.1.0.1 lo",
        "10.1.0.2 eth1",
        "192.0.2.1 lo",
        "fd12::1 eth2",
    ];
    let plan = decided(&wide, &remote(&ways, Permissions::all())).unwrap();
    let forward = plan.set_up.forward.unwrap();
    assert_eq!(forward.networks, networks(&["10.1.0.0/16", "fd12::/64"]));
    assert!(forward.nat);
    assert_eq!(plan.without_way, networks(&["10.7.0.0/16"]));
}

#[test]
fn what_the_agent_may_not_do_is_an_error_that_says_what_it_may() {
    let inner = request(&["10.1.0.0/16"]);
    let only =
        |list: &'static [&'static str]| move |p: &mut Permissions| p.routes = Some(networks(list));
    let text = refused(&inner, only(&["10.1.2.0/24", "10.2.0.0/16"]));
    assert!(
        text.contains("10.1.0.0/16") && text.contains("10.1.2.0/24, 10.2.0.0/16"),
        "{text}"
    );
    assert!(refused(&inner, only(&[])).contains("permitted: none"));
    let text = refused(&inner, |p| p.nat = false);
    assert!(
        text.contains("--no-nat") && text.contains("10.1.0.0/16"),
        "{text}"
    );

    let mut asked = request(&[]);
    asked.peer_address = Some("10.9.0.1".parse().unwrap());
    let text = refused(&asked, |p| p.addresses = Some(networks(&["10.99.0.0/16"])));
    assert!(
        text.contains("10.9.0.1") && text.contains("10.99.0.0/16"),
        "{text}"
    );
    asked = request(&[]);
    asked.mtu = Some(Mtu::new(9000, Mode::PointToPoint).unwrap());
    let text = refused(&asked, |p| p.max_mtu = Some(1500));
    assert!(text.contains("at most 1500, not 9000"), "{text}");
    let text = refused(&request(&[]), |p| p.max_mtu = Some(20));
    assert!(text.contains("at most 20, not 1500"), "{text}");
}

#[test]
fn what_the_agent_may_do_is_enough_where_it_fits() {
    let permissions = Permissions {
        routes: Some(networks(&["10.0.0.0/8"])),
        addresses: Some(networks(&["10.99.0.0/16"])),
        nat: false,
        max_mtu: Some(1400),
    };
    let mut asked = request(&["10.1.0.0/16"]);
    asked.nat = Some(false);
    asked.peer_unit = Some(Unit::new(7).unwrap());
    let plan = decided(&asked, &remote(&["10.1.0.1 eth1"], permissions.clone())).unwrap();
    assert_eq!(plan.set_up.mtu.get(), 1400);
    assert_eq!(plan.set_up.device.unwrap().as_str(), "tun7");
    assert!(!plan.set_up.forward.unwrap().nat);
    let remote_address = plan.addresses[0].remote;
    assert!(networks(&["10.99.0.0/16"])[0].contains(remote_address));
    // The agent's own addresses need no forwarding.
    let own = request(&["172.16.0.1/32"]);
    let plan = decided(&own, &remote(&["172.16.0.1 lo"], permissions)).unwrap();
    assert_eq!(plan.set_up.forward, None);
}

#[test]
fn chosen_addresses_collide_with_nothing_at_the_agent() {
    let plain = request(&[]);
    let first = decided(&plain, &remote(&[], Permissions::all())).unwrap();
    let taken = AgentFacts {
        networks: networks(&[&format!("{}/16", first.addresses[0].remote)]),
        ..remote(&[], Permissions::all())
    };
    let second = decided(&plain, &taken).unwrap();
    assert!(!taken.networks[0].contains(second.addresses[0].remote));
}
