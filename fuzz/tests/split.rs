//! Segments super-packets: arbitrary bytes, and valid ones with a few changed bytes. An accepted
//! one yields whole packets with right checksums, which together carry its payload.

use sshvpn_fuzz::packets::{Stream, damage, divide, mode, verifies};
use sshvpn_fuzz::{Source, target};
use sshvpn_wire::packet::headers::{Headers, Transport};
use sshvpn_wire::packet::offload::segment::Segments;
use sshvpn_wire::packet::offload::virtio::{VIRTIO_HEADER_LEN, VirtioHeader};
use sshvpn_wire::packet::offload::{OffloadError, check, finish_checksum};
use sshvpn_wire::types::Mode;

target!(split, run);

fn run(input: &[u8]) {
    let mut source = Source::new(input);
    let choice = source.byte();
    let mode = mode(choice);
    let (header, mut packet) = match choice & 2 {
        0 => almost_right(mode, &mut source),
        _ => (source.array(), source.rest().to_vec()),
    };
    let Ok(header) = VirtioHeader::from_bytes(&header) else {
        return;
    };
    let checked = check(mode, &header, &packet);
    let refused = Segments::new(mode, &header, &packet).err();
    match header.gso {
        Some(_) => assert_eq!(refused, checked.err()),
        None => assert_eq!(refused, Some(OffloadError::Sort)),
    }
    if let Some(packets) = divide(mode, &header, &packet) {
        let whole = Headers::locate(mode, &packet).expect("an accepted packet has headers");
        let mut payload: Vec<u8> = Vec::new();
        for segment in &packets {
            let headers = Headers::locate(mode, segment).expect("a segment has headers");
            assert_eq!(headers.end, segment.len());
            assert_eq!(headers.payload, whole.payload);
            assert!(without_checksum(&headers, segment) || verifies(mode, segment));
            payload.extend(&segment[headers.payload..]);
        }
        assert_eq!(payload, packet[whole.payload..]);
    }
    let finished = finish_checksum(mode, &header, &mut packet);
    if header.gso.is_none() {
        assert_eq!(finished.err(), checked.err());
    }
}

fn without_checksum(headers: &Headers, packet: &[u8]) -> bool {
    headers.transport_protocol == Transport::Udp
        && packet[headers.transport + 6..headers.payload] == [0, 0]
}

/// A super-packet and its header, of which a few bytes may be changed.
fn almost_right(mode: Mode, source: &mut Source<'_>) -> ([u8; VIRTIO_HEADER_LEN], Vec<u8>) {
    let kind = source.byte();
    let mut stream = Stream::new(mode, kind, 1);
    let length = usize::from(source.word() % 4000);
    let size = source.word();
    let mut packet = stream.packet(length);
    damage(&mut packet, source);
    let gso_type = if kind & 8 == 0 { stream.gso_type() } else { 0 };
    let offset = if stream.is_tcp() { 16 } else { 6 };
    let [low, high] = size.to_le_bytes();
    let transport = stream.transport() as u8;
    // NEEDS_CSUM, kind, hdr_len, gso_size, csum_start, csum_offset.
    let mut header = [1, gso_type, 0, 0, low, high, transport, 0, offset, 0];
    if kind & 16 != 0 {
        damage(&mut header, source);
    }
    (header, packet)
}
