//! The guard of Ethernet frames.

use super::*;
use crate::packet::guard::Reach;
use crate::types::Mode;
use crate::types::address_set::AddressSet;
use ipnetwork::IpNetwork;

const OURS: [u8; 6] = [2, 0, 0, 0, 0, 5];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 6];
const SERVER: [u8; 6] = [2, 0, 0, 0, 0, 1];
const ALL: [u8; 6] = [0xff; 6];

fn set(networks: &[&str]) -> AddressSet {
    let networks = networks.iter().map(|text| text.parse::<IpNetwork>());
    networks.map(Result::unwrap).collect()
}

fn rules(one_station: bool) -> GuardRules {
    let reach = Reach {
        here: &set(&["10.9.0.1/32", "fd09::1/128"]),
        networks: &[],
        clients: &set(&["10.9.0.0/24", "fd09::/64"]),
        peers: &AddressSet::EMPTY,
    };
    GuardRules::new(set(&["10.9.0.5/32", "fd09::5/128"]), &reach, one_station)
}

fn frame(from: [u8; 6], to: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &ethertype.to_be_bytes(), payload].concat()
}

fn judge(frame: &[u8]) -> Result<(), Refused> {
    rules(true).check(Mode::Ethernet, &mut Sender::default(), frame)
}

fn v4(from: [u8; 4], to: [u8; 4], ports: (u16, u16)) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = etherparse::PacketBuilder::ipv4(from, to, 64).udp(ports.0, ports.1);
    builder.write(&mut packet, &[0; 20]).unwrap();
    packet
}

fn v6(from: &str, to: &str, next: u8, payload: &[u8]) -> Vec<u8> {
    let address = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
    let length = (payload.len() as u16).to_be_bytes();
    [
        &[0x60, 0, 0, 0, length[0], length[1], next, 255][..],
        &address(from),
        &address(to),
        payload,
    ]
    .concat()
}

/// A message of neighbour discovery with one option.
fn neighbour(kind: u8, target: &str, option: u8, station: [u8; 6]) -> Vec<u8> {
    let target = target.parse::<Ipv6Addr>().unwrap().octets();
    [
        &[kind, 0, 0, 0, 0, 0, 0, 0],
        &target[..],
        &[option, 1],
        &station,
    ]
    .concat()
}

fn arp(hardware: [u8; 6], sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let fixed = [0, 1, 8, 0, 6, 4, 0, 1];
    [&fixed[..], &hardware, &sender, &[0; 6], &target].concat()
}

#[test]
fn one_station_alone_speaks_unless_networks_are_bridged_to_it() {
    let packet = v4([10, 9, 0, 5], [10, 9, 0, 1], (1, 2));
    let ours = frame(OURS, SERVER, 0x0800, &packet);
    let other = frame(OTHER, SERVER, 0x0800, &packet);
    let foreign = frame(
        OTHER,
        SERVER,
        0x0800,
        &v4([10, 9, 0, 6], [10, 9, 0, 1], (1, 2)),
    );
    let mut station = Sender::default();
    let one = rules(true);
    let mut check = |frame: &[u8]| one.check(Mode::Ethernet, &mut station, frame);
    // A refused frame does not set the station.
    assert_eq!(check(&foreign), Err(Refused::Source));
    assert_eq!(check(&ours), Ok(()));
    assert_eq!(check(&other), Err(Refused::Source));
    assert_eq!(check(&ours), Ok(()));
    assert_eq!(station, Sender::Alone(Some(MacAddress(OURS))));
    let bridged = rules(false);
    assert_eq!(bridged.check(Mode::Ethernet, &mut station, &other), Ok(()));
    for nobody in [[0; 6], ALL, [1, 0, 0x5e, 0, 0, 1]] {
        let frame = frame(nobody, SERVER, 0x0800, &packet);
        let verdict = bridged.check(Mode::Ethernet, &mut Sender::default(), &frame);
        assert_eq!(verdict, Err(Refused::Source), "{}", MacAddress(nobody));
    }
}

