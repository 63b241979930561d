//! Each end of a tunnel guards against the other: packets with addresses that were not agreed,
//! router advertisements and redirects do not reach the other's kernel.
//!
//! ```text
//!   home 10.44.0.2 ── home laptop wan ── wan bastion lan 198.51.100.1 ── 198.51.100.2 lan host
//!                     sshvpn up sshvpn0 ═ SSH ═ device
//! ```

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use netns_tests::attack::inject::{Injector, Payload};
use netns_tests::lab::topology::{self, Subnet};
use netns_tests::program::tunnel::{LOCAL, Mode, REMOTE, Tunnel};
use netns_tests::program::vpn::{self, Device};
use netns_tests::serve::Serve;
use netns_tests::serve::lab::ServeLab;
use netns_tests::traffic::capture::{Capture, Captured};
use netns_tests::traffic::ping;
use netns_tests::{Carrier, Child, Client, Host, connect, with_each_carrier};
use nix::sys::signal::Signal;

with_each_carrier!(
    a_client_takes_packets_of_the_tunnel_alone,
    a_client_on_ethernet_takes_packets_of_its_lan_alone,
    errors_of_routers_outside_of_the_routes_arrive,
);

const LAN4: &str = "198.51.100.0/24";
const LAN6: &str = "2001:db8:64::/64";
/// Addresses of hosts in the routed networks.
const BEHIND: [&str; 2] = ["198.51.100.7", "2001:db8:64::7"];
const HOME: [&str; 2] = ["10.44.0.2", "2001:db8:44::2"];
const HOME_OWN: [&str; 2] = ["10.44.0.1", "2001:db8:44::1"];
const WORLD: [&str; 2] = ["8.8.8.8", "2001:4860::8888"];

/// The port of a datagram after all others.
const LAST_PORT: u16 = 41000;

/// Source, destination, payload.
type Sent<'a> = (&'a str, &'a str, Payload<'a>);

/// Makes a network behind the laptop, to which the laptop forwards everything.
fn with_home(laptop: &Host) -> Result<Host> {
    let home = Host::new("home")?;
    connect(
        (laptop, "home", &["10.44.0.1/24", "2001:db8:44::1/64"]),
        (&home, "home", &["10.44.0.2/24", "2001:db8:44::2/64"]),
    )?;
    laptop.sh(
        "for name in all default; do echo 0 >/proc/sys/net/ipv4/conf/$name/rp_filter; done
         echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding",
    )?;
    home.sh("ip route add default via 10.44.0.1; ip -6 route add default via 2001:db8:44::1")?;
    Ok(home)
}

/// The addresses of a device, IPv4 and IPv6.
fn addresses(device: &Device) -> Result<[String; 2]> {
    let of = |ipv4| {
        let mut all = device.addresses.iter();
        let found = all.find(|address: &&IpAddr| address.is_ipv4() == ipv4);
        found.map(ToString::to_string).context("no address")
    };
    Ok([of(true)?, of(false)?])
}

/// The capture filter for a sent packet.
fn filter((from, to, payload): Sent<'_>) -> Result<String> {
    let kind = match payload {
        Payload::Udp => "udp dst port 9",
        Payload::UdpFrom(port) => return Ok(format!("src host {from} and udp src port {port}")),
        // By the quoted source, after 8 bytes of ICMP and 12 or 8 of IP.
        Payload::Unreachable(quoted, _) => return Ok(quoting(from, to, quoted.parse()?)),
        Payload::Redirect if from.contains(':') => "icmp6 and ip6[40] == 137",
        Payload::Redirect => "icmp[0] == 5",
        Payload::RouterAdvertisement => "icmp6 and ip6[40] == 134",
    };
    Ok(format!("src host {from} and dst host {to} and ({kind})"))
}

fn quoting(from: &str, to: &str, quoted: IpAddr) -> String {
    let (error, place, octets) = match quoted {
        IpAddr::V4(quoted) => ("icmp[0] == 3", "icmp[20", quoted.octets().to_vec()),
        IpAddr::V6(quoted) => ("icmp6 and ip6[40] == 1", "ip6[56", quoted.octets().to_vec()),
    };
    let bytes = octets.iter().enumerate();
    let each: Vec<String> = bytes
        .map(|(index, byte)| format!("{place} + {index}] == {byte}"))
        .collect();
    format!(
        "src host {from} and dst host {to} and {error} and {}",
        each.join(" and ")
    )
}

