//! The guard in every role, against packets whose addresses, ICMP messages, options,
//! extension headers and fragments etherparse made, and reads.

use std::net::IpAddr;

use etherparse::{
    IpFragOffset, IpHeaders, IpNumber, Ipv4Header, Ipv4Options, Ipv6ExtensionSlice, Ipv6Extensions,
    Ipv6FragmentHeader, Ipv6Header, Ipv6RawExtHeader, NetSlice, PacketBuilder, SlicedPacket,
};
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// The addresses of the tunnel's two hosts, of networks behind one of them, and others.
const V4: [&str; 11] = [
    "10.9.0.5",
    "10.9.0.1",
    "10.20.0.7",
    "192.168.1.9",
    "192.168.1.2",
    "8.8.8.8",
    "127.0.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "0.0.0.0",
    "169.254.1.1",
];
const V6: [&str; 11] = [
    "fd09::5",
    "fd09::1",
    "2001:db8:20::7",
    "fd44::9",
    "fd44::2",
    "2001:4860::8888",
    "::1",
    "ff02::1",
    "ff0e::1",
    "::",
    "fe80::1",
];

/// The client; it reaches the gateway and the networks behind the gateway.
const CLIENT: [&str; 2] = ["10.9.0.5/32", "fd09::5/128"];
const GATEWAY: [&str; 2] = ["10.9.0.1/32", "fd09::1/128"];
const BEHIND_GATEWAY: [&str; 2] = ["10.20.0.0/16", "2001:db8:20::/48"];
const CLIENT_HOST: [&str; 2] = ["192.168.1.2/32", "fd44::2/128"];
/// The network of an ethernet tunnel.
const LAN: [&str; 2] = ["10.9.0.0/24", "fd09::/64"];

fn networks(of: &[&str]) -> Vec<IpNetwork> {
    of.iter().map(|text| text.parse().unwrap()).collect()
}

fn set(of: &[&str]) -> AddressSet {
    networks(of).into_iter().collect()
}

fn holds(of: &[&[&str]], address: IpAddr) -> bool {
    let mut all = of.iter().flat_map(|list| networks(list));
    all.any(|network| network.contains(address))
}

/// The role of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Server,
    Agent,
    Client,
    ByHand,
}

const ROLES: [Role; 4] = [Role::Server, Role::Agent, Role::Client, Role::ByHand];

impl Role {
    fn rules(self, mode: Mode) -> GuardRules {
        let peer = match mode {
            Mode::PointToPoint => GATEWAY,
            Mode::Ethernet => LAN,
        };
        match self {
            // An agent knows no other clients and no groups.
            Role::Server | Role::Agent => {
                let reach = Reach {
                    here: &set(&GATEWAY),
                    networks: &networks(&BEHIND_GATEWAY),
                    clients: &set(&CLIENT),
                    peers: &AddressSet::EMPTY,
                };
                GuardRules::new(set(&CLIENT), &reach, self == Role::Agent)
            }
            Role::Client => GuardRules::of_client(&ClientTerms {
                own: set(&CLIENT),
                routed: set(&BEHIND_GATEWAY).union(&set(&peer)),
                host: set(&CLIENT_HOST),
                broadcast: set(&["10.9.0.255/32"]),
                ..ClientTerms::default()
            }),
            Role::ByHand => GuardRules::without_addresses(),
        }
    }

    /// Whether an address is one of the peer's.
    fn is_theirs(self, address: IpAddr) -> bool {
        match self {
            Role::Server | Role::Agent => holds(&[&CLIENT], address),
            Role::Client => holds(&[&GATEWAY, &BEHIND_GATEWAY], address),
            Role::ByHand => true,
        }
    }

    /// Whether an address is one that the peer may send to.
    fn is_ours(self, address: IpAddr) -> bool {
        match self {
            Role::Server | Role::Agent => holds(&[&GATEWAY, &BEHIND_GATEWAY], address),
            Role::Client => holds(&[&CLIENT], address),
            Role::ByHand => true,
        }
    }

