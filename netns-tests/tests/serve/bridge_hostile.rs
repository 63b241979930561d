//! `sshvpn serve --bridge` with a client that forges frames as a DHCP server, a router and a
//! bridge. Also, DHCP works for an honest client.
//!
//! ```text
//!                               ┌ br0 ┐
//!   laptop tap3 ══ SSH ══ tap7 ─┤     ├── lan host
//!                               └─────┘ bastion: sshvpn serve
//! ```

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, ensure};
use netns_tests::attack::forge::{self, BROADCAST, Mac, Packet, ethernet, udp};
use netns_tests::serve::lab::{LAN, ServeLab};
use netns_tests::serve::station::{BASTION, Station, lab, link_local, mac};
use netns_tests::serve::{Serve, Server};
use netns_tests::traffic::capture::Capture;
use netns_tests::{Host, PATIENCE, traffic, until};
use nix::sys::signal::Signal;

const LAN_V6: &str = "fd51::2";
const ICMP: u8 = 1;
const IGMP: u8 = 2;
const UDP: u8 = 17;
const FRAGMENT: u8 = 44;
const ICMPV6: u8 = 58;
const DESTINATION_OPTIONS: u8 = 60;
const VRRP: u8 = 112;

fn start(lab: &ServeLab) -> Result<Server<'_>> {
    // Else the bridge reassembles fragments, and holds incomplete ones back.
    lab.bastion.sh("ip address add fd51::1/64 dev br0 nodad
         for setting in /proc/sys/net/bridge/bridge-nf-call-*; do
             if [ -e $setting ]; then echo 0 >$setting; fi
         done")?;
    lab.lan
        .sh(&format!("ip address add {LAN_V6}/64 dev lan nodad"))?;
    Serve::default()
        .with(&["--bridge", "br0", "--pool", "198.51.100.128/25"])
        .with(&["--pool", "fd51::8000/113"])
        .with(&["--route", "198.51.100.0/24", "--route", "fd51::/64"])
        .start(&lab.bastion)
}

/// The addresses of the frames.
struct Parties {
    own: Ipv4Addr,
    own_v6: Ipv6Addr,
    own_link_local: Ipv6Addr,
    own_mac: Mac,
    lan: Ipv4Addr,
    lan_v6: Ipv6Addr,
    lan_link_local: Ipv6Addr,
    lan_mac: Mac,
}

impl Parties {
    fn of(lab: &ServeLab, laptop: &Station<'_>) -> Result<Self> {
        let v6 = laptop.address_v6.as_ref().context("no IPv6 address")?;
        Ok(Parties {
            own: laptop.address.parse()?,
            own_v6: v6.parse()?,
            own_link_local: link_local(laptop.host, "tap3")?.parse()?,
            own_mac: forge::parse_mac(&mac(laptop.host, "tap3")?)?,
            lan: LAN.parse()?,
            lan_v6: LAN_V6.parse()?,
            lan_link_local: link_local(&lab.lan, "lan")?.parse()?,
            lan_mac: forge::parse_mac(&mac(&lab.lan, "lan")?)?,
        })
    }

