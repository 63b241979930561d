//! The guard of DHCP on a shared link.

use std::net::Ipv6Addr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use super::*;
use crate::packet::guard::Reach;
use crate::packet::guard::link::{LinkAddresses, Sender};
use crate::types::Mode;
use crate::types::address_set::AddressSet;

const OURS: [u8; 6] = [2, 0, 0, 0, 0, 5];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 6];
const OWN: [u8; 4] = [10, 9, 0, 5];
const SERVER: [u8; 4] = [10, 9, 0, 1];
const NONE: [u8; 4] = [0; 4];
const ALL: [u8; 4] = [255; 4];

fn set(networks: &[&str]) -> AddressSet {
    let networks = networks.iter().map(|text| text.parse::<IpNetwork>());
    networks.map(Result::unwrap).collect()
}

fn shared() -> Sender {
    let held = LinkAddresses {
        stations: vec![MacAddress(OURS)],
        link_local: vec!["fe80::5".parse().unwrap()],
    };
    Sender::Shared {
        held: Arc::new(held),
        wanted: None,
    }
}

fn judge_as(sender: &mut Sender, ethertype: u16, packet: &[u8]) -> Result<(), Refused> {
    let reach = Reach {
        here: &set(&["10.9.0.1/32", "fd09::1/128"]),
        networks: &[],
        clients: &set(&["10.9.0.0/24", "fd09::/64"]),
        peers: &AddressSet::EMPTY,
    };
    let rules = GuardRules::new(set(&["10.9.0.5/32", "fd09::5/128"]), &reach, true);
    let frame = [&[0xff; 6], &OURS[..], &ethertype.to_be_bytes(), packet].concat();
    rules.check(Mode::Ethernet, sender, &frame)
}

fn udp(ports: (u16, u16), message: &[u8]) -> Vec<u8> {
    let length = (8 + message.len()) as u16;
    let header = [ports.0, ports.1, length, 0].map(u16::to_be_bytes);
    [&header.concat()[..], message].concat()
}

/// `place` is the header's field of fragment flags and offset.
fn v4(from: [u8; 4], to: [u8; 4], place: u16, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let words = 5 + options.len() as u8 / 4;
    let length = (usize::from(words) * 4 + payload.len()) as u16;
    let mut packet = vec![0x40 | words, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0, 7]);
    packet.extend(place.to_be_bytes());
    packet.extend([64, UDP, 0, 0]);
    [&packet[..], &from, &to, options, payload].concat()
}

fn v6(from: &str, to: &str, next: u8, payload: &[u8]) -> Vec<u8> {
    let address = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
    let length = (payload.len() as u16).to_be_bytes();
    let start = [0x60, 0, 0, 0, length[0], length[1], next, 64];
    [&start[..], &address(from), &address(to), payload].concat()
}

/// A message with the fields that the guard checks.
fn message(start: [u8; 3], client: [u8; 4], relay: [u8; 4], station: [u8; 6]) -> Vec<u8> {
    let mut message = start.to_vec();
    message.resize(12, 0);
    message.extend(client);
    message.extend([0; 8]);
    message.extend(relay);
    message.extend(station);
    message.resize(240, 0);
    message
}

const REQUEST: [u8; 3] = [1, 1, 6];

#[test]
fn no_datagram_has_the_ports_of_a_server_or_of_another_client() {
    let judge = |packet: &[u8]| judge_as(&mut shared(), 0x0800, packet);
    let request = message(REQUEST, NONE, NONE, OURS);
    for (ports, verdict) in [
        ((68, 67), Ok(())),
        ((5000, 5000), Ok(())),
        ((546, 547), Ok(())),
        ((67, 68), Err(Refused::NotCarried)),
        ((67, 67), Err(Refused::NotCarried)),
        ((67, 5000), Err(Refused::NotCarried)),
        ((68, 68), Err(Refused::NotCarried)),
        ((68, 5000), Err(Refused::NotCarried)),
        ((5000, 67), Err(Refused::NotCarried)),
        ((5000, 68), Err(Refused::NotCarried)),
    ] {
        let datagram = udp(ports, &request);
        for options in [&[][..], &[1, 1, 1, 0]] {
            let whole = v4(OWN, SERVER, 0, options, &datagram);
            assert_eq!(judge(&whole), verdict, "{ports:?}");
            // A fragment shows the ports, but not the whole message.
            let first = v4(OWN, SERVER, 0x2000, options, &datagram[..64]);
            let expected = match ports {
                (68, 67) => Err(Refused::NotCarried),
                _ => verdict,
            };
            assert_eq!(judge(&first), expected, "{ports:?}");
            let later = v4(OWN, SERVER, 8, options, &datagram);
            assert_eq!(judge(&later), Ok(()), "{ports:?}");
        }
    }
    for length in 0..4 {
        for place in [0, 0x2000] {
            let cut = v4(OWN, SERVER, place, &[], &udp((1, 2), &[])[..length]);
            assert_eq!(judge(&cut), Err(Refused::Malformed), "{length}");
        }
    }
}

