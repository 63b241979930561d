//! The guard of IP packets, against packets built by etherparse.

use std::net::IpAddr;

use etherparse::{IpNumber, Ipv4Options, PacketBuilder};
use proptest::prelude::*;

use super::*;
use crate::packet::test_packets::templates;

fn networks(networks: &[&str]) -> Vec<IpNetwork> {
    networks.iter().map(|text| text.parse().unwrap()).collect()
}

fn set(of: &[&str]) -> AddressSet {
    networks(of).into_iter().collect()
}

/// A client 10.9.0.5 and fd09::5 with 192.168.7.0/24 behind it; the server is
/// 10.9.0.1 and fd09::1, its pools 10.9.0.0/24 and fd09::/64; another client of
/// the same group is 10.9.0.6 and fd09::6.
fn rules(reachable: &[&str]) -> GuardRules {
    rules_with(reachable, &["10.9.0.6/32", "fd09::6/128"])
}

fn rules_with(reachable: &[&str], peers: &[&str]) -> GuardRules {
    let reach = Reach {
        here: &set(&["10.9.0.1/32", "fd09::1/128"]),
        networks: &networks(reachable),
        clients: &set(&["10.9.0.0/24", "fd09::/64"]),
        peers: &set(peers),
    };
    GuardRules::new(
        set(&["10.9.0.5/32", "fd09::5/128", "192.168.7.0/24"]),
        &reach,
        false,
    )
}

fn packet(from: &str, to: &str) -> Vec<u8> {
    let builder = match (from.parse().unwrap(), to.parse().unwrap()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64),
        mixed => panic!("{mixed:?}"),
    };
    let mut packet = Vec::new();
    builder.udp(5, 6).write(&mut packet, &[0; 30]).unwrap();
    packet
}

fn judge(rules: &GuardRules, packet: &[u8]) -> Result<(), Refused> {
    rules.check(Mode::PointToPoint, &mut Sender::default(), packet)
}

#[test]
fn a_client_sends_from_its_own_addresses_to_where_it_may() {
    let rules = rules(&["10.20.0.0/16", "2001:db8::/32"]);
    for (from, to, verdict) in [
        ("10.9.0.5", "10.9.0.1", Ok(())),
        ("10.9.0.5", "10.9.0.6", Ok(())),
        ("10.9.0.5", "10.20.255.255", Ok(())),
        ("192.168.7.77", "10.20.0.1", Ok(())),
        ("fd09::5", "fd09::1", Ok(())),
        ("fd09::5", "fd09::6", Ok(())),
        ("fd09::5", "2001:db8:1::1", Ok(())),
        ("10.9.0.6", "10.9.0.1", Err(Refused::Source)),
        ("10.9.0.1", "10.9.0.5", Err(Refused::Source)),
        ("0.0.0.0", "10.9.0.1", Err(Refused::Source)),
        ("127.0.0.1", "10.9.0.1", Err(Refused::Source)),
        ("192.168.8.1", "10.20.0.1", Err(Refused::Source)),
        ("fd09::6", "fd09::1", Err(Refused::Source)),
        ("::ffff:10.9.0.5", "fd09::1", Err(Refused::Source)),
        ("10.9.0.5", "10.9.0.7", Err(Refused::Destination)),
        ("10.9.0.5", "10.9.0.255", Err(Refused::Destination)),
        ("10.9.0.5", "8.8.8.8", Err(Refused::Destination)),
        ("10.9.0.5", "255.255.255.255", Err(Refused::Destination)),
        ("10.9.0.5", "224.0.0.251", Err(Refused::Destination)),
        ("fd09::5", "fd09::7", Err(Refused::Destination)),
        ("fd09::5", "ff02::fb", Err(Refused::Destination)),
        ("fd09::5", "fe80::1", Err(Refused::Destination)),
    ] {
        assert_eq!(judge(&rules, &packet(from, to)), verdict, "{from} {to}");
    }
}

#[test]
fn link_local_packets_have_no_place_on_a_tun_device() {
    let rules = rules(&["::/0"]);
    for (from, to) in [
        ("fe80::1", "ff02::2"),
        ("fe80::1", "fe80::2"),
        ("::", "ff02::16"),
    ] {
        assert_eq!(judge(&rules, &packet(from, to)), Err(Refused::NotCarried));
    }
    let leaving = judge(&rules, &packet("fe80::1", "2001:db8::1"));
    assert_eq!(leaving, Err(Refused::Source));
}

