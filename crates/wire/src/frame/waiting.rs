//! A packet that waits to be sent: read from the device and framed in the same memory.
//!
//! ```text
//!   8 bytes for the front of a frame ‖ virtio_net_hdr ‖ packet
//! ```

use std::mem;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::FrameError;
use super::stream::{FRONT_LEN, MAX_PACKET};
use crate::packet::offload::OffloadError;
use crate::packet::offload::segment::Segments;
use crate::packet::offload::virtio::{VIRTIO_HEADER_LEN, VirtioHeader};
use crate::types::Mode;

/// Where the offload header begins: the longest front of a frame is before it.
const HEADER: usize = FRONT_LEN;
/// Where the packet begins.
const PACKET: usize = HEADER + VIRTIO_HEADER_LEN;

/// A packet with its offload header. It is the only owner of its memory while it waits.
#[derive(Debug, Default)]
pub struct Waiting(BytesMut);

impl Waiting {
    /// Bytes of a buffer for one read: one more than the largest packet, so that a packet
    /// that the kernel truncated is found to be too long.
    pub const ROOM: usize = PACKET + MAX_PACKET + 1;

    /// A packet from its parts.
    pub fn new<'a>(
        header: &[u8; VIRTIO_HEADER_LEN],
        parts: impl IntoIterator<Item = &'a [u8]>,
    ) -> Self {
        let mut waiting = Waiting(BytesMut::zeroed(HEADER));
        waiting.0.extend_from_slice(header);
        for part in parts {
            waiting.0.extend_from_slice(part);
        }
        waiting
    }

    /// Empties this and makes room for one read: a device appends the offload header and
    /// the packet to the buffer.
    #[inline]
    pub fn space(&mut self) -> &mut BytesMut {
        self.0.clear();
        self.0.reserve(Self::ROOM);
        self.0.put_bytes(0, HEADER);
        &mut self.0
    }

    /// The offload header.
    #[inline]
    pub fn header(&self) -> Result<VirtioHeader, FrameError> {
        let bytes = self.raw_header().ok_or(FrameError::TooShort)?;
        VirtioHeader::from_bytes(bytes).map_err(|_| FrameError::Malformed)
    }

    #[inline]
    fn raw_header(&self) -> Option<&[u8; VIRTIO_HEADER_LEN]> {
        self.0.get(HEADER..)?.first_chunk()
    }

    /// Whether the packet has no open work: then its header is not sent.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        self.raw_header()
            .is_none_or(|header| header.iter().all(|byte| *byte == 0))
    }

    /// The packet's bytes.
    #[inline]
    pub fn packet(&self) -> &[u8] {
        self.0.get(PACKET..).unwrap_or_default()
    }

    /// The packet's bytes, mutable.
    #[inline]
    pub fn packet_mut(&mut self) -> &mut [u8] {
        self.0.get_mut(PACKET..).unwrap_or_default()
    }

    /// The length of the packet in bytes.
    #[inline]
    pub fn length(&self) -> usize {
        self.packet().len()
    }

    /// The bytes of memory that it keeps allocated.
    #[inline]
    pub fn memory(&self) -> usize {
        self.0.capacity()
    }

    /// Takes the packet out, with at most twice the memory that it needs. A small packet is
    /// copied, which leaves the buffer for the next read; a larger one gives the rest of its
    /// buffer back, which the allocator does in place.
    #[inline]
    pub fn take(&mut self) -> Self {
        let (length, memory) = (self.0.len(), self.memory());
        if length <= memory / 16 {
            return Waiting(BytesMut::from(&self.0[..]));
        }
        let taken = mem::take(self);
        match length <= memory / 2 {
            true => taken.shrunk(),
            false => taken,
        }
    }

    fn shrunk(self) -> Self {
        let mut bytes = Vec::from(self.0);
        bytes.shrink_to_fit();
        Waiting(Bytes::from(bytes).into())
    }

    /// Gives the packet's memory to `other`, if that has less.
    pub fn recycle(self, other: &mut Self) {
        if other.memory() < self.memory() {
            *other = self;
        }
    }

    /// The packet alone.
    #[inline]
    pub fn into_packet(mut self) -> Bytes {
        self.0.advance(PACKET.min(self.0.len()));
        self.0.freeze()
    }

    /// The frame: `front`, the offload header if `header` is set, and the packet.
    #[inline]
    pub(super) fn into_frame(mut self, front: &[u8], header: bool) -> Result<BytesMut, FrameError> {
        let end = if header { HEADER } else { PACKET };
        let start = end.saturating_sub(front.len());
        let place = self.0.get_mut(start..end).ok_or(FrameError::TooShort)?;
        place.copy_from_slice(front);
        self.0.advance(start);
        Ok(self.0)
    }

    /// Passes the packets that a super-packet stands for to `take`; their number.
    pub fn divide<E: From<OffloadError>>(
        &self,
        mode: Mode,
        header: &VirtioHeader,
        mut take: impl FnMut(Waiting) -> Result<(), E>,
    ) -> Result<usize, E> {
        Segments::new(mode, header, self.packet())?.divide(PACKET, |segment| take(Waiting(segment)))
    }

    /// Smaller super-packets that stand for the same packets, in order, each about
    /// `longest` bytes at most; empty if this is not a super-packet, or exceeds `longest`
    /// by less than a segment.
    pub fn cut(&self, mode: Mode, longest: usize) -> Vec<Waiting> {
        let segments = (self.header().ok())
            .and_then(|header| Segments::new(mode, &header, self.packet()).ok());
        let Some(mut segments) = segments else {
            return Vec::new();
        };
        let in_each = (longest / segments.segment_len()).max(1);
        if in_each >= segments.count() {
            return Vec::new();
        }
        let mut pieces = Vec::with_capacity(segments.count().div_ceil(in_each));
        loop {
            let mut piece = BytesMut::with_capacity(PACKET + in_each * segments.segment_len());
            piece.put_bytes(0, PACKET);
            let Some(header) = segments.append_piece(in_each, &mut piece) else {
                return pieces;
            };
            if let Some(place) = piece.get_mut(HEADER..PACKET) {
                place.copy_from_slice(&header.to_bytes());
            }
            pieces.push(Waiting(piece));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::offload::{check, finish_checksum};
    use crate::packet::test_packets::{divide, payload, templates};
    use proptest::prelude::*;

    /// The ordinary packets that a packet stands for.
    fn packets(mode: Mode, waiting: &Waiting) -> Vec<Vec<u8>> {
        let header = waiting.header().unwrap();
        check(mode, &header, waiting.packet()).unwrap();
        if header.gso.is_some() {
            return divide(mode, &header, waiting.packet());
        }
        let mut packet = waiting.packet().to_vec();
        finish_checksum(mode, &header, &mut packet).unwrap();
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
            let whole = Waiting::new(&header.to_bytes(), [&packet[..]]);
            let pieces = whole.cut(template.mode, longest);
            let most = longest.max(template.head_len() + usize::from(size));
            for piece in &pieces {
                prop_assert!(piece.length() <= most);
            }
            let got: Vec<_> = pieces.iter().flat_map(|piece| packets(template.mode, piece)).collect();
            if pieces.is_empty() {
                prop_assert!(packet.len() <= most + usize::from(size));
            } else {
                prop_assert_eq!(got, packets(template.mode, &whole));
            }
        }

        #[test]
        fn a_packet_that_is_taken_keeps_at_most_twice_its_memory(length in 0..=MAX_PACKET) {
            let mut buffer = Waiting::default();
            buffer.space().put_bytes(7, VIRTIO_HEADER_LEN + length);
            let taken = buffer.take();
            prop_assert_eq!(taken.packet(), vec![7; length]);
            prop_assert!(taken.memory() <= 2 * (PACKET + length));
            let (memory, packet) = (taken.memory(), taken.into_packet());
            // A buffer with one owner turns into a vector with all of its memory.
            prop_assert_eq!(Vec::from(packet).capacity(), memory);
        }
    }

    #[test]
    fn what_is_no_super_packet_is_left_alone() {
        for (header, packet) in [([0; 10], &[0; 50][..]), ([0xff; 10], &[0xff; 50])] {
            let waiting = Waiting::new(&header, [packet]);
            assert!(waiting.cut(Mode::PointToPoint, 10).is_empty());
        }
        let nothing = Waiting::default();
        assert!(nothing.cut(Mode::PointToPoint, 10).is_empty());
        assert_eq!((nothing.length(), nothing.memory()), (0, 0));
        assert_eq!(nothing.into_packet(), Bytes::new());
    }
}
