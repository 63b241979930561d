//! Checks that an offload header fits its packet, and completes open checksums in place.
//!
//! A peer may send anything, and the kernel believes the offload header of a packet that
//! is written to the device; so each number in it has to equal the one that the packet's
//! own headers give.

pub(super) mod candidate;
pub mod checksum;
pub mod coalesce;
pub mod segment;
pub(super) mod unit;
pub mod virtio;

#[cfg(test)]
mod tests;

use thiserror::Error;

use super::headers::{Headers, Transport, field, put_u16};
use super::{IpVersion, PacketError};
use crate::types::Mode;
use checksum::Sum;
use virtio::{Gso, GsoKind, PartialChecksum, VirtioHeader};

/// The longest IP packet, in bytes.
pub(super) const MAX_PACKET: usize = 65535;

/// The most segments of one UDP super-packet (`UDP_MAX_SEGMENTS`, linux/udp.h).
const MAX_UDP_SEGMENTS: usize = 128;

/// The smallest TCP segments (`TCP_MIN_GSO_SIZE`, net/tcp.h), in bytes.
pub(super) const MIN_TCP_SIZE: usize = 8;

/// Why an offload packet is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum OffloadError {
    /// Not an IP packet, or cut short.
    #[error("offload packet: {0}")]
    Packet(#[from] PacketError),
    /// A fragment, which has no checksum of its own and cannot be divided further.
    #[error("offload packet is a fragment")]
    Fragment,
    /// Neither TCP nor UDP.
    #[error("offload packet is neither TCP nor UDP")]
    Transport,
    /// The packet's length differs from that in its IP or UDP header; also an IPv6
    /// jumbogram.
    #[error("length of the offload packet is not that in its headers")]
    Length,
    /// The checksum offset is not that of the packet's protocol.
    #[error("offload header points beside the checksum field")]
    ChecksumPlace,
    /// A super-packet whose checksum is neither open nor verified: dividing it would give
    /// damaged payload right checksums.
    #[error("offload packet with an unverified checksum")]
    ChecksumUnknown,
    /// The segmentation type is not that of the packet's protocol and IP version.
    #[error("segmentation type does not fit the protocol of the offload packet")]
    Kind,
    /// Segments larger than an IP packet may be, or smaller than any kernel makes.
    #[error("segment size does not fit the offload packet")]
    Size,
    /// A super-packet where an ordinary packet is expected, or the reverse.
    #[error("offload packet is not of the sort that is divided here")]
    Sort,
}

/// Checks that `header` and `packet`, from a peer or a device, fit each other:
/// [`OffloadError`] lists the conditions. Yields the header to use instead, with the real
/// length of the packet's headers. A header without open work fits any packet, IP or not.
pub fn check(
    mode: Mode,
    header: &VirtioHeader,
    packet: &[u8],
) -> Result<VirtioHeader, OffloadError> {
    check_in(mode, header, packet, packet.len())
}

/// [`check`] for a packet of `length` bytes that begins with `head`, which holds all
/// headers.
pub fn check_in(
    mode: Mode,
    header: &VirtioHeader,
    head: &[u8],
    length: usize,
) -> Result<VirtioHeader, OffloadError> {
    if header.needs_checksum.is_none() && header.gso.is_none() {
        return Ok(*header);
    }
    let headers = consistent_headers(mode, header, head, length)?;
    let gso = header.gso.map(|gso| Gso {
        header_length: u16::try_from(headers.payload).unwrap_or(u16::MAX),
        ..gso
    });
    Ok(VirtioHeader { gso, ..*header })
}

