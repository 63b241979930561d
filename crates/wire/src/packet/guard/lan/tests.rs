//! The frames of a LAN that reach a client on an ethernet tunnel.

use std::net::IpAddr;

use etherparse::PacketBuilder;
use ipnetwork::IpNetwork;

use super::*;
use crate::packet::guard::ClientTerms;
use crate::packet::guard::link::Sender;
use crate::types::Mode;
use crate::types::address_set::AddressSet;

const STATION: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// A client 10.9.0.5 and fd09::5 on 10.9.0.0/24 and fd09::/64, with a route to
/// 10.20.0.0/16; its host is 192.168.1.2 too.
fn rules() -> GuardRules {
    let set = |of: &[&str]| -> AddressSet {
        of.iter()
            .map(|text| text.parse::<IpNetwork>().unwrap())
            .collect()
    };
    GuardRules::of_client(&ClientTerms {
        own: set(&["10.9.0.5", "fd09::5"]),
        routed: set(&["10.9.0.0/24", "fd09::/64", "10.20.0.0/16"]),
        behind: AddressSet::EMPTY,
        host: set(&["192.168.1.2"]),
        broadcast: set(&["10.9.0.255"]),
    })
}

fn judge(frame: &[u8]) -> Result<(), Refused> {
    rules().check(Mode::Ethernet, &mut Sender::default(), frame)
}

fn udp(from: &str, to: &str, port: u16) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(STATION, [0xff; 6]);
    let builder = match (from.parse().unwrap(), to.parse().unwrap()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => builder.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => builder.ipv6(from.octets(), to.octets(), 64),
        mixed => panic!("{mixed:?}"),
    };
    let mut frame = Vec::new();
    builder.udp(port, 5353).write(&mut frame, &[0; 20]).unwrap();
    frame
}

/// Neighbour discovery of `kind` about `target`.
fn discovery(from: &str, to: &str, kind: u8, target: &str) -> Vec<u8> {
    let octets = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
    let builder = PacketBuilder::ethernet2(STATION, [0xff; 6]).ipv6(octets(from), octets(to), 255);
    let mut frame = Vec::new();
    let builder = builder.icmpv6_raw(kind, 0, [0; 4]);
    builder.write(&mut frame, &octets(target)).unwrap();
    frame
}

fn arp(station: [u8; 6], claimed: [u8; 4], asked: [u8; 4]) -> Vec<u8> {
    let mut frame = [&[0xff; 6][..], &STATION, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
    frame.extend([&station[..], &claimed, &[0; 6], &asked].concat());
    frame
}

#[test]
fn the_hosts_of_the_lan_reach_the_client_and_each_others_groups() {
    for (from, to, verdict) in [
        ("10.9.0.7", "10.9.0.5", Ok(())),
        ("10.20.3.4", "10.9.0.5", Ok(())),
        ("10.9.0.7", "10.9.0.255", Ok(())),
        ("10.9.0.7", "255.255.255.255", Ok(())),
        ("10.9.0.7", "224.0.0.251", Ok(())),
        ("fd09::7", "fd09::5", Ok(())),
        ("fe80::7", "ff02::fb", Ok(())),
        ("fe80::7", "fe80::5", Ok(())),
        ("10.9.0.5", "10.9.0.5", Err(Refused::Source)),
        ("192.168.1.2", "10.9.0.5", Err(Refused::Source)),
        ("192.168.1.9", "10.9.0.5", Err(Refused::Source)),
        ("192.168.1.9", "10.9.0.255", Err(Refused::Source)),
        ("127.0.0.1", "10.9.0.5", Err(Refused::Source)),
        ("fd09::5", "fd09::5", Err(Refused::Source)),
        ("fd44::9", "ff02::fb", Err(Refused::Source)),
        ("::", "ff02::fb", Err(Refused::Source)),
        ("10.9.0.7", "192.168.1.2", Err(Refused::Destination)),
        ("10.9.0.7", "8.8.8.8", Err(Refused::Destination)),
        ("fd09::7", "fd44::2", Err(Refused::Destination)),
        ("fe80::7", "fd44::2", Err(Refused::Destination)),
    ] {
        assert_eq!(judge(&udp(from, to, 5)), verdict, "{from} {to}");
    }
}

#[test]
fn nothing_configures_the_client() {
    for (from, to, port) in [
        ("10.9.0.7", "255.255.255.255", 67),
        ("10.9.0.7", "10.9.0.5", 67),
        ("fe80::7", "fd09::5", 547),
    ] {
        let verdict = judge(&udp(from, to, port));
        assert_eq!(verdict, Err(Refused::NotCarried), "{from} {to} {port}");
    }
    for from in ["fe80::7", "fd09::7"] {
        for kind in [134, 137] {
            let verdict = judge(&discovery(from, "ff02::1", kind, "::"));
            assert_eq!(verdict, Err(Refused::RouterControl), "{from} {kind}");
        }
    }
    // Behind a VLAN tag, and a frame that is not IP.
    let mut tagged = discovery("fe80::7", "ff02::1", 134, "::");
    tagged.splice(12..12, [0x81, 0, 0, 0]);
    assert_eq!(judge(&tagged), Err(Refused::NotCarried));
    assert_eq!(
        judge(&[&[2; 12][..], &[0x88, 0xcc, 0, 0]].concat()),
        Err(Refused::NotCarried)
    );
}

#[test]
fn only_the_client_speaks_for_its_own_addresses() {
    const SOLICITATION: u8 = 135;
    const ADVERTISEMENT: u8 = 136;
    for (from, to, kind, target, verdict) in [
        ("fe80::7", "ff02::1:ff00:5", SOLICITATION, "fd09::5", Ok(())),
        ("fd09::7", "fd09::5", SOLICITATION, "fd09::5", Ok(())),
        // Duplicate address detection of another host gets an answer.
        ("::", "ff02::1:ff00:5", SOLICITATION, "fd09::5", Ok(())),
        ("fe80::7", "fd09::5", ADVERTISEMENT, "fd09::7", Ok(())),
        ("fe80::7", "fd09::5", ADVERTISEMENT, "fe80::7", Ok(())),
        (
            "fe80::7",
            "ff02::1",
            ADVERTISEMENT,
            "fd09::5",
            Err(Refused::Source),
        ),
        (
            "fe80::7",
            "ff02::1",
            ADVERTISEMENT,
            "fd44::9",
            Err(Refused::Source),
        ),
        (
            "::",
            "ff02::1",
            ADVERTISEMENT,
            "fd09::7",
            Err(Refused::Source),
        ),
        (
            "fd44::9",
            "fd09::5",
            SOLICITATION,
            "fd09::5",
            Err(Refused::Source),
        ),
    ] {
        let frame = discovery(from, to, kind, target);
        assert_eq!(judge(&frame), verdict, "{from} {kind} {target}");
    }
    for (station, claimed, verdict) in [
        (STATION, [10, 9, 0, 7], Ok(())),
        (STATION, [0, 0, 0, 0], Ok(())),
        (STATION, [10, 9, 0, 5], Err(Refused::Source)),
        (STATION, [192, 168, 1, 9], Err(Refused::Source)),
        ([2, 0, 0, 0, 0, 8], [10, 9, 0, 7], Err(Refused::Source)),
    ] {
        let frame = arp(station, claimed, [10, 9, 0, 5]);
        assert_eq!(judge(&frame), verdict, "{claimed:?}");
    }
    let mut from_a_group = udp("10.9.0.7", "10.9.0.5", 5);
    from_a_group[6] |= 1;
    assert_eq!(judge(&from_a_group), Err(Refused::Source));
}