#[test]
fn tags_and_other_protocols_are_not_carried() {
    let packet = v4([10, 9, 0, 5], [10, 9, 0, 1], (1, 2));
    let tagged = [&[0, 7, 8, 0][..], &packet].concat();
    for ethertype in [0x8100, 0x88a8, 0x9100, 0x88cc, 0x8863, 0x8847, 38] {
        let verdict = judge(&frame(OURS, SERVER, ethertype, &tagged));
        assert_eq!(verdict, Err(Refused::NotCarried), "{ethertype:#x}");
    }
    // The version has to be that of the type.
    assert_eq!(
        judge(&frame(OURS, SERVER, 0x86dd, &packet)),
        Err(Refused::Malformed)
    );
    for length in 0..14 + 20 {
        let cut = &frame(OURS, SERVER, 0x0800, &packet)[..length];
        assert_eq!(judge(cut), Err(Refused::Malformed), "{length}");
    }
}

#[test]
fn ipv4_is_as_on_a_tun_device_with_dhcp_besides() {
    const OWN: [u8; 4] = [10, 9, 0, 5];
    for (from, to, ports, verdict) in [
        (OWN, [10, 9, 0, 1], (1, 2), Ok(())),
        (OWN, [10, 9, 0, 6], (1, 2), Err(Refused::Destination)),
        ([10, 9, 0, 6], [10, 9, 0, 1], (1, 2), Err(Refused::Source)),
        ([0; 4], [255; 4], (68, 67), Ok(())),
        (OWN, [255; 4], (68, 67), Ok(())),
        ([0; 4], [255; 4], (68, 68), Err(Refused::Source)),
        ([0; 4], [10, 9, 0, 1], (68, 67), Err(Refused::Source)),
        // A server's answer.
        (OWN, [255; 4], (67, 68), Err(Refused::Destination)),
        ([10, 9, 0, 1], [255; 4], (67, 68), Err(Refused::Source)),
        (
            OWN,
            [224, 0, 0, 251],
            (5353, 5353),
            Err(Refused::Destination),
        ),
        (OWN, [10, 9, 0, 255], (1, 2), Err(Refused::Destination)),
    ] {
        let frame = frame(OURS, ALL, 0x0800, &v4(from, to, ports));
        assert_eq!(judge(&frame), verdict, "{from:?} {to:?} {ports:?}");
    }
    let mut fragment = v4([0; 4], [255; 4], (68, 67));
    fragment[7] = 1;
    let verdict = judge(&frame(OURS, ALL, 0x0800, &fragment));
    assert_eq!(verdict, Err(Refused::Source));
}

#[test]
fn multicast_groups_are_joined_and_never_asked_about() {
    for (kind, verdict) in [
        (0x16, Ok(())),
        (0x17, Ok(())),
        (0x11, Err(Refused::NotCarried)),
    ] {
        let mut packet = v4([10, 9, 0, 5], [224, 0, 0, 22], (0, 0));
        packet[9] = 2;
        packet[20] = kind;
        assert_eq!(
            judge(&frame(OURS, ALL, 0x0800, &packet)),
            verdict,
            "{kind:#x}"
        );
        // Routers and bridges would accept a query to one host, too.
        packet[16..20].copy_from_slice(&[10, 9, 0, 1]);
        let to_one = judge(&frame(OURS, SERVER, 0x0800, &packet));
        assert_eq!(to_one, Err(Refused::NotCarried), "{kind:#x}");
        packet[6] = 0x20;
        let first = judge(&frame(OURS, SERVER, 0x0800, &packet));
        assert_eq!(first, Err(Refused::NotCarried), "{kind:#x}");
        let kind = match kind {
            0x16 => 143,
            0x17 => 132,
            _ => 130,
        };
        let to_one = v6("fd09::5", "fd09::1", 58, &[kind, 0, 0, 0, 0, 0, 0, 0]);
        let to_one = judge(&frame(OURS, SERVER, 0x86dd, &to_one));
        assert_eq!(to_one, Err(Refused::NotCarried), "{kind}");
        // Behind a router alert, as they are sent (RFC 3810, section 5).
        let report = [58, 0, 5, 2, 0, 0, 1, 0, kind, 0, 0, 0, 0, 0, 0, 0];
        for from in ["fe80::5", "::"] {
            let packet = v6(from, "ff02::16", 0, &report);
            assert_eq!(judge(&frame(OURS, ALL, 0x86dd, &packet)), verdict, "{kind}");
        }
    }
}

