//! The [guard](crate::packet::guard) for Ethernet frames of one host: one station without
//! VLAN tags that sends IP and ARP. Of the traffic that stays on a link it passes only
//! what a host needs: DHCP as a client, multicast membership, and neighbour discovery
//! about its own addresses; nothing that a router or a DHCP server sends (compare RFC
//! 6105, and `dhcp`).
//!
//! On a link that it shares with others, a sender may use only the MAC and link-local
//! addresses that it was granted ([`LinkAddresses`]); [`Sender::wanted`] names the next
//! one to grant.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::datagram::{Datagram4, Datagram6, is_link_local};
use super::dhcp;
use super::{GuardRules, Refused};
use crate::packet::headers::field;

/// The address of an Ethernet station.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// Whether one station may have it: neither a group nor all zero.
    fn is_station(self) -> bool {
        self.0 != [0; 6] && self.0[0] & 1 == 0
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The addresses that a sender was granted on a link that it shares with others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkAddresses {
    /// The stations that its frames may come from.
    pub stations: Vec<MacAddress>,
    /// Its addresses in fe80::/10.
    pub link_local: Vec<Ipv6Addr>,
}

/// An address of a shared link that a sender was not granted yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkAddress {
    /// A station's MAC address.
    Station(MacAddress),
    /// An address in fe80::/10.
    LinkLocal(Ipv6Addr),
}

/// The link addresses of the sender of Ethernet frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sender {
    /// The only peer on its link: it chooses its addresses freely. Holds the station of
    /// the first frame that passed.
    Alone(Option<MacAddress>),
    /// A peer that shares its link with others.
    Shared {
        /// The addresses that it was granted.
        held: Arc<LinkAddresses>,
        /// The address that the last refused frame lacked.
        wanted: Option<LinkAddress>,
    },
}

impl Default for Sender {
    fn default() -> Self {
        Sender::Alone(None)
    }
}

impl Sender {
    /// Whether `station` is the sender's, or can become the sender's.
    fn may_be(&self, station: MacAddress, one_station: bool) -> bool {
        match self {
            _ if !one_station => true,
            Sender::Alone(known) => known.is_none_or(|known| known == station),
            Sender::Shared { held, .. } => match held.stations.first() {
                Some(_) => held.stations.contains(&station),
                None => true,
            },
        }
    }

    /// Records a frame that passed all other checks and claims these link-local
    /// addresses.
    fn speaks(
        &mut self,
        station: MacAddress,
        link_local: [Option<Ipv6Addr>; 2],
    ) -> Result<(), Refused> {
        let (held, wanted) = match self {
            Sender::Alone(known) => {
                known.get_or_insert(station);
                return Ok(());
            }
            Sender::Shared { held, wanted } => (held, wanted),
        };
        let lacks = |address: &Ipv6Addr| !held.link_local.contains(address);
        *wanted = match held.stations.contains(&station) {
            false => Some(LinkAddress::Station(station)),
            true => {
                let mut spoken_for = link_local.into_iter().flatten();
                spoken_for.find(lacks).map(LinkAddress::LinkLocal)
            }
        };
        match wanted {
            Some(_) => Err(Refused::Source),
            None => Ok(()),
        }
    }

    /// Takes the address that the last refused frame lacked.
    pub fn wanted(&mut self) -> Option<LinkAddress> {
        match self {
            Sender::Alone(_) => None,
            Sender::Shared { wanted, .. } => wanted.take(),
        }
    }
}

/// IP protocol numbers.
const IGMP: u8 = 2;
const TCP: u8 = 6;
pub(in crate::packet) const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// Checks a frame that begins with `head`. Only a frame that passes determines the
/// sender's station.
pub(in crate::packet) fn check(
    rules: &GuardRules,
    sender: &mut Sender,
    head: &[u8],
) -> Result<(), Refused> {
    let station = MacAddress(field(head, 6).ok_or(Refused::Malformed)?);
    if !station.is_station() || !sender.may_be(station, rules.one_station) {
        return Err(Refused::Source);
    }
    let ethertype = u16::from_be_bytes(field(head, 12).ok_or(Refused::Malformed)?);
    let payload = head.get(14..).ok_or(Refused::Malformed)?;
    let version = payload.first().map(|byte| byte >> 4);
    let shared = matches!(sender, Sender::Shared { .. });
    let link_local = match ethertype {
        0x0800 if version == Some(4) => {
            let datagram = Datagram4::read(payload)?;
            check_v4(rules, &datagram)?;
            if shared {
                dhcp::check_v4(rules, station, &datagram)?;
            }
            [None; 2]
        }
        0x86dd if version == Some(6) => {
            let datagram = Datagram6::read(payload)?;
            let target = check_v6(rules, station, &datagram)?;
            if shared {
                dhcp::check_v6(&datagram)?;
            }
            [Some(datagram.source), target].map(|own| own.filter(|own| is_link_local(*own)))
        }
        0x0800 | 0x86dd => return Err(Refused::Malformed),
        0x0806 => {
            check_arp(rules, station, payload)?;
            [None; 2]
        }
        _ => return Err(Refused::NotCarried),
    };
    sender.speaks(station, link_local)
}