fn sees(captured: &Captured<'_>, sent: Sent<'_>, expected: bool) -> Result<()> {
    let seen = captured.matching(&filter(sent)?)?;
    ensure!(seen.is_empty() != expected, "{sent:?}: {seen:#?}");
    Ok(())
}

/// Sends `bad` and `good` out of `from`, and checks that only the latter arrive at `to`; `flush`
/// waits until packets in flight have arrived.
fn only_good_ones_arrive(
    (sender, out): (&Host, &str),
    (receiver, into): (&Host, &str),
    bad: &[Sent<'_>],
    good: &[Sent<'_>],
    flush: impl Fn() -> Result<()>,
) -> Result<()> {
    let (leaving, arriving) = (
        Capture::start(sender, out)?,
        Capture::start(receiver, into)?,
    );
    let injector = Injector::open(sender, out)?;
    for (from, to, payload) in bad.iter().chain(good) {
        injector.send(from, to, *payload)?;
    }
    flush()?;
    // Both captures have to be complete, also on a busy machine.
    let (from, to, _) = good[0];
    let last = (from, to, Payload::UdpFrom(LAST_PORT));
    injector.send(from, to, last.2)?;
    leaving.wait_for(&filter(last)?)?;
    arriving.wait_for(&filter(last)?)?;
    let (leaving, arriving) = (leaving.end()?, arriving.end()?);
    for sent in bad.iter().chain(good) {
        sees(&leaving, *sent, true)?;
    }
    for sent in good {
        sees(&arriving, *sent, true)?;
    }
    for sent in bad {
        sees(&arriving, *sent, false)?;
    }
    Ok(())
}

/// Ends it, and checks that its last lines name each of `reasons`.
fn ends_with_reasons(up: Child, reasons: &[&str]) -> Result<()> {
    let output = up.end_with(Signal::SIGINT)?;
    ensure!(output.code() == 0, "{output:?}");
    for reason in reasons {
        let said = format!("dropped ({reason})");
        ensure!(output.stderr.contains(&said), "no '{said}': {output:?}");
    }
    Ok(())
}

/// Packets that a peer may not send to a client, and packets that it may.
fn to_a_client<'a>(
    local: &'a [String; 2],
    remote: &'a [String; 2],
) -> (Vec<Sent<'a>>, Vec<Sent<'a>>) {
    let (mut bad, mut good) = (Vec::new(), Vec::new());
    for family in 0..2 {
        let (local, remote) = (local[family].as_str(), remote[family].as_str());
        for from in [HOME[family], HOME_OWN[family], WORLD[family]] {
            bad.push((from, local, Payload::Udp));
        }
        for to in [
            HOME[family],
            HOME_OWN[family],
            ["224.0.0.251", "ff0e::1"][family],
        ] {
            bad.push((remote, to, Payload::Udp));
        }
        bad.push((BEHIND[family], HOME[family], Payload::Udp));
        bad.push((remote, local, Payload::Redirect));
        let about_others = Payload::Unreachable(HOME_OWN[family], WORLD[family]);
        bad.push((remote, local, about_others));
        bad.push((WORLD[family], local, about_others));
        good.push((remote, local, Payload::Udp));
        good.push((BEHIND[family], local, Payload::Udp));
        good.push((
            WORLD[family],
            local,
            Payload::Unreachable(local, BEHIND[family]),
        ));
    }
    bad.push(("fe80::bad", "ff02::1", Payload::RouterAdvertisement));
    bad.push(("fe80::bad", "fe80::1", Payload::Redirect));
    (bad, good)
}

const REASONS: [&str; 3] = [
    "source not allowed",
    "destination not allowed",
    "router advertisement or redirect",
];

/// No packet from the peer may have a source of the client's LAN, its other addresses or the
/// internet, and the peer reaches only the client's tunnel address.
fn a_client_takes_packets_of_the_tunnel_alone(carrier: Carrier) -> Result<()> {
    let lab = topology::subnet()?;
    let (laptop, bastion) = (&lab.direct.laptop, &lab.direct.bastion);
    carrier.prepare(bastion)?;
    let home = with_home(laptop)?;
    let up = carrier.up(laptop, &["bastion", "--route", LAN4, "--route", LAN6])?;
    let (here, there) = (Device::only(laptop)?, Device::only(bastion)?);
    let (local, remote) = (addresses(&here)?, addresses(&there)?);
    ping(laptop, &remote[0])?;
    let (bad, good) = to_a_client(&local, &remote);
    let behind = Capture::start(&home, "home")?;
    only_good_ones_arrive(
        (bastion, &there.name),
        (laptop, &here.name),
        &bad,
        &good,
        || ping(laptop, &remote[0]),
    )?;
    ping(laptop, HOME[0])?;
    let seen = behind.end()?.matching("udp dst port 9")?;
    ensure!(seen.is_empty(), "forwarded: {seen:#?}");
    ends_with_reasons(up, &REASONS)
}

#[test]
fn a_client_of_serve_takes_packets_of_the_tunnel_alone() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let config = "[network]\npool = [\"10.99.0.0/24\", \"fd99::/64\"]\n\
                  route = [\"198.51.100.0/24\", \"2001:db8:64::/64\"]\n";
    let _server = Serve::default().config(config).start(&lab.bastion)?;
    let _home = with_home(&lab.laptop)?;
    let up = vpn::up(&lab.laptop, &["bastion", "--accept-routes"])?;
    let (here, there) = (Device::only(&lab.laptop)?, Device::only(&lab.bastion)?);
    let (local, remote) = (addresses(&here)?, addresses(&there)?);
    ping(&lab.laptop, &remote[0])?;
    let (bad, good) = to_a_client(&local, &remote);
    only_good_ones_arrive(
        (&lab.bastion, &there.name),
        (&lab.laptop, &here.name),
        &bad,
        &good,
        || ping(&lab.laptop, &remote[0]),
    )?;
    ends_with_reasons(up, &REASONS)
}