#[test]
fn arp_tells_the_truth_about_its_sender() {
    const OWN: [u8; 4] = [10, 9, 0, 5];
    const HERE: [u8; 4] = [10, 9, 0, 1];
    const NEIGHBOUR: [u8; 4] = [10, 9, 0, 6];
    for (hardware, sender, target, verdict) in [
        (OURS, OWN, HERE, Ok(())),
        (OURS, OWN, OWN, Ok(())),
        (OURS, [0; 4], OWN, Ok(())),
        (OTHER, OWN, HERE, Err(Refused::Source)),
        (OURS, NEIGHBOUR, HERE, Err(Refused::Source)),
        (OURS, HERE, HERE, Err(Refused::Source)),
        (OURS, [0; 4], HERE, Err(Refused::Source)),
        (OURS, OWN, NEIGHBOUR, Err(Refused::Destination)),
    ] {
        let frame = frame(OURS, ALL, 0x0806, &arp(hardware, sender, target));
        assert_eq!(judge(&frame), verdict, "{hardware:?} {sender:?} {target:?}");
    }
    let mut tokens = arp(OURS, OWN, HERE);
    tokens[1] = 6;
    assert_eq!(
        judge(&frame(OURS, ALL, 0x0806, &tokens)),
        Err(Refused::Malformed)
    );
    let cut = &arp(OURS, OWN, HERE)[..27];
    assert_eq!(
        judge(&frame(OURS, ALL, 0x0806, cut)),
        Err(Refused::Malformed)
    );
}

#[test]
fn neighbour_discovery_is_about_the_senders_own_station() {
    let (source, destination) = (Err(Refused::Source), Err(Refused::Destination));
    for (from, to, message, verdict) in [
        (
            "fd09::5",
            "ff02::1:ff00:1",
            neighbour(135, "fd09::1", 1, OURS),
            Ok(()),
        ),
        (
            "fd09::5",
            "fd09::1",
            neighbour(135, "fd09::1", 1, OURS),
            Ok(()),
        ),
        (
            "fe80::5",
            "fe80::1",
            neighbour(135, "fe80::1", 1, OURS),
            Ok(()),
        ),
        // Duplicate address detection, with a nonce (RFC 7527).
        (
            "::",
            "ff02::1:ff00:5",
            neighbour(135, "fd09::5", 14, OTHER),
            Ok(()),
        ),
        (
            "::",
            "ff02::1:ff00:5",
            neighbour(135, "fe80::5", 14, OTHER),
            Ok(()),
        ),
        (
            "::",
            "ff02::1:ff00:1",
            neighbour(135, "fd09::1", 14, OTHER),
            source,
        ),
        (
            "fd09::5",
            "ff02::1:ff00:6",
            neighbour(135, "fd09::6", 1, OURS),
            destination,
        ),
        (
            "fd09::5",
            "fd09::1",
            neighbour(135, "fd09::1", 1, OTHER),
            source,
        ),
        (
            "fd09::6",
            "fd09::1",
            neighbour(135, "fd09::1", 1, OURS),
            source,
        ),
        (
            "fe80::5",
            "fd09::1",
            neighbour(136, "fd09::5", 2, OURS),
            Ok(()),
        ),
        (
            "fd09::5",
            "ff02::1",
            neighbour(136, "fe80::5", 2, OURS),
            Ok(()),
        ),
        (
            "fd09::5",
            "ff02::1",
            neighbour(136, "fd09::6", 2, OURS),
            source,
        ),
        (
            "fd09::5",
            "ff02::1",
            neighbour(136, "fd09::1", 2, OURS),
            source,
        ),
        (
            "fd09::5",
            "ff02::1",
            neighbour(136, "fd09::5", 2, OTHER),
            source,
        ),
        (
            "fd09::5",
            "fd09::6",
            neighbour(136, "fd09::5", 2, OURS),
            destination,
        ),
    ] {
        let frame = frame(OURS, ALL, 0x86dd, &v6(from, to, 58, &message));
        assert_eq!(judge(&frame), verdict, "{from} {to} {message:?}");
    }
}

