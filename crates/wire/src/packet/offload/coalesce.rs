//! Merges consecutive packets of a flow into super-packets, so that one write gives the
//! kernel many packets. Dividing a super-packet gives back the packets byte for byte;
//! packets for which it would not are left unchanged.
//!
//! Merges in both modes; Ethernet frames only if their Ethernet headers are equal.

use bytes::Bytes;

use super::candidate::{Candidate, Flow, Kind};
use super::unit::Held;
pub use super::unit::{Super, Unit};
use super::virtio::VirtioHeader;
use super::{MAX_PACKET, MIN_TCP_SIZE};
use crate::packet::IpVersion;
use crate::packet::headers::Transport;
use crate::types::Mode;

/// Packets in one super-packet, at most: the kernel's oldest limit for UDP
/// (`UDP_MAX_SEGMENTS`).
pub const MAX_SEGMENTS: usize = 64;

/// Packets held until a flush, at most.
pub const MAX_BATCH: usize = 512;

/// Flows merged at the same time, at most; one more closes the oldest.
const MAX_OPEN: usize = 16;

/// Limits of the super-packets that the coalescer makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest super-packet in bytes, headers included; never more than 65535.
    pub unit_bytes: usize,
    /// Whether to merge UDP: the device takes USO (Linux 6.2).
    pub udp: bool,
}

/// Merges packets into units. Packets of one flow keep their order; those of different
/// flows may overtake each other.
#[derive(Debug)]
pub struct Coalescer {
    mode: Mode,
    limits: Limits,
    /// All packets held.
    packets: usize,
    units: Vec<Held>,
    /// The units that may grow, oldest first; at most one for each flow.
    open: Vec<Open>,
}

/// A unit that may grow.
#[derive(Debug)]
struct Open {
    /// Its index in `units`.
    unit: usize,
    first: Candidate,
    packets: usize,
    /// All payload bytes.
    length: usize,
}

/// The result of an attempt to merge.
enum Merge {
    /// Merged, and the unit may grow further.
    Grown,
    /// Merged, and the unit is complete.
    Ended,
    /// Not merged: the packet does not fit the unit.
    Refused,
}

impl Coalescer {
    /// An empty coalescer for packets of `mode`.
    pub fn new(mode: Mode, limits: Limits) -> Self {
        Coalescer {
            mode,
            limits,
            packets: 0,
            units: Vec::new(),
            open: Vec::with_capacity(MAX_OPEN),
        }
    }

    /// Takes an ordinary packet. Gives it back if [`MAX_BATCH`] are held: push it again
    /// after a [`flush`](Self::flush).
    pub fn push(&mut self, packet: Bytes) -> Result<(), Bytes> {
        self.push_offload(VirtioHeader::PLAIN, packet)
    }

    /// Takes a packet with an offload header. Packets with an open checksum are merged as
    /// well; dividing gives them back with the checksum completed. A super-packet stays
    /// unchanged.
    pub fn push_offload(&mut self, header: VirtioHeader, packet: Bytes) -> Result<(), Bytes> {
        if self.packets == MAX_BATCH {
            return Err(packet);
        }
        self.packets += 1;
        match Kind::of(self.mode, &header, &packet) {
            Kind::Mergeable(candidate) => {
                self.add(candidate, header, packet);
                return Ok(());
            }
            Kind::Whole(flow) => self.open.retain(|open| open.first.flow != flow),
            Kind::Between(pair) => self.open.retain(|open| open.first.flow.pair != pair),
            Kind::Unknown => self.open.clear(),
        }
        self.units.push(Held::Single(header, packet));
        Ok(())
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    /// Yields all units that are held, in the order of their first packets.
    pub fn flush(&mut self) -> impl Iterator<Item = Unit> + '_ {
        self.packets = 0;
        self.open.clear();
        self.units.drain(..).map(Held::finish)
    }

    /// Merges a packet into the open unit of its flow, or begins a unit with it.
    fn add(&mut self, candidate: Candidate, header: VirtioHeader, packet: Bytes) {
        if let Some(position) = self.position(&candidate.flow) {
            match self.merge(position, &candidate, &packet) {
                Merge::Grown => return,
                Merge::Ended => {
                    self.open.remove(position);
                    return;
                }
                Merge::Refused => {
                    self.open.remove(position);
                }
            }
        }
        let may_grow = !candidate.push
            && match candidate.headers.transport_protocol {
                Transport::Udp => self.limits.udp,
                _ => candidate.length >= MIN_TCP_SIZE,
            };
        if may_grow {
            if self.open.len() == MAX_OPEN {
                self.open.remove(0);
            }
            self.open.push(Open {
                unit: self.units.len(),
                packets: 1,
                length: candidate.length,
                first: candidate,
            });
        }
        self.units.push(Held::Single(header, packet));
    }

    fn position(&self, flow: &Flow) -> Option<usize> {
        self.open.iter().position(|open| open.first.flow == *flow)
    }

    fn merge(&mut self, position: usize, candidate: &Candidate, packet: &Bytes) -> Merge {
        let limit = self.limits.unit_bytes.min(MAX_PACKET);
        let (Some(open), units) = (self.open.get_mut(position), &mut self.units) else {
            return Merge::Refused;
        };
        let Some(held) = units.get_mut(open.unit) else {
            return Merge::Refused;
        };
        if !open.continues_with(candidate, limit) || !candidate.intact(packet) {
            return Merge::Refused;
        }
        if !held.append(&open.first, candidate, packet) {
            return Merge::Refused;
        }
        open.packets += 1;
        open.length += candidate.length;
        let ended =
            candidate.push || candidate.length < open.first.length || open.packets == MAX_SEGMENTS;
        if ended { Merge::Ended } else { Merge::Grown }
    }
}

impl Open {
    /// Whether the headers of `next` continue this unit.
    fn continues_with(&self, next: &Candidate, limit: usize) -> bool {
        let first = &self.first;
        let sequence = match first.headers.transport_protocol {
            Transport::Tcp => first.sequence.wrapping_add(self.length as u32),
            _ => 0,
        };
        let identification = match first.headers.version {
            IpVersion::V4 => first.identification.wrapping_add(self.packets as u16),
            IpVersion::V6 => 0,
        };
        next.sequence == sequence
            && next.identification == identification
            && next.length <= first.length
            && first.headers.payload + self.length + next.length <= limit
            && next.headers.payload == first.headers.payload
            && next.constant == first.constant
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