    /// Whether a router with this address can have sent an ICMP error.
    fn may_report(self, address: IpAddr) -> bool {
        let special = SPECIAL.contains(address) || holds(&[&CLIENT, &CLIENT_HOST], address);
        self.is_theirs(address) || self == Role::Client && !special
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Udp,
    Echo,
    /// About a packet between these two of the addresses.
    Error(u8, usize, usize),
    Redirect,
    RouterAdvertisement,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    First,
    Middle,
}

/// The properties of a packet to build.
#[derive(Debug, Clone, Copy)]
struct Built {
    ipv6: bool,
    from: usize,
    to: usize,
    kind: Kind,
    part: Part,
    /// With an IPv4 option, or two extension headers.
    extended: bool,
}

fn built() -> impl Strategy<Value = Built> {
    let place = || 0..V4.len();
    let kind = prop_oneof![
        Just(Kind::Udp),
        Just(Kind::Echo),
        (0..4_u8, place(), place()).prop_map(|(kind, from, to)| Kind::Error(kind, from, to)),
        Just(Kind::Redirect),
        Just(Kind::RouterAdvertisement),
    ];
    let part = select(vec![Part::Whole, Part::First, Part::Middle]);
    (any::<bool>(), place(), place(), kind, part, any::<bool>()).prop_map(
        |(ipv6, from, to, kind, part, extended)| Built {
            ipv6,
            from,
            to,
            kind,
            part,
            extended,
        },
    )
}

impl Built {
    fn address(self, place: usize) -> IpAddr {
        let all = if self.ipv6 { V6 } else { V4 };
        all[place].parse().unwrap()
    }

    fn headers(self, from: usize, to: usize) -> IpHeaders {
        match (self.address(from), self.address(to)) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let (from, to) = (from.octets(), to.octets());
                let mut header = Ipv4Header::new(0, 64, IpNumber(0), from, to).unwrap();
                if self.extended {
                    header.options = Ipv4Options::try_from(&[1, 7, 3, 4][..]).unwrap();
                }
                (header.more_fragments, header.fragment_offset) = self.fragment();
                IpHeaders::Ipv4(header, Default::default())
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let header = Ipv6Header {
                    hop_limit: 64,
                    source: from.octets(),
                    destination: to.octets(),
                    ..Ipv6Header::default()
                };
                let mut behind = Ipv6Extensions::default();
                if self.extended {
                    let padding = [1, 4, 0, 0, 0, 0];
                    let options = Ipv6RawExtHeader::new_raw(IpNumber(0), &padding).unwrap();
                    behind.hop_by_hop_options = Some(options.clone());
                    behind.destination_options = Some(options);
                }
                if self.part != Part::Whole {
                    let (more, offset) = self.fragment();
                    behind.fragment = Some(Ipv6FragmentHeader::new(IpNumber(0), offset, more, 7));
                }
                IpHeaders::Ipv6(header, behind)
            }
            mixed => panic!("{mixed:?}"),
        }
    }

    fn fragment(self) -> (bool, IpFragOffset) {
        match self.part {
            Part::Whole => (false, IpFragOffset::ZERO),
            Part::First => (true, IpFragOffset::ZERO),
            Part::Middle => (true, IpFragOffset::try_new(9).unwrap()),
        }
    }

    fn packet(self) -> Vec<u8> {
        let mut packet = Vec::new();
        let builder = PacketBuilder::ip(self.headers(self.from, self.to));
        let (kind, payload) = match self.kind {
            Kind::Udp => {
                builder.udp(5, 6).write(&mut packet, &[0; 40]).unwrap();
                return packet;
            }
            Kind::Echo => (if self.ipv6 { 128 } else { 8 }, vec![0; 40]),
            Kind::Error(kind, from, to) => {
                let quoted = Built {
                    kind: Kind::Udp,
                    part: Part::Whole,
                    from,
                    to,
                    ..self
                };
                let kinds = if self.ipv6 {
                    [1, 2, 3, 4]
                } else {
                    [3, 4, 11, 12]
                };
                (kinds[usize::from(kind)], quoted.packet())
            }
            Kind::Redirect => (if self.ipv6 { 137 } else { 5 }, vec![0; 40]),
            Kind::RouterAdvertisement => (if self.ipv6 { 134 } else { 9 }, vec![0; 40]),
        };
        let written = match self.ipv6 {
            false => builder
                .icmpv4_raw(kind, 0, [0; 4])
                .write(&mut packet, &payload),
            true => builder
                .icmpv6_raw(kind, 0, [0; 4])
                .write(&mut packet, &payload),
        };
        written.unwrap();
        packet
    }

    /// Whether it passes in `role` on a point-to-point tunnel.
    fn passes(self, role: Role) -> bool {
        let (from, to) = (self.address(self.from), self.address(self.to));
        // A later fragment has no message type, only data.
        match if self.part == Part::Middle {
            Kind::Udp
        } else {
            self.kind
        } {
            Kind::Redirect | Kind::RouterAdvertisement => false,
            _ if role == Role::ByHand => true,
            Kind::Error(_, quoted_from, quoted_to) => {
                let quoted = (self.address(quoted_from), self.address(quoted_to));
                let sent = role.is_ours(quoted.0) && role.is_theirs(quoted.1);
                sent && role.may_report(from) && role.is_ours(to)
            }
            Kind::Udp | Kind::Echo => role.is_theirs(from) && role.is_ours(to),
        }
    }
}