#[test]
fn a_client_is_no_router_whatever_hides_it() {
    let advertisement = neighbour(134, "::", 1, OURS);
    let redirect = neighbour(137, "fd09::1", 2, OURS);
    let hidden = [&[58, 0, 1, 4, 0, 0, 0, 0][..], &advertisement].concat();
    let whole = [&[58, 0, 0, 0, 0, 0, 0, 1][..], &advertisement].concat();
    let fragment = [&[58, 0, 0, 1, 0, 0, 0, 1][..], &advertisement].concat();
    for (next, message) in [
        (58, &advertisement),
        (58, &redirect),
        (60, &hidden),
        (44, &whole),
        (44, &fragment),
    ] {
        for from in ["fe80::5", "fd09::5"] {
            let packet = v6(from, "ff02::1", next, message);
            let verdict = judge(&frame(OURS, ALL, 0x86dd, &packet));
            assert_eq!(verdict, Err(Refused::NotCarried), "{from} {next}");
        }
    }
    // Refused if the guard cannot see its type or its last options.
    let spoofed = neighbour(136, "fd09::1", 2, OTHER);
    let behind = [&[58, 0, 1, 4, 0, 0, 0, 0][..], &spoofed].concat();
    let own = [&neighbour(136, "fd09::5", 2, OURS)[..], &[2, 1], &OTHER].concat();
    for (next, message, sight) in [(60, &behind, 8), (58, &own, 32)] {
        let whole = frame(
            OURS,
            SERVER,
            0x86dd,
            &v6("fd09::5", "fd09::1", next, message),
        );
        assert_eq!(judge(&whole), Err(Refused::Source));
        let verdict = judge(&whole[..14 + 40 + sight]);
        assert_eq!(verdict, Err(Refused::Malformed), "{next}");
    }
    // A host may send a router solicitation.
    let solicitation = [&[133, 0, 0, 0, 0, 0, 0, 0, 1, 1][..], &OURS].concat();
    let packet = v6("fe80::5", "ff02::2", 58, &solicitation);
    assert_eq!(judge(&frame(OURS, ALL, 0x86dd, &packet)), Ok(()));
}

#[test]
fn link_local_ipv6_is_neighbour_discovery_and_dhcp_alone() {
    let ports = |source: u16, target: u16| {
        [
            &source.to_be_bytes()[..],
            &target.to_be_bytes(),
            &[0, 8, 0, 0],
        ]
        .concat()
    };
    for (from, to, payload, verdict) in [
        ("fe80::5", "ff02::1:2", ports(546, 547), Ok(())),
        ("fe80::5", "fe80::1", ports(546, 547), Ok(())),
        (
            "fe80::5",
            "fe80::6",
            ports(547, 546),
            Err(Refused::NotCarried),
        ),
        (
            "fe80::5",
            "fe80::6",
            ports(22, 22),
            Err(Refused::NotCarried),
        ),
        (
            "fd09::5",
            "ff02::fb",
            ports(5353, 5353),
            Err(Refused::NotCarried),
        ),
        (
            "fd09::6",
            "ff02::1:2",
            ports(546, 547),
            Err(Refused::Source),
        ),
        ("fd09::5", "fd09::1", ports(22, 22), Ok(())),
        (
            "fd09::5",
            "fd09::6",
            ports(22, 22),
            Err(Refused::Destination),
        ),
    ] {
        let frame = frame(OURS, ALL, 0x86dd, &v6(from, to, 17, &payload));
        assert_eq!(judge(&frame), verdict, "{from} {to}");
    }
}