/// Completes the checksum that `header` leaves open, in place: the field holds the sum of
/// the pseudo header, and gets the checksum of pseudo header, transport header and
/// payload (for UDP, zero is written as 0xffff, RFC 768). If no checksum is open, the
/// packet is not parsed. Refuses a super-packet: [`Segments`](segment::Segments) divides
/// it.
pub fn finish_checksum(
    mode: Mode,
    header: &VirtioHeader,
    packet: &mut [u8],
) -> Result<(), OffloadError> {
    if header.gso.is_some() {
        return Err(OffloadError::Sort);
    }
    if header.needs_checksum.is_none() {
        return Ok(());
    }
    let headers = consistent_headers(mode, header, packet, packet.len())?;
    let sum = Sum::of(packet.get(headers.transport..).unwrap_or_default());
    put_checksum(packet, &headers, sum.checksum());
    Ok(())
}

/// Writes a computed checksum to the field of the transport protocol.
pub(super) fn put_checksum(packet: &mut [u8], headers: &Headers, checksum: u16) {
    let checksum = match (headers.transport_protocol, checksum) {
        (Transport::Udp, 0) => 0xffff,
        _ => checksum,
    };
    if let Some(offset) = headers.transport_protocol.checksum_offset() {
        put_u16(packet, headers.transport + offset, checksum);
    }
}

/// The headers of a packet of `length` bytes that begins with `packet`, if `header` fits
/// them.
pub(super) fn consistent_headers(
    mode: Mode,
    header: &VirtioHeader,
    packet: &[u8],
    length: usize,
) -> Result<Headers, OffloadError> {
    let headers = Headers::locate_in(mode, packet, length)?;
    if headers.fragment {
        return Err(OffloadError::Fragment);
    }
    let checksum_offset = headers
        .transport_protocol
        .checksum_offset()
        .ok_or(OffloadError::Transport)?;
    if headers.end != length || !udp_length_agrees(&headers, packet) {
        return Err(OffloadError::Length);
    }
    if let Some(PartialChecksum { start, offset }) = header.needs_checksum
        && (usize::from(start) != headers.transport || usize::from(offset) != checksum_offset)
    {
        return Err(OffloadError::ChecksumPlace);
    }
    if let Some(gso) = header.gso {
        check_gso(&gso, &headers)?;
        if header.needs_checksum.is_none()
            && !header.data_valid
            && !without_checksum(&headers, packet)
        {
            return Err(OffloadError::ChecksumUnknown);
        }
    }
    Ok(headers)
}

/// Whether the packet was sent without a checksum: RFC 768 allows it for UDP over IPv4,
/// RFC 6935 over IPv6 between hosts that agreed on it, which is not offloaded.
pub(super) fn without_checksum(headers: &Headers, packet: &[u8]) -> bool {
    (headers.version, headers.transport_protocol) == (IpVersion::V4, Transport::Udp)
        && field(packet, headers.transport + 6) == Some([0, 0])
}

/// Whether the length in a UDP header is that of the packet; true for other protocols.
pub(super) fn udp_length_agrees(headers: &Headers, packet: &[u8]) -> bool {
    let length = headers.end - headers.transport;
    headers.transport_protocol != Transport::Udp
        || field(packet, headers.transport + 4).map(u16::from_be_bytes)
            == u16::try_from(length).ok()
}

fn check_gso(gso: &Gso, headers: &Headers) -> Result<(), OffloadError> {
    let kind = match (headers.transport_protocol, headers.version) {
        (Transport::Tcp, IpVersion::V4) => GsoKind::Tcp4,
        (Transport::Tcp, IpVersion::V6) => GsoKind::Tcp6,
        (Transport::Udp, _) => GsoKind::Udp,
        (Transport::Other(_), _) => return Err(OffloadError::Transport),
    };
    if gso.kind != kind {
        return Err(OffloadError::Kind);
    }
    let size = usize::from(gso.size.get());
    let small = match kind {
        GsoKind::Udp => (headers.end - headers.payload).div_ceil(size) > MAX_UDP_SEGMENTS,
        GsoKind::Tcp4 | GsoKind::Tcp6 => size < MIN_TCP_SIZE,
    };
    if small || headers.payload - headers.ip + size > MAX_PACKET {
        return Err(OffloadError::Size);
    }
    Ok(())
}
