//! Which packets are merged, and which are not.

use super::*;
use crate::packet::test_packets::{Template, divide_unit, payload};

pub(super) const LIMITS: Limits = Limits {
    unit_bytes: MAX_PACKET,
    udp: true,
};

pub(super) fn coalesce(mode: Mode, limits: Limits, packets: &[Vec<u8>]) -> Vec<Unit> {
    let mut coalescer = Coalescer::new(mode, limits);
    for packet in packets {
        coalescer.push(Bytes::copy_from_slice(packet)).unwrap();
    }
    coalescer.flush().collect()
}

/// The number of packets in each unit.
pub(super) fn shape(units: &[Unit]) -> Vec<usize> {
    units
        .iter()
        .map(|unit| match unit {
            Unit::Plain(_) | Unit::Offload(..) => 1,
            Unit::Super(whole) => whole.payloads.len(),
        })
        .collect()
}

fn merged(packets: &[Vec<u8>]) -> Vec<usize> {
    let units = coalesce(Mode::PointToPoint, LIMITS, packets);
    let back: Vec<_> = units
        .iter()
        .flat_map(|unit| divide_unit(Mode::PointToPoint, unit))
        .collect();
    assert_eq!(back, packets);
    shape(&units)
}

/// Three packets of 100 bytes, the second and third changed.
fn three(template: &Template, change: impl Fn(&mut Template)) -> Vec<Vec<u8>> {
    (0..3)
        .map(|index| {
            let mut one = Template {
                sequence: template.sequence + 100 * index,
                identification: template.identification + index as u16,
                ..template.clone()
            };
            if index > 0 {
                change(&mut one);
            }
            one.packet(&payload(100))
        })
        .collect()
}

#[test]
fn consecutive_packets_become_the_super_packet_the_kernel_would_have_made() {
    for template in Template::all() {
        let (header, packet) = template.super_packet(&payload(1000), 300);
        let packets = template.packets(&payload(1000), 300);
        let units = coalesce(Mode::PointToPoint, LIMITS, &packets);
        let [Unit::Super(whole)] = &units[..] else {
            panic!("{units:?}");
        };
        assert_eq!(whole.header, header);
        assert_eq!(whole.head, packet[..template.head_len()]);
        assert_eq!(whole.payloads.concat(), payload(1000));
    }
}

#[test]
fn payloads_are_not_copied() {
    let packets = Template::new(IpVersion::V4, true).packets(&payload(300), 100);
    let packets: Vec<Bytes> = packets.into_iter().map(Bytes::from).collect();
    let mut coalescer = Coalescer::new(Mode::PointToPoint, LIMITS);
    for packet in &packets {
        coalescer.push(packet.clone()).unwrap();
    }
    let Some(Unit::Super(whole)) = coalescer.flush().next() else {
        panic!("nothing was merged");
    };
    for (packet, payload) in packets.iter().zip(&whole.payloads) {
        assert_eq!(payload.as_ptr(), packet[packet.len() - 100..].as_ptr());
    }
}

#[test]
fn one_packet_alone_is_the_very_same() {
    let packet = Bytes::from(Template::new(IpVersion::V4, true).packet(&payload(100)));
    let mut coalescer = Coalescer::new(Mode::PointToPoint, LIMITS);
    coalescer.push(packet.clone()).unwrap();
    assert!(!coalescer.is_empty());
    let units: Vec<Unit> = coalescer.flush().collect();
    assert!(matches!(&units[..], [Unit::Plain(same)] if same.as_ptr() == packet.as_ptr()));
    assert!(coalescer.is_empty());
}

