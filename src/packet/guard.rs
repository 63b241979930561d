//! What one end of a tunnel may send: only from its own addresses, and only to
//! where it was let. Asked about each packet, before anything else looks at it.
//!
//! Both directions of a conversation between two clients are judged at their
//! senders, by the same kind of rules; so a reply passes only where the one who
//! replies may reach the other by itself, and nothing here remembers who began.
//!
//! Link-local traffic has no place on a point-to-point tunnel, where there is
//! nobody to discover: it is dropped under a name of its own ([`Refused::NotCarried`]),
//! since every kernel sends some. On an ethernet tunnel it is what makes the
//! link work, and [`guard_link`] judges it.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use ipnetwork::IpNetwork;
use thiserror::Error;

use super::address_set::AddressSet;
use super::guard_link::{self, Sender};
use super::headers::field;
use super::{IpVersion, PacketError};
use crate::config::types::Mode;

/// Why a packet is not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum Refused {
    /// It says that it comes from somebody else, by IP, Ethernet, ARP or
    /// neighbour discovery.
    #[error("from an address that is not the sender's")]
    Source,
    /// It goes where the sender may not reach, also by a source route.
    #[error("to where the sender may not reach")]
    Destination,
    /// Traffic that stays on a link and has no place on this one: on a tun device
    /// link-local packets; on a tap device all but IP, ARP, and what a station
    /// needs to be one.
    #[error("not carried on such a tunnel")]
    NotCarried,
    /// Its headers are cut short, or make no sense.
    #[error("headers that make no sense")]
    Malformed,
}

impl From<PacketError> for Refused {
    fn from(_: PacketError) -> Self {
        Refused::Malformed
    }
}

/// Where a sender may reach, in the words of whoever grants it.
#[derive(Debug, Clone, Copy)]
pub struct Reach<'a> {
    /// Our own addresses inside the tunnel: always.
    pub here: &'a AddressSet,
    /// Networks beyond this host. A wide one does not open what is not meant for
    /// the world (loopback, link-local, multicast, reserved): that takes a
    /// network which lies in there.
    pub networks: &'a [IpNetwork],
    /// All addresses that clients have or may get, and the networks behind them.
    /// No network beyond this host opens any of these.
    pub clients: &'a AddressSet,
    /// Those of the clients that share a group with the sender.
    pub peers: &'a AddressSet,
}

impl Reach<'_> {
    fn destinations(&self) -> AddressSet {
        let (within, wide): (Vec<IpNetwork>, Vec<IpNetwork>) = self
            .networks
            .iter()
            .partition(|network| SPECIAL.includes(&AddressSet::from_iter([**network])));
        let wide: AddressSet = wide.into_iter().collect();
        let within: AddressSet = within.into_iter().collect();
        let beyond = wide.minus(&SPECIAL).union(&within);
        beyond
            .minus(self.clients)
            .union(self.peers)
            .union(self.here)
    }
}

/// What is no place in the world (RFC 6890), or many at once.
static SPECIAL: LazyLock<AddressSet> = LazyLock::new(|| {
    let v4 = [
        (Ipv4Addr::UNSPECIFIED, 8),
        (Ipv4Addr::LOCALHOST, 8),
        (Ipv4Addr::new(169, 254, 0, 0), 16),
        (Ipv4Addr::new(224, 0, 0, 0), 3),
    ];
    let v6 = [
        (Ipv6Addr::UNSPECIFIED, 127),
        (Ipv4Addr::UNSPECIFIED.to_ipv6_mapped(), 96),
        (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
        (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8),
    ];
    let v4 = v4.into_iter().map(|(base, prefix)| (base.into(), prefix));
    let v6 = v6.into_iter().map(|(base, prefix)| (base.into(), prefix));
    v4.chain(v6)
        .filter_map(|(base, prefix)| IpNetwork::new(base, prefix).ok())
        .collect()
});

/// The rules for one sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardRules {
    pub(super) sources: AddressSet,
    pub(super) destinations: AddressSet,
    /// Whether all that it sends by Ethernet comes from one station.
    pub(super) one_station: bool,
}

impl GuardRules {
    /// For a sender whose addresses, and networks behind it, are `sources`.
    /// `one_station` says that an ethernet tunnel has one host at its end, whose
    /// MAC address is the first that is seen; where networks are behind it, they
    /// may be bridged to it.
    pub fn new(sources: AddressSet, reach: &Reach<'_>, one_station: bool) -> Self {
        GuardRules {
            sources,
            destinations: reach.destinations(),
            one_station,
        }
    }

