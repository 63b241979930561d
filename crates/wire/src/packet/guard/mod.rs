//! The guard: what the peer of a tunnel may send, by the addresses that were
//! agreed on. It judges each packet of every role, before anything else reads it.
//!
//! ```text
//!   at a server       from the client's addresses           to where the client may reach
//!   at an agent       from the local end's address           to what its limits allow
//!   at a client       from the peer and the routes taken    to the client's own addresses
//!   with `ssh -w`     from anywhere, to anywhere: each end's addresses are its user's
//! ```
//!
//! In every role router advertisements and redirects are refused, since they would
//! change this host's routes; and an ICMP error has to quote a packet that was sent
//! to where the error comes from.
//!
//! Both directions of a conversation between two clients are judged at their
//! senders, by the same kind of rules; so a reply passes only where the one who
//! replies may reach the other by itself, and nothing here remembers who began.
//!
//! A point-to-point tunnel has no use for link-local traffic. Every kernel sends
//! some, so its drops have a name of their own ([`Refused::NotCarried`]). An ethernet
//! tunnel needs it: [`link`] judges it where the peer is one host, and
//! `lan` where it is a LAN.

pub(super) mod datagram;
pub(super) mod dhcp;
pub(super) mod icmp;
pub(super) mod lan;
pub mod link;

#[cfg(test)]
mod role_tests;
#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use ipnetwork::IpNetwork;
use thiserror::Error;

use datagram::{Datagram4, Datagram6, is_link_local};

use super::headers::field;
use super::{IpVersion, PacketError};
use crate::types::Mode;
use crate::types::address_set::AddressSet;
use link::Sender;

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
    /// A router advertisement or redirect, which would change this host's routes.
    #[error("a router advertisement or redirect")]
    RouterControl,
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
        opened(self.networks)
            .minus(self.clients)
            .union(self.peers)
            .union(self.here)
    }
}

/// The addresses of `networks`. A wide network does not open `SPECIAL` ones: that
/// takes a network which lies in there.
pub fn opened(networks: &[IpNetwork]) -> AddressSet {
    let (within, wide): (Vec<IpNetwork>, Vec<IpNetwork>) = networks
        .iter()
        .partition(|network| SPECIAL.includes(&AddressSet::from_iter([**network])));
    let wide: AddressSet = wide.into_iter().collect();
    wide.minus(&SPECIAL).union(&within.into_iter().collect())
}

/// Both families, as networks.
pub fn everywhere() -> impl Iterator<Item = IpNetwork> {
    [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]
        .into_iter()
        .filter_map(|base| IpNetwork::new(base, 0).ok())
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

/// What the peer is on an ethernet tunnel, and whether its addresses are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PeerKind {
    /// A host, with its addresses and the networks behind it.
    Host,
    /// The way to networks; on an ethernet tunnel a LAN.
    Networks,
    /// Whatever its user made of it.
    Unknown,
}

/// The rules for one sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardRules {
    pub(super) sources: AddressSet,
    pub(super) destinations: AddressSet,
    /// Whether all that it sends by Ethernet comes from one station.
    pub(super) one_station: bool,
    /// Broadcast addresses of networks that this host is in.
    pub(super) groups: AddressSet,
    /// Where an ICMP error may come from besides `sources`: routers on the way have
    /// addresses outside of the networks that they lead to.
    reporters: AddressSet,
    peer: PeerKind,
}