fn check_v4(rules: &GuardRules, datagram: &Datagram4<'_>) -> Result<(), Refused> {
    let Datagram4 {
        source,
        destination,
        ..
    } = *datagram;
    let own = rules.sources.contains_v4(source);
    if !own && !source.is_unspecified() {
        return Err(Refused::Source);
    }
    if destination.is_broadcast() || !own {
        // RFC 2131, section 4.1.
        let dhcp = datagram.protocol == UDP && ports(datagram.payload) == Some((68, 67));
        return match dhcp && destination.is_broadcast() && !datagram.fragment {
            true => Ok(()),
            false if own => Err(Refused::Destination),
            false => Err(Refused::Source),
        };
    }
    if datagram.protocol == IGMP {
        return multicast_membership(datagram);
    }
    rules.check_v4(datagram)
}

/// Passes group reports (RFC 3376, section 4; RFC 2236), refuses queries.
fn multicast_membership(datagram: &Datagram4<'_>) -> Result<(), Refused> {
    if !datagram.destination.is_multicast() || datagram.fragment {
        return Err(Refused::NotCarried);
    }
    match datagram.payload.first() {
        Some(0x12 | 0x16 | 0x17 | 0x22) => Ok(()),
        Some(_) => Err(Refused::NotCarried),
        None => Err(Refused::Malformed),
    }
}

/// The source and the destination port.
pub(in crate::packet) fn ports(datagram: &[u8]) -> Option<(u16, u16)> {
    let [s0, s1, d0, d1] = field(datagram, 0)?;
    Some((u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])))
}

/// Checks ARP for IPv4 over Ethernet (RFC 826): it is about the sender's own addresses,
/// or a probe for one of them (RFC 5227), and its target is one that the sender may
/// reach.
fn check_arp(rules: &GuardRules, sender: MacAddress, packet: &[u8]) -> Result<(), Refused> {
    const ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
    if field(packet, 0) != Some(ETHERNET_IPV4) {
        return Err(Refused::Malformed);
    }
    let hardware = field(packet, 8).map(MacAddress).ok_or(Refused::Malformed)?;
    let ours = Ipv4Addr::from(field::<4>(packet, 14).ok_or(Refused::Malformed)?);
    let asked = Ipv4Addr::from(field::<4>(packet, 24).ok_or(Refused::Malformed)?);
    let own = rules.sources.contains_v4(ours);
    let probe = ours.is_unspecified() && rules.sources.contains_v4(asked);
    if hardware != sender || !(own || probe) {
        return Err(Refused::Source);
    }
    match rules.sources.contains_v4(asked) || rules.destinations.contains_v4(asked) {
        true => Ok(()),
        false => Err(Refused::Destination),
    }
}

/// Yields the address that the packet claims for its sender, besides its source.
fn check_v6(
    rules: &GuardRules,
    sender: MacAddress,
    datagram: &Datagram6<'_>,
) -> Result<Option<Ipv6Addr>, Refused> {
    const ON_LINK: [u8; 2] = [0xff, 0x02];
    let Datagram6 {
        source,
        destination,
        protocol,
        ..
    } = *datagram;
    let stays = is_link_local(source)
        || source.is_unspecified()
        || is_link_local(destination)
        || field(&destination.octets(), 0) == Some(ON_LINK);
    let control = control_message(datagram)?;
    match control {
        Some(133..=137) => {}
        // RFC 3810, section 5.2 and RFC 2710: reports and leaves, no queries.
        Some(131 | 132 | 143) if stays => {}
        Some(130..=132 | 143) => return Err(Refused::NotCarried),
        _ if !stays => return rules.check_v6(datagram).map(|()| None),
        _ => {
            let dhcp = protocol == UDP && ports(datagram.payload) == Some((546, 547));
            if !dhcp || datagram.fragment || source.is_unspecified() {
                return Err(Refused::NotCarried);
            }
        }
    }
    let own = rules.sources.contains_v6(source);
    if !own && !is_link_local(source) && !source.is_unspecified() {
        return Err(Refused::Source);
    }
    let ours = is_link_local(destination) || field(&destination.octets(), 0) == Some(ON_LINK);
    if datagram.source_routed || !ours && !rules.destinations.contains_v6(destination) {
        return Err(Refused::Destination);
    }
    match control {
        Some(133..=137) => check_neighbour_discovery(rules, sender, datagram),
        _ => Ok(None),
    }
}