#[test]
fn options_that_make_no_sense_are_malformed() {
    let mut endless = neighbour(135, "fd09::1", 1, OURS);
    endless[25] = 0;
    let mut long = neighbour(135, "fd09::1", 1, OURS);
    long[25] = 2;
    for message in [
        &endless,
        &long,
        &endless[..20].to_vec(),
        &endless[..25].to_vec(),
    ] {
        let packet = v6("fd09::5", "fd09::1", 58, message);
        let verdict = judge(&frame(OURS, ALL, 0x86dd, &packet));
        assert_eq!(verdict, Err(Refused::Malformed), "{message:?}");
    }
    // The frame's padding does not count as options.
    let whole = v6(
        "fd09::5",
        "fd09::1",
        58,
        &neighbour(135, "fd09::1", 1, OURS),
    );
    let padded = [&whole[..], &[0; 9]].concat();
    assert_eq!(judge(&frame(OURS, ALL, 0x86dd, &padded)), Ok(()));
}

/// RFC 6980: correct messages are refused as well.
#[test]
fn what_stays_on_a_link_comes_in_no_fragment() {
    let own = neighbour(136, "fd09::5", 2, OURS);
    let report = vec![143, 0, 0, 0, 0, 0, 0, 0];
    let asks = neighbour(135, "fd09::1", 1, OURS);
    let path = neighbour(148, "::", 1, OURS);
    for message in [&own, &report, &asks, &path] {
        let kind = message[0];
        for (more, part) in [(1, &message[..8]), (1, message), (0, message)] {
            for to in ["fd09::1", "ff02::1"] {
                let whole = [&[58, 0, 0, more, 0, 0, 0, 1][..], part].concat();
                let options = [&[58, 0, 1, 4, 0, 0, 0, 0][..], part].concat();
                let behind = [&[60, 0, 0, more, 0, 0, 0, 1][..], &options].concat();
                for payload in [whole, behind] {
                    let packet = v6("fd09::5", to, 44, &payload);
                    let verdict = judge(&frame(OURS, SERVER, 0x86dd, &packet));
                    assert_eq!(verdict, Err(Refused::NotCarried), "{kind} {to}");
                }
            }
        }
    }
    // Other ICMPv6 messages may be fragmented.
    let echo = [58, 0, 0, 1, 0, 0, 0, 1, 128, 0, 0, 0, 0, 1, 0, 1];
    let packet = v6("fd09::5", "fd09::1", 44, &echo);
    assert_eq!(judge(&frame(OURS, SERVER, 0x86dd, &packet)), Ok(()));
}

/// RFC 7112.
#[test]
fn a_first_fragment_has_all_headers() {
    for (protocol, least) in [(58, 4), (17, 8), (6, 20)] {
        for length in 0..32 {
            let header = [protocol, 0, 0, 1, 0, 0, 0, 1];
            let behind = [&header[..], &vec![0; length]].concat();
            let hidden = [&[60, 0, 0, 1, 0, 0, 0, 1], &header[..1]].concat();
            let hidden = [&hidden[..], &[0, 1, 4, 0, 0, 0, 0], &vec![0; length]].concat();
            for payload in [behind, hidden] {
                let packet = v6("fd09::5", "fd09::1", 44, &payload);
                let verdict = judge(&frame(OURS, SERVER, 0x86dd, &packet));
                let expected = match length >= least {
                    true => Ok(()),
                    false => Err(Refused::Malformed),
                };
                assert_eq!(verdict, expected, "{protocol} {length}");
            }
        }
    }
}

fn shared(stations: &[[u8; 6]], link_local: &[&str]) -> Sender {
    let link_local = link_local.iter().map(|text| text.parse().unwrap());
    let held = LinkAddresses {
        stations: stations.iter().copied().map(MacAddress).collect(),
        link_local: link_local.collect(),
    };
    Sender::Shared {
        held: Arc::new(held),
        wanted: None,
    }
}