fn in_frame(packet: &[u8], tags: usize) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 9]);
    frame.extend([0x81, 0, 0, 0].repeat(tags));
    frame.extend(match packet[0] >> 4 {
        4 => [0x08, 0x00],
        _ => [0x86, 0xdd],
    });
    frame.extend(packet);
    frame
}

fn judge(rules: &GuardRules, mode: Mode, packet: &[u8]) -> Result<(), Refused> {
    rules.check(mode, &mut Sender::default(), packet)
}

/// The addresses that etherparse reads, and the type of an ICMP message.
fn read(mode: Mode, packet: &[u8]) -> Option<(IpAddr, IpAddr, Option<u8>)> {
    let sliced = match mode {
        Mode::PointToPoint => SlicedPacket::from_ip(packet),
        Mode::Ethernet => SlicedPacket::from_ethernet(packet),
    };
    let sliced = sliced.ok()?;
    let (from, to) = match sliced.net.clone()? {
        NetSlice::Ipv4(ip) => (
            ip.header().source_addr().into(),
            ip.header().destination_addr().into(),
        ),
        NetSlice::Ipv6(ip) => (
            ip.header().source_addr().into(),
            ip.header().destination_addr().into(),
        ),
        NetSlice::Arp(_) => return None,
    };
    // etherparse reads no transport header in a first fragment.
    let (payload, first) = match &sliced.net {
        Some(NetSlice::Ipv4(ip)) => (ip.payload(), ip.header().fragments_offset().value() == 0),
        Some(NetSlice::Ipv6(ip)) => (
            ip.payload(),
            ip.extensions()
                .clone()
                .into_iter()
                .all(|header| match header {
                    Ipv6ExtensionSlice::Fragment(header) => header.fragment_offset().value() == 0,
                    _ => true,
                }),
        ),
        _ => return None,
    };
    let icmp = matches!(payload.ip_number, IpNumber::ICMP | IpNumber::IPV6_ICMP);
    let kind = (icmp && first)
        .then(|| payload.payload.first().copied())
        .flatten();
    Some((from, to, kind))
}