    fn v4(&self, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Packet {
        Packet::V4 {
            from: self.own,
            to,
            protocol,
            fragment: 0,
            options: Vec::new(),
            payload: payload.to_owned(),
        }
    }

    /// The first fragment of many.
    fn v4_fragment(&self, to: Ipv4Addr, protocol: u8, first: &[u8]) -> Packet {
        Packet::V4 {
            from: self.own,
            to,
            protocol,
            fragment: 0x2000,
            options: Vec::new(),
            payload: first.to_owned(),
        }
    }
}

fn v6(from: Ipv6Addr, to: Ipv6Addr, next: u8, payload: Vec<u8>) -> Packet {
    Packet::V6 {
        from,
        to,
        next,
        payload,
    }
}

/// A DHCP message of a station: its first bytes (RFC 2131, section 2).
fn dhcp(operation: u8, station: Mac, client: Ipv4Addr, relay: Ipv4Addr) -> Vec<u8> {
    let unspecified = [0; 4];
    let mut message = vec![operation, 1, 6, 0, 1, 2, 3, 4, 0, 0, 0, 0];
    message.extend(client.octets());
    message.extend([unspecified; 2].concat());
    message.extend(relay.octets());
    message.extend(station);
    message.resize(236, 0);
    message.extend([
        99,
        130,
        83,
        99,
        53,
        1,
        if operation == 1 { 1 } else { 2 },
        255,
    ]);
    message
}

/// A neighbour discovery message about `target`, with an option.
fn neighbour(kind: u8, target: Ipv6Addr, option: u8, station: Mac) -> Vec<u8> {
    let start = [kind, 0, 0, 0, 0x60, 0, 0, 0];
    [&start[..], &target.octets(), &[option, 1], &station].concat()
}

/// A router advertisement with a lifetime and an on-link prefix.
fn advertisement() -> Vec<u8> {
    let mut message = vec![134, 0, 0, 0, 64, 0, 0xff, 0xff];
    message.extend([0; 8]);
    message.extend([3, 4, 64, 0xc0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    message.extend("2001:db8:bad::".parse::<Ipv6Addr>().unwrap().octets());
    message
}

/// A part of a packet after a fragment header (RFC 8200, section 4.5).
fn fragment(next: u8, offset: u16, more: bool, part: &[u8]) -> Vec<u8> {
    let place = (offset << 3 | u16::from(more)).to_be_bytes();
    [&[next, 0, place[0], place[1], 0, 0, 0, 9][..], part].concat()
}

const NONE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const ALL: Ipv4Addr = Ipv4Addr::BROADCAST;

/// Messages of a DHCP server and relays, and of clients on behalf of others.
fn dhcp_v4(it: &Parties) -> Vec<Packet> {
    let offer = dhcp(2, it.lan_mac, NONE, NONE);
    let offer_by = |source| udp((source, 68), &offer);
    let mut forged = Vec::new();
    for to in [it.lan, ALL, Ipv4Addr::new(198, 51, 100, 255)] {
        forged.push(it.v4(to, UDP, &offer_by(67)));
        forged.push(it.v4(to, UDP, &offer_by(1000)));
    }
    forged.push(Packet::V4 {
        from: it.own,
        to: it.lan,
        protocol: UDP,
        fragment: 0,
        options: vec![1, 1, 1, 0],
        payload: offer_by(67),
    });
    let of_another = udp((68, 67), &dhcp(1, it.lan_mac, NONE, NONE));
    for start in [offer_by(67), of_another.clone()] {
        forged.push(it.v4_fragment(it.lan, UDP, &start[..64]));
    }
    let relayed = dhcp(1, it.own_mac, NONE, it.own);
    let request = dhcp(1, it.own_mac, NONE, NONE);
    for (to, datagram) in [
        (ALL, &of_another),
        (it.lan, &of_another),
        // A release of another's address, relayed messages, answers.
        (it.lan, &udp((68, 67), &dhcp(1, it.own_mac, it.lan, NONE))),
        (it.lan, &udp((68, 67), &relayed)),
        (it.lan, &udp((67, 67), &relayed)),
        (ALL, &udp((68, 67), &dhcp(2, it.own_mac, NONE, NONE))),
        (it.lan, &udp((1000, 67), &request)),
        (it.lan, &udp((68, 5000), &request)),
    ] {
        forged.push(it.v4(to, UDP, datagram));
    }
    forged
}

fn dhcp_v6(it: &Parties) -> Vec<Packet> {
    let mut forged = Vec::new();
    // ADVERTISE, REPLY, RELAY-REPL (RFC 8415, section 7.3); also with a client's ports.
    for kind in [2, 7, 13] {
        let message = [kind, 1, 2, 3];
        for (from, to) in [
            (it.own_link_local, it.lan_link_local),
            (it.own_v6, it.lan_v6),
        ] {
            for ports in [(547, 546), (1000, 546), (547, 547), (546, 547)] {
                forged.push(v6(from, to, UDP, udp(ports, &message)));
            }
        }
    }
    let reply = udp((547, 546), &[7, 1, 2, 3, 0, 0, 0, 0]);
    for (next, payload) in hidden(UDP, &reply) {
        forged.push(v6(it.own_v6, it.lan_v6, next, payload));
    }
    forged
}

/// A message after headers that may hide it.
fn hidden(protocol: u8, message: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let behind = [&[protocol, 0, 1, 4, 0, 0, 0, 0][..], message].concat();
    vec![
        (DESTINATION_OPTIONS, behind.clone()),
        (FRAGMENT, fragment(protocol, 0, true, message)),
        (FRAGMENT, fragment(protocol, 0, false, message)),
        (FRAGMENT, fragment(DESTINATION_OPTIONS, 0, true, &behind)),
        // The message is in the second fragment.
        (
            FRAGMENT,
            fragment(DESTINATION_OPTIONS, 0, true, &behind[..8]),
        ),
        (FRAGMENT, fragment(protocol, 0, true, &[])),
    ]
}

/// Messages of routers and multicast queriers.
fn routing(it: &Parties) -> Vec<Packet> {
    let query = [0x11, 100, 0, 0, 0, 0, 0, 0];
    let redirect = [&[5, 1, 0, 0][..], &it.own.octets(), &[0; 28]].concat();
    let irdp = [&[9, 0, 0, 0, 1, 2, 7, 8][..], &it.own.octets(), &[0; 4]].concat();
    let multicast = |last| Ipv4Addr::new(224, 0, 0, last);
    let mut forged: Vec<Packet> = [
        (multicast(1), IGMP, &query[..]),
        (it.lan, IGMP, &query),
        (it.lan, ICMP, &redirect),
        (it.lan, ICMP, &irdp),
        (multicast(18), VRRP, &[0x21, 1, 255, 1, 0, 1, 0, 0]),
        (multicast(2), UDP, &udp((1985, 1985), &[0; 20])),
        (multicast(5), 89, &[2, 1, 0, 44]),
    ]
    .into_iter()
    .map(|(to, protocol, payload)| it.v4(to, protocol, payload))
    .collect();
    let all: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let vrrp: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);
    let redirect = neighbour(137, it.lan_v6, 2, it.own_mac);
    let query = [&[130, 0, 0, 0, 0, 10, 0, 0][..], &[0; 16]].concat();
    for (from, to) in [(it.own_link_local, all), (it.own_v6, it.lan_v6)] {
        for message in [&advertisement(), &redirect, &query] {
            forged.push(v6(from, to, ICMPV6, message.clone()));
            for (next, payload) in hidden(ICMPV6, message) {
                forged.push(v6(from, to, next, payload));
            }
        }
    }
    forged.push(v6(it.own_link_local, vrrp, VRRP, vec![0x31, 1, 255, 1]));
    // About itself, but in a fragment, even if it is the only one (RFC 6980).
    let own = neighbour(136, it.own_v6, 2, it.own_mac);
    for more in [true, false] {
        let payload = fragment(ICMPV6, 0, more, &own);
        forged.push(v6(it.own_v6, it.lan_v6, FRAGMENT, payload));
    }
    forged
}

/// Frames that are neither IP nor ARP.
fn of_bridges(it: &Parties) -> Vec<Vec<u8>> {
    const PVST: Mac = [1, 0, 0x0c, 0xcc, 0xcc, 0xcd];
    let offer = udp((67, 68), &dhcp(2, it.lan_mac, it.lan, it.lan));
    let offer = it.v4(it.lan, UDP, &offer).bytes(0);
    let tagged = [&[0, 0, 8, 0][..], &offer].concat();
    let twice = [&[0, 0, 0x81, 0][..], &tagged].concat();
    let snap = [&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0][..], &offer].concat();
    let spanning = [&[0x42, 0x42, 3][..], &[0; 43]].concat();
    let frames: [(Mac, u16, &[u8]); 9] = [
        (it.lan_mac, 38, &spanning),
        (PVST, 38, &spanning),
        (it.lan_mac, 0x88cc, &[2, 7, 4, 0, 0, 0]),
        (it.lan_mac, 0x888e, &[1, 1, 0, 0]),
        (it.lan_mac, 0x8863, &[0x11, 9, 0, 0, 0, 0]),
        (it.lan_mac, 0x8100, &tagged),
        (it.lan_mac, 0x88a8, &twice),
        (it.lan_mac, snap.len() as u16, &snap),
        (BROADCAST, 0x8035, &[0; 28]),
    ];
    let frame = |(to, ethertype, payload)| ethernet(it.own_mac, to, ethertype, payload);
    frames.map(frame).to_vec()
}

/// Sends packets through `device` of `host`; returns the labels of those that the LAN host got, and
/// the number of other frames.
fn seen(
    lab: &ServeLab,
    host: &Host,
    device: &str,
    it: &Parties,
    forged: &[Packet],
) -> Result<(Vec<usize>, usize)> {
    let label = |index: usize| u8::try_from(index).context("too many packets");
    let mut frames = Vec::new();
    for (index, packet) in forged.iter().enumerate() {
        // The bridge itself forwards everything to that station.
        frames.push(packet.frame(it.own_mac, it.lan_mac, label(index)?));
    }
    frames.extend(of_bridges(it));
    let capture = Capture::start(&lab.lan, "lan")?;
    forge::send_by(host, device, &frames)?;
    traffic::ping(host, LAN)?;
    let captured = capture.end()?;
    let mut passed = Vec::new();
    for index in 0..forged.len() {
        if !captured
            .matching(&Packet::filter(label(index)?))?
            .is_empty()
        {
            passed.push(index);
        }
    }
    let others = captured.matching("not arp and not ip and not ip6")?;
    // tcpdump prints the bytes of unknown frames on lines after them.
    let others = others.iter().filter(|line| !line.starts_with('\t'));
    Ok((passed, others.count()))
}

#[test]
fn a_client_is_no_dhcp_server_no_router_and_no_bridge() -> Result<()> {
    let lab = lab()?;
    let server = start(&lab)?;
    let laptop = Station::open(&server, &lab.laptop, "alice", "true")?;
    traffic::ping(laptop.host, LAN)?;
    let it = Parties::of(&lab, &laptop)?;
    // So that it can send from its link-local address.
    let (own, lans) = (it.own_link_local, it.lan_link_local);
    until("the LAN host knows the laptop", PATIENCE, || {
        let asks = format!("ping -n -c1 -W1 {lans}%tap3 || true");
        laptop.host.sh(&asks).ok()?;
        let shown = lab
            .lan
            .sh(&format!("ip -6 neigh show {own} dev lan"))
            .ok()?;
        shown.contains("lladdr").then_some(())
    })?;
    traffic::ping(laptop.host, LAN_V6)?;
    let solicit = udp((546, 547), &[1, 1, 2, 3]);
    let servers = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
    let honest = [
        it.v4(it.lan, UDP, &udp((5000, 5000), &[0; 20])),
        it.v4(ALL, UDP, &udp((68, 67), &dhcp(1, it.own_mac, NONE, NONE))),
        it.v4(
            it.lan,
            UDP,
            &udp((68, 67), &dhcp(1, it.own_mac, it.own, NONE)),
        ),
        it.v4_fragment(it.lan, UDP, &udp((5000, 5000), &[0; 16])),
        v6(it.own_link_local, servers, UDP, solicit),
        v6(
            it.own_v6,
            it.lan_v6,
            FRAGMENT,
            fragment(UDP, 0, true, &udp((5000, 5000), &[0; 16])),
        ),
        v6(
            it.own_v6,
            it.lan_v6,
            FRAGMENT,
            fragment(UDP, 3, false, &[0; 16]),
        ),
        v6(
            it.own_v6,
            it.lan_v6,
            FRAGMENT,
            fragment(ICMPV6, 0, true, &[128, 0, 0, 0, 0, 1, 0, 1]),
        ),
    ];
    let forged = [dhcp_v4(&it), dhcp_v6(&it), routing(&it)].concat();
    let (passed, _) = seen(&lab, laptop.host, "tap3", &it, &honest)?;
    ensure!(
        passed.len() == honest.len(),
        "only {passed:?} of the honest packets passed"
    );
    let (passed, others) = seen(&lab, laptop.host, "tap3", &it, &forged)?;
    let passed: Vec<_> = passed.iter().map(|index| &forged[*index]).collect();
    ensure!(passed.is_empty(), "{} passed: {passed:#?}", passed.len());
    ensure!(others == 0, "{others} frames that are neither IP nor ARP");
    let dropped = laptop.leave(&server)?;
    ensure!(
        dropped
            .as_object()
            .is_some_and(|reasons| !reasons.is_empty()),
        "{dropped}"
    );
    // Without the guard all of them reach that host.
    let (passed, others) = seen(&lab, &lab.bastion, "br0", &it, &forged)?;
    ensure!(
        passed.len() == forged.len(),
        "{passed:?} of {}",
        forged.len()
    );
    ensure!(others == of_bridges(&it).len(), "{others}");
    Ok(())
}

/// A real DHCP server on the LAN, which has the address that `serve` leased to the client.
#[test]
fn a_client_has_its_address_by_dhcp() -> Result<()> {
    let lab = lab()?;
    let server = start(&lab)?;
    let laptop = Station::open(&server, &lab.laptop, "alice", "true")?;
    let (address, station) = (&laptop.address, mac(laptop.host, "tap3")?);
    lab.lan.write(
        "/run/lab/udhcpd.conf",
        &format!(
            "start 198.51.100.128\nend 198.51.100.254\ninterface lan\n\
             lease_file /run/lab/leases\npidfile /run/lab/udhcpd.pid\n\
             static_lease {station} {address}\noption subnet 255.255.255.0\noption lease 600\n"
        ),
    )?;
    lab.lan.write("/run/lab/leases", "")?;
    let dhcp = lab
        .lan
        .spawn(&["busybox", "udhcpd", "-f", "/run/lab/udhcpd.conf"])?;
    dhcp.wait_for_line("started", PATIENCE)?;
    laptop.host.sh("ip address flush dev tap3 scope global")?;
    traffic::no_ping(laptop.host, LAN)?;
    laptop.host.write(
        "/run/lab/dhcp.sh",
        "#!/bin/sh\n[ \"$1\" = bound ] && ip address add $ip/24 dev $interface\necho \"$1 ${ip-}\"\n",
    )?;
    laptop.host.sh("chmod +x /run/lab/dhcp.sh")?;
    let client = laptop.host.spawn(&[
        "busybox",
        "udhcpc",
        "-f",
        "-i",
        "tap3",
        "-s",
        "/run/lab/dhcp.sh",
        "-t",
        "20",
        "-T",
        "1",
    ])?;
    client.wait_for_line(&format!("bound {address}"), PATIENCE)?;
    traffic::ping(laptop.host, LAN)?;
    traffic::ping(laptop.host, BASTION)?;
    let heard = Capture::start(&lab.lan, "lan")?;
    // Renewed by unicast, then released.
    client.signal(Signal::SIGUSR1)?;
    client.wait_for_line(&format!("renew {address}"), PATIENCE)?;
    client.signal(Signal::SIGUSR2)?;
    client.wait_for_line("deconfig", PATIENCE)?;
    // The DHCP server does not log it; DHCPRELEASE is 7 (RFC 2132, section 9.6). A ping
    // that follows on the same path is answered after it has arrived.
    traffic::ping(laptop.host, LAN)?;
    let released = heard.end()?.matching("udp dst port 67 and udp[250] == 7")?;
    ensure!(released.len() == 1, "{released:?}");
    Ok(())
}