#[test]
fn on_a_shared_link_a_station_has_to_be_granted() {
    let packet = v4([10, 9, 0, 5], [10, 9, 0, 1], (1, 2));
    let ours = frame(OURS, SERVER, 0x0800, &packet);
    let foreign = v4([10, 9, 0, 6], [10, 9, 0, 1], (1, 2));
    let foreign = frame(OURS, SERVER, 0x0800, &foreign);
    let mut sender = shared(&[], &[]);
    let rules = rules(true);
    // An invalid frame requests no address.
    let verdict = rules.check(Mode::Ethernet, &mut sender, &foreign);
    assert_eq!((verdict, sender.wanted()), (Err(Refused::Source), None));
    let verdict = rules.check(Mode::Ethernet, &mut sender, &ours);
    let wanted = Some(LinkAddress::Station(MacAddress(OURS)));
    assert_eq!((verdict, sender.wanted()), (Err(Refused::Source), wanted));
    assert_eq!(sender.wanted(), None);
    let mut sender = shared(&[OURS], &[]);
    assert_eq!(rules.check(Mode::Ethernet, &mut sender, &ours), Ok(()));
    // One host has one station, and requests no other.
    let other = frame(OTHER, SERVER, 0x0800, &packet);
    let verdict = rules.check(Mode::Ethernet, &mut sender, &other);
    assert_eq!((verdict, sender.wanted()), (Err(Refused::Source), None));
}

#[test]
fn several_stations_are_granted_one_by_one_where_networks_are_behind() {
    let rules = rules(false);
    let mut sender = shared(&[OURS], &[]);
    let packet = v4([10, 9, 0, 5], [10, 9, 0, 1], (1, 2));
    let other = frame(OTHER, SERVER, 0x0800, &packet);
    let verdict = rules.check(Mode::Ethernet, &mut sender, &other);
    let wanted = Some(LinkAddress::Station(MacAddress(OTHER)));
    assert_eq!((verdict, sender.wanted()), (Err(Refused::Source), wanted));
    let mut sender = shared(&[OURS, OTHER], &[]);
    assert_eq!(rules.check(Mode::Ethernet, &mut sender, &other), Ok(()));
}

#[test]
fn on_a_shared_link_link_local_addresses_have_to_be_granted() {
    let wants = |text: &str| Some(LinkAddress::LinkLocal(text.parse().unwrap()));
    let rules = rules(true);
    let solicitation = |target| neighbour(135, target, 1, OURS);
    let advertisement = |target| neighbour(136, target, 2, OURS);
    let report = vec![143, 0, 0, 0, 0, 0, 0, 0];
    for (from, to, message, wanted) in [
        // Each address that it claims: as a source, in an advertisement, by detection of duplicates.
        (
            "fe80::5",
            "ff02::1:ff00:1",
            solicitation("fd09::1"),
            wants("fe80::5"),
        ),
        ("fe80::5", "ff02::16", report.clone(), wants("fe80::5")),
        (
            "fd09::5",
            "ff02::1",
            advertisement("fe80::1"),
            wants("fe80::1"),
        ),
        (
            "fe80::6",
            "ff02::1",
            advertisement("fe80::1"),
            wants("fe80::1"),
        ),
        (
            "::",
            "ff02::1:ff00:1",
            neighbour(135, "fe80::1", 14, OTHER),
            wants("fe80::1"),
        ),
        // Addresses that it has, and addresses that it asks about.
        ("fe80::6", "ff02::1:ff00:1", solicitation("fe80::1"), None),
        ("fe80::6", "ff02::1", advertisement("fe80::6"), None),
        ("fd09::5", "fe80::1", solicitation("fe80::1"), None),
        ("fd09::5", "fe80::1", advertisement("fd09::5"), None),
        ("::", "ff02::16", report, None),
    ] {
        let packet = v6(from, to, 58, &message);
        let mut sender = shared(&[OURS], &["fe80::6"]);
        let frame = frame(OURS, SERVER, 0x86dd, &packet);
        let verdict = rules.check(Mode::Ethernet, &mut sender, &frame);
        let expected = wanted.map_or(Ok(()), |_| Err(Refused::Source));
        assert_eq!(verdict, expected, "{from} {to}");
        assert_eq!(sender.wanted(), wanted, "{from} {to}");
    }
}
