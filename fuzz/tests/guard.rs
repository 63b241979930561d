//! A packet that passes the guard, in any role, has a permitted source and destination also by
//! etherparse, and changes no routes; and the guard judges a packet's start as it judges the whole.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, LazyLock};

use etherparse::{IpNumber, NetSlice, SlicedPacket, TransportSlice};
use sshvpn_fuzz::packets::{Stream, damage, mode};
use sshvpn_fuzz::{Source, target};
use sshvpn_wire::packet::guard::link::{LinkAddress, LinkAddresses, MacAddress, Sender};
use sshvpn_wire::packet::guard::{ClientTerms, GuardRules, Reach};
use sshvpn_wire::types::Mode;
use sshvpn_wire::types::address_set::AddressSet;

target!(guard, run);

/// The bytes of a packet that are always contiguous.
const CONTIGUOUS: usize = 256;

/// The hosts 0 to 3 of [`Stream`].
static SOURCES: LazyLock<AddressSet> = LazyLock::new(|| {
    let v4 = (0..4).map(|host| IpAddr::from([10, 0, 0, host]));
    let v6 = (0..4).map(|host| IpAddr::from(v6(host)));
    v4.chain(v6).collect()
});

/// The destinations of all its hosts.
static REACH: LazyLock<AddressSet> = LazyLock::new(|| {
    let both = [IpAddr::from([10, 0, 0, 254]), IpAddr::from(v6(0xfd))];
    both.into_iter().collect()
});

fn v6(host: u8) -> [u8; 16] {
    let mut address = [0xfd; 16];
    address[15] = host;
    address
}

/// The role of the guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// A server or an agent.
    Gateway,
    /// A client, on an ethernet tunnel to a LAN.
    Client,
    /// A `-w` client, which knows no addresses.
    ByHand,
}

impl Role {
    fn of(kind: u8) -> Self {
        match kind >> 3 & 3 {
            0 | 1 => Role::Gateway,
            2 => Role::Client,
            _ => Role::ByHand,
        }
    }
}

fn rules(role: Role, one_station: bool) -> GuardRules {
    match role {
        Role::Gateway => {}
        Role::Client => {
            return GuardRules::of_client(&ClientTerms {
                own: REACH.clone(),
                routed: SOURCES.clone(),
                ..ClientTerms::default()
            });
        }
        Role::ByHand => return GuardRules::without_addresses(),
    }
    let reach = Reach {
        here: &REACH,
        networks: &[],
        clients: &AddressSet::EMPTY,
        peers: &AddressSet::EMPTY,
    };
    GuardRules::new(SOURCES.clone(), &reach, one_station)
}

/// A sender alone on its link, or on a shared link with a station that packets of [`Stream`] may
/// come from.
fn sender(kind: u8) -> Sender {
    if kind & 4 == 0 {
        return Sender::default();
    }
    let stream = Stream::new(Mode::Ethernet, 0, 0).packet(20);
    let station = stream.get(6..12).and_then(|own| own.try_into().ok());
    let held = LinkAddresses {
        stations: station.map(MacAddress).into_iter().collect(),
        link_local: Vec::new(),
    };
    Sender::Shared {
        held: Arc::new(held),
        wanted: None,
    }
}

fn run(input: &[u8]) {
    let mut source = Source::new(input);
    let kind = source.byte();
    let mode = mode(kind);
    let role = Role::of(kind);
    let rules = rules(role, kind & 2 != 0);
    let mut station = sender(kind);
    while !source.is_empty() {
        let built = source.byte();
        let packet = if built & 1 == 0 {
            let length = usize::from(source.byte());
            source.bytes(length).to_vec()
        } else {
            let mut stream = Stream::new(mode, built >> 1, built >> 5);
            let mut packet = stream.packet(40);
            if built & 16 != 0 {
                as_icmp(mode, &mut packet, source.byte());
            } else if !stream.is_tcp() {
                let transport = stream.ip() + if built & 2 == 0 { 20 } else { 40 };
                give_port(&mut packet, transport, source.byte());
            }
            damage(&mut packet, &mut source);
            packet
        };
        let known = station.clone();
        let verdict = rules.check(mode, &mut station, &packet);
        if let Some(head) = packet.get(..CONTIGUOUS) {
            // A shorter start may only be refused.
            let judged = rules.check(mode, &mut known.clone(), head);
            assert!(judged.is_err() || verdict.is_ok());
        }
        if verdict.is_ok() {
            passed(role, mode, &packet);
            let of_one_host = mode == Mode::Ethernet && role == Role::Gateway;
            if of_one_host && matches!(station, Sender::Shared { .. }) {
                passed_to_others(&packet);
            }
            if of_one_host {
                let sender = packet.get(6..12).expect("an Ethernet header");
                match &station {
                    Sender::Alone(known) => {
                        let known = known.expect("a known station");
                        assert!(kind & 2 == 0 || known.0 == sender);
                    }
                    Sender::Shared { held, wanted } => {
                        assert!(held.stations.iter().any(|own| own.0 == sender));
                        assert_eq!(*wanted, None);
                    }
                }
            }
        } else if matches!(station, Sender::Alone(_)) {
            assert_eq!(known, station);
        } else {
            // It wants no address that it has.
            match (station.wanted(), known) {
                (Some(LinkAddress::Station(own)), Sender::Shared { held, .. }) => {
                    assert!(!held.stations.contains(&own));
                }
                (Some(LinkAddress::LinkLocal(own)), Sender::Shared { held, .. }) => {
                    assert!(!held.link_local.contains(&own));
                }
                _ => {}
            }
        }
    }
}

