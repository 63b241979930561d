//! Decides which packets may be merged: the flow of a packet, and whether a super-packet
//! can give it back byte for byte.

use super::checksum::Sum;
use super::segment::{PSH, TCP_FLAGS};
use super::udp_length_agrees;
use super::virtio::{PartialChecksum, VirtioHeader};
use crate::packet::IpVersion;
use crate::packet::headers::{Headers, Transport, field};
use crate::types::Mode;

/// TCP flag: the acknowledgment number is valid.
const ACK: u8 = 0x10;
/// IPv4 flag: do not fragment, in the 16 bits with the fragment offset.
const DONT_FRAGMENT: u16 = 0x4000;

/// The longest headers of a packet that is merged: Ethernet with two tags, IPv6 without
/// extensions, TCP with all options.
const MAX_HEAD: usize = 14 + 8 + 40 + 60;

/// Both addresses of a packet; those of IPv4 are in the first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::packet) struct Pair {
    version: IpVersion,
    addresses: [u8; 32],
}

/// One direction of a TCP connection or of a pair of UDP sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::packet) struct Flow {
    pub pair: Pair,
    transport: Transport,
    ports: [u8; 4],
}

/// How the coalescer treats a packet.
#[derive(Debug)]
pub(in crate::packet) enum Kind {
    /// May be merged with others of its flow.
    Mergeable(Candidate),
    /// Belongs to this flow, and is not merged.
    Whole(Flow),
    /// May belong to any flow between these addresses: a fragment, or another protocol.
    Between(Pair),
    /// May belong to any flow: not parsed.
    Unknown,
}

/// A TCP segment or UDP datagram that may be merged.
#[derive(Debug, Clone)]
pub(in crate::packet) struct Candidate {
    pub flow: Flow,
    pub headers: Headers,
    /// Payload bytes; at least one.
    pub length: usize,
    /// TCP's sequence number; zero for UDP.
    pub sequence: u32,
    /// IPv4's identification; zero for IPv6.
    pub identification: u16,
    /// TCP with PSH, which ends a super-packet.
    pub push: bool,
    /// The checksum is open: its field holds the sum of the pseudo header.
    pub open: bool,
    /// The headers without the fields that may differ between merged packets.
    pub constant: [u8; MAX_HEAD],
}

impl Kind {
    /// Classifies a packet with the offload header `header`.
    pub fn of(mode: Mode, header: &VirtioHeader, packet: &[u8]) -> Self {
        let Ok(headers) = Headers::locate(mode, packet) else {
            return Kind::Unknown;
        };
        let pair = Pair::of(&headers, packet);
        if headers.fragment || matches!(headers.transport_protocol, Transport::Other(_)) {
            return Kind::Between(pair);
        }
        let flow = Flow {
            pair,
            transport: headers.transport_protocol,
            ports: field(packet, headers.transport).unwrap_or_default(),
        };
        match Candidate::of(flow, headers, header, packet) {
            Some(candidate) => Kind::Mergeable(candidate),
            None => Kind::Whole(flow),
        }
    }
}

impl Pair {
    fn of(headers: &Headers, packet: &[u8]) -> Self {
        let mut addresses = [0; 32];
        for (to, from) in addresses.iter_mut().zip(headers.addresses(packet)) {
            *to = *from;
        }
        Pair {
            version: headers.version,
            addresses,
        }
    }
}

impl Candidate {
    /// The rules of the kernel's GRO, and stricter ones where those would change a byte
    /// (constant identifications). Packets with IPv4 options or IPv6 extension headers,
    /// which may apply to each packet, are not merged.
    fn of(flow: Flow, headers: Headers, offload: &VirtioHeader, packet: &[u8]) -> Option<Self> {
        let head = packet.get(..headers.payload)?;
        let length = headers.end.checked_sub(headers.payload)?;
        if length == 0 || headers.end != packet.len() {
            return None;
        }
        let bare = match headers.version {
            IpVersion::V4 => 20,
            IpVersion::V6 => 40,
        };
        if headers.transport - headers.ip != bare {
            return None;
        }
        let mut candidate = Candidate {
            flow,
            headers,
            length,
            sequence: 0,
            identification: 0,
            push: false,
            open: false,
            constant: [0; MAX_HEAD],
        };
        candidate
            .constant
            .get_mut(..head.len())?
            .copy_from_slice(head);
        match headers.version {
            IpVersion::V4 => candidate.take_ipv4(head)?,
            IpVersion::V6 => candidate.clear(headers.ip + 4, 2),
        }
        match flow.transport {
            Transport::Tcp => candidate.take_tcp(head)?,
            Transport::Udp => candidate.take_udp(head)?,
            Transport::Other(_) => return None,
        }
        candidate.take_offload(offload)?;
        Some(candidate)
    }

