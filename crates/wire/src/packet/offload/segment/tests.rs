//! Super-packets against the packets that etherparse builds in their place.

use super::*;
use crate::packet::offload::virtio::{Gso, GsoKind};
use crate::packet::test_packets::{Template, divide, payload, templates, verifies};
use proptest::prelude::*;
use std::num::NonZeroU16;

const TUN: Mode = Mode::PointToPoint;

#[test]
fn segments_are_the_packets_a_sender_would_have_sent() {
    for template in Template::all() {
        let payload = payload(3000);
        let (header, packet) = template.super_packet(&payload, 1400);
        let segments = Segments::new(TUN, &header, &packet).unwrap();
        assert_eq!(segments.count(), 3);
        assert_eq!(segments.segment_len(), template.head_len() + 1400);
        let expected = template.packets(&payload, 1400);
        assert_eq!(divide(TUN, &header, &packet), expected);
    }
}

#[test]
fn flags_are_on_the_segments_they_belong_to() {
    let template = Template {
        psh: true,
        fin: true,
        cwr: true,
        ece: true,
        ..Template::new(IpVersion::V4, true)
    };
    let (header, packet) = template.super_packet(&payload(300), 100);
    let flags: Vec<u8> = divide(TUN, &header, &packet)
        .iter()
        .map(|packet| packet[33])
        .collect();
    assert_eq!(flags, [0xd0, 0x50, 0x59]);
}

#[test]
fn counters_go_round() {
    let template = Template {
        sequence: u32::MAX - 10,
        identification: u16::MAX,
        ..Template::new(IpVersion::V4, true)
    };
    let (header, packet) = template.super_packet(&payload(300), 100);
    let packets = divide(TUN, &header, &packet);
    assert_eq!(packets, template.packets(&payload(300), 100));
    assert_eq!(packets[1][4..6], [0, 0]);
    assert_eq!(packets[1][24..28], 89_u32.to_be_bytes());
}

#[test]
fn segments_are_behind_headroom() {
    let template = Template::new(IpVersion::V6, false);
    let (header, packet) = template.super_packet(&payload(10), 8);
    let segments = Segments::new(TUN, &header, &packet).unwrap();
    let mut made = Vec::new();
    let take = |segment: BytesMut| -> Result<(), OffloadError> {
        made.push(segment.to_vec());
        Ok(())
    };
    assert_eq!(segments.divide(4, take), Ok(2));
    let expected = template.packets(&payload(10), 8);
    let behind = expected
        .iter()
        .map(|packet| [&[0; 4], &packet[..]].concat());
    assert_eq!(made, behind.collect::<Vec<_>>());
}

#[test]
fn a_super_packet_of_one_segment_or_of_no_payload_is_one_packet() {
    for template in Template::all() {
        for length in [0, 1, 99, 100] {
            let (header, packet) = template.super_packet(&payload(length), 100);
            let packets = divide(TUN, &header, &packet);
            assert_eq!(packets, [template.packet(&payload(length))]);
        }
    }
}

#[test]
fn udp_without_checksum_stays_without() {
    let template = Template::new(IpVersion::V4, false);
    let (header, mut packet) = template.super_packet(&payload(250), 100);
    packet[26..28].fill(0);
    let header = VirtioHeader {
        needs_checksum: None,
        ..header
    };
    for segment in divide(TUN, &header, &packet) {
        assert_eq!(segment[26..28], [0, 0]);
    }
    // Over IPv6 the header has to say that the packet is undamaged.
    let template = Template::new(IpVersion::V6, false);
    let (header, mut packet) = template.super_packet(&payload(250), 100);
    packet[46..48].fill(0);
    let unknown = VirtioHeader {
        needs_checksum: None,
        ..header
    };
    let verdict = Segments::new(TUN, &unknown, &packet).map(|_| ());
    assert_eq!(verdict, Err(OffloadError::ChecksumUnknown));
    let known = VirtioHeader {
        data_valid: true,
        ..unknown
    };
    for segment in divide(TUN, &known, &packet) {
        assert!(verifies(TUN, &segment));
    }
}

#[test]
fn an_ordinary_packet_is_not_divided() {
    let template = Template::new(IpVersion::V4, true);
    let (header, packet) = template.partial(&payload(100));
    let verdict = Segments::new(TUN, &header, &packet).map(|_| ());
    assert_eq!(verdict, Err(OffloadError::Sort));
}

#[test]
fn a_zero_checksum_is_written_as_ones_for_udp_only() {
    for (tcp, expected) in [(true, 0), (false, 0xffff)] {
        let template = Template::new(IpVersion::V4, tcp);
        let at = template.transport() + if tcp { 16 } else { 6 };
        // The payload that makes the checksum zero: the checksum of zeros, in their place.
        let checksum = |packet: &[u8]| u16::from_be_bytes([packet[at], packet[at + 1]]);
        let body = checksum(&template.packet(&[0; 100])).to_be_bytes();
        let payload = [&body[..], &[0; 98]].concat();
        let (header, packet) = template.super_packet(&payload, 100);
        let packets = divide(TUN, &header, &packet);
        assert_eq!(checksum(&packets[0]), expected);
        assert_eq!(packets, [template.packet(&payload)]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_super_packet_is_divided_exactly(
        template in templates(true),
        payload in prop::collection::vec(any::<u8>(), 0..3000),
        size in 30..1500_u16,
    ) {
        let (header, packet) = template.super_packet(&payload, size);
        let packets = divide(template.mode, &header, &packet);
        prop_assert!(packets.iter().all(|packet| verifies(template.mode, packet)));
        prop_assert_eq!(packets, template.packets(&payload, usize::from(size)));
    }

    #[test]
    fn a_damaged_super_packet_panics_nowhere_and_yields_only_right_checksums(
        template in templates(true),
        damage in prop::collection::vec((0..120_usize, any::<u8>()), 0..4),
        cut in 0..1000_usize,
        kind in prop::sample::select(vec![GsoKind::Tcp4, GsoKind::Tcp6, GsoKind::Udp]),
        size in 1..100_u16,
    ) {
        let (mut header, mut packet) = template.super_packet(&payload(300), size);
        for (at, byte) in damage {
            if let Some(place) = packet.get_mut(at) { *place = byte; }
        }
        packet.truncate(cut);
        if cut % 4 == 0 {
            header.gso = Some(Gso { kind, ecn: true, size: NonZeroU16::new(size).unwrap(), header_length: 0 });
        }
        if let Ok(segments) = Segments::new(template.mode, &header, &packet) {
            segments.divide(0, |segment| {
                prop_assert!(verifies(template.mode, &segment));
                Ok::<_, TestCaseError>(())
            })?;
        }
    }
}
