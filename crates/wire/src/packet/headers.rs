//! Locates the headers of a packet: link, IP with its extension headers, transport,
//! payload. Allocates and copies nothing.

use etherparse::{Ipv4HeaderSlice, Ipv6HeaderSlice, TcpHeaderSlice};

use super::offload::checksum::{self, Sum};
use super::{IpVersion, PacketError};
use crate::types::Mode;

/// Bytes of an Ethernet header without tags (linux/if_ether.h, `ETH_HLEN`).
const ETHERNET_LEN: usize = 14;
/// Offset of the type in an Ethernet header, in bytes.
const ETHERNET_TYPE: usize = 12;
/// Bytes of a VLAN tag, which is in front of the type (IEEE 802.1Q).
const TAG_LEN: usize = 4;
/// An outer (802.1ad) and an inner (802.1Q) tag.
const MAX_TAGS: usize = 2;

/// Bytes of an IPv6 header, and of an IPv4 header without options.
const IPV6_LEN: usize = 40;
/// Bytes of a UDP header.
const UDP_LEN: usize = 8;

/// Extension headers that are parsed at most; RFC 8200 section 4.1 defines no more.
const MAX_EXTENSIONS: usize = 8;

/// The transport protocol of an IP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// Another protocol, by its number; also an extension header that is not parsed.
    Other(u8),
}

impl Transport {
    /// The protocol with this number in the IP header.
    fn of(number: u8) -> Self {
        match number {
            6 => Transport::Tcp,
            17 => Transport::Udp,
            other => Transport::Other(other),
        }
    }

    /// The number in the IP header.
    pub fn number(self) -> u8 {
        match self {
            Transport::Tcp => 6,
            Transport::Udp => 17,
            Transport::Other(number) => number,
        }
    }

    /// Offset of the internet checksum in its header, in bytes.
    pub fn checksum_offset(self) -> Option<usize> {
        match self {
            Transport::Tcp => Some(16),
            Transport::Udp => Some(6),
            Transport::Other(_) => None,
        }
    }
}

/// The offsets of the headers of one packet. All are in bytes from the first byte of the
/// packet (or Ethernet frame), lie within it, and increase in the order of the fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Headers {
    /// The IP version.
    pub version: IpVersion,
    /// The transport protocol.
    pub transport_protocol: Transport,
    /// Whether this is a fragment; the first and an only one count too. The transport
    /// header of a fragment is not parsed.
    pub fragment: bool,
    /// Offset of the IP header.
    pub ip: usize,
    /// Offset of the transport header, behind options and extension headers.
    pub transport: usize,
    /// Offset of the payload of TCP or UDP; for a fragment or another protocol, equal to
    /// `transport`.
    pub payload: usize,
    /// Offset of the packet's end by its IP header; padding may follow.
    pub end: usize,
}

/// Offsets that an IP header gives, in bytes from that header.
struct Network {
    protocol: u8,
    fragment: bool,
    transport: usize,
    end: usize,
}

impl Headers {
    /// Locates the headers of `packet`, which starts with the IP header in point-to-point
    /// mode and with the Ethernet header in ethernet mode. Fails if it is not an IP
    /// packet, or is shorter than its headers claim.
    pub fn locate(mode: Mode, packet: &[u8]) -> Result<Self, PacketError> {
        Self::locate_in(mode, packet, packet.len())
    }

    /// Locates the headers of a packet of `length` bytes that begins with `head`. Fails
    /// as well if the headers are longer than `head`.
    pub fn locate_in(mode: Mode, head: &[u8], length: usize) -> Result<Self, PacketError> {
        let ip = match mode {
            Mode::PointToPoint => 0,
            Mode::Ethernet => ethernet_header_length(head)?,
        };
        let datagram = head.get(ip..).ok_or(PacketError::Truncated)?;
        let version = IpVersion::of(datagram)?;
        let network = match version {
            IpVersion::V4 => read_ipv4(datagram)?,
            IpVersion::V6 => read_ipv6(datagram)?,
        };
        let transport_protocol = Transport::of(network.protocol);
        if ip + network.end > length {
            return Err(PacketError::Truncated);
        }
        let segment = datagram
            .get(network.transport..network.end.min(datagram.len()))
            .ok_or(PacketError::Truncated)?;
        let header = match transport_protocol {
            _ if network.fragment => 0,
            Transport::Tcp => TcpHeaderSlice::from_slice(segment)
                .map_err(|_| PacketError::Truncated)?
                .slice()
                .len(),
            Transport::Udp if segment.len() < UDP_LEN => return Err(PacketError::Truncated),
            Transport::Udp => UDP_LEN,
            Transport::Other(_) => 0,
        };
        Ok(Headers {
            version,
            transport_protocol,
            fragment: network.fragment,
            ip,
            transport: ip + network.transport,
            payload: ip + network.transport + header,
            end: ip + network.end,
        })
    }