/// The LAN is the tunnel's network, with hosts on both sides.
fn a_client_on_ethernet_takes_packets_of_its_lan_alone(carrier: Carrier) -> Result<()> {
    let lab = topology::subnet()?;
    let (laptop, bastion) = (&lab.direct.laptop, &lab.direct.bastion);
    carrier.prepare(bastion)?;
    let _home = with_home(laptop)?;
    let addressed = ["--address", "10.60.0.1", "--peer-address", "10.60.0.2"];
    let arguments = [&["bastion", "--tap", "--route", LAN4][..], &addressed].concat();
    let up = carrier.up(laptop, &arguments)?;
    let (here, there) = (Device::only(laptop)?, Device::only(bastion)?);
    let (local, remote) = (addresses(&here)?, addresses(&there)?);
    ping(laptop, &remote[0])?;
    let mut bad: Vec<Sent<'_>> = vec![
        ("fe80::bad", "ff02::1", Payload::RouterAdvertisement),
        (&remote[1], "ff02::1", Payload::RouterAdvertisement),
        ("fe80::bad", &local[1], Payload::Redirect),
        (&remote[0], &local[0], Payload::Redirect),
        (&remote[0], "255.255.255.255", Payload::UdpFrom(67)),
        ("fe80::bad", &local[1], Payload::UdpFrom(547)),
        (&local[0], &local[0], Payload::Udp),
        (&local[1], &local[1], Payload::Udp),
    ];
    let mut good: Vec<Sent<'_>> = vec![
        (BEHIND[0], &local[0], Payload::Udp),
        (&remote[0], "255.255.255.255", Payload::Udp),
        (&remote[0], "224.0.0.251", Payload::Udp),
        ("fe80::7", "ff02::fb", Payload::Udp),
    ];
    for family in 0..2 {
        bad.push((HOME[family], &local[family], Payload::Udp));
        bad.push((WORLD[family], &local[family], Payload::Udp));
        bad.push((&remote[family], HOME[family], Payload::Udp));
        good.push((&remote[family], &local[family], Payload::Udp));
    }
    only_good_ones_arrive(
        (bastion, &there.name),
        (laptop, &here.name),
        &bad,
        &good,
        || ping(laptop, &remote[0]),
    )?;
    ends_with_reasons(up, &REASONS)
}