#[test]
fn headers_have_to_be_equal() {
    let v4 = Template::new(IpVersion::V4, true);
    let v6 = Template::new(IpVersion::V6, true);
    type Change = fn(&mut Template);
    let changes: [(&str, Change); 6] = [
        ("acknowledgment", |one| one.acknowledgment += 1),
        ("window", |one| one.window += 1),
        ("option", |one| one.options[7] += 1),
        ("hops", |one| one.hops -= 1),
        ("DSCP", |one| one.class = 4),
        ("ECN", |one| one.class = 3),
    ];
    for (what, change) in changes {
        // The first differs from the others, which are merged.
        assert_eq!(merged(&three(&v4, change)), [1, 2], "{what}");
        assert_eq!(merged(&three(&v6, change)), [1, 2], "{what}");
    }
    assert_eq!(merged(&three(&v4, |one| one.dont_fragment = false)), [1, 2]);
    assert_eq!(merged(&three(&v6, |one| one.flow_label += 1)), [1, 2]);
    assert_eq!(
        merged(&three(&v4, |one| one.options.extend([1; 4]))),
        [1, 2]
    );
    assert_eq!(merged(&three(&v4, |_| {})), [3]);
}

#[test]
fn identifications_count_up_by_one() {
    let v4 = Template::new(IpVersion::V4, true);
    assert_eq!(
        merged(&three(&v4, |one| one.identification = 100)),
        [1, 1, 1]
    );
    assert_eq!(merged(&three(&v4, |one| one.identification += 1)), [1, 2]);
    // Linux gives datagrams of an unconnected socket the identification 0; segmentation would
    // change it.
    let zero = Template {
        identification: 0,
        ..Template::new(IpVersion::V4, false)
    };
    assert_eq!(
        merged(&three(&zero, |one| one.identification = 0)),
        [1, 1, 1]
    );
    let last = Template {
        identification: u16::MAX,
        sequence: u32::MAX,
        ..v4
    };
    assert_eq!(merged(&last.packets(&payload(300), 100)), [3]);
}

#[test]
fn sequence_numbers_follow_each_other() {
    let template = Template::new(IpVersion::V6, true);
    assert_eq!(merged(&three(&template, |one| one.sequence += 1)), [1, 2]);
    assert_eq!(merged(&three(&template, |one| one.sequence -= 100)), [1, 2]);
}

#[test]
fn push_ends_a_unit() {
    let template = Template::new(IpVersion::V4, true);
    assert_eq!(merged(&three(&template, |one| one.psh = true)), [2, 1]);
    let push = Template {
        psh: true,
        ..template
    };
    assert_eq!(merged(&three(&push, |_| {})), [1, 1, 1]);
}

#[test]
fn sizes_are_equal_but_for_a_shorter_last() {
    for template in Template::all() {
        let mut packets = Vec::new();
        let mut one = template.clone();
        for length in [100, 100, 99, 100, 101, 101, 50, 50, 50] {
            packets.push(one.packet(&payload(length)));
            one.sequence += length as u32;
            one.identification += 1;
        }
        assert_eq!(merged(&packets), [3, 1, 3, 2]);
    }
}

#[test]
fn damaged_packets_pass_as_they_are() {
    for template in Template::all() {
        for damaged in 0..4 {
            let mut packets = template.packets(&payload(400), 100);
            *packets[damaged].last_mut().unwrap() ^= 1;
            let shapes: [&[usize]; 4] = [&[1, 3], &[1, 1, 2], &[2, 1, 1], &[3, 1]];
            assert_eq!(merged(&packets), shapes[damaged]);
        }
        if template.version == IpVersion::V4 {
            let mut packets = template.packets(&payload(200), 100);
            packets[1][10] ^= 1;
            assert_eq!(merged(&packets), [1, 1]);
        }
    }
}

#[test]
fn what_is_not_merged_closes_its_flow() {
    let template = Template::new(IpVersion::V4, true);
    let packets = template.packets(&payload(600), 100);
    let acknowledgment = Template {
        sequence: 1300,
        ..template.clone()
    }
    .packet(&[]);
    let mut fragment = template.packet(&payload(8));
    fragment[6] = 0x20;
    let mut odd = fragment.clone();
    odd[0] = 0x50;
    for between in [acknowledgment, fragment, odd] {
        let list = [&packets[..3], &[between], &packets[3..]].concat();
        assert_eq!(merged(&list), [3, 1, 3]);
    }
    let elsewhere = Template {
        host: 7,
        ..template
    }
    .packet(&[]);
    let list = [&packets[..3], &[elsewhere], &packets[3..]].concat();
    let units = coalesce(Mode::PointToPoint, LIMITS, &list);
    assert_eq!(shape(&units), [6, 1]);
}