    /// The source and the destination address of `packet`, whose headers these are.
    pub fn addresses<'a>(&self, packet: &'a [u8]) -> &'a [u8] {
        let (start, length) = match self.version {
            IpVersion::V4 => (self.ip + 12, 8),
            IpVersion::V6 => (self.ip + 8, 32),
        };
        packet.get(start..start + length).unwrap_or_default()
    }

    /// The sum of the pseudo header, for the addresses of `packet` and for `length` bytes
    /// of transport header and payload.
    pub fn pseudo_header(&self, packet: &[u8], length: usize) -> Sum {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        checksum::pseudo_header(
            self.addresses(packet),
            self.transport_protocol.number(),
            length,
        )
    }

    /// Sets the length in the IP header for a packet that ends at `end`, and updates the
    /// checksum of an IPv4 header. `head` holds at least the whole IP header.
    pub(super) fn set_end(&self, head: &mut [u8], end: usize) {
        match self.version {
            IpVersion::V4 => {
                put_u16(head, self.ip + 2, length_field(end.saturating_sub(self.ip)));
                put_u16(head, self.ip + 10, 0);
                let header = head.get(self.ip..self.transport).unwrap_or_default();
                let checksum = Sum::of(header).checksum();
                put_u16(head, self.ip + 10, checksum);
            }
            IpVersion::V6 => put_u16(
                head,
                self.ip + 4,
                length_field(end.saturating_sub(self.ip + IPV6_LEN)),
            ),
        }
    }
}

/// A length as a header's 16-bit field; the caller has refused lengths that do not fit.
pub(super) fn length_field(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}

/// The bytes at `offset`, if there are that many.
pub(super) fn field<const LENGTH: usize>(bytes: &[u8], offset: usize) -> Option<[u8; LENGTH]> {
    bytes.get(offset..)?.first_chunk().copied()
}

/// Writes `value`, big-endian, at an offset that [`Headers::locate`] has checked.
pub(super) fn put_u16(bytes: &mut [u8], offset: usize, value: u16) {
    if let Some(field) = bytes
        .get_mut(offset..)
        .and_then(|rest| rest.first_chunk_mut())
    {
        *field = value.to_be_bytes();
    }
}

/// [`put_u16`] for 32 bits.
pub(super) fn put_u32(bytes: &mut [u8], offset: usize, value: u32) {
    if let Some(field) = bytes
        .get_mut(offset..)
        .and_then(|rest| rest.first_chunk_mut())
    {
        *field = value.to_be_bytes();
    }
}

/// The length of the Ethernet header of a frame that carries IP, tags included.
fn ethernet_header_length(frame: &[u8]) -> Result<usize, PacketError> {
    let mut at = ETHERNET_TYPE;
    for _ in 0..=MAX_TAGS {
        let ethertype = u16::from_be_bytes(field(frame, at).ok_or(PacketError::Truncated)?);
        let header = at + ETHERNET_LEN - ETHERNET_TYPE;
        let claimed = match ethertype {
            0x0800 => IpVersion::V4,
            0x86dd => IpVersion::V6,
            0x8100 | 0x88a8 => {
                at += TAG_LEN;
                continue;
            }
            _ => return Err(PacketError::NotIp),
        };
        let datagram = frame.get(header..).ok_or(PacketError::Truncated)?;
        return match IpVersion::of(datagram)? {
            version if version == claimed => Ok(header),
            _ => Err(PacketError::NotIp),
        };
    }
    Err(PacketError::NotIp)
}

fn read_ipv4(datagram: &[u8]) -> Result<Network, PacketError> {
    let header = Ipv4HeaderSlice::from_slice(datagram).map_err(|_| PacketError::Truncated)?;
    Ok(Network {
        protocol: header.protocol().0,
        fragment: header.is_fragmenting_payload(),
        transport: header.slice().len(),
        end: usize::from(header.total_len()),
    })
}

/// Parses the extension headers (RFC 8200 section 4) up to the transport header, a
/// fragment header, an unknown header, or the limit. Stops at a routing header with
/// segments left: with it, the pseudo header does not have the destination of the IP
/// header (section 8.1).
fn read_ipv6(datagram: &[u8]) -> Result<Network, PacketError> {
    let header = Ipv6HeaderSlice::from_slice(datagram).map_err(|_| PacketError::Truncated)?;
    let end = IPV6_LEN + usize::from(header.payload_length());
    let datagram = datagram.get(..end).unwrap_or(datagram);
    let mut network = Network {
        protocol: header.next_header().0,
        fragment: false,
        transport: IPV6_LEN,
        end,
    };
    for _ in 0..MAX_EXTENSIONS {
        const HOP_BY_HOP: u8 = 0;
        const ROUTING: u8 = 43;
        const FRAGMENT: u8 = 44;
        const DESTINATION: u8 = 60;
        if !matches!(
            network.protocol,
            HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION
        ) {
            break;
        }
        let [next, length, _, segments_left] =
            field(datagram, network.transport).ok_or(PacketError::Truncated)?;
        if network.protocol == ROUTING && segments_left != 0 {
            break;
        }
        network.fragment = network.protocol == FRAGMENT;
        network.transport += match network.fragment {
            true => 8,
            false => 8 + 8 * usize::from(length),
        };
        network.protocol = next;
        if network.fragment {
            break;
        }
    }
    Ok(network)
}

#[cfg(test)]
mod tests;
