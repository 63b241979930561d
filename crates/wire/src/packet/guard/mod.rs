//! The guard: checks each packet from the peer against the addresses that were agreed on,
//! in every role, before anything else parses it.
//!
//! ```text
//!   at a server       from the client's addresses           to where the client may reach
//!   at an agent       from the client's address              to what its limits allow
//!   at a client       from the peer and the routes taken    to the client's own addresses
//!   with `ssh -w`     from anywhere, to anywhere: each end's addresses are its user's
//! ```
//!
//! In every role it refuses router advertisements and redirects, since they would change
//! this host's routes; and an ICMP error has to quote a packet whose destination is the
//! error's sender or behind it.
//!
//! Between two clients, each direction is checked at its sender, without connection
//! state: a reply passes only if the replying client may reach the other one by itself.
//!
//! A point-to-point tunnel carries no link-local traffic. Every kernel sends some, so its
//! drops have a reason of their own ([`Refused::NotCarried`]). An ethernet tunnel needs
//! it: [`link`] checks it if the peer is one host, `lan` if it is a LAN.

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

/// Why the guard refuses a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum Refused {
    /// Its source in IP, Ethernet, ARP or neighbour discovery is not the sender's.
    #[error("from an address that is not the sender's")]
    Source,
    /// The sender may not reach its destination; also any source route.
    #[error("to where the sender may not reach")]
    Destination,
    /// Link traffic that this tunnel does not carry: on a tun device link-local packets;
    /// on a tap device all but IP, ARP and what a host needs on a link.
    #[error("not carried on such a tunnel")]
    NotCarried,
    /// A router advertisement or redirect, which would change this host's routes.
    #[error("a router advertisement or redirect")]
    RouterControl,
    /// Its headers are truncated or malformed.
    #[error("headers that make no sense")]
    Malformed,
}

impl From<PacketError> for Refused {
    fn from(_: PacketError) -> Self {
        Refused::Malformed
    }
}

/// The destinations that a sender may reach, as they are granted.
#[derive(Debug, Clone, Copy)]
pub struct Reach<'a> {
    /// This host's addresses inside the tunnel; always reachable.
    pub here: &'a AddressSet,
    /// Networks beyond this host. A wide network does not include special ranges
    /// (loopback, link-local, multicast, reserved): only a network inside such a range
    /// does.
    pub networks: &'a [IpNetwork],
    /// All addresses that clients have or may get, and the networks behind them; removed
    /// from the networks beyond this host.
    pub clients: &'a AddressSet,
    /// The addresses of the clients that share a group with the sender.
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

/// The addresses of `networks`. A wide network does not include `SPECIAL` addresses: only
/// a network inside them does.
pub fn opened(networks: &[IpNetwork]) -> AddressSet {
    let (within, wide): (Vec<IpNetwork>, Vec<IpNetwork>) = networks
        .iter()
        .partition(|network| SPECIAL.includes(&AddressSet::from_iter([**network])));
    let wide: AddressSet = wide.into_iter().collect();
    wide.minus(&SPECIAL).union(&within.into_iter().collect())
}

/// All addresses of both families, as networks.
pub fn everywhere() -> impl Iterator<Item = IpNetwork> {
    [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]
        .into_iter()
        .filter_map(|base| IpNetwork::new(base, 0).ok())
}

/// Special-purpose addresses (RFC 6890) and multicast.
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

/// The kind of peer: which check applies on an ethernet tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PeerKind {
    /// A host, with its addresses and the networks behind it.
    Host,
    /// A gateway to networks; on an ethernet tunnel a LAN.
    Networks,
    /// A peer whose addresses are not known.
    Unknown,
}

/// The rules for one sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardRules {
    pub(super) sources: AddressSet,
    pub(super) destinations: AddressSet,
    /// Whether all of its Ethernet frames come from one station.
    pub(super) one_station: bool,
    /// Broadcast addresses of this host's networks.
    pub(super) groups: AddressSet,
    /// Sources of ICMP errors besides `sources`: routers on the path have addresses
    /// outside of the networks that they lead to.
    reporters: AddressSet,
    peer: PeerKind,
}

/// The addresses that a client agreed on, or that its user gave.
#[derive(Debug, Clone, Default)]
pub struct ClientTerms {
    /// The client's own addresses in the tunnel.
    pub own: AddressSet,
    /// The peer's addresses, and the networks routed to it.
    pub routed: AddressSet,
    /// Networks behind the client that the peer may send to.
    pub behind: AddressSet,
    /// All addresses of the client's host, which no other host may use as a source.
    pub host: AddressSet,
    /// Broadcast addresses of an ethernet tunnel's network.
    pub broadcast: AddressSet,
}

impl GuardRules {
    /// Rules for a sender that uses `sources`: its addresses, and the networks behind it.
    /// `one_station` says that on an ethernet tunnel all frames come from one MAC
    /// address, the first that is seen; unset where networks behind the sender may be
    /// bridged.
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

    /// Rules for the packets that a client receives.
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

    /// Rules for a peer whose addresses are not known: refuse only packets that would
    /// change this host's routes.
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

    /// Checks a packet that begins with `head`, which holds all headers. `sender` holds
    /// the sender's link addresses; pass the same for all packets of a tunnel.
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

    /// An error has to quote a packet from this side to the sender's side.
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

    /// Checks the source of an IPv6 packet; an error has to quote a packet from this side
    /// to the sender's side.
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

/// Refuses packets that would change this host's routes, and passes all others.
fn router_control(packet: &[u8]) -> Result<(), Refused> {
    match IpVersion::of(packet)? {
        IpVersion::V4 => icmp::quoted_v4(&Datagram4::read(packet)?).map(|_| ()),
        IpVersion::V6 => icmp::quoted_v6(&Datagram6::read(packet)?).map(|_| ()),
    }
}

/// [`router_control`] for an Ethernet frame, also with VLAN tags (IEEE 802.1Q, 802.1ad).
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