/// Packets of `flows` flows in turn, `rounds` of each.
fn interleaved(flows: u8, rounds: usize) -> Vec<Vec<u8>> {
    let each: Vec<_> = (0..flows)
        .map(|host| {
            let template = Template {
                host,
                ..Template::all()[usize::from(host % 4)].clone()
            };
            template.packets(&payload(100 * rounds), 100)
        })
        .collect();
    (0..rounds)
        .flat_map(|round| each.iter().map(move |packets| packets[round].clone()))
        .collect()
}

#[test]
fn flows_are_merged_side_by_side() {
    let shape_of = |flows| {
        shape(&coalesce(
            Mode::PointToPoint,
            LIMITS,
            &interleaved(flows, 5),
        ))
    };
    assert_eq!(shape_of(16), [5; 16]);
    // One flow more than stay open: each is closed before its next packet.
    assert_eq!(shape_of(17), [1; 85]);
}

#[test]
fn limits_are_kept() {
    for template in Template::all() {
        let packets = template.packets(&payload(13000), 100);
        assert_eq!(merged(&packets), [64, 64, 2]);
        let head = template.head_len();
        for (unit_bytes, expected) in [(head + 300, 3), (head + 299, 2), (head + 100, 1), (0, 1)] {
            let limits = Limits {
                unit_bytes,
                ..LIMITS
            };
            let units = coalesce(Mode::PointToPoint, limits, &packets[..30]);
            assert_eq!(shape(&units), vec![expected; 30 / expected]);
        }
        let large: Vec<_> = [0, 1, 2]
            .iter()
            .flat_map(|index| {
                let one = Template {
                    sequence: 60000 * index,
                    identification: 2 * *index as u16,
                    ..template.clone()
                };
                one.packets(&payload(60000), 30000)
            })
            .collect();
        let limits = Limits {
            unit_bytes: usize::MAX,
            ..LIMITS
        };
        assert_eq!(
            shape(&coalesce(Mode::PointToPoint, limits, &large)),
            [2, 2, 2]
        );
    }
}

#[test]
fn udp_is_merged_only_where_it_may_be() {
    let limits = Limits {
        udp: false,
        ..LIMITS
    };
    for template in Template::all() {
        let packets = template.packets(&payload(300), 100);
        let expected: &[usize] = if template.tcp { &[3] } else { &[1, 1, 1] };
        assert_eq!(
            shape(&coalesce(Mode::PointToPoint, limits, &packets)),
            expected
        );
    }
}

#[test]
fn segments_smaller_than_the_kernel_takes_are_not_begun_with() {
    let template = Template::new(IpVersion::V6, true);
    assert_eq!(merged(&template.packets(&payload(21), 7)), [1, 1, 1]);
    assert_eq!(merged(&template.packets(&payload(20), 8)), [3]);
}

#[test]
fn a_full_coalescer_gives_the_packet_back() {
    let packets = Template::new(IpVersion::V4, true).packets(&payload(8 * 600), 8);
    let mut coalescer = Coalescer::new(Mode::PointToPoint, LIMITS);
    let mut packets = packets.into_iter().map(Bytes::from);
    for packet in packets.by_ref().take(MAX_BATCH) {
        coalescer.push(packet).unwrap();
    }
    let next = packets.next().unwrap();
    assert_eq!(coalescer.push(next.clone()), Err(next.clone()));
    assert_eq!(shape(&coalescer.flush().collect::<Vec<_>>()), [64; 8]);
    assert_eq!(coalescer.push(next), Ok(()));
}