#[test]
fn a_client_asks_for_its_own_station_and_address() {
    let source = Err(Refused::Source);
    let not_carried = Err(Refused::NotCarried);
    for (from, to, message, verdict) in [
        (NONE, ALL, message(REQUEST, NONE, NONE, OURS), Ok(())),
        (OWN, ALL, message(REQUEST, OWN, NONE, OURS), Ok(())),
        (OWN, SERVER, message(REQUEST, OWN, NONE, OURS), Ok(())),
        (NONE, ALL, message(REQUEST, NONE, NONE, OTHER), source),
        (OWN, SERVER, message(REQUEST, OWN, NONE, OTHER), source),
        (
            OWN,
            SERVER,
            message(REQUEST, [10, 9, 0, 6], NONE, OURS),
            source,
        ),
        (OWN, SERVER, message(REQUEST, OWN, OWN, OURS), not_carried),
        (
            OWN,
            SERVER,
            message([2, 1, 6], OWN, NONE, OURS),
            not_carried,
        ),
        (
            OWN,
            SERVER,
            message([1, 6, 6], OWN, NONE, OURS),
            not_carried,
        ),
        (
            OWN,
            SERVER,
            message([1, 1, 16], OWN, NONE, OURS),
            not_carried,
        ),
    ] {
        let packet = v4(from, to, 0, &[], &udp((68, 67), &message));
        let judged = judge_as(&mut shared(), 0x0800, &packet);
        assert_eq!(judged, verdict, "{from:?} {to:?} {message:?}");
    }
    let whole = udp((68, 67), &message(REQUEST, NONE, NONE, OURS));
    for length in 8..8 + 28 + 6 {
        let cut = v4(NONE, ALL, 0, &[], &whole[..length]);
        let judged = judge_as(&mut shared(), 0x0800, &cut);
        assert_eq!(judged, Err(Refused::Malformed), "{length}");
    }
}

#[test]
fn by_ipv6_a_client_sends_the_messages_of_a_client() {
    let judge = |packet: &[u8]| judge_as(&mut shared(), 0x86dd, packet);
    for kind in 0..=255 {
        let client = matches!(kind, 1 | 3..=6 | 8 | 9 | 11);
        let expected = if client {
            Ok(())
        } else {
            Err(Refused::NotCarried)
        };
        let datagram = udp((546, 547), &[kind, 1, 2, 3]);
        for (from, to) in [("fe80::5", "ff02::1:2"), ("fd09::5", "fd09::1")] {
            let verdict = judge(&v6(from, to, UDP, &datagram));
            assert_eq!(verdict, expected, "{kind} {from}");
        }
    }
    for ports in [
        (547, 546),
        (547, 547),
        (547, 9),
        (546, 9),
        (9, 546),
        (9, 547),
    ] {
        let reply = udp(ports, &[7, 1, 2, 3]);
        for (from, to) in [("fe80::5", "fe80::9"), ("fd09::5", "fd09::1")] {
            let verdict = judge(&v6(from, to, UDP, &reply));
            assert_eq!(verdict, Err(Refused::NotCarried), "{ports:?} {from}");
        }
        // Behind other headers, and in the first of many fragments.
        let options = [&[UDP, 0, 1, 4, 0, 0, 0, 0][..], &reply].concat();
        for place in [0, 1] {
            let header = |next| [next, 0, 0, place, 0, 0, 0, 7];
            for (next, payload) in [
                (60, options.clone()),
                (44, [&header(UDP)[..], &reply].concat()),
                (44, [&header(60)[..], &options].concat()),
            ] {
                let verdict = judge(&v6("fd09::5", "fd09::1", next, &payload));
                assert_eq!(verdict, Err(Refused::NotCarried), "{ports:?} {next}");
            }
        }
    }
    let none = udp((546, 547), &[]);
    let verdict = judge(&v6("fd09::5", "fd09::1", UDP, &none));
    assert_eq!(verdict, Err(Refused::Malformed));
    let later = [&[UDP, 0, 0, 8, 0, 0, 0, 7][..], &udp((547, 546), &[7])].concat();
    assert_eq!(judge(&v6("fd09::5", "fd09::1", 44, &later)), Ok(()));
}

/// If this host routes the packets, a relay behind the client may ask a server beyond it.
#[test]
fn a_client_alone_on_its_link_may_relay() {
    let relayed = message(REQUEST, NONE, OWN, OTHER);
    let packet = v4(OWN, SERVER, 0, &[], &udp((67, 67), &relayed));
    assert_eq!(judge_as(&mut Sender::default(), 0x0800, &packet), Ok(()));
}
