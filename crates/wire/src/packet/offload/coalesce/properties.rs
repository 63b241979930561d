//! Nothing is lost, changed or overtaken, whatever comes.

use super::tests::{LIMITS, coalesce, shape};
use super::*;
use crate::packet::test_packets::{Template, divide, divide_unit, payload, templates};
use proptest::prelude::*;
use std::collections::HashMap;

/// What is done to one packet of a stream.
#[derive(Debug, Clone, Copy)]
enum Turn {
    Plainly,
    Push,
    Short,
    NewAcknowledgment,
    Lost,
    Damaged,
    Fragment,
    OtherProtocol,
    Unreadable,
    Empty,
}

fn turns() -> impl Strategy<Value = Turn> {
    use Turn::*;
    prop_oneof![
        20 => Just(Plainly),
        1 => prop::sample::select(vec![Push, Short, NewAcknowledgment, Lost, Damaged, Fragment, OtherProtocol, Unreadable, Empty]),
    ]
}

/// The next packet of the stream that `template` is in; what it stands for is
/// the stream's next packet afterwards.
fn next_packet(template: &mut Template, turn: Turn) -> Vec<u8> {
    let length = match turn {
        Turn::Short => 33,
        Turn::Empty => 0,
        _ => 64,
    };
    match turn {
        Turn::NewAcknowledgment => {
            template.acknowledgment = template.acknowledgment.wrapping_add(1)
        }
        Turn::Lost => template.sequence = template.sequence.wrapping_add(64),
        _ => {}
    }
    let one = Template {
        psh: matches!(turn, Turn::Push) && template.tcp,
        ..template.clone()
    };
    // Numbered, so that no two packets of a stream are equal.
    let mut body = payload(length);
    if let Some(front) = body.first_chunk_mut() {
        *front = template.sequence.to_be_bytes();
    }
    let mut packet = one.packet(&body);
    let ip = template.link_len();
    match (turn, template.version) {
        (Turn::Damaged, _) => *packet.last_mut().unwrap() ^= 0x10,
        (Turn::Fragment, IpVersion::V4) => packet[ip + 6] |= 0x20,
        (Turn::Fragment, IpVersion::V6) => packet[ip + 6] = 44,
        (Turn::OtherProtocol, IpVersion::V4) => packet[ip + 9] = 50,
        (Turn::OtherProtocol, IpVersion::V6) => packet[ip + 6] = 50,
        (Turn::Unreadable, _) => packet[ip] = 0x15,
        _ => {}
    }
    template.sequence = template.sequence.wrapping_add(length as u32);
    template.identification = template.identification.wrapping_add(1);
    packet
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_was_divided_is_merged_again(
        template in templates(false),
        size in 8..1500_u16,
        segments in 2..=40_usize,
        last: prop::sample::Index,
    ) {
        let size_bytes = usize::from(size);
        let length = size_bytes * (segments - 1) + 1 + last.index(size_bytes);
        let length = length.min(MAX_PACKET - template.head_len());
        let payload = payload(length);
        let (header, packet) = template.super_packet(&payload, size);
        let packets = divide(template.mode, &header, &packet);
        let units = coalesce(template.mode, LIMITS, &packets);
        let [Unit::Super(whole)] = &units[..] else {
            return Err(TestCaseError::fail(format!("{:?}", shape(&units))));
        };
        prop_assert_eq!(whole.header, header);
        prop_assert_eq!([&whole.head[..], &whole.payloads.concat()].concat(), packet);
    }

    #[test]
    fn every_packet_comes_back_in_the_order_of_its_flow(
        streams in prop::collection::vec(templates(false), 1..20),
        events in prop::collection::vec((any::<prop::sample::Index>(), turns(), 0..40_u8), 0..300),
        ethernet: bool,
        udp: bool,
    ) {
        let mode = if ethernet { Mode::Ethernet } else { Mode::PointToPoint };
        let mut streams: Vec<Template> = streams
            .into_iter()
            .enumerate()
            .map(|(index, stream)| Template { mode, host: index as u8 / 2, port: index as u16, psh: false, ..stream })
            .collect();
        let mut stream_of = HashMap::new();
        let mut sent: Vec<Vec<Vec<u8>>> = vec![Vec::new(); streams.len()];
        let mut got = sent.clone();
        let mut coalescer = Coalescer::new(mode, Limits { udp, ..LIMITS });
        let mut take = |coalescer: &mut Coalescer, stream_of: &HashMap<Vec<u8>, usize>| {
            for packet in coalescer.flush().flat_map(|unit| divide_unit(mode, &unit)) {
                let stream = stream_of.get(&packet).expect("a packet that was sent");
                got[*stream].push(packet);
            }
        };
        for (index, turn, flush) in events {
            let index = index.index(streams.len());
            let packet = next_packet(&mut streams[index], turn);
            stream_of.insert(packet.clone(), index);
            sent[index].push(packet.clone());
            prop_assert!(coalescer.push(packet.into()).is_ok());
            if flush == 0 {
                take(&mut coalescer, &stream_of);
            }
        }
        take(&mut coalescer, &stream_of);
        prop_assert_eq!(got, sent);
    }

    #[test]
    fn nothing_panics(packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..10)) {
        for mode in [Mode::PointToPoint, Mode::Ethernet] {
            prop_assert_eq!(coalesce(mode, LIMITS, &packets).len(), packets.len());
        }
    }
}