#[test]
fn a_default_route_opens_the_world_and_neither_clients_nor_special_places() {
    let rules = rules(&["0.0.0.0/0", "::/0"]);
    for to in ["8.8.8.8", "10.9.1.1", "192.168.7.1", "10.9.0.6"] {
        assert_eq!(judge(&rules, &packet("10.9.0.5", to)), Ok(()), "{to}");
    }
    for to in [
        "10.9.0.7",
        "127.0.0.1",
        "0.0.0.0",
        "169.254.169.254",
        "224.0.0.1",
        "239.1.2.3",
        "240.0.0.1",
        "255.255.255.255",
    ] {
        let verdict = judge(&rules, &packet("10.9.0.5", to));
        assert_eq!(verdict, Err(Refused::Destination), "{to}");
    }
    assert_eq!(judge(&rules, &packet("fd09::5", "2001:db8::1")), Ok(()));
    for to in [
        "fd09::7",
        "::",
        "::1",
        "::ffff:10.0.0.1",
        "fe80::1",
        "ff02::1",
        "ff0e::1",
    ] {
        let verdict = judge(&rules, &packet("fd09::5", to));
        assert_eq!(verdict, Err(Refused::Destination), "{to}");
    }
}

#[test]
fn a_special_place_is_opened_by_a_network_that_lies_in_it() {
    let rules = rules(&["169.254.169.254/32", "ff0e::/16", "239.0.0.0/8"]);
    for (from, to) in [
        ("10.9.0.5", "169.254.169.254"),
        ("10.9.0.5", "239.1.2.3"),
        ("fd09::5", "ff0e::1"),
    ] {
        assert_eq!(judge(&rules, &packet(from, to)), Ok(()), "{to}");
    }
    let beside = judge(&rules, &packet("10.9.0.5", "169.254.1.1"));
    assert_eq!(beside, Err(Refused::Destination));
}

#[test]
fn clients_without_a_common_group_reach_each_other_in_neither_direction() {
    let one = rules_with(&["0.0.0.0/0"], &[]);
    let reach = Reach {
        here: &set(&["10.9.0.1/32"]),
        networks: &[],
        clients: &set(&["10.9.0.0/24"]),
        peers: &AddressSet::EMPTY,
    };
    let other = GuardRules::new(set(&["10.9.0.6/32"]), &reach, false);
    let question = judge(&one, &packet("10.9.0.5", "10.9.0.6"));
    let reply = judge(&other, &packet("10.9.0.6", "10.9.0.5"));
    assert_eq!(
        (question, reply),
        (Err(Refused::Destination), Err(Refused::Destination))
    );
}

#[test]
fn source_routes_are_refused_wherever_the_header_points() {
    let rules = rules(&[]);
    for (options, verdict) in [
        (&[1, 131, 7, 4, 8, 8, 8, 8][..], Err(Refused::Destination)),
        (&[137, 7, 4, 8, 8, 8, 8, 0], Err(Refused::Destination)),
        // Record route, then the end of the options; later bytes are ignored.
        (&[7, 3, 4, 0, 131, 7, 4, 8, 0, 0, 0, 0], Ok(())),
        (&[7, 0, 4, 0], Err(Refused::Malformed)),
        (&[7, 9, 4, 0], Err(Refused::Malformed)),
        (&[1, 1, 1, 7], Err(Refused::Malformed)),
    ] {
        let mut header =
            etherparse::Ipv4Header::new(0, 64, IpNumber::UDP, [10, 9, 0, 5], [10, 9, 0, 1])
                .unwrap();
        header.options = Ipv4Options::try_from(options).unwrap();
        let mut packet = Vec::new();
        header.write(&mut packet).unwrap();
        packet.extend([0; 8]);
        assert_eq!(judge(&rules, &packet), verdict, "{options:?}");
    }
}

/// An IPv6 packet with these bytes behind its header.
fn v6(next: u8, rest: &[u8]) -> Vec<u8> {
    let mut packet = packet("fd09::5", "fd09::1")[..40].to_vec();
    packet[4..6].copy_from_slice(&(rest.len() as u16).to_be_bytes());
    packet[6] = next;
    packet.extend(rest);
    packet
}

#[test]
fn routing_headers_are_found_behind_other_headers() {
    let rules = rules(&[]);
    let routing = |left: u8| [17, 0, 4, left, 0, 0, 0, 0];
    let padding = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    let behind = |first: &[u8], second: &[u8]| [first, second, &[0; 8]].concat();
    let source_routed = Err(Refused::Destination);
    assert_eq!(
        judge(&rules, &v6(43, &behind(&routing(1), &[]))),
        source_routed
    );
    assert_eq!(judge(&rules, &v6(43, &behind(&routing(0), &[]))), Ok(()));
    for kind in [0, 60, 51] {
        // The length of an authentication header is in other units: 8 bytes here.
        let packet = v6(kind, &behind(&padding(43), &routing(1)));
        assert_eq!(judge(&rules, &packet), source_routed, "behind {kind}");
    }
    // Only the first fragment has headers behind the fragment header; later ones have data.
    let later = [43, 0, 0, 9, 0, 0, 0, 1];
    assert_eq!(judge(&rules, &v6(44, &behind(&later, &routing(1)))), Ok(()));
    for more in [0, 1] {
        let first = [43, 0, 0, more, 0, 0, 0, 1];
        assert_eq!(
            judge(&rules, &v6(44, &behind(&first, &routing(1)))),
            source_routed
        );
    }
    let first = [60, 0, 0, 1, 0, 0, 0, 1];
    assert_eq!(judge(&rules, &v6(44, &first)), Err(Refused::Malformed));
    // A header that ends beyond the packet's visible part might hide one.
    let long = [17, 40, 1, 4, 0, 0, 0, 0];
    assert_eq!(judge(&rules, &v6(60, &long)), Err(Refused::Malformed));
    let endless: Vec<u8> = [60, 0, 1, 4, 0, 0, 0, 0].repeat(20);
    assert_eq!(judge(&rules, &v6(60, &endless)), Err(Refused::Malformed));
}