/// Path MTU discovery works although the router that sends the error has an address outside of the
/// routes.
fn errors_of_routers_outside_of_the_routes_arrive(carrier: Carrier) -> Result<()> {
    let lab = topology::subnet()?;
    let (laptop, bastion) = (&lab.direct.laptop, &lab.direct.bastion);
    carrier.prepare(bastion)?;
    let deep = Host::new("deep")?;
    connect(
        (&lab.lan, "deep", &["203.0.113.1/24"]),
        (&deep, "wan", &["203.0.113.2/24"]),
    )?;
    deep.sh("ip route add default via 203.0.113.1")?;
    lab.lan
        .sh("echo 1 >/proc/sys/net/ipv4/ip_forward; ip link set dev deep mtu 1300")?;
    bastion.sh("ip route add 203.0.113.0/24 via 198.51.100.2")?;
    let _up = carrier.up(laptop, &["bastion", "--route", "203.0.113.0/24"])?;
    ping(laptop, "203.0.113.2")?;
    let large = [
        "ping",
        "-n",
        "-c2",
        "-W2",
        "-M",
        "do",
        "-s",
        "1400",
        "203.0.113.2",
    ];
    let output = laptop.run(&large)?;
    ensure!(
        output.stdout.contains("From 198.51.100.2") && output.stdout.contains("mtu = 1300"),
        "{output:?}"
    );
    // The kernel has learnt the path MTU.
    let output = laptop.sh("ip route get 203.0.113.2")?;
    ensure!(output.contains("mtu 1300"), "{output}");
    Ok(())
}

/// Packets that a login limited to one network may not send, and packets that it may.
fn to_an_agent<'a>(
    local: &'a [String; 2],
    remote: &'a [String; 2],
) -> (Vec<Sent<'a>>, Vec<Sent<'a>>) {
    let (mut bad, mut good) = (Vec::new(), Vec::new());
    for family in 0..2 {
        let (local, remote) = (local[family].as_str(), remote[family].as_str());
        let wan = ["192.0.2.2", "2001:db8:2::2"][family];
        for from in [BEHIND[family], WORLD[family], wan] {
            bad.push((from, remote, Payload::Udp));
        }
        for to in [
            wan,
            ["198.51.100.1", "2001:db8:64::1"][family],
            WORLD[family],
        ] {
            bad.push((local, to, Payload::Udp));
        }
        bad.push((local, ["224.0.0.251", "ff0e::1"][family], Payload::Udp));
        bad.push((local, remote, Payload::Redirect));
        bad.push((local, remote, Payload::Unreachable(wan, WORLD[family])));
        good.push((local, remote, Payload::Udp));
        good.push((
            local,
            ["198.51.100.2", "2001:db8:64::2"][family],
            Payload::Udp,
        ));
        good.push((local, remote, Payload::Unreachable(remote, local)));
    }
    bad.push(("fe80::bad", "ff02::1", Payload::RouterAdvertisement));
    bad.push(("fe80::bad", "fe80::1", Payload::Redirect));
    (bad, good)
}

fn agent(lab: &Subnet, options: &str, more: &[&str]) -> Result<Child> {
    let bastion = &lab.direct.bastion;
    Carrier::Agent.prepare(bastion)?;
    bastion
        .sh("for name in all default; do echo 0 >/proc/sys/net/ipv4/conf/$name/rp_filter; done")?;
    let command = format!(
        "{} agent {options}",
        netns_tests::program::carrier::INSTALLED
    );
    let by = ["--via", "agent", "--agent-command", &command, "bastion"];
    vpn::up(&lab.direct.laptop, &[&by[..], more].concat())
}

