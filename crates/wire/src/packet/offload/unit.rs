//! The coalescer's output: unchanged packets, and super-packets.

use std::num::NonZeroU16;

use bytes::Bytes;

use super::candidate::Candidate;
use super::put_checksum;
use super::segment::{PSH, TCP_FLAGS};
use super::virtio::{Gso, GsoKind, PartialChecksum, VirtioHeader};
use crate::packet::IpVersion;
use crate::packet::headers::{Headers, Transport, length_field, put_u16};

/// One write to the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unit {
    /// An unchanged packet with the header [`VirtioHeader::PLAIN`].
    Plain(Bytes),
    /// An unchanged packet with another header.
    Offload(VirtioHeader, Bytes),
    /// Several packets merged.
    Super(Super),
}

impl Unit {
    /// Its offload header, all its headers with or without payload, and more payload.
    pub fn parts(&self) -> (&VirtioHeader, &[u8], &[Bytes]) {
        match self {
            Unit::Plain(packet) => (&VirtioHeader::PLAIN, packet, &[]),
            Unit::Offload(header, packet) => (header, packet, &[]),
            Unit::Super(merged) => (&merged.header, &merged.head, &merged.payloads),
        }
    }
}

/// A super-packet in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Super {
    /// Says how to divide it.
    pub header: VirtioHeader,
    /// All headers, with the lengths of the super-packet, and the pseudo header's sum in
    /// the checksum field.
    pub head: Vec<u8>,
    /// The payloads in order, slices of the packets.
    pub payloads: Vec<Bytes>,
}

/// A unit before the flush.
#[derive(Debug)]
pub(in crate::packet) enum Held {
    Single(VirtioHeader, Bytes),
    Merged(Merged),
}

/// An unfinished super-packet.
#[derive(Debug)]
pub(in crate::packet) struct Merged {
    headers: Headers,
    /// Payload bytes of each packet but the last.
    size: usize,
    /// The first packet, whose headers become those of the super-packet.
    packet: Bytes,
    payloads: Vec<Bytes>,
    /// Payload bytes in all.
    length: usize,
    push: bool,
}

impl Held {
    /// Appends the payload of `packet`. Verifies the first packet of a unit only now,
    /// when there is a second; if it is damaged, nothing changes.
    pub fn append(&mut self, first: &Candidate, next: &Candidate, packet: &Bytes) -> bool {
        let payload = packet.slice(next.headers.payload.min(packet.len())..);
        match self {
            Held::Merged(merged) => {
                merged.payloads.push(payload);
                merged.length += next.length;
                merged.push = next.push;
            }
            Held::Single(_, single) if first.intact(single) => {
                let mut payloads = Vec::with_capacity(8);
                payloads.push(single.slice(first.headers.payload.min(single.len())..));
                payloads.push(payload);
                *self = Held::Merged(Merged {
                    headers: first.headers,
                    size: first.length,
                    packet: single.clone(),
                    payloads,
                    length: first.length + next.length,
                    push: next.push,
                });
            }
            Held::Single(..) => return false,
        }
        true
    }

    pub fn finish(self) -> Unit {
        match self {
            Held::Single(VirtioHeader::PLAIN, packet) => Unit::Plain(packet),
            Held::Single(header, packet) => Unit::Offload(header, packet),
            Held::Merged(merged) => merged.finish(),
        }
    }
}

impl Merged {
    /// Adapts the headers to the whole super-packet.
    fn finish(self) -> Unit {
        let headers = self.headers;
        let transport = headers.transport;
        let Some(size) = NonZeroU16::new(length_field(self.size)) else {
            // A candidate has payload; this one is alone in its unit.
            return Unit::Plain(self.packet);
        };
        let mut head = self
            .packet
            .get(..headers.payload)
            .unwrap_or_default()
            .to_vec();
        let end = headers.payload + self.length;
        headers.set_end(&mut head, end);
        let kind = match (headers.transport_protocol, headers.version) {
            (Transport::Udp, _) => {
                put_u16(&mut head, transport + 4, length_field(end - transport));
                GsoKind::Udp
            }
            (_, IpVersion::V4) => GsoKind::Tcp4,
            (_, IpVersion::V6) => GsoKind::Tcp6,
        };
        if self.push
            && let Some(flags) = head.get_mut(transport + TCP_FLAGS)
        {
            *flags |= PSH;
        }
        let pseudo = headers.pseudo_header(&head, end - transport).fold();
        put_checksum(&mut head, &headers, pseudo);
        let offset = headers
            .transport_protocol
            .checksum_offset()
            .unwrap_or_default();
        let header = VirtioHeader {
            needs_checksum: Some(PartialChecksum {
                start: length_field(transport),
                offset: length_field(offset),
            }),
            data_valid: false,
            gso: Some(Gso {
                kind,
                ecn: false,
                size,
                header_length: length_field(headers.payload),
            }),
        };
        Unit::Super(Super {
            header,
            head,
            payloads: self.payloads,
        })
    }
}