#[test]
fn fragments_are_judged_by_their_addresses() {
    let rules = rules(&[]);
    let mut fragment = packet("10.9.0.5", "10.9.0.1");
    fragment[6..8].copy_from_slice(&[0x20, 0x10]);
    assert_eq!(judge(&rules, &fragment), Ok(()));
    let mut foreign = packet("10.9.0.6", "10.9.0.1");
    foreign[6..8].copy_from_slice(&[0x20, 0x10]);
    assert_eq!(judge(&rules, &foreign), Err(Refused::Source));
}

#[test]
fn bytes_that_are_no_packet_are_malformed() {
    let rules = rules(&["0.0.0.0/0"]);
    let whole = packet("10.9.0.5", "10.9.0.1");
    for length in 0..20 {
        assert_eq!(judge(&rules, &whole[..length]), Err(Refused::Malformed));
    }
    let mut short = whole.clone();
    short[0] = 0x44;
    assert_eq!(judge(&rules, &short), Err(Refused::Malformed));
    let mut long = whole[..40].to_vec();
    long[0] = 0x4f;
    assert_eq!(judge(&rules, &long), Err(Refused::Malformed));
}

proptest! {
    #[test]
    fn a_super_packet_is_judged_as_each_of_its_packets(
        template in templates(false),
        own: bool,
    ) {
        let template = crate::packet::test_packets::Template {
            mode: Mode::PointToPoint,
            tags: 0,
            ..template
        };
        let host = if own { template.host } else { template.host ^ 1 };
        let sources = set(&[&format!("10.0.0.{host}/32"), &format!("fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fd{host:02x}/128")]);
        let all = networks(&["10.0.0.0/8", "fd00::/8"]);
        let reach = Reach {
            here: &AddressSet::EMPTY,
            networks: &all,
            clients: &AddressSet::EMPTY,
            peers: &AddressSet::EMPTY,
        };
        let rules = GuardRules::new(sources, &reach, false);
        let payload = crate::packet::test_packets::payload(5000);
        let (_, whole) = template.super_packet(&payload, 1400);
        let verdict = if own { Ok(()) } else { Err(Refused::Source) };
        // Its headers are enough.
        prop_assert_eq!(judge(&rules, &whole[..template.head_len()]), verdict);
        for packet in template.packets(&payload, 1400) {
            prop_assert_eq!(judge(&rules, &packet), verdict);
        }
    }

    #[test]
    fn what_passes_has_addresses_that_may(
        mut bytes in proptest::collection::vec(any::<u8>(), 40..120),
        (host, there) in any::<(u8, u8)>(),
        v6: bool,
    ) {
        let rules = rules(&["10.20.0.0/16", "2001:db8::/32"]);
        bytes[0] = if v6 { 0x60 } else { 0x40 | bytes[0] & 0xf };
        let (source, destination) = match v6 {
            false => {
                bytes[12..20].copy_from_slice(&[10, 9, 0, host, 10, 9, 0, there]);
                (IpAddr::from([10, 9, 0, host]), IpAddr::from([10, 9, 0, there]))
            }
            true => {
                let (mut one, mut other) = ([0; 16], [0; 16]);
                (one[0], one[1], one[15]) = (0xfd, 9, host % 8);
                (other[0], other[1], other[15]) = (0xfd, 9, there % 8);
                bytes[8..24].copy_from_slice(&one);
                bytes[24..40].copy_from_slice(&other);
                (one.into(), other.into())
            }
        };
        let allowed = rules.sources.contains(source) && rules.destinations.contains(destination);
        if judge(&rules, &bytes).is_ok() {
            prop_assert!(allowed, "{source} {destination}");
        }
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for mode in [Mode::PointToPoint, Mode::Ethernet] {
            let _ = rules(&["0.0.0.0/0"]).check(mode, &mut Sender::default(), &bytes);
        }
    }
}
