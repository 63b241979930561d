//! Packets of one flow have one key, packets of different flows do not.

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::*;
use crate::packet::test_packets::udp;

const SOURCE: [u8; 4] = [10, 0, 0, 1];
const DESTINATION: [u8; 4] = [10, 0, 0, 2];

fn ipv4(protocol: u8, fragment: u16, identification: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap();
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    packet.extend(identification.to_be_bytes());
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(SOURCE);
    packet.extend(DESTINATION);
    packet.extend(payload);
    packet
}

fn ipv6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([next_header, 64]);
    packet.extend([1; 16]);
    packet.extend([2; 16]);
    packet.extend(payload);
    packet
}

fn ethernet(tags: &[u16], ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend([0, 7]);
    }
    frame.extend(ether_type.to_be_bytes());
    frame.extend(payload);
    frame
}

fn ipv4_identity_with(protocol: u8, discriminator: Discriminator) -> Option<Identity> {
    Some(Identity::Ip {
        source: Ipv4Addr::from(SOURCE).into(),
        destination: Ipv4Addr::from(DESTINATION).into(),
        protocol,
        discriminator,
    })
}

fn ipv6_identity_with(protocol: u8, discriminator: Discriminator) -> Option<Identity> {
    Some(Identity::Ip {
        source: Ipv6Addr::from([1; 16]).into(),
        destination: Ipv6Addr::from([2; 16]).into(),
        protocol,
        discriminator,
    })
}

#[test]
fn ports_and_spi_are_read_and_types_of_icmp_are_not() {
    let payload = [1, 2, 3, 4, 5, 6, 7, 8];
    let start = [1, 2, 3, 4];
    for (protocol, expected) in [
        (6, Discriminator::Ports(start)),
        (17, Discriminator::Ports(start)),
        (132, Discriminator::Ports(start)),
        (50, Discriminator::SecurityParametersIndex(start)),
        (1, Discriminator::None),
        (58, Discriminator::None),
        (47, Discriminator::None),
    ] {
        assert_eq!(
            ip_identity(&ipv4(protocol, 0, 9, &payload)),
            ipv4_identity_with(protocol, expected)
        );
        assert_eq!(
            ip_identity(&ipv6(protocol, &payload)),
            ipv6_identity_with(protocol, expected)
        );
    }
}

#[test]
fn options_of_ipv4_are_skipped() {
    let mut packet = ipv4(17, 0, 9, &[1, 1, 1, 1, 9, 8, 7, 6, 0, 0, 0, 0]);
    packet[0] = 0x46;
    assert_eq!(
        ip_identity(&packet),
        ipv4_identity_with(17, Discriminator::Ports([9, 8, 7, 6]))
    );
}

#[test]
fn all_fragments_between_two_hosts_are_one_flow() {
    let more_fragments = ipv4(17, 0x2000, 77, &[1, 2, 3, 4, 0, 0, 0, 0]);
    let last = ipv4(17, 185, 77, &[9; 8]);
    let expected = ipv4_identity_with(17, Discriminator::Fragment);
    assert_eq!(ip_identity(&more_fragments), expected);
    assert_eq!(ip_identity(&last), expected);
    // Don't Fragment does not make a fragment.
    assert_eq!(
        ip_identity(&ipv4(17, 0x4000, 77, &[1, 2, 3, 4])),
        ipv4_identity_with(17, Discriminator::Ports([1, 2, 3, 4]))
    );
}

#[test]
fn extension_headers_of_ipv6_are_skipped() {
    let mut payload = vec![60, 0, 0, 0, 0, 0, 0, 0]; // hop-by-hop, then destination options
    payload.extend([[51, 1].as_slice(), &[0; 14]].concat()); // 16 bytes, then AH
    payload.extend([[43, 4].as_slice(), &[0; 22]].concat()); // 24 bytes, then routing
    payload.extend([6, 0, 0, 0, 0, 0, 0, 0]); // then TCP
    payload.extend([1, 2, 3, 4]);
    assert_eq!(
        ip_identity(&ipv6(0, &payload)),
        ipv6_identity_with(6, Discriminator::Ports([1, 2, 3, 4]))
    );
}

