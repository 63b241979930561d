//! Divides a super-packet into the packets that it stands for, each whole and
//! with its checksums, as the kernel does when a device cannot (Linux
//! `tcp_gso_segment`, `__udp_gso_segment`).

use bytes::{BufMut, BytesMut};

use super::checksum::Sum;
use super::virtio::{Gso, PartialChecksum, VirtioHeader};
use super::{OffloadError, consistent_headers, put_checksum, without_checksum};
use crate::packet::IpVersion;
use crate::packet::headers::{Headers, Transport, field, length_field, put_u16, put_u32};
use crate::types::Mode;

/// Where a TCP header has its flags, in bytes.
pub(in crate::packet) const TCP_FLAGS: usize = 13;
/// TCP flag: no more data from the sender.
const FIN: u8 = 0x01;
/// TCP flag: hand over to the application.
pub(in crate::packet) const PSH: u8 = 0x08;
/// TCP flag: the sender reduced its congestion window (RFC 3168).
const CWR: u8 = 0x80;

/// The packets of one super-packet.
#[derive(Debug)]
pub struct Segments<'a> {
    head: &'a [u8],
    payload: &'a [u8],
    headers: Headers,
    gso: Gso,
    /// Payload bytes of each segment but the last.
    size: usize,
    /// Segments that were made.
    made: usize,
    /// Whether the segments have a transport checksum.
    checksummed: bool,
}

impl<'a> Segments<'a> {
    /// Prepares to divide the super-packet `packet`. Fails unless `header` fits it, by
    /// the conditions of [`offload::check`](super::check).
    pub fn new(mode: Mode, header: &VirtioHeader, packet: &'a [u8]) -> Result<Self, OffloadError> {
        let gso = header.gso.ok_or(OffloadError::Sort)?;
        let headers = consistent_headers(mode, header, packet, packet.len())?;
        let (head, payload) = packet
            .split_at_checked(headers.payload)
            .ok_or(OffloadError::Length)?;
        Ok(Segments {
            head,
            payload,
            headers,
            gso,
            size: usize::from(gso.size.get()),
            made: 0,
            checksummed: header.needs_checksum.is_some() || !without_checksum(&headers, packet),
        })
    }

    /// The number of packets; at least one.
    pub fn count(&self) -> usize {
        self.payload.len().div_ceil(self.size).max(1)
    }

    /// The length of the longest segment in bytes.
    pub fn segment_len(&self) -> usize {
        self.head.len() + self.payload.len().min(self.size)
    }

    /// Makes all packets, each behind `headroom` zero bytes, and passes them to `take`;
    /// their number.
    pub fn divide<E>(
        mut self,
        headroom: usize,
        mut take: impl FnMut(BytesMut) -> Result<(), E>,
    ) -> Result<usize, E> {
        let count = self.count();
        let mut space = BytesMut::with_capacity(count * (headroom + self.segment_len()));
        for _ in 0..count {
            space.put_bytes(0, headroom);
            let segment = self.append(1, &mut space);
            if self.checksummed {
                self.write_checksum(segment);
            }
            self.made += 1;
            take(space.split())?;
        }
        Ok(count)
    }

    /// Appends one packet of the next `count` segments to `out`; its offload header, or
    /// `None` once all are made. A packet of more than one segment is a super-packet
    /// itself; its checksum is left open.
    pub fn append_piece(&mut self, count: usize, out: &mut BytesMut) -> Option<VirtioHeader> {
        let count = count.min(self.count() - self.made);
        if count == 0 {
            return None;
        }
        let piece = self.append(count, out);
        let header = self.piece_header(count);
        if header.needs_checksum.is_some() {
            let datagram = piece.len() - self.headers.transport;
            let sum = self.headers.pseudo_header(self.head, datagram).fold();
            put_checksum(piece, &self.headers, sum);
        }
        self.made += count;
        Some(header)
    }

    /// Appends one packet of the next `count` segments to `out`, without a transport
    /// checksum; the packet.
    fn append<'o>(&self, count: usize, out: &'o mut BytesMut) -> &'o mut [u8] {
        let start = self.made * self.size;
        let rest = self.payload.get(start..).unwrap_or_default();
        let body = rest.get(..count * self.size).unwrap_or(rest);
        let length = self.head.len() + body.len();
        let behind = out.len();
        out.extend_from_slice(self.head);
        out.extend_from_slice(body);
        let packet = out.get_mut(behind..).unwrap_or_default();
        self.write_ip(packet, length);
        let is_last = self.made + count == self.count();
        self.write_transport(packet, start, length, is_last);
        packet
    }

    /// The offload header of a packet of the next `count` segments.
    fn piece_header(&self, count: usize) -> VirtioHeader {
        let offset = self.headers.transport_protocol.checksum_offset();
        let place = offset.map(|offset| PartialChecksum {
            start: length_field(self.headers.transport),
            offset: length_field(offset),
        });
        let gso = Gso {
            // It stands for the flag CWR, which stays with the first segment.
            ecn: self.gso.ecn && self.made == 0,
            ..self.gso
        };
        VirtioHeader {
            needs_checksum: place.filter(|_| self.checksummed),
            data_valid: false,
            // Linux refuses a super-packet of one segment.
            gso: (count > 1).then_some(gso),
        }
    }

    /// Writes length and header checksum; identifications count up (RFC 791).
    fn write_ip(&self, head: &mut [u8], length: usize) {
        if self.headers.version == IpVersion::V4 {
            let at = self.headers.ip + 4;
            let first = field(head, at).map_or(0, u16::from_be_bytes);
            // The 16-bit counter wraps around, also within a super-packet.
            put_u16(head, at, first.wrapping_add((self.made & 0xffff) as u16));
        }
        self.headers.set_end(head, length);
    }

    /// Writes the transport header's fields that differ between segments; `start` is the
    /// offset of this one's payload in the super-packet's.
    fn write_transport(&self, head: &mut [u8], start: usize, length: usize, is_last: bool) {
        let transport = self.headers.transport;
        match self.headers.transport_protocol {
            Transport::Tcp => {
                let first = field(head, transport + 4).map_or(0, u32::from_be_bytes);
                let advance = u32::try_from(start).unwrap_or(u32::MAX);
                put_u32(head, transport + 4, first.wrapping_add(advance));
                let mut cleared = 0;
                if self.made != 0 {
                    cleared |= CWR;
                }
                if !is_last {
                    cleared |= FIN | PSH;
                }
                if let Some(flags) = head.get_mut(transport + TCP_FLAGS) {
                    *flags &= !cleared;
                }
            }
            Transport::Udp => put_u16(head, transport + 4, length_field(length - transport)),
            Transport::Other(_) => {}
        }
    }

    /// Writes the segment's checksum, while its bytes are still in the cache.
    fn write_checksum(&self, segment: &mut [u8]) {
        let Some(offset) = self.headers.transport_protocol.checksum_offset() else {
            return;
        };
        put_u16(segment, self.headers.transport + offset, 0);
        let datagram = segment.get(self.headers.transport..).unwrap_or_default();
        let pseudo = self.headers.pseudo_header(self.head, datagram.len());
        let checksum = (pseudo + Sum::of(datagram)).checksum();
        put_checksum(segment, &self.headers, checksum);
    }
}

#[cfg(test)]
mod tests;
