//! Checks DHCP for the [guard](crate::packet::guard), on a link that a client shares with
//! others: the client may send requests to servers, for its own station and address, and
//! no answers (compare RFC 7610 and RFC 7513). Some DHCP clients check the destination
//! port only, so the rules apply to DHCP ports as source and as destination.

use std::net::Ipv4Addr;

use super::datagram::{Datagram4, Datagram6};
use super::link::{MacAddress, UDP, ports};
use super::{GuardRules, Refused};
use crate::packet::headers::field;

/// Bytes of a UDP header.
const UDP_LEN: usize = 8;

/// Checks an IPv4 packet by RFC 2131, section 4.1. Fragments other than the first cannot
/// change ports; a first one with DHCP ports is refused, since it does not hold the whole
/// message.
pub(in crate::packet) fn check_v4(
    rules: &GuardRules,
    sender: MacAddress,
    datagram: &Datagram4<'_>,
) -> Result<(), Refused> {
    const SERVER: u16 = 67;
    const CLIENT: u16 = 68;
    if datagram.protocol != UDP || datagram.middle {
        return Ok(());
    }
    match ports(datagram.payload).ok_or(Refused::Malformed)? {
        (CLIENT, SERVER) if !datagram.fragment => {
            let message = datagram.payload.get(UDP_LEN..).unwrap_or_default();
            check_request_v4(rules, sender, message)
        }
        (CLIENT | SERVER, _) | (_, CLIENT | SERVER) => Err(Refused::NotCarried),
        _ => Ok(()),
    }
}

/// Accepts a message of the station itself, about its own address, without a relay (RFC
/// 2131, section 2).
fn check_request_v4(rules: &GuardRules, sender: MacAddress, message: &[u8]) -> Result<(), Refused> {
    /// BOOTREQUEST, Ethernet, six bytes of address.
    const FROM_STATION: [u8; 3] = [1, 1, 6];
    let address = |at| field(message, at).map(Ipv4Addr::from);
    let start: [u8; 3] = field(message, 0).ok_or(Refused::Malformed)?;
    let client = address(12).ok_or(Refused::Malformed)?;
    let relay = address(24).ok_or(Refused::Malformed)?;
    let station = field(message, 28)
        .map(MacAddress)
        .ok_or(Refused::Malformed)?;
    if start != FROM_STATION || !relay.is_unspecified() {
        return Err(Refused::NotCarried);
    }
    let own = client.is_unspecified() || rules.sources.contains_v4(client);
    match own && station == sender {
        true => Ok(()),
        false => Err(Refused::Source),
    }
}

/// Checks an IPv6 packet by RFC 8415, sections 7.2 and 7.3.
pub(in crate::packet) fn check_v6(datagram: &Datagram6<'_>) -> Result<(), Refused> {
    const CLIENT: u16 = 546;
    const SERVER: u16 = 547;
    if datagram.protocol != UDP || datagram.middle {
        return Ok(());
    }
    match ports(datagram.payload).ok_or(Refused::Malformed)? {
        (CLIENT, SERVER) if !datagram.fragment => match datagram.payload.get(UDP_LEN) {
            // Solicit, request, confirm, renew, rebind, release, decline,
            // information-request.
            Some(1 | 3..=6 | 8 | 9 | 11) => Ok(()),
            Some(_) => Err(Refused::NotCarried),
            None => Err(Refused::Malformed),
        },
        (CLIENT | SERVER, _) | (_, CLIENT | SERVER) => Err(Refused::NotCarried),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