/// Checks that the role allows a packet that passed.
fn passed(role: Role, mode: Mode, packet: &[u8]) {
    let Some((from, to, kind)) = read(mode, packet) else {
        return;
    };
    let changes_routes = match from {
        IpAddr::V4(_) => matches!(kind, Some(5 | 9 | 10)),
        IpAddr::V6(_) => matches!(kind, Some(134 | 137 | 138)),
    };
    assert!(!changes_routes, "{kind:?} passed");
    if role == Role::ByHand {
        return;
    }
    let is_error = match from {
        IpAddr::V4(_) => matches!(kind, Some(3 | 4 | 11 | 12)),
        IpAddr::V6(_) => matches!(kind, Some(1..=4)),
    };
    let link_local = |address| matches!(address, IpAddr::V6(address) if is_link_local(address));
    let group = |address: IpAddr| {
        address.is_multicast()
            || ["10.9.0.255", "255.255.255.255"]
                .map(|b| b.parse().unwrap())
                .contains(&address)
    };
    let source = match mode {
        Mode::PointToPoint => role.is_theirs(from),
        Mode::Ethernet => {
            let lan = role == Role::Client && holds(&[&LAN], from) && !holds(&[&CLIENT], from);
            role.is_theirs(from) || lan || link_local(from) || from.is_unspecified()
        }
    };
    assert!(source || is_error && role.may_report(from), "from {from}");
    let destination = match mode {
        Mode::PointToPoint => role.is_ours(to),
        Mode::Ethernet => role.is_ours(to) || link_local(to) || group(to),
    };
    assert!(destination, "to {to}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn packets_pass_as_their_addresses_and_their_kind_say(built in built()) {
        let packet = built.packet();
        for role in ROLES {
            let verdict = judge(&role.rules(Mode::PointToPoint), Mode::PointToPoint, &packet);
            prop_assert_eq!(verdict.is_ok(), built.passes(role), "{:?} {:?}", role, verdict);
            if verdict.is_ok() {
                passed(role, Mode::PointToPoint, &packet);
            }
        }
    }

    #[test]
    fn frames_pass_only_as_their_packets_may(built in built(), tags in 0..3_usize) {
        let frame = in_frame(&built.packet(), tags);
        for role in ROLES {
            let verdict = judge(&role.rules(Mode::Ethernet), Mode::Ethernet, &frame);
            if tags > 0 && role != Role::ByHand {
                prop_assert_eq!(verdict, Err(Refused::NotCarried), "{:?}", role);
            }
            if verdict.is_ok() {
                passed(role, Mode::Ethernet, &frame);
            }
            let whole = built.part != Part::Middle && built.kind != Kind::Echo;
            if whole && built.passes(role) && tags == 0 {
                prop_assert!(verdict.is_ok(), "{role:?} {verdict:?}");
            }
        }
    }

    #[test]
    fn no_bytes_panic_or_pass_from_elsewhere(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..300),
        built in built(),
        cut in 0..120_usize,
        version: bool,
    ) {
        // Bytes alone, bytes behind a version, and a packet with other bytes in it.
        let mut packet = built.packet();
        let changed = bytes.iter().take(4).copied().collect::<Vec<u8>>();
        for (index, byte) in changed.iter().enumerate() {
            let place = usize::from(*byte) * 7 % packet.len();
            packet[place] ^= changed[(index + 1) % changed.len()];
        }
        packet.truncate(packet.len().saturating_sub(cut));
        if let Some(first) = bytes.first_mut() {
            *first = if version { 0x60 } else { 0x40 | *first & 0xf };
        }
        for role in ROLES {
            for mode in [Mode::PointToPoint, Mode::Ethernet] {
                let rules = role.rules(mode);
                for bytes in [&bytes, &packet] {
                    if judge(&rules, mode, bytes).is_ok() {
                        passed(role, mode, bytes);
                    }
                }
            }
        }
    }

    /// A super-packet has one set of headers, and is judged by them.
    #[test]
    fn a_super_packet_is_judged_as_its_packets_in_every_role(
        template in crate::packet::test_packets::templates(false),
    ) {
        let template = crate::packet::test_packets::Template {
            mode: Mode::PointToPoint,
            tags: 0,
            ..template
        };
        let payload = crate::packet::test_packets::payload(5000);
        let (_, whole) = template.super_packet(&payload, 1400);
        for role in ROLES {
            let rules = role.rules(Mode::PointToPoint);
            let verdict = judge(&rules, Mode::PointToPoint, &whole[..template.head_len()]);
            for packet in template.packets(&payload, 1400) {
                prop_assert_eq!(judge(&rules, Mode::PointToPoint, &packet), verdict);
            }
        }
    }
}

#[test]
fn an_error_of_a_router_outside_of_the_routes_reaches_a_client() {
    let error = |quoted_from, quoted_to| Built {
        ipv6: false,
        from: 5,
        to: 0,
        kind: Kind::Error(0, quoted_from, quoted_to),
        part: Part::Whole,
        extended: false,
    };
    let client = Role::Client.rules(Mode::PointToPoint);
    let judged = |built: Built| judge(&client, Mode::PointToPoint, &built.packet());
    assert_eq!(judged(error(0, 2)), Ok(()));
    // About a packet of another interface of the client, or to elsewhere.
    assert_eq!(judged(error(4, 2)), Err(Refused::Source));
    assert_eq!(judged(error(0, 5)), Err(Refused::Source));
    // An error, and nothing else.
    let echo = Built {
        kind: Kind::Echo,
        ..error(0, 2)
    };
    assert_eq!(judged(echo), Err(Refused::Source));
    let mut cut = error(0, 2).packet();
    cut.truncate(20 + 8 + 19);
    assert_eq!(
        judge(&client, Mode::PointToPoint, &cut),
        Err(Refused::Malformed)
    );
}

#[test]
fn what_would_change_routes_is_refused_in_every_role() {
    for role in ROLES {
        for mode in [Mode::PointToPoint, Mode::Ethernet] {
            for kind in [Kind::Redirect, Kind::RouterAdvertisement] {
                for (ipv6, from, to) in [(false, 0, 1), (false, 1, 0), (true, 10, 7), (true, 1, 0)]
                {
                    for part in [Part::Whole, Part::First] {
                        let built = Built {
                            ipv6,
                            from,
                            to,
                            kind,
                            part,
                            extended: true,
                        };
                        let verdict = match mode {
                            Mode::PointToPoint => judge(&role.rules(mode), mode, &built.packet()),
                            Mode::Ethernet => {
                                judge(&role.rules(mode), mode, &in_frame(&built.packet(), 0))
                            }
                        };
                        assert!(verdict.is_err(), "{role:?} {mode:?} {built:?}");
                    }
                }
            }
        }
    }
}
