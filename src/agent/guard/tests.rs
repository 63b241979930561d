//! Tests of an agent's guard rules: by the agreed addresses and by its limits.

use std::net::IpAddr;

use etherparse::PacketBuilder;

use super::*;
use crate::frame::control::{Addresses, Forward};
use crate::packet::guard::Refused;
use crate::packet::guard::link::Sender;
use crate::types::{Mode, Mtu};

fn networks(of: &[&str]) -> Vec<IpNetwork> {
    of.iter().map(|text| text.parse().unwrap()).collect()
}

fn wish(forward: &[&str]) -> SetUp {
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
            pair("10.9.0.1", "10.9.0.2", 30),
            pair("fd09::1", "fd09::2", 64),
        ],
        forward: Some(Forward {
            networks: networks(forward),
            nat: true,
            inbound: false,
        }),
    }
}

fn judge(wish: &SetUp, limits: &Limits, from: &str, to: &str) -> Result<(), Refused> {
    let builder = match (from.parse().unwrap(), to.parse().unwrap()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64),
        mixed => panic!("{mixed:?}"),
    };
    let mut packet = Vec::new();
    builder.udp(5, 6).write(&mut packet, &[0; 30]).unwrap();
    rules(wish, limits).check(Mode::PointToPoint, &mut Sender::default(), &packet)
}

#[test]
fn limits_hold_for_the_agents_own_host_too() {
    let limits = Limits {
        routes: Some(networks(&["198.51.100.0/25", "2001:db8:64::/64"])),
        ..Limits::default()
    };
    let wish = wish(&["198.51.100.0/25"]);
    for (from, to, verdict) in [
        ("10.9.0.1", "10.9.0.2", Ok(())),
        ("10.9.0.1", "198.51.100.2", Ok(())),
        ("fd09::1", "fd09::2", Ok(())),
        ("fd09::1", "2001:db8:64::1", Ok(())),
        ("198.51.100.7", "10.9.0.2", Err(Refused::Source)),
        ("10.9.0.2", "10.9.0.2", Err(Refused::Source)),
        ("10.9.0.3", "10.9.0.2", Err(Refused::Source)),
        ("fd09::3", "fd09::2", Err(Refused::Source)),
        ("10.9.0.1", "192.0.2.2", Err(Refused::Destination)),
        ("10.9.0.1", "198.51.100.200", Err(Refused::Destination)),
        ("10.9.0.1", "10.9.0.1", Err(Refused::Destination)),
        ("10.9.0.1", "127.0.0.1", Err(Refused::Destination)),
        ("fd09::1", "2001:db8:2::2", Err(Refused::Destination)),
    ] {
        assert_eq!(judge(&wish, &limits, from, to), verdict, "{from} {to}");
    }
    let nothing = Limits {
        routes: Some(Vec::new()),
        ..Limits::default()
    };
    assert_eq!(judge(&wish, &nothing, "10.9.0.1", "10.9.0.2"), Ok(()));
    let beyond = judge(&wish, &nothing, "10.9.0.1", "198.51.100.1");
    assert_eq!(beyond, Err(Refused::Destination));
}

#[test]
fn without_limits_everything_is_reached_but_special_addresses() {
    let (wish, limits) = (
        wish(&["198.51.100.0/24", "169.254.169.254/32"]),
        Limits::default(),
    );
    for to in ["10.9.0.2", "192.0.2.2", "8.8.8.8", "169.254.169.254"] {
        assert_eq!(judge(&wish, &limits, "10.9.0.1", to), Ok(()), "{to}");
    }
    for to in [
        "127.0.0.1",
        "169.254.1.1",
        "224.0.0.1",
        "255.255.255.255",
        "0.0.0.0",
    ] {
        let verdict = judge(&wish, &limits, "10.9.0.1", to);
        assert_eq!(verdict, Err(Refused::Destination), "{to}");
    }
    let foreign = judge(&wish, &limits, "192.0.2.1", "10.9.0.2");
    assert_eq!(foreign, Err(Refused::Source));
}

#[test]
fn networks_behind_the_local_end_are_named_by_a_limit() {
    let limits = Limits {
        sources: Some(networks(&["10.77.0.0/24"])),
        ..Limits::default()
    };
    let wish = wish(&[]);
    for (from, verdict) in [
        ("10.9.0.1", Ok(())),
        ("10.77.0.7", Ok(())),
        ("10.78.0.7", Err(Refused::Source)),
    ] {
        assert_eq!(judge(&wish, &limits, from, "10.9.0.2"), verdict, "{from}");
    }
}