/// The agent's limits apply to its own host's addresses and to its neighbours'.
#[test]
fn an_agent_takes_packets_of_its_local_end_alone() -> Result<()> {
    let lab = topology::subnet()?;
    let (laptop, bastion) = (&lab.direct.laptop, &lab.direct.bastion);
    let allowed = "--allow-route 198.51.100.2 --allow-route 2001:db8:64::2";
    let routes = [
        "--route",
        "198.51.100.2/32",
        "--route",
        "2001:db8:64::2/128",
    ];
    let up = agent(&lab, allowed, &routes)?;
    let (here, there) = (Device::only(laptop)?, Device::only(bastion)?);
    let (local, remote) = (addresses(&here)?, addresses(&there)?);
    ping(laptop, &remote[0])?;
    let (bad, good) = to_an_agent(&local, &remote);
    only_good_ones_arrive(
        (laptop, &here.name),
        (bastion, &there.name),
        &bad,
        &good,
        || ping(laptop, &remote[0]),
    )?;
    ping(laptop, "198.51.100.2")?;
    ensure!(up.end_with(Signal::SIGINT)?.code() == 0);
    Ok(())
}

/// A network behind the client may send if both sides name it.
#[test]
fn an_agent_without_limits_takes_one_source() -> Result<()> {
    let lab = topology::subnet()?;
    let (laptop, bastion) = (&lab.direct.laptop, &lab.direct.bastion);
    let up = agent(&lab, "", &["--route", LAN4])?;
    let (here, there) = (Device::only(laptop)?, Device::only(bastion)?);
    let (local, remote) = (addresses(&here)?, addresses(&there)?);
    ping(laptop, "198.51.100.1")?;
    ping(laptop, "198.51.100.2")?;
    let bad = [
        (HOME[0], remote[0].as_str(), Payload::Udp),
        (&local[0], "169.254.1.1", Payload::Udp),
        (&local[0], "224.0.0.251", Payload::Udp),
        ("fe80::bad", "ff02::1", Payload::RouterAdvertisement),
    ];
    let good = [(local[0].as_str(), "192.0.2.2", Payload::Udp)];
    only_good_ones_arrive(
        (laptop, &here.name),
        (bastion, &there.name),
        &bad,
        &good,
        || ping(laptop, &remote[0]),
    )?;
    ensure!(up.end_with(Signal::SIGINT)?.code() == 0);
    Ok(())
}

fn by_hand(mode: Mode) -> Tunnel<'static> {
    Tunnel {
        client: Client::Sshvpn,
        mode,
        ..Tunnel::default()
    }
}

/// `-w` leaves addresses to the user, but refuses router advertisements and redirects.
#[test]
fn by_hand_router_advertisements_and_redirects_are_refused() -> Result<()> {
    let lab = topology::direct()?;
    let tunnel = by_hand(Mode::PointToPoint).open(&lab.laptop, &lab.bastion)?;
    ping(&lab.laptop, REMOTE[0])?;
    let bad = [
        ("fe80::bad", "ff02::1", Payload::RouterAdvertisement),
        (REMOTE[1], LOCAL[1], Payload::Redirect),
        (REMOTE[0], LOCAL[0], Payload::Redirect),
    ];
    let good = [
        (WORLD[0], LOCAL[0], Payload::Udp),
        (REMOTE[1], LOCAL[1], Payload::Udp),
        ("fe80::7", "ff02::fb", Payload::Udp),
    ];
    only_good_ones_arrive(
        (&lab.bastion, "tun7"),
        (&lab.laptop, "tun3"),
        &bad,
        &good,
        || ping(&lab.laptop, REMOTE[0]),
    )?;
    let output = tunnel.end_with(Signal::SIGTERM)?;
    ensure!(output.code() == 255, "{output:?}");
    Ok(())
}

/// An ethernet tunnel of `-w` may join two networks, one of which has the router.
#[test]
fn by_hand_an_ethernet_tunnel_carries_everything() -> Result<()> {
    let lab = topology::direct()?;
    let _tunnel = by_hand(Mode::Ethernet).open(&lab.laptop, &lab.bastion)?;
    ping(&lab.laptop, REMOTE[0])?;
    let good = [
        ("fe80::bad", "ff02::1", Payload::RouterAdvertisement),
        (WORLD[0], "255.255.255.255", Payload::UdpFrom(67)),
        (WORLD[0], LOCAL[0], Payload::Udp),
    ];
    only_good_ones_arrive(
        (&lab.bastion, "tap7"),
        (&lab.laptop, "tap3"),
        &[],
        &good,
        || ping(&lab.laptop, REMOTE[0]),
    )
}