#[test]
fn fragments_of_ipv6_are_one_flow_unless_they_are_whole() {
    let fragment = |offset: [u8; 2]| {
        let mut payload = vec![17, 0];
        payload.extend(offset);
        payload.extend([0, 1, 0, 2]);
        payload.extend([1, 2, 3, 4]);
        ip_identity(&ipv6(44, &payload))
    };
    let expected = ipv6_identity_with(17, Discriminator::Fragment);
    assert_eq!(fragment([0, 1]), expected, "the first");
    assert_eq!(fragment([5, 0xa8]), expected, "the last");
    let atomic = ipv6_identity_with(17, Discriminator::Ports([1, 2, 3, 4]));
    assert_eq!(fragment([0, 0]), atomic);
    assert_eq!(fragment([0, 6]), atomic, "reserved bits are ignored");
}

#[test]
fn the_search_behind_extension_headers_is_bounded() {
    let options = |count: usize| {
        let mut payload = [60, 0, 0, 0, 0, 0, 0, 0].repeat(count - 1);
        payload.extend([17, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        ip_identity(&ipv6(60, &payload))
    };
    assert_eq!(
        options(MAX_EXTENSION_HEADERS),
        ipv6_identity_with(17, Discriminator::Ports([1, 2, 3, 4]))
    );
    assert_eq!(
        options(MAX_EXTENSION_HEADERS + 2),
        ipv6_identity_with(60, Discriminator::None)
    );
}

#[test]
fn headers_that_are_cut_leave_the_addresses() {
    assert_eq!(
        ip_identity(&ipv4(6, 0, 1, &[1, 2, 3])),
        ipv4_identity_with(6, Discriminator::None)
    );
    assert_eq!(
        ip_identity(&ipv6(0, &[6, 255, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4])),
        ipv6_identity_with(6, Discriminator::None)
    );
    assert_eq!(ip_identity(&ipv4(6, 0, 1, &[])[..19]), None);
}

#[test]
fn ethernet_frames_go_by_the_ip_packet_behind_their_tags() {
    for packet in [udp(IpVersion::V4, 9), udp(IpVersion::V6, 9)] {
        let ether_type = if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd };
        let expected = ip_identity(&packet);
        assert!(expected.is_some());
        for tags in [&[][..], &[0x8100], &[0x88a8, 0x8100], &[0x9100, 0x8100]] {
            let frame = ethernet(tags, ether_type, &packet);
            assert_eq!(ethernet_identity(&frame), expected, "{tags:x?}");
        }
    }
}

#[test]
fn other_ethernet_frames_go_by_their_addresses() {
    let link = |ether_type| {
        Some(Identity::Link {
            source: [2, 0, 0, 0, 0, 1],
            destination: [2, 0, 0, 0, 0, 2],
            ether_type,
        })
    };
    assert_eq!(
        ethernet_identity(&ethernet(&[], 0x0806, &[0; 28])),
        link(0x0806)
    );
    assert_eq!(
        ethernet_identity(&ethernet(&[0x8100], 0x0806, &[])),
        link(0x0806)
    );
    assert_eq!(
        ethernet_identity(&ethernet(&[], 0x0800, &[0xff; 40])),
        link(0x0800)
    );
    // A length, which does not identify the flow.
    assert_eq!(ethernet_identity(&ethernet(&[], 38, &[0; 38])), link(0));
    // A third tag is not parsed.
    let deep = ethernet(&[0x8100; 3], 0x0806, &[]);
    assert_eq!(ethernet_identity(&deep), link(0x8100));
    assert_eq!(ethernet_identity(&deep[..13]), None);
}

#[test]
fn keys_are_equal_within_a_flow_and_differ_between_flows_and_classifiers() {
    let packet = |port: u16, payload: &[u8]| {
        let mut packet = Vec::new();
        PacketBuilder::ipv4(SOURCE, DESTINATION, 64)
            .tcp(port, 443, 1, 64000)
            .write(&mut packet, payload)
            .unwrap();
        packet
    };
    let classifier = FlowClassifier::new();
    let key =
        |port, payload: &[u8]| classifier.classify(Mode::PointToPoint, &packet(port, payload));
    assert_eq!(key(1000, b""), key(1000, b"more"));
    let keys: std::collections::HashSet<_> = (0..1000).map(|port| key(port, b"")).collect();
    assert_eq!(keys.len(), 1000);
    let frame = ethernet(&[], 0x0800, &packet(1000, b""));
    assert_eq!(classifier.classify(Mode::Ethernet, &frame), key(1000, b""));
    let other = FlowClassifier::new().classify(Mode::PointToPoint, &packet(1000, b""));
    assert_ne!(other, key(1000, b""));
}

#[test]
fn every_part_of_an_identity_counts() {
    let mut identities = Vec::new();
    for discriminator in [
        Discriminator::Ports([0; 4]),
        Discriminator::Ports([0, 0, 0, 1]),
        Discriminator::SecurityParametersIndex([0; 4]),
        Discriminator::Fragment,
        Discriminator::None,
    ] {
        for protocol in [6, 17] {
            let pairs = [
                ("10.0.0.1", "10.0.0.2"),
                ("10.0.0.2", "10.0.0.1"),
                ("10.0.0.1", "10.0.0.3"),
                ("fd00::1", "fd00::2"),
                ("fd00::2", "fd00::1"),
                ("fd00::1", "fd00::3"),
            ];
            identities.extend(pairs.map(|(source, destination)| Identity::Ip {
                source: source.parse().unwrap(),
                destination: destination.parse().unwrap(),
                protocol,
                discriminator,
            }));
        }
    }
    for (source, destination, ether_type) in
        [(1, 2, 0x806), (2, 1, 0x806), (1, 3, 0x806), (1, 2, 0x88cc)]
    {
        identities.push(Identity::Link {
            source: [source; 6],
            destination: [destination; 6],
            ether_type,
        });
    }
    let key = RandomState::new();
    let hashes: std::collections::HashSet<u64> =
        identities.iter().map(|i| key.hash_one(i)).collect();
    assert_eq!(hashes.len(), identities.len());
}

/// The low bits choose the bucket.
#[test]
fn keys_are_spread() {
    let classifier = FlowClassifier::new();
    let mut counts = [0_u32; 16];
    for port in 0..16_000_u16 {
        let packet = ipv4(17, 0, 0, &port.to_be_bytes().repeat(2));
        let key = classifier.classify(Mode::PointToPoint, &packet);
        counts[(key.hash() % 16) as usize] += 1;
    }
    // 1000 expected, a standard deviation of 31: eight of them.
    assert!(
        counts.iter().all(|count| (750..1250).contains(count)),
        "{counts:?}"
    );
}

proptest! {
    #[test]
    fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
        let classifier = FlowClassifier::new();
        classifier.classify(Mode::PointToPoint, &bytes);
        classifier.classify(Mode::Ethernet, &bytes);
        for version in [0x45, 0x4f, 0x60] {
            if let Some(first) = bytes.first_mut() {
                *first = version;
            }
            classifier.classify(Mode::PointToPoint, &bytes);
            for ether_type in [0x0800, 0x86dd] {
                classifier.classify(Mode::Ethernet, &ethernet(&[], ether_type, &bytes));
            }
        }
    }

    #[test]
    fn no_chain_of_extension_headers_panics(
        first in prop::sample::select(vec![0_u8, 43, 44, 51, 60]),
        headers in proptest::collection::vec(
            (prop::sample::select(vec![0_u8, 6, 43, 44, 51, 60]), 0..3_u8, any::<[u8; 6]>()),
            0..12,
        ),
        cut in 0..8_usize,
    ) {
        let mut payload = Vec::new();
        for (next, length, rest) in headers {
            payload.extend([next, length]);
            payload.extend(rest);
        }
        payload.truncate(payload.len().saturating_sub(cut));
        prop_assert!(ip_identity(&ipv6(first, &payload)).is_some());
    }
}
