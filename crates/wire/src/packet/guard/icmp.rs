//! Checks ICMP for the [guard](crate::packet::guard): router messages and redirects,
//! which would change the receiving host's routes; and errors, which quote the packet
//! that caused them.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Refused;
use super::datagram::{Datagram4, Datagram6};
use crate::packet::headers::field;

/// IP protocol numbers.
const ICMP: u8 = 1;
pub(in crate::packet) const ICMPV6: u8 = 58;
/// Offset of the quoted packet in an error (RFC 792; RFC 4443, section 3), in bytes.
const QUOTED: usize = 8;

/// The addresses of a packet that an error quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::packet) struct Quoted<A> {
    pub source: A,
    pub destination: A,
}

/// The packet that an ICMP error quotes; `None` for other packets. Refuses redirects and
/// router messages (RFC 792; RFC 1256).
pub(in crate::packet) fn quoted_v4(
    datagram: &Datagram4<'_>,
) -> Result<Option<Quoted<Ipv4Addr>>, Refused> {
    const REDIRECT: u8 = 5;
    const ROUTER_ADVERTISEMENT: u8 = 9;
    const ROUTER_SOLICITATION: u8 = 10;
    if datagram.protocol != ICMP || datagram.middle {
        return Ok(None);
    }
    match *datagram.payload.first().ok_or(Refused::Malformed)? {
        REDIRECT | ROUTER_ADVERTISEMENT | ROUTER_SOLICITATION => Err(Refused::RouterControl),
        // Unreachable, source quench, time exceeded, parameter problem.
        3 | 4 | 11 | 12 => {
            let address = |at| field::<4>(datagram.payload, QUOTED + at).map(Ipv4Addr::from);
            Ok(Some(Quoted {
                source: address(12).ok_or(Refused::Malformed)?,
                destination: address(16).ok_or(Refused::Malformed)?,
            }))
        }
        _ => Ok(None),
    }
}

/// The packet that an ICMPv6 error quotes. Refuses redirects and router messages (RFC
/// 4443; RFC 4861; RFC 2894), except router solicitations, which change nothing.
pub(in crate::packet) fn quoted_v6(
    datagram: &Datagram6<'_>,
) -> Result<Option<Quoted<Ipv6Addr>>, Refused> {
    const ROUTER_ADVERTISEMENT: u8 = 134;
    const REDIRECT: u8 = 137;
    const ROUTER_RENUMBERING: u8 = 138;
    if datagram.protocol != ICMPV6 || datagram.middle {
        return Ok(None);
    }
    match *datagram.payload.first().ok_or(Refused::Malformed)? {
        ROUTER_ADVERTISEMENT | REDIRECT | ROUTER_RENUMBERING => Err(Refused::RouterControl),
        // Unreachable, packet too big, time exceeded, parameter problem.
        1..=4 => {
            let address = |at| field::<16>(datagram.payload, QUOTED + at).map(Ipv6Addr::from);
            Ok(Some(Quoted {
                source: address(8).ok_or(Refused::Malformed)?,
                destination: address(24).ok_or(Refused::Malformed)?,
            }))
        }
        _ => Ok(None),
    }
}
