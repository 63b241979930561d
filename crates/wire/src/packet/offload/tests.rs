//! Offload headers that match their packets, and each kind of mismatch.

use super::*;
use crate::packet::test_packets::{Template, payload, templates, verifies};
use proptest::prelude::*;
use std::num::NonZeroU16;

const TUN: Mode = Mode::PointToPoint;

fn size(size: u16) -> NonZeroU16 {
    NonZeroU16::new(size).unwrap()
}

fn with_gso(header: VirtioHeader, change: impl FnOnce(&mut Gso)) -> VirtioHeader {
    let mut gso = header.gso.unwrap();
    change(&mut gso);
    VirtioHeader {
        gso: Some(gso),
        ..header
    }
}

#[test]
fn the_length_of_the_headers_is_made_the_real_one() {
    for template in Template::all() {
        let (header, packet) = template.super_packet(&payload(500), 100);
        for claimed in [0, 14, 0xffff] {
            let claim = with_gso(header, |gso| gso.header_length = claimed);
            assert_eq!(check(TUN, &claim, &packet), Ok(header));
        }
    }
}

#[test]
fn a_header_that_asks_for_nothing_fits_anything() {
    let valid = VirtioHeader {
        data_valid: true,
        ..VirtioHeader::PLAIN
    };
    for header in [VirtioHeader::PLAIN, valid] {
        for packet in [&[][..], &[0xff; 30]] {
            assert_eq!(check(TUN, &header, packet), Ok(header));
            assert_eq!(finish_checksum(TUN, &header, &mut packet.to_vec()), Ok(()));
        }
    }
}

#[test]
fn the_checksum_goes_where_the_protocol_has_it() {
    for template in Template::all() {
        let (header, packet) = template.partial(&payload(50));
        let right = header.needs_checksum.unwrap();
        for (start, offset) in [(0, 0), (1, 0), (0, 2), (0xffff, 0), (0, 0xffff)] {
            let partial = PartialChecksum {
                start: right.start.wrapping_add(start),
                offset: right.offset.wrapping_add(offset),
            };
            let claim = VirtioHeader {
                needs_checksum: Some(partial),
                ..header
            };
            let expected = match partial == right {
                true => Ok(claim),
                false => Err(OffloadError::ChecksumPlace),
            };
            assert_eq!(check(TUN, &claim, &packet), expected);
        }
    }
}

#[test]
fn the_kind_is_that_of_the_packet() {
    let kinds = [GsoKind::Tcp4, GsoKind::Tcp6, GsoKind::Udp, GsoKind::Udp];
    for (template, right) in Template::all().iter().zip(kinds) {
        let (header, packet) = template.super_packet(&payload(500), 100);
        for kind in [GsoKind::Tcp4, GsoKind::Tcp6, GsoKind::Udp] {
            let claim = with_gso(header, |gso| gso.kind = kind);
            let expected = if kind == right {
                Ok(claim)
            } else {
                Err(OffloadError::Kind)
            };
            assert_eq!(check(TUN, &claim, &packet), expected);
        }
    }
}

#[test]
fn sizes_are_those_that_a_kernel_makes() {
    for (template, smallest) in Template::all().iter().zip([8, 8, 4, 4]) {
        let (header, packet) = template.super_packet(&payload(512), 100);
        let largest = 65535 - template.head_len() as u16;
        for (claimed, fits) in [
            (1, false),
            (smallest - 1, false),
            (smallest, true),
            (largest, true),
            (largest + 1, false),
            (0xffff, false),
        ] {
            let claim = with_gso(header, |gso| gso.size = size(claimed));
            let expected = if fits {
                Ok(claim)
            } else {
                Err(OffloadError::Size)
            };
            assert_eq!(check(TUN, &claim, &packet), expected, "{claimed}");
        }
    }
}

#[test]
fn lengths_agree() {
    for template in Template::all() {
        let (header, packet) = template.super_packet(&payload(500), 100);
        let longer = [&packet[..], &[0]].concat();
        assert_eq!(check(TUN, &header, &longer), Err(OffloadError::Length));
        let shorter = &packet[..packet.len() - 1];
        let truncated = OffloadError::Packet(PacketError::Truncated);
        assert_eq!(check(TUN, &header, shorter), Err(truncated));
        if !template.tcp {
            let mut odd = packet.clone();
            odd[template.transport() + 5] ^= 1;
            assert_eq!(check(TUN, &header, &odd), Err(OffloadError::Length));
        }
    }
    // The length of a jumbogram (RFC 2675), and of BIG TCP.
    let (header, mut packet) = Template::new(IpVersion::V6, true).super_packet(&payload(500), 100);
    packet[4..6].fill(0);
    assert!(check(TUN, &header, &packet).is_err());
    let (header, mut packet) = Template::new(IpVersion::V4, true).super_packet(&payload(500), 100);
    packet[2..4].fill(0);
    assert!(check(TUN, &header, &packet).is_err());
}

#[test]
fn fragments_and_other_protocols_are_refused() {
    let (header, packet) = Template::new(IpVersion::V4, true).super_packet(&payload(500), 100);
    for (at, bits, expected) in [
        (6, 0x20, OffloadError::Fragment),
        (7, 0x01, OffloadError::Fragment),
        (9, 6 ^ 1, OffloadError::Transport),
    ] {
        let mut other = packet.clone();
        other[at] ^= bits;
        assert_eq!(check(TUN, &header, &other), Err(expected));
        let partial = VirtioHeader {
            gso: None,
            ..header
        };
        assert_eq!(finish_checksum(TUN, &partial, &mut other), Err(expected));
    }
}

#[test]
fn segments_need_a_checksum_that_is_open_or_known() {
    for template in Template::all() {
        let (header, packet) = template.super_packet(&payload(500), 100);
        let unknown = VirtioHeader {
            needs_checksum: None,
            ..header
        };
        let verdict = check(TUN, &unknown, &packet);
        assert_eq!(verdict, Err(OffloadError::ChecksumUnknown));
        let valid = VirtioHeader {
            data_valid: true,
            ..unknown
        };
        assert_eq!(check(TUN, &valid, &packet), Ok(valid));
    }
}

#[test]
fn a_super_packet_is_not_finished() {
    let (header, mut packet) = Template::new(IpVersion::V4, true).super_packet(&payload(500), 100);
    let before = packet.clone();
    assert_eq!(
        finish_checksum(TUN, &header, &mut packet),
        Err(OffloadError::Sort)
    );
    assert_eq!(packet, before);
}

proptest! {
    #[test]
    fn finished_packets_are_those_of_etherparse(template in templates(true), bytes in prop::collection::vec(any::<u8>(), 0..500)) {
        let (header, mut packet) = template.partial(&bytes);
        finish_checksum(template.mode, &header, &mut packet).unwrap();
        prop_assert_eq!(&packet, &template.packet(&bytes));
        prop_assert!(verifies(template.mode, &packet));
    }

    #[test]
    fn nothing_panics(header: [u8; 10], bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(header) = VirtioHeader::from_bytes(&header) {
            for mode in [TUN, Mode::Ethernet] {
                let _ = check(mode, &header, &bytes);
                let _ = finish_checksum(mode, &header, &mut bytes.clone());
            }
        }
    }
}
