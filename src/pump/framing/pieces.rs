//! Cuts a super-packet into smaller ones before it waits: on a slow path a whole
//! one would hold up for milliseconds what is in more of a hurry.

use bytes::{BufMut, BytesMut};

use super::header_of;
use crate::frame::stream::{OFFLOAD_LEN, STREAM_HEADROOM};
use crate::packet::offload::segment::Segments;
use crate::pump::outbound::Waiting;
use crate::types::Mode;

/// The pieces, each about as long as `longest` at most, in order; none if
/// `packet` is no super-packet, or longer by less than one of its segments.
pub(in crate::pump) fn cut(mode: Mode, packet: &Waiting, longest: usize) -> Vec<Waiting> {
    let Some(mut segments) = header_of(packet).ok().and_then(|header| {
        let packet = packet.get(STREAM_HEADROOM..)?;
        Segments::new(mode, &header, packet).ok()
    }) else {
        return Vec::new();
    };
    let in_each = (longest / segments.segment_len()).max(1);
    if in_each >= segments.count() {
        return Vec::new();
    }
    let mut pieces = Vec::with_capacity(segments.count().div_ceil(in_each));
    loop {
        let mut piece = BytesMut::with_capacity(STREAM_HEADROOM + in_each * segments.segment_len());
        piece.put_bytes(0, STREAM_HEADROOM);
        let Some(header) = segments.append_piece(in_each, &mut piece) else {
            return pieces;
        };
        if let Some(place) = piece.get_mut(STREAM_HEADROOM - OFFLOAD_LEN..STREAM_HEADROOM) {
            place.copy_from_slice(&header.to_bytes());
        }
        pieces.push(piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::offload::virtio::VirtioHeader;
    use crate::packet::test_packets::{divide, payload, templates};
    use proptest::prelude::*;

    /// As the device yields it, behind headroom.
    fn waiting(header: &VirtioHeader, packet: &[u8]) -> Waiting {
        let headroom = [0; STREAM_HEADROOM - OFFLOAD_LEN];
        BytesMut::from(&[&headroom, &header.to_bytes()[..], packet].concat()[..])
    }

    /// The ordinary packets of what waits.
    fn packets(mode: Mode, waiting: &Waiting) -> Vec<Vec<u8>> {
        let header = header_of(waiting).unwrap();
        let packet = &waiting[STREAM_HEADROOM..];
        crate::packet::offload::check(mode, &header, packet).unwrap();
        if header.gso.is_some() {
            return divide(mode, &header, packet);
        }
        let mut packet = packet.to_vec();
        crate::packet::offload::finish_checksum(mode, &header, &mut packet).unwrap();
        vec![packet]
    }

    proptest! {
        #[test]
        fn pieces_are_short_and_stand_for_the_same_packets(
            template in templates(true),
            length in 0..60_000_usize,
            size in 1000..9000_u16,
            longest in 0..70_000_usize,
        ) {
            let (header, packet) = template.super_packet(&payload(length), size);
            let whole = waiting(&header, &packet);
            let pieces = cut(template.mode, &whole, longest);
            let most = longest.max(template.head_len() + usize::from(size));
            for piece in &pieces {
                prop_assert!(piece.len() <= STREAM_HEADROOM + most);
            }
            let got: Vec<_> = pieces.iter().flat_map(|piece| packets(template.mode, piece)).collect();
            if pieces.is_empty() {
                prop_assert!(packet.len() <= most + usize::from(size));
            } else {
                prop_assert_eq!(got, packets(template.mode, &whole));
            }
        }
    }

    #[test]
    fn what_is_no_super_packet_is_left_alone() {
        for bytes in [&[0; 60][..], &[0xff; 60], &[]] {
            let packet = BytesMut::from(bytes);
            assert!(cut(Mode::PointToPoint, &packet, 10).is_empty());
        }
    }
}
