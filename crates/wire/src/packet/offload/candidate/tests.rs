//! Which packets are candidates for merging, and which checksums are accepted.

use super::*;
use crate::packet::test_packets::{Template, payload, templates};
use proptest::prelude::*;

const TUN: Mode = Mode::PointToPoint;

fn candidate(packet: &[u8]) -> Candidate {
    match Kind::of(TUN, &VirtioHeader::PLAIN, packet) {
        Kind::Mergeable(candidate) => candidate,
        other => panic!("{other:?}"),
    }
}

#[test]
fn ordinary_data_is_mergeable() {
    for template in Template::all() {
        let packet = template.packet(&payload(100));
        let candidate = candidate(&packet);
        assert_eq!(candidate.length, 100);
        assert_eq!(candidate.sequence, if template.tcp { 1000 } else { 0 });
        let v4 = template.version == IpVersion::V4;
        assert_eq!(candidate.identification, if v4 { 100 } else { 0 });
        assert!(candidate.intact(&packet));
    }
}

#[test]
fn packets_out_of_the_ordinary_stay_whole() {
    let tcp = Template::new(IpVersion::V4, true);
    let changed = |at: usize, byte: u8| {
        let mut packet = tcp.packet(&payload(100));
        packet[at] = byte;
        packet
    };
    let with = |change: fn(&mut Template)| {
        let mut template = tcp.clone();
        change(&mut template);
        template.packet(&payload(100))
    };
    let mut no_checksum = Template::new(IpVersion::V4, false).packet(&payload(100));
    no_checksum[26..28].fill(0);
    let whole = [
        ("pure acknowledgment", tcp.packet(&[])),
        ("FIN", with(|template| template.fin = true)),
        ("ECE", with(|template| template.ece = true)),
        ("CWR", with(|template| template.cwr = true)),
        ("SYN", changed(33, 0x12)),
        ("RST", changed(33, 0x14)),
        ("URG", changed(33, 0x30)),
        ("no ACK", changed(33, 0)),
        ("reserved TCP bit", changed(32, 0x81)),
        ("reserved IPv4 flag", changed(6, 0xc0)),
        ("IPv4 option", with(|template| template.extended = true)),
        (
            "bytes behind",
            [&tcp.packet(&payload(100))[..], &[0]].concat(),
        ),
        ("UDP without checksum", no_checksum),
        (
            "UDP of no payload",
            Template::new(IpVersion::V6, false).packet(&[]),
        ),
    ];
    for (what, packet) in whole {
        assert!(
            matches!(Kind::of(TUN, &VirtioHeader::PLAIN, &packet), Kind::Whole(_)),
            "{what}"
        );
    }
    let between = [("fragment", changed(6, 0x20)), ("ICMP", changed(9, 1))];
    for (what, packet) in between {
        assert!(
            matches!(
                Kind::of(TUN, &VirtioHeader::PLAIN, &packet),
                Kind::Between(_)
            ),
            "{what}"
        );
    }
    assert!(matches!(
        Kind::of(TUN, &VirtioHeader::PLAIN, &changed(0, 0x50)),
        Kind::Unknown
    ));
    assert!(matches!(
        Kind::of(Mode::Ethernet, &VirtioHeader::PLAIN, &[0; 60]),
        Kind::Unknown
    ));
}

#[test]
fn flows_are_told_apart() {
    let tcp = Template::new(IpVersion::V4, true);
    let flow = |template: &Template| candidate(&template.packet(&[1])).flow;
    let other_host = Template {
        host: 2,
        ..tcp.clone()
    };
    let other_port = Template {
        port: 2,
        ..tcp.clone()
    };
    let udp = Template::new(IpVersion::V4, false);
    assert_eq!(
        flow(&tcp),
        flow(&Template {
            sequence: 7,
            ..tcp.clone()
        })
    );
    for other in [&other_host, &other_port, &udp] {
        assert_ne!(flow(&tcp), flow(other));
    }
    assert_eq!(flow(&tcp).pair, flow(&other_port).pair);
    assert_ne!(flow(&tcp).pair, flow(&other_host).pair);
}

#[test]
fn the_other_form_of_zero_is_not_believed() {
    for template in [
        Template::new(IpVersion::V4, true),
        Template::new(IpVersion::V6, true),
    ] {
        // Bytes that make the checksum zero.
        let at = template.transport() + 16;
        let fill: [u8; 2] = field(&template.packet(&[0; 10]), at).unwrap();
        let mut packet = template.packet(&[&fill[..], &[0; 8]].concat());
        assert_eq!(packet[at..at + 2], [0, 0]);
        assert!(candidate(&packet).intact(&packet));
        packet[at..at + 2].fill(0xff);
        assert!(!candidate(&packet).intact(&packet));
    }
}

proptest! {
    #[test]
    fn no_damaged_bit_is_believed(template in templates(false), length in 1..300_usize, at: prop::sample::Index, bit in 0..8_u8) {
        let mut packet = template.packet(&payload(length));
        // No checksum covers the Ethernet header, nor the IPv6 header except its addresses.
        let protected = match template.version {
            IpVersion::V4 => template.link_len(),
            IpVersion::V6 => template.link_len() + 8,
        };
        let at = protected + at.index(packet.len() - protected);
        packet[at] ^= 1_u8 << bit;
        if let Kind::Mergeable(candidate) = Kind::of(template.mode, &VirtioHeader::PLAIN, &packet) {
            prop_assert!(!candidate.intact(&packet));
        }
    }
}