    fn take_ipv4(&mut self, head: &[u8]) -> Option<()> {
        let ip = self.headers.ip;
        let fragmentation = u16::from_be_bytes(field(head, ip + 6)?);
        if fragmentation & !DONT_FRAGMENT != 0 {
            return None;
        }
        self.identification = u16::from_be_bytes(field(head, ip + 4)?);
        // Length and identification; header checksum.
        self.clear(ip + 2, 4);
        self.clear(ip + 10, 2);
        Some(())
    }

    fn take_tcp(&mut self, head: &[u8]) -> Option<()> {
        let transport = self.headers.transport;
        let [offset_and_reserved, flags] = field(head, transport + TCP_FLAGS - 1)?;
        if offset_and_reserved & 0x0f != 0 || flags & !PSH != ACK {
            return None;
        }
        self.push = flags & PSH != 0;
        self.sequence = u32::from_be_bytes(field(head, transport + 4)?);
        self.clear(transport + 4, 4);
        self.clear(transport + TCP_FLAGS, 1);
        self.clear(transport + 16, 2);
        Some(())
    }

    fn take_udp(&mut self, head: &[u8]) -> Option<()> {
        let transport = self.headers.transport;
        let checksum: [u8; 2] = field(head, transport + 6)?;
        if checksum == [0, 0] || !udp_length_agrees(&self.headers, head) {
            return None;
        }
        self.clear(transport + 4, 4);
        Some(())
    }

    /// Applies the offload header; fails if it holds more than an open checksum.
    fn take_offload(&mut self, header: &VirtioHeader) -> Option<()> {
        if header.gso.is_some() {
            return None;
        }
        if let Some(PartialChecksum { start, offset }) = header.needs_checksum {
            let place = (usize::from(start), Some(usize::from(offset)));
            if place
                != (
                    self.headers.transport,
                    self.flow.transport.checksum_offset(),
                )
            {
                return None;
            }
            self.open = true;
        }
        Some(())
    }

    fn clear(&mut self, offset: usize, length: usize) {
        if let Some(field) = self.constant.get_mut(offset..offset + length) {
            field.fill(0);
        }
    }

    /// Whether the checksums of `packet`, whose candidate this is, are those that
    /// dividing would write; verifying is not enough, since zero has two forms. An open
    /// checksum has to be the pseudo header's sum.
    pub fn intact(&self, packet: &[u8]) -> bool {
        let headers = &self.headers;
        let header_intact = match headers.version {
            IpVersion::V4 => {
                let header = packet
                    .get(headers.ip..headers.transport)
                    .unwrap_or_default();
                field(header, 10).is_some_and(|found| same_checksum(found, Sum::of(header), false))
            }
            IpVersion::V6 => true,
        };
        let datagram = packet.get(headers.transport..).unwrap_or_default();
        let udp = self.flow.transport == Transport::Udp;
        header_intact
            && self
                .flow
                .transport
                .checksum_offset()
                .and_then(|offset| field(datagram, offset))
                .is_some_and(|found| {
                    let pseudo_header = headers.pseudo_header(packet, datagram.len());
                    if self.open {
                        return u16::from_be_bytes(found) == pseudo_header.fold();
                    }
                    same_checksum(found, pseudo_header + Sum::of(datagram), udp)
                })
    }
}

/// Whether `found` is the checksum of the bytes of `sum`, which include `found`.
/// `never_zero` says that the protocol writes zero as 0xffff.
fn same_checksum(found: [u8; 2], sum: Sum, never_zero: bool) -> bool {
    // A right checksum makes the sum all ones; of the two forms of zero the protocol
    // writes one.
    let written_wrongly = if never_zero { [0, 0] } else { [0xff, 0xff] };
    sum.fold() == 0xffff && found != written_wrongly
}

#[cfg(test)]
mod tests;
