//! Whether an offload header agrees with its packet, and the checksum that one
//! leaves open, completed in place.
//!
//! A peer may send anything, and what it sends is written to the device, where
//! the kernel believes such a header; so each of its numbers has to be the one
//! that the packet's own headers give.

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
    /// No IP packet, or one cut short.
    #[error("offload packet: {0}")]
    Packet(#[from] PacketError),
    /// A fragment has no checksum to complete, and is not to be divided further.
    #[error("offload packet is a fragment")]
    Fragment,
    /// Neither TCP nor UDP.
    #[error("offload packet is neither TCP nor UDP")]
    Transport,
    /// The packet's length is not the one in its IP or UDP header; also an IPv6
    /// jumbogram.
    #[error("length of the offload packet is not that in its headers")]
    Length,
    /// The place for the checksum is not where the packet's protocol has it.
    #[error("offload header points beside the checksum field")]
    ChecksumPlace,
    /// Segments are asked for, but the checksum is neither open nor known to be
    /// right: it would come out right whatever became of the packet on its way.
    #[error("offload packet with an unverified checksum")]
    ChecksumUnknown,
    /// The kind of segmentation is not that of the packet's protocol and family.
    #[error("segmentation type does not fit the protocol of the offload packet")]
    Kind,
    /// Segments larger than an IP packet may be, or so small that no kernel makes them.
    #[error("segment size does not fit the offload packet")]
    Size,
    /// A super-packet where one packet is wanted, or the other way round.
    #[error("offload packet is not of the sort that is divided here")]
    Sort,
}

/// Checks that `header` and `packet`, as they came from a peer or a device, fit
/// each other: see [`OffloadError`] for what is asked. Yields the header to be
/// used from here on, in which the length of the headers is the real one. A
/// header that asks for nothing fits any packet, IP or not.
pub fn check(
    mode: Mode,
    header: &VirtioHeader,
    packet: &[u8],
) -> Result<VirtioHeader, OffloadError> {
    check_in(mode, header, packet, packet.len())
}

/// The same for a packet of `length` bytes of which `head` is the start, with
/// all of the packet's headers.
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

/// Completes the checksum that `header` leaves open, in place: the field holds
/// the sum of the pseudo header, and gets the checksum of all of it and of what
/// is behind (zero is written as 0xffff for UDP, RFC 768). If none is open the
/// packet is not looked at. A super-packet is refused: it is to be divided, by
/// [`Segments`](segment::Segments).
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

/// Writes a computed checksum where the transport protocol has it.
pub(super) fn put_checksum(packet: &mut [u8], headers: &Headers, checksum: u16) {
    let checksum = match (headers.transport_protocol, checksum) {
        (Transport::Udp, 0) => 0xffff,
        _ => checksum,
    };
    if let Some(offset) = headers.transport_protocol.checksum_offset() {
        put_u16(packet, headers.transport + offset, checksum);
    }
}

/// The headers of a packet of `length` bytes that begins with `packet`, if
/// everything that `header` asks for fits them.
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

/// Whether the packet was sent without a checksum: UDP over IPv4 may be (RFC
/// 768), and over IPv6 as well between ends that agreed on it (RFC 6935), which
/// is not for us to offload.
pub(super) fn without_checksum(headers: &Headers, packet: &[u8]) -> bool {
    (headers.version, headers.transport_protocol) == (IpVersion::V4, Transport::Udp)
        && field(packet, headers.transport + 6) == Some([0, 0])
}

/// Whether a UDP header's length is the packet's; other protocols have none.
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
