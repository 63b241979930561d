//! The [guard](crate::packet::guard) of a client on an ethernet tunnel to a LAN, whose
//! hosts send frames themselves. It passes IP and ARP from the LAN's network and from the
//! networks routed through it, to the client's own addresses and to groups. It refuses
//! packets that would configure the client: router advertisements, redirects, DHCP, and
//! claims to the client's addresses.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::datagram::{Datagram4, Datagram6, is_link_local};
use super::icmp::ICMPV6;
use super::{GuardRules, Refused};
use crate::packet::headers::field;

const UDP: u8 = 17;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// Checks a frame that begins with `head`.
pub(in crate::packet) fn check(rules: &GuardRules, head: &[u8]) -> Result<(), Refused> {
    let station: [u8; 6] = field(head, 6).ok_or(Refused::Malformed)?;
    if station.first().is_none_or(|first| first & 1 != 0) {
        return Err(Refused::Source);
    }
    let ethertype = u16::from_be_bytes(field(head, 12).ok_or(Refused::Malformed)?);
    let payload = head.get(14..).ok_or(Refused::Malformed)?;
    let version = payload.first().map(|byte| byte >> 4);
    match ethertype {
        0x0800 if version == Some(4) => check_v4(rules, &Datagram4::read(payload)?),
        0x86dd if version == Some(6) => check_v6(rules, &Datagram6::read(payload)?),
        0x0800 | 0x86dd => Err(Refused::Malformed),
        0x0806 => check_arp(rules, station, payload),
        // Frames with a VLAN tag too: a router advertisement could be behind it.
        _ => Err(Refused::NotCarried),
    }
}

fn check_v4(rules: &GuardRules, datagram: &Datagram4<'_>) -> Result<(), Refused> {
    const DHCP_SERVER: u16 = 67;
    const DHCP_CLIENT: u16 = 68;
    rules.check_source_v4(datagram)?;
    if is_dhcp_answer(
        DHCP_SERVER,
        DHCP_CLIENT,
        datagram.protocol,
        datagram.middle,
        datagram.payload,
    ) {
        return Err(Refused::NotCarried);
    }
    let to = datagram.destination;
    let to_group = to.is_broadcast() || to.is_multicast() || rules.groups.contains_v4(to);
    match datagram.source_routed || !(to_group || rules.destinations.contains_v4(to)) {
        true => Err(Refused::Destination),
        false => Ok(()),
    }
}

fn check_v6(rules: &GuardRules, datagram: &Datagram6<'_>) -> Result<(), Refused> {
    const DHCP_SERVER: u16 = 547;
    const DHCP_CLIENT: u16 = 546;
    let (from, to) = (datagram.source, datagram.destination);
    let discovery = discovery(datagram)?;
    match discovery {
        // Duplicate address detection (RFC 4862, section 5.4).
        Some((NEIGHBOUR_SOLICITATION, _)) if from.is_unspecified() => {}
        _ if is_link_local(from) => {
            super::icmp::quoted_v6(datagram)?;
        }
        _ => rules.check_source_v6(datagram)?,
    }
    if let Some((NEIGHBOUR_ADVERTISEMENT, claimed)) = discovery
        && !is_link_local(claimed)
        && !rules.sources.contains_v6(claimed)
    {
        return Err(Refused::Source);
    }
    if is_dhcp_answer(
        DHCP_SERVER,
        DHCP_CLIENT,
        datagram.protocol,
        datagram.middle,
        datagram.payload,
    ) {
        return Err(Refused::NotCarried);
    }
    let ours = is_link_local(to) || to.is_multicast() || rules.destinations.contains_v6(to);
    match datagram.source_routed || !ours {
        true => Err(Refused::Destination),
        false => Ok(()),
    }
}

/// The type and the target of a neighbour solicitation or advertisement (RFC 4861,
/// section 4). Refuses fragmented ones, as RFC 6980 requires of every host.
fn discovery(datagram: &Datagram6<'_>) -> Result<Option<(u8, Ipv6Addr)>, Refused> {
    if datagram.protocol != ICMPV6 || datagram.middle {
        return Ok(None);
    }
    match datagram.payload.first() {
        Some(kind @ (&NEIGHBOUR_SOLICITATION | &NEIGHBOUR_ADVERTISEMENT)) => {
            if datagram.fragment_header {
                return Err(Refused::NotCarried);
            }
            let target = field::<16>(datagram.payload, 8).ok_or(Refused::Malformed)?;
            Ok(Some((*kind, target.into())))
        }
        Some(_) => Ok(None),
        None => Err(Refused::Malformed),
    }
}

/// Whether the source port is a DHCP server's or the destination port a DHCP client's:
/// some clients check the destination only.
fn is_dhcp_answer(server: u16, client: u16, protocol: u8, middle: bool, payload: &[u8]) -> bool {
    protocol == UDP
        && !middle
        && (field(payload, 0) == Some(server.to_be_bytes())
            || field(payload, 2) == Some(client.to_be_bytes()))
}

/// Checks ARP for IPv4 over Ethernet (RFC 826): the sender is the frame's station, with
/// an address of the LAN or, for a probe, none (RFC 5227).
fn check_arp(rules: &GuardRules, station: [u8; 6], packet: &[u8]) -> Result<(), Refused> {
    const ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
    if field(packet, 0) != Some(ETHERNET_IPV4) {
        return Err(Refused::Malformed);
    }
    let claimed = Ipv4Addr::from(field::<4>(packet, 14).ok_or(Refused::Malformed)?);
    let speaks = claimed.is_unspecified() || rules.sources.contains_v4(claimed);
    match field(packet, 8) == Some(station) && speaks {
        true => Ok(()),
        false => Err(Refused::Source),
    }
}

#[cfg(test)]
mod tests;