    /// Judges a packet of which `head` is the start, with all of its headers, or
    /// all. `sender` is what is known about it on its link; the same for all of a
    /// tunnel's packets.
    pub fn check(&self, mode: Mode, sender: &mut Sender, head: &[u8]) -> Result<(), Refused> {
        match mode {
            Mode::PointToPoint => self.check_ip(head),
            Mode::Ethernet => guard_link::check(self, sender, head),
        }
    }

    fn check_ip(&self, packet: &[u8]) -> Result<(), Refused> {
        match IpVersion::of(packet)? {
            IpVersion::V4 => {
                let datagram = Datagram4::read(packet)?;
                self.check_v4(&datagram)
            }
            IpVersion::V6 => {
                let datagram = Datagram6::read(packet)?;
                let (source, destination) = (datagram.source, datagram.destination);
                let on_link = is_link_local(source) || source.is_unspecified();
                if on_link && (destination.is_multicast() || is_link_local(destination)) {
                    return Err(Refused::NotCarried);
                }
                self.check_v6(&datagram)
            }
        }
    }

    pub(super) fn check_v4(&self, datagram: &Datagram4<'_>) -> Result<(), Refused> {
        if !self.sources.contains_v4(datagram.source) {
            return Err(Refused::Source);
        }
        if datagram.source_routed || !self.destinations.contains_v4(datagram.destination) {
            return Err(Refused::Destination);
        }
        Ok(())
    }

    pub(super) fn check_v6(&self, datagram: &Datagram6<'_>) -> Result<(), Refused> {
        if !self.sources.contains_v6(datagram.source) {
            return Err(Refused::Source);
        }
        if datagram.source_routed || !self.destinations.contains_v6(datagram.destination) {
            return Err(Refused::Destination);
        }
        Ok(())
    }
}

/// Whether it is of fe80::/10.
pub(super) fn is_link_local(address: Ipv6Addr) -> bool {
    address.is_unicast_link_local()
}

/// What of an IPv4 packet is judged.
pub(super) struct Datagram4<'a> {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub protocol: u8,
    /// Whether it has an option by which it goes elsewhere first (RFC 791, section 3.1).
    pub source_routed: bool,
    /// Whether this is a fragment.
    pub fragment: bool,
    /// Whether this is a fragment other than the first, whose `payload` begins
    /// with data.
    pub middle: bool,
    pub payload: &'a [u8],
}

/// Bytes of an IPv4 header without options.
const IPV4_LEN: usize = 20;

impl<'a> Datagram4<'a> {
    pub(super) fn read(packet: &'a [u8]) -> Result<Self, Refused> {
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

/// Looks for a loose or strict source route among IPv4 options.
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

/// What of an IPv6 packet is judged.
pub(super) struct Datagram6<'a> {
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    /// What `payload` is; behind the extension headers that matter here.
    pub protocol: u8,
    /// Whether a routing header sends it on from its destination.
    pub source_routed: bool,
    /// Whether this is a fragment.
    pub fragment: bool,
    /// Whether this is a fragment other than the first, whose `payload` begins
    /// with data.
    pub middle: bool,
    /// Whether there is a fragment header, be it in front of a whole packet.
    pub fragment_header: bool,
    /// Whether `payload` goes to the packet's end; else some of it is out of sight.
    pub whole: bool,
    pub payload: &'a [u8],
}

/// Extension headers that are walked over (RFC 8200, section 4.1).
const MAX_EXTENSIONS: usize = 8;

impl<'a> Datagram6<'a> {
    pub(super) fn read(packet: &'a [u8]) -> Result<Self, Refused> {
        let (header, payload) = packet.split_first_chunk().ok_or(Refused::Malformed)?;
        let header: &[u8; 40] = header;
        // Behind the packet's own end is padding of an Ethernet frame.
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

    /// Walks to what is behind the extension headers; all of them have to be in
    /// the bytes that are here, or a routing header could be out of sight.
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
                    // RFC 6946: offset 0 and no more to come is a whole packet.
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
                // What follows is data. The first fragment has all of the
                // headers (RFC 7112).
                return Ok(());
            }
        }
        Err(Refused::Malformed)
    }
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