/// The type of an ICMPv6 message. Refuses a first fragment without all headers (RFC
/// 7112), and fragments of messages that stay on a link (RFC 6980 for neighbour
/// discovery; multicast listener discovery is never that long).
fn control_message(datagram: &Datagram6<'_>) -> Result<Option<u8>, Refused> {
    if datagram.middle {
        return Ok(None);
    }
    let header = match datagram.protocol {
        TCP => 20,
        UDP => 8,
        ICMPV6 => 4,
        _ => 0,
    };
    if datagram.fragment && datagram.payload.len() < header {
        return Err(Refused::Malformed);
    }
    if datagram.protocol != ICMPV6 {
        return Ok(None);
    }
    // Behind other headers the message may be outside of `head`.
    let kind = *datagram.payload.first().ok_or(Refused::Malformed)?;
    match kind {
        130..=137 | 141..=143 | 148 | 149 | 151..=153 if datagram.fragment_header => {
            Err(Refused::NotCarried)
        }
        _ => Ok(Some(kind)),
    }
}

/// Checks neighbour discovery (RFC 4861, section 4) of a host: it solicits addresses that
/// it may reach, and advertises only its own addresses and station. Yields the address
/// that it claims.
fn check_neighbour_discovery(
    rules: &GuardRules,
    sender: MacAddress,
    datagram: &Datagram6<'_>,
) -> Result<Option<Ipv6Addr>, Refused> {
    const ROUTER_SOLICITATION: u8 = 133;
    const NEIGHBOUR_SOLICITATION: u8 = 135;
    const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    if !datagram.whole {
        // More options may be outside of `head`.
        return Err(Refused::Malformed);
    }
    let message = datagram.payload;
    let kind = *message.first().ok_or(Refused::Malformed)?;
    let target = match kind {
        ROUTER_SOLICITATION => None,
        NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT => {
            let target = field::<16>(message, 8).ok_or(Refused::Malformed)?;
            Some(Ipv6Addr::from(target))
        }
        _ => return Err(Refused::NotCarried),
    };
    // Without a source: duplicate address detection (RFC 4862).
    let claims = kind == NEIGHBOUR_ADVERTISEMENT || datagram.source.is_unspecified();
    if let Some(target) = target
        && !is_link_local(target)
        && !rules.sources.contains_v6(target)
    {
        if claims {
            return Err(Refused::Source);
        }
        if !rules.destinations.contains_v6(target) {
            return Err(Refused::Destination);
        }
    }
    let fixed = if target.is_some() { 24 } else { 8 };
    check_station_options(sender, message.get(fixed..).ok_or(Refused::Malformed)?)?;
    Ok(target.filter(|_| claims))
}

/// Link-layer addresses in options (RFC 4861, section 4.6) have to be the sender's.
fn check_station_options(sender: MacAddress, mut options: &[u8]) -> Result<(), Refused> {
    const SOURCE_LINK_LAYER: u8 = 1;
    const TARGET_LINK_LAYER: u8 = 2;
    while let Some(kind) = options.first() {
        let length = match options.get(1) {
            Some(0) | None => return Err(Refused::Malformed),
            Some(units) => usize::from(*units) * 8,
        };
        let option = options.get(..length).ok_or(Refused::Malformed)?;
        if matches!(*kind, SOURCE_LINK_LAYER | TARGET_LINK_LAYER)
            && field(option, 2).map(MacAddress) != Some(sender)
        {
            return Err(Refused::Source);
        }
        options = options.get(length..).unwrap_or_default();
    }
    Ok(())
}

#[cfg(test)]
mod tests;
