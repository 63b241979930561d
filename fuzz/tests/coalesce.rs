//! Coalesces packets: arbitrary bytes, and streams whose packets differ in relevant fields.
//! Segmenting the result yields the same packets, each flow's in the order of arrival.

use std::collections::HashMap;

use bytes::Bytes;
use sshvpn_fuzz::packets::{Stream, damage, divide_unit, flow, mode};
use sshvpn_fuzz::{Source, target};
use sshvpn_wire::packet::offload::coalesce::{Coalescer, Limits};
use sshvpn_wire::types::Mode;

target!(coalesce, run);

/// The most packets of one run.
const PACKETS: usize = 700;

fn run(input: &[u8]) {
    let mut source = Source::new(input);
    let choice = source.byte();
    let mode = mode(choice);
    let limits = Limits {
        unit_bytes: usize::from(source.word()),
        udp: choice & 4 == 0,
    };
    let packets = match choice & 2 {
        0 => streams(mode, &mut source),
        _ => arbitrary(&mut source),
    };
    let mut coalescer = Coalescer::new(mode, limits);
    let mut back = Vec::new();
    for packet in &packets {
        if let Err(packet) = coalescer.push(packet.clone()) {
            back.extend(coalescer.flush().flat_map(|unit| divide_unit(mode, &unit)));
            assert_eq!(coalescer.push(packet), Ok(()));
        }
    }
    back.extend(coalescer.flush().flat_map(|unit| divide_unit(mode, &unit)));
    assert_eq!(by_flow(mode, &packets), by_flow(mode, &back));
}

/// Groups packets by flow; the order of packets without a flow is not guaranteed.
fn by_flow(mode: Mode, packets: &[Bytes]) -> HashMap<Option<Vec<u8>>, Vec<&Bytes>> {
    let mut flows: HashMap<_, Vec<&Bytes>> = HashMap::new();
    for packet in packets {
        flows.entry(flow(mode, packet)).or_default().push(packet);
    }
    if let Some(others) = flows.get_mut(&None) {
        others.sort();
    }
    flows
}

/// Arbitrary packets, each after a byte with its length.
fn arbitrary(source: &mut Source<'_>) -> Vec<Bytes> {
    let mut packets = Vec::new();
    while !source.is_empty() && packets.len() < PACKETS {
        let length = usize::from(source.byte());
        packets.push(Bytes::copy_from_slice(source.bytes(length)));
    }
    packets
}

/// Packets of up to sixteen streams. For each, a byte selects the stream and its peculiarity.
fn streams(mode: Mode, source: &mut Source<'_>) -> Vec<Bytes> {
    let mut streams: Vec<Stream> = (0..16)
        .map(|host| Stream::new(mode, host % 8, host / 2))
        .collect();
    let mut packets = Vec::new();
    while !source.is_empty() && packets.len() < PACKETS {
        let choice = source.byte();
        let Some(stream) = streams.get_mut(usize::from(choice & 15)) else {
            break;
        };
        let mut length = 40;
        stream.header.psh = false;
        match choice >> 4 {
            9 => length = usize::from(source.byte()),
            10 => stream.header.psh = true,
            11 => stream.identification = source.word(),
            12 => stream.header.acknowledgment_number = u32::from(source.byte()),
            13 => stream.header.window_size = source.word(),
            14 => stream.header.sequence_number = u32::from(source.byte()),
            _ => {}
        }
        let mut packet = stream.packet(length);
        if choice >> 4 == 15 {
            damage(&mut packet, source);
        }
        packets.push(packet.into());
    }
    packets
}