/// Gives a UDP datagram a DHCP port as its source or destination, or neither.
fn give_port(packet: &mut [u8], transport: usize, choice: u8) {
    const PORTS: [u16; 4] = [67, 68, 546, 547];
    let port = PORTS[usize::from(choice & 3)].to_be_bytes();
    let at = transport + usize::from(choice & 4) / 2;
    if choice & 8 != 0
        && let Some(field) = packet.get_mut(at..at + 2)
    {
        field.copy_from_slice(&port);
    }
}

/// Checks that a packet that passed to a shared link is one that a DHCP client or host may send.
fn passed_to_others(packet: &[u8]) {
    let Ok(sliced) = SlicedPacket::from_ethernet(packet) else {
        return;
    };
    let v4 = matches!(sliced.net, Some(NetSlice::Ipv4(_)));
    match sliced.transport {
        Some(TransportSlice::Udp(udp)) => {
            let (client, server) = if v4 { (68, 67) } else { (546, 547) };
            let (from, to) = (udp.source_port(), udp.destination_port());
            assert!(from != server && to != client, "{from} to {to}");
            assert_eq!(from == client, to == server, "{from} to {to}");
        }
        Some(TransportSlice::Icmpv6(message)) if !v4 => {
            let kind = message.type_u8();
            assert!(!matches!(kind, 130 | 134 | 137), "{kind}");
        }
        _ => {}
    }
}

/// Makes the payload an ICMP message of this type.
fn as_icmp(mode: Mode, packet: &mut [u8], kind: u8) {
    let ip = match mode {
        Mode::PointToPoint => 0,
        Mode::Ethernet => 14,
    };
    let places = match packet.get(ip).map(|byte| byte >> 4) {
        Some(4) => [(ip + 9, 1), (ip + 20, kind)],
        _ => [(ip + 6, 58), (ip + 40, kind)],
    };
    for (place, byte) in places {
        if let Some(place) = packet.get_mut(place) {
            *place = byte;
        }
    }
}

/// Checks a packet that passed against etherparse.
fn passed(role: Role, mode: Mode, packet: &[u8]) {
    let sliced = match mode {
        Mode::PointToPoint => SlicedPacket::from_ip(packet),
        Mode::Ethernet => SlicedPacket::from_ethernet(packet),
    };
    // The guard does not check lengths.
    let Ok(sliced) = sliced else { return };
    let tagged = sliced.vlan().is_some();
    assert!(role == Role::ByHand || !tagged);
    // etherparse reads each of them behind either header; kernels do not.
    let v4 = match &sliced.net {
        Some(NetSlice::Ipv4(ip)) => ip.header().protocol() == IpNumber::ICMP,
        _ => false,
    };
    let v6 = matches!(sliced.net, Some(NetSlice::Ipv6(_)));
    let (changes_routes, reports) = match &sliced.transport {
        Some(TransportSlice::Icmpv4(icmp)) if v4 => (
            matches!(icmp.type_u8(), 5 | 9 | 10),
            matches!(icmp.type_u8(), 3 | 4 | 11 | 12),
        ),
        Some(TransportSlice::Icmpv6(icmp)) if v6 => (
            matches!(icmp.type_u8(), 134 | 137 | 138),
            matches!(icmp.type_u8(), 1..=4),
        ),
        _ => (false, false),
    };
    assert!(!changes_routes);
    if role == Role::ByHand {
        return;
    }
    let (source, destination): (IpAddr, IpAddr) = match sliced.net.clone() {
        Some(NetSlice::Ipv4(ip)) => (
            ip.header().source_addr().into(),
            ip.header().destination_addr().into(),
        ),
        Some(NetSlice::Ipv6(ip)) => (
            ip.header().source_addr().into(),
            ip.header().destination_addr().into(),
        ),
        Some(NetSlice::Arp(_)) if mode == Mode::Ethernet => return,
        other => panic!("{other:?} passed"),
    };
    // Of a fragment etherparse reads no transport header: it may be an error.
    let payload = match &sliced.net {
        Some(NetSlice::Ipv4(ip)) => Some(ip.payload()),
        Some(NetSlice::Ipv6(ip)) => Some(ip.payload()),
        _ => None,
    };
    let reports = reports
        || payload.is_some_and(|payload| {
            payload.fragmented && matches!(payload.ip_number, IpNumber::ICMP | IpNumber::IPV6_ICMP)
        });
    // Routers outside of a client's routes report errors.
    let reports = reports && role == Role::Client && !REACH.contains(source);
    if mode == Mode::PointToPoint {
        assert!(SOURCES.contains(source) || reports, "{source}");
        assert!(REACH.contains(destination), "{destination}");
        return;
    }
    assert!(
        SOURCES.contains(source) || on_link(source) || reports,
        "{source}"
    );
    // A client's LAN has groups of wider scopes as well (RFC 4291, section 2.7).
    let to_group = role == Role::Client && destination.is_multicast();
    assert!(
        REACH.contains(destination) || on_link(destination) || to_group,
        "{destination}"
    );
}

/// Whether packets with this address stay on the link.
fn on_link(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            address.is_broadcast() || address.is_multicast() || address == Ipv4Addr::UNSPECIFIED
        }
        IpAddr::V6(address) => {
            address.is_unicast_link_local()
                || address.octets().starts_with(&[0xff, 2])
                || address == Ipv6Addr::UNSPECIFIED
        }
    }
}
