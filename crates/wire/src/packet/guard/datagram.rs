//! Parses IP packets for the [guard](crate::packet::guard): the addresses, and the
//! payload as far as it is in the packet's head.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Refused;
use crate::packet::headers::field;

/// Whether the address is in fe80::/10.
pub(in crate::packet) fn is_link_local(address: Ipv6Addr) -> bool {
    address.is_unicast_link_local()
}

/// The parts of an IPv4 packet that the guard checks.
pub(in crate::packet) struct Datagram4<'a> {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub protocol: u8,
    /// Whether it has a source route option (RFC 791, section 3.1).
    pub source_routed: bool,
    /// Whether this is a fragment.
    pub fragment: bool,
    /// Whether this is a fragment other than the first: its `payload` has no header.
    pub middle: bool,
    pub payload: &'a [u8],
}

/// Bytes of an IPv4 header without options.
const IPV4_LEN: usize = 20;

impl<'a> Datagram4<'a> {
    pub(in crate::packet) fn read(packet: &'a [u8]) -> Result<Self, Refused> {
        let header: &[u8; IPV4_LEN] = packet.first_chunk().ok_or(Refused::Malformed)?;
        let length = usize::from(header[0] & 0x0f) * 4;
        let payload = packet.get(length..).ok_or(Refused::Malformed)?;
        let source_routed = match length {
            0..IPV4_LEN => return Err(Refused::Malformed),
            IPV4_LEN => false,
            _ => has_source_route(packet.get(IPV4_LEN..length).unwrap_or_default())?,
        };
        let [.., s0, s1, s2, s3, d0, d1, d2, d3] = *header;
        let place = u16::from_be_bytes([header[6], header[7]]);
        Ok(Datagram4 {
            source: Ipv4Addr::new(s0, s1, s2, s3),
            destination: Ipv4Addr::new(d0, d1, d2, d3),
            protocol: header[9],
            source_routed,
            // More fragments, or an offset.
            fragment: place & 0x3fff != 0,
            middle: place & 0x1fff != 0,
            payload,
        })
    }
}

/// Whether IPv4 options have a loose or strict source route.
fn has_source_route(mut options: &[u8]) -> Result<bool, Refused> {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const LOOSE_SOURCE_ROUTE: u8 = 131;
    const STRICT_SOURCE_ROUTE: u8 = 137;
    while let Some(kind) = options.first() {
        let length = match *kind {
            END => break,
            NO_OPERATION => 1,
            LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => return Ok(true),
            _ => match options.get(1) {
                Some(length) if *length >= 2 => usize::from(*length),
                _ => return Err(Refused::Malformed),
            },
        };
        options = options.get(length..).ok_or(Refused::Malformed)?;
    }
    Ok(false)
}

/// The parts of an IPv6 packet that the guard checks.
pub(in crate::packet) struct Datagram6<'a> {
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    /// The protocol of `payload`, which is behind the extension headers that are parsed.
    pub protocol: u8,
    /// Whether it has a routing header with segments left.
    pub source_routed: bool,
    /// Whether this is a fragment.
    pub fragment: bool,
    /// Whether this is a fragment other than the first: its `payload` has no header.
    pub middle: bool,
    /// Whether there is a fragment header, also in front of a whole packet.
    pub fragment_header: bool,
    /// Whether `payload` reaches the packet's end; if not, the rest is not in the head.
    pub whole: bool,
    pub payload: &'a [u8],
}

/// Extension headers parsed at most (RFC 8200, section 4.1).
const MAX_EXTENSIONS: usize = 8;

impl<'a> Datagram6<'a> {
    pub(in crate::packet) fn read(packet: &'a [u8]) -> Result<Self, Refused> {
        let (header, payload) = packet.split_first_chunk().ok_or(Refused::Malformed)?;
        let header: &[u8; 40] = header;
        // Bytes behind the packet's end are padding of an Ethernet frame.
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let whole = payload.len() >= length;
        let payload = payload.get(..length).unwrap_or(payload);
        let mut datagram = Datagram6 {
            source: Ipv6Addr::from(field::<16>(header, 8).ok_or(Refused::Malformed)?),
            destination: Ipv6Addr::from(field::<16>(header, 24).ok_or(Refused::Malformed)?),
            protocol: header[6],
            source_routed: false,
            fragment: false,
            middle: false,
            fragment_header: false,
            whole,
            payload,
        };
        datagram.walk_extensions()?;
        Ok(datagram)
    }

    /// Parses the extension headers; all have to be in the head, or a routing header
    /// could be missed.
    fn walk_extensions(&mut self) -> Result<(), Refused> {
        const HOP_BY_HOP: u8 = 0;
        const ROUTING: u8 = 43;
        const FRAGMENT: u8 = 44;
        const AUTHENTICATION: u8 = 51;
        const DESTINATION: u8 = 60;
        for _ in 0..MAX_EXTENSIONS {
            let units = match self.protocol {
                HOP_BY_HOP | ROUTING | DESTINATION => 8,
                // RFC 4302, section 2.2: in words, less two.
                AUTHENTICATION => 4,
                FRAGMENT => 0,
                _ => return Ok(()),
            };
            let [next, length, third, fourth] = field(self.payload, 0).ok_or(Refused::Malformed)?;
            let mut size = 8 + usize::from(length) * units;
            match self.protocol {
                // The fourth byte counts the segments left.
                ROUTING => self.source_routed |= fourth != 0,
                FRAGMENT => {
                    // RFC 6946: offset 0 without more fragments is a whole packet.
                    let place = u16::from_be_bytes([third, fourth]);
                    self.fragment |= place & !0b110 != 0;
                    self.middle = place & !0b111 != 0;
                    self.fragment_header = true;
                    size = 8;
                }
                _ => {}
            }
            self.protocol = next;
            self.payload = self.payload.get(size..).ok_or(Refused::Malformed)?;
            if self.middle {
                // Data follows. The first fragment has all headers (RFC 7112).
                return Ok(());
            }
        }
        Err(Refused::Malformed)
    }
}
