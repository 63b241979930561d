//! The part of the [guard](super::guard) that is about Ethernet: one station
//! without VLAN tags, that speaks IP and ARP, and of what stays on a link only
//! that which a station needs: DHCP as a client, multicast membership, and
//! neighbour discovery about its own addresses. It never speaks as a router or as
//! a DHCP server (compare RFC 6105 and RFC 7610).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::guard::{Datagram4, Datagram6, GuardRules, Refused, is_link_local};
use super::headers::field;

/// The address of an Ethernet station.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// Whether one station may have it: no group, and not all zero.
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

/// IP protocol numbers.
const IGMP: u8 = 2;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// Judges a frame of which `head` is the start. The first that passes says which
/// station its sender is.
pub(super) fn check(
    rules: &GuardRules,
    station: &mut Option<MacAddress>,
    head: &[u8],
) -> Result<(), Refused> {
    let sender = MacAddress(field(head, 6).ok_or(Refused::Malformed)?);
    if !sender.is_station() {
        return Err(Refused::Source);
    }
    if rules.one_station && station.is_some_and(|known| known != sender) {
        return Err(Refused::Source);
    }
    let ethertype = u16::from_be_bytes(field(head, 12).ok_or(Refused::Malformed)?);
    let payload = head.get(14..).ok_or(Refused::Malformed)?;
    let version = payload.first().map(|byte| byte >> 4);
    match ethertype {
        0x0800 if version == Some(4) => check_v4(rules, &Datagram4::read(payload)?)?,
        0x86dd if version == Some(6) => check_v6(rules, sender, &Datagram6::read(payload)?)?,
        0x0800 | 0x86dd => return Err(Refused::Malformed),
        0x0806 => check_arp(rules, sender, payload)?,
        _ => return Err(Refused::NotCarried),
    }
    if station.is_none() {
        *station = Some(sender);
    }
    Ok(())
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
    if datagram.protocol == IGMP && destination.is_multicast() && !datagram.fragment {
        return multicast_membership(datagram);
    }
    rules.check_v4(datagram)
}

/// Lets reports pass (RFC 3376, section 4; RFC 2236), and no queries.
fn multicast_membership(datagram: &Datagram4<'_>) -> Result<(), Refused> {
    match datagram.payload.first() {
        Some(0x12 | 0x16 | 0x17 | 0x22) => Ok(()),
        Some(_) => Err(Refused::NotCarried),
        None => Err(Refused::Malformed),
    }
}

/// Source and destination port.
fn ports(datagram: &[u8]) -> Option<(u16, u16)> {
    let [s0, s1, d0, d1] = field(datagram, 0)?;
    Some((u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])))
}

/// An ARP packet for IPv4 over Ethernet (RFC 826), about the sender's own
/// addresses, or a probe for one of them (RFC 5227); for who the sender may reach.
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

fn check_v6(
    rules: &GuardRules,
    sender: MacAddress,
    datagram: &Datagram6<'_>,
) -> Result<(), Refused> {
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
    let control = match protocol == ICMPV6 && !datagram.fragment {
        // Behind other headers its type may be out of sight.
        true => Some(*datagram.payload.first().ok_or(Refused::Malformed)?),
        false => None,
    };
    match control {
        Some(133..=137) => {}
        _ if !stays => return rules.check_v6(datagram),
        // RFC 3810, section 5.2 and RFC 2710: reports and leaves, no queries.
        Some(131 | 132 | 143) => {}
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
    let near = is_link_local(destination) || field(&destination.octets(), 0) == Some(ON_LINK);
    if datagram.source_routed || !near && !rules.destinations.contains_v6(destination) {
        return Err(Refused::Destination);
    }
    match control {
        Some(133..=137) => check_neighbour_discovery(rules, sender, datagram),
        _ => Ok(()),
    }
}

/// Neighbour discovery (RFC 4861, section 4) as a host has it: it asks for who it
/// may reach, and speaks for its own addresses and its own station alone.
fn check_neighbour_discovery(
    rules: &GuardRules,
    sender: MacAddress,
    datagram: &Datagram6<'_>,
) -> Result<(), Refused> {
    const ROUTER_SOLICITATION: u8 = 133;
    const NEIGHBOUR_SOLICITATION: u8 = 135;
    const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    if !datagram.whole {
        // More options may be out of sight.
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
    if let Some(target) = target
        && !is_link_local(target)
        && !rules.sources.contains_v6(target)
    {
        // Without a source it asks whether it may have the address (RFC 4862).
        if kind == NEIGHBOUR_ADVERTISEMENT || datagram.source.is_unspecified() {
            return Err(Refused::Source);
        }
        if !rules.destinations.contains_v6(target) {
            return Err(Refused::Destination);
        }
    }
    let fixed = if target.is_some() { 24 } else { 8 };
    check_station_options(sender, message.get(fixed..).ok_or(Refused::Malformed)?)
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
#[path = "guard_link_tests.rs"]
mod tests;
