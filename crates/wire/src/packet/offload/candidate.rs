//! Which packets may go together: the flow that one belongs to, and whether it
//! is one of those that a super-packet gives back byte for byte.

use super::checksum::Sum;
use super::segment::{PSH, TCP_FLAGS};
use super::udp_length_agrees;
use super::virtio::{PartialChecksum, VirtioHeader};
use crate::packet::IpVersion;
use crate::packet::headers::{Headers, Transport, field};
use crate::types::Mode;

/// TCP flag: the acknowledgment number counts.
const ACK: u8 = 0x10;
/// IPv4 flag: do not fragment, in the 16 bits with the fragment offset.
const DONT_FRAGMENT: u16 = 0x4000;

/// The longest head of a packet that is merged: Ethernet with two tags, IPv6
/// without extensions, TCP with all its options.
const MAX_HEAD: usize = 14 + 8 + 40 + 60;

/// Both addresses of a packet; those of IPv4 fill the front.
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

/// What a packet is to one who merges packets.
#[derive(Debug)]
pub(in crate::packet) enum Kind {
    /// It may be merged with others of its flow.
    Mergeable(Candidate),
    /// It belongs to this flow, and has to stay as it is.
    Whole(Flow),
    /// It may belong to any flow between these addresses: a fragment, or
    /// another protocol.
    Between(Pair),
    /// It is not understood.
    Unknown,
}

/// A TCP segment or UDP datagram with nothing out of the ordinary.
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
    /// TCP with PSH, behind which nothing is merged.
    pub push: bool,
    /// The checksum is still to be completed, and its field holds the sum of the
    /// pseudo header.
    pub open: bool,
    /// The headers, less what may differ among packets that are merged.
    pub constant: [u8; MAX_HEAD],
}

impl Kind {
    /// Looks at one packet, of which `header` is the offload header.
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
    /// The rules of the kernel's GRO, and where those would change a byte
    /// (identifications that stand still), stricter ones. IPv4 options and IPv6
    /// extension headers may ask something of each packet, so they are not merged.
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

    /// Takes over what the offload header says, unless that is more than an open
    /// checksum.
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

    /// Whether the checksums of `packet`, of which this is the candidate, are
    /// those that its segment would be given; not only such as verify, since
    /// zero has two forms. One that is open has to be the sum that it would be
    /// completed from.
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

/// Whether `found` is the checksum of what `sum` is the sum of, `found` being
/// part of it. `never_zero` if the protocol writes zero as 0xffff.
fn same_checksum(found: [u8; 2], sum: Sum, never_zero: bool) -> bool {
    // A right checksum fills the sum up to all ones; then it is right in that
    // one of its forms that the protocol writes.
    let written_wrongly = if never_zero { [0, 0] } else { [0xff, 0xff] };
    sum.fold() == 0xffff && found != written_wrongly
}

#[cfg(test)]
mod tests;
