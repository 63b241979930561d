//! Headers are located where etherparse wrote them.

use super::*;
use crate::packet::test_packets::{Template, payload, templates};
use proptest::prelude::*;

const TUN: Mode = Mode::PointToPoint;

/// An IPv6 packet of UDP behind these extension headers, each given by its own
/// number and its bytes behind the next header's number.
fn extended(extensions: &[(u8, &[u8])]) -> Vec<u8> {
    let plain = Template::new(IpVersion::V6, false).packet(&[9; 10]);
    let mut packet = plain[..40].to_vec();
    let mut last = 6;
    for (number, rest) in extensions {
        packet[last] = *number;
        last = packet.len();
        packet.push(0);
        packet.extend(*rest);
    }
    packet[last] = 17;
    packet.extend(&plain[40..]);
    let length = (packet.len() - 40) as u16;
    packet[4..6].copy_from_slice(&length.to_be_bytes());
    packet
}

const PADDING: [u8; 7] = [0, 1, 4, 0, 0, 0, 0];

#[test]
fn extension_headers_are_walked_over() {
    for chain in [
        &[(0, &PADDING[..])][..],
        &[(0, &PADDING), (43, &[0, 4, 0, 0, 0, 0, 0]), (60, &PADDING)],
        &[(60, &[1; 15])],
        &[(60, &PADDING[..]); 8],
    ] {
        let packet = extended(chain);
        let headers = Headers::locate(TUN, &packet).unwrap();
        assert_eq!(headers.transport_protocol, Transport::Udp);
        assert_eq!(headers.transport, packet.len() - 18);
        assert_eq!(headers.payload, packet.len() - 10);
        assert!(!headers.fragment);
    }
}

#[test]
fn the_walk_ends_at_what_it_does_not_know() {
    let too_many = extended(&[(60, &PADDING[..]); 9]);
    let on_its_way = extended(&[(60, &PADDING), (43, &[0, 4, 1, 0, 0, 0, 0])]);
    let authenticated = extended(&[(51, &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])]);
    for (packet, number, at) in [
        (too_many, 60, 104),
        (on_its_way, 43, 48),
        (authenticated, 51, 40),
    ] {
        let headers = Headers::locate(TUN, &packet).unwrap();
        assert_eq!(headers.transport_protocol, Transport::Other(number));
        assert_eq!((headers.transport, headers.payload), (at, at));
    }
    let mut endless = extended(&[(60, &PADDING)]);
    endless[41] = 255;
    assert_eq!(Headers::locate(TUN, &endless), Err(PacketError::Truncated));
}

#[test]
fn fragments_are_told() {
    let packet = extended(&[(0, &PADDING), (44, &[0, 0, 8, 0, 0, 0, 1])]);
    let headers = Headers::locate(TUN, &packet).unwrap();
    assert!(headers.fragment);
    assert_eq!(headers.payload, 56);
    for bits in [[0x20, 0], [0, 1], [0x3f, 0xff]] {
        // Too short for a TCP header, which a later fragment does not have.
        let mut packet = Template::new(IpVersion::V4, true).packet(&[]);
        packet[6..8].copy_from_slice(&bits);
        packet[2..4].copy_from_slice(&[0, 28]);
        let headers = Headers::locate(TUN, &packet).unwrap();
        assert!(headers.fragment);
        assert_eq!((headers.payload, headers.end), (20, 28));
    }
}

#[test]
fn frames_that_are_not_ip_are_told() {
    let template = Template {
        mode: Mode::Ethernet,
        tags: 2,
        ..Template::new(IpVersion::V4, false)
    };
    let frame = template.packet(&[1; 20]);
    let locate = |frame: &[u8]| Headers::locate(Mode::Ethernet, frame);
    assert!(locate(&frame).is_ok());
    // ARP; IPv6 that is IPv4; a third tag.
    for bytes in [[0x08, 0x06], [0x86, 0xdd], [0x81, 0x00]] {
        let mut other = frame.clone();
        other[20..22].copy_from_slice(&bytes);
        assert_eq!(locate(&other), Err(PacketError::NotIp), "{bytes:x?}");
    }
    for length in 0..frame.len() {
        assert!(locate(&frame[..length]).is_err());
    }
}

proptest! {
    #[test]
    fn headers_are_where_they_were_written(template in templates(true), length in 0..100_usize, behind in 0..10_usize) {
        let mut packet = template.packet(&payload(length));
        let end = packet.len();
        packet.resize(end + behind, 0);
        let headers = Headers::locate(template.mode, &packet).unwrap();
        prop_assert_eq!(headers.ip, template.link_len());
        prop_assert_eq!(headers.transport, template.transport());
        prop_assert_eq!(headers.payload, template.head_len());
        prop_assert_eq!(headers.end, end);
        prop_assert_eq!(headers.version, template.version);
        for length in 0..end {
            prop_assert!(Headers::locate(template.mode, &packet[..length]).is_err());
        }
    }

    #[test]
    fn offsets_of_any_bytes_are_in_order(bytes in prop::collection::vec(any::<u8>(), 0..200), start in prop::sample::select(vec![0x45, 0x46, 0x60]), next in prop::sample::select(vec![0, 6, 17, 43, 44, 60])) {
        let mut bytes = bytes;
        for (at, byte) in [(0, start), (9, next), (6, next), (2, 0), (4, 0)] {
            if let Some(place) = bytes.get_mut(at) { *place = byte; }
        }
        let frame = [&[0; 12][..], &[if start == 0x60 { 0x86 } else { 8 }, if start == 0x60 { 0xdd } else { 0 }], &bytes].concat();
        for (mode, packet) in [(TUN, &bytes), (Mode::Ethernet, &frame)] {
            if let Ok(headers) = Headers::locate(mode, packet) {
                prop_assert!(headers.ip < headers.transport);
                prop_assert!(headers.transport <= headers.payload);
                prop_assert!(headers.payload <= headers.end);
                prop_assert!(headers.end <= packet.len());
            }
        }
    }
}