/// What a client agreed on, or was told by its user.
#[derive(Debug, Clone, Default)]
pub struct ClientTerms {
    /// The client's own addresses in the tunnel.
    pub own: AddressSet,
    /// The peer's addresses, and what is routed to it.
    pub routed: AddressSet,
    /// Networks behind the client that the peer may send to.
    pub behind: AddressSet,
    /// All addresses of the client's host, from which nothing else can come.
    pub host: AddressSet,
    /// Broadcast addresses of an ethernet tunnel's network.
    pub broadcast: AddressSet,
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
            groups: AddressSet::EMPTY,
            reporters: AddressSet::EMPTY,
            peer: PeerKind::Host,
        }
    }

    /// For what a client receives.
    pub fn of_client(terms: &ClientTerms) -> Self {
        let ours = terms.own.union(&terms.behind).union(&terms.host);
        let everywhere: AddressSet = everywhere().collect();
        GuardRules {
            sources: terms.routed.minus(&ours),
            destinations: terms.own.union(&terms.behind),
            one_station: false,
            groups: terms.broadcast.clone(),
            reporters: everywhere.minus(&SPECIAL).minus(&ours),
            peer: PeerKind::Networks,
        }
    }

    /// For a peer of which no addresses are known: only what would change this
    /// host's routes is refused.
    pub fn without_addresses() -> Self {
        GuardRules {
            sources: AddressSet::EMPTY,
            destinations: AddressSet::EMPTY,
            one_station: false,
            groups: AddressSet::EMPTY,
            reporters: AddressSet::EMPTY,
            peer: PeerKind::Unknown,
        }
    }

    /// Judges a packet of which `head` is the start, with all of its headers, or
    /// all. `sender` is what is known about it on its link; the same for all of a
    /// tunnel's packets.
    pub fn check(&self, mode: Mode, sender: &mut Sender, head: &[u8]) -> Result<(), Refused> {
        match (self.peer, mode) {
            (PeerKind::Unknown, Mode::PointToPoint) => router_control(head),
            (PeerKind::Unknown, Mode::Ethernet) => router_control_in_frame(head),
            (_, Mode::PointToPoint) => self.check_ip(head),
            (PeerKind::Host, Mode::Ethernet) => link::check(self, sender, head),
            (PeerKind::Networks, Mode::Ethernet) => lan::check(self, head),
        }
    }

    fn check_ip(&self, packet: &[u8]) -> Result<(), Refused> {
        match IpVersion::of(packet)? {
            IpVersion::V4 => self.check_v4(&Datagram4::read(packet)?),
            IpVersion::V6 => {
                let datagram = Datagram6::read(packet)?;
                icmp::quoted_v6(&datagram)?;
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
        self.check_source_v4(datagram)?;
        if datagram.source_routed || !self.destinations.contains_v4(datagram.destination) {
            return Err(Refused::Destination);
        }
        Ok(())
    }

    pub(super) fn check_v6(&self, datagram: &Datagram6<'_>) -> Result<(), Refused> {
        self.check_source_v6(datagram)?;
        if datagram.source_routed || !self.destinations.contains_v6(datagram.destination) {
            return Err(Refused::Destination);
        }
        Ok(())
    }

    /// An error has to be about a packet from our side to the sender's.
    pub(super) fn check_source_v4(&self, datagram: &Datagram4<'_>) -> Result<(), Refused> {
        let own = self.sources.contains_v4(datagram.source);
        let passes = match icmp::quoted_v4(datagram)? {
            None => own,
            Some(quoted) => {
                (own || self.reporters.contains_v4(datagram.source))
                    && self.destinations.contains_v4(quoted.source)
                    && self.sources.contains_v4(quoted.destination)
            }
        };
        if passes { Ok(()) } else { Err(Refused::Source) }
    }

    /// The same for IPv6.
    pub(super) fn check_source_v6(&self, datagram: &Datagram6<'_>) -> Result<(), Refused> {
        let own = self.sources.contains_v6(datagram.source);
        let passes = match icmp::quoted_v6(datagram)? {
            None => own,
            Some(quoted) => {
                (own || self.reporters.contains_v6(datagram.source))
                    && self.destinations.contains_v6(quoted.source)
                    && self.sources.contains_v6(quoted.destination)
            }
        };
        if passes { Ok(()) } else { Err(Refused::Source) }
    }
}

/// Refuses what would change this host's routes, and passes everything else.
fn router_control(packet: &[u8]) -> Result<(), Refused> {
    match IpVersion::of(packet)? {
        IpVersion::V4 => icmp::quoted_v4(&Datagram4::read(packet)?).map(|_| ()),
        IpVersion::V6 => icmp::quoted_v6(&Datagram6::read(packet)?).map(|_| ()),
    }
}

/// The same for an Ethernet frame, also behind tags (IEEE 802.1Q, 802.1ad).
fn router_control_in_frame(frame: &[u8]) -> Result<(), Refused> {
    const TAGS: usize = 8;
    let mut rest = frame.get(12..).ok_or(Refused::Malformed)?;
    for _ in 0..TAGS {
        let kind = u16::from_be_bytes(field(rest, 0).ok_or(Refused::Malformed)?);
        match kind {
            0x8100 | 0x88a8 | 0x9100 => rest = rest.get(4..).ok_or(Refused::Malformed)?,
            0x0800 | 0x86dd => return router_control(rest.get(2..).unwrap_or_default()),
            _ => return Ok(()),
        }
    }
    Err(Refused::Malformed)
}
