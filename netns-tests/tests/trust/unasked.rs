//! `sshvpn up` does not open this host: without a request of the user, no connection comes in by
//! the tunnel, and nothing is forwarded between the tunnel and the networks behind the client.
//!
//! ```text
//!   home host ── home laptop wan 192.0.2.1 ── 192.0.2.2 wan bastion lan 198.51.100.1 ── 198.51.100.2 lan host
//!   10.66.0.2          sshvpn up ═ SSH ═ sshd or serve      side 203.0.113.2 ── 203.0.113.1 phone: sshvpn up
//! ```

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};

use anyhow::{Context, Result, ensure};
use netns_tests::lab::sshd::{authorize, introduce};
use netns_tests::lab::topology::{self, Subnet};
use netns_tests::program::vpn::{self, Device};
use netns_tests::serve::Serve;
use netns_tests::serve::lab::{LAN, ServeLab};
use netns_tests::traffic::capture::Capture;
use netns_tests::traffic::{no_ping, opens, ping};
use netns_tests::{Before, Carrier, Child, Host, connect, with_each_carrier};
use nix::sys::signal::Signal;

with_each_carrier!(
    the_lan_opens_no_connection_to_a_client,
    the_lan_opens_none_where_the_bastion_has_iptables_alone,
    the_client_needs_no_remote_end_to_refuse,
    without_nat_the_named_networks_may_open_connections,
    clients_of_one_bastion_do_not_reach_each_other,
    a_client_that_forwards_opens_no_network,
    iptables_does_at_the_client,
    without_any_firewall_the_client_says_so,
    without_connection_tracking_tcp_is_refused,
    errors_on_the_way_come_back,
);

const LAN4: &str = "198.51.100.0/24";
const LAN6: &str = "2001:db8:64::/64";
const HOST4: &str = "198.51.100.2";
const HOST6: &str = "2001:db8:64::2";
const ROUTES: [&str; 5] = ["bastion", "--route", LAN4, "--route", LAN6];
/// Checks that `from` can open a connection to each of these addresses of `to`.
fn all_open(from: &Host, to: &Host, addresses: &[IpAddr]) -> Result<()> {
    ensure!(!addresses.is_empty(), "no address to try");
    for address in addresses {
        let (one, other) = (from.name(), to.name());
        ensure!(
            opens(from, to, *address)?,
            "{one} cannot reach {other} at {address}"
        );
    }
    Ok(())
}

/// Checks that `from` cannot open a connection to any of these addresses of `to`.
fn none_opens(from: &Host, to: &Host, addresses: &[IpAddr]) -> Result<()> {
    ensure!(!addresses.is_empty(), "no address to try");
    for address in addresses {
        let (one, other) = (from.name(), to.name());
        ensure!(
            !opens(from, to, *address)?,
            "{one} reached {other} at {address}"
        );
    }
    Ok(())
}

/// Checks that no datagram of `from` reaches a UDP service of `to` at any of these addresses.
fn no_datagram_arrives(from: &Host, to: &Host, addresses: &[IpAddr]) -> Result<()> {
    for address in addresses {
        let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0);
        let service = to.in_network(|| Ok(UdpSocket::bind(any)?))?;
        service.set_nonblocking(true)?;
        let sender =
            from.in_network(|| Ok(UdpSocket::bind(SocketAddr::new(wildcard(address), 0))?))?;
        sender.send_to(
            b"unasked",
            SocketAddr::new(*address, service.local_addr()?.port()),
        )?;
        // A later ping on the same path arrives later.
        ping(to, &Device::only(from)?.addresses_like(address)?)?;
        let mut buffer = [0; 16];
        let received = service.recv(&mut buffer);
        ensure!(
            received
                .as_ref()
                .is_err_and(|error| error.kind() == ErrorKind::WouldBlock),
            "a datagram of {} arrived at {address}: {received:?}",
            from.name()
        );
    }
    Ok(())
}

fn wildcard(like: &IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

trait AddressesLike {
    fn addresses_like(&self, like: &IpAddr) -> Result<String>;
}

impl AddressesLike for Device {
    /// The device's address of the same family.
    fn addresses_like(&self, like: &IpAddr) -> Result<String> {
        let found = self
            .addresses
            .iter()
            .find(|it| it.is_ipv4() == like.is_ipv4());
        Ok(found.context("no address of that family")?.to_string())
    }
}

/// The lab, with every setting that lets packets pass: the bastion forwards, filters no sources,
/// and is the LAN's default gateway.
fn lab(carrier: Carrier) -> Result<Subnet> {
    let lab = topology::subnet()?;
    carrier.prepare(&lab.direct.bastion)?;
    for host in [&lab.direct.bastion, &lab.direct.laptop] {
        host.sh(
            "for which in all default; do echo 0 >/proc/sys/net/ipv4/conf/$which/rp_filter; done",
        )?;
    }
    lab.direct.bastion.sh(
        "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding",
    )?;
    lab.lan
        .sh("ip route add default via 198.51.100.1; ip -6 route add default via 2001:db8:64::1")?;
    Ok(lab)
}

fn hosts(lab: &Subnet) -> Result<Before<'_>> {
    Before::of(&[&lab.direct.laptop, &lab.direct.bastion, &lab.lan])
}

fn ends(up: Child, before: &Before<'_>) -> Result<()> {
    let output = up.end_with(Signal::SIGINT)?;
    ensure!(output.code() == 0, "{output:?}");
    before.is_back()
}

/// Checks that the client reaches the LAN by the tunnel and the bastion.
fn client_reaches_the_lan(lab: &Subnet) -> Result<()> {
    let laptop = &lab.direct.laptop;
    for address in [HOST4, HOST6] {
        ping(laptop, address)?;
        ensure!(
            opens(laptop, &lab.lan, address.parse()?)?,
            "{address} is not reached"
        );
    }
    Ok(())
}

fn closed_then_open(lab: &Subnet, carrier: Carrier) -> Result<()> {
    let (laptop, bastion) = (&lab.direct.laptop, &lab.direct.bastion);
    let up = carrier.up(laptop, &ROUTES)?;
    let here = Device::only(laptop)?;
    client_reaches_the_lan(lab)?;
    let capture = Capture::start(laptop, &here.name)?;
    none_opens(&lab.lan, laptop, &here.addresses)?;
    // The remote host lets none of these packets into the tunnel.
    let captured = capture.end()?;
    let seen = captured.matching(
        // Resets belong to the client's own, earlier connections.
        "(host 198.51.100.2 and not tcp[tcpflags] & tcp-rst != 0) \
         or (host 2001:db8:64::2 and not (ip6[6] = 6 and ip6[53] & 4 != 0))",
    )?;
    ensure!(seen.is_empty(), "the bastion forwarded {seen:?}");
    none_opens(bastion, laptop, &here.addresses)?;
    ensure!(up.end_with(Signal::SIGINT)?.code() == 0);

    let up = carrier.up(laptop, &[&ROUTES[..], &["--inbound"]].concat())?;
    let here = Device::only(laptop)?;
    client_reaches_the_lan(lab)?;
    all_open(&lab.lan, laptop, &here.addresses)?;
    all_open(bastion, laptop, &here.addresses)?;
    ensure!(up.end_with(Signal::SIGINT)?.code() == 0);
    Ok(())
}

/// Neither a LAN host with a route nor the bastion itself can open one, unless the client requests
/// it.
fn the_lan_opens_no_connection_to_a_client(carrier: Carrier) -> Result<()> {
    let lab = lab(carrier)?;
    let before = hosts(&lab)?;
    closed_then_open(&lab, carrier)?;
    before.is_back()
}

/// Leaves `host` only iptables of this flavour, with the tables that it makes at its first use;
/// [`has_nft_again`] undoes the last part.
fn has_iptables_alone(host: &Host, flavour: &str) -> Result<()> {
    for program in ["iptables", "ip6tables"] {
        host.sh(&format!(
            "for end in '' -restore -save; do
                 ln -sf /usr/sbin/{program}-{flavour}$end /etc/alternatives/{program}$end
             done
             for place in 'nat POSTROUTING' 'mangle FORWARD' 'mangle INPUT' 'filter FORWARD'; do
                 set -- $place
                 {program} -t $1 -A $2 -j ACCEPT; {program} -t $1 -D $2 -j ACCEPT
             done"
        ))?;
    }
    Ok(())
}

/// Hides a program of `host`.
fn hide(host: &Host, program: &str) -> Result<()> {
    host.sh(&format!(
        "mount --bind /dev/null $(readlink -f $(command -v {program}))"
    ))?;
    Ok(())
}

/// Undoes the last [`hide`] of it.
fn show(host: &Host, program: &str) -> Result<()> {
    host.sh(&format!("umount /usr/sbin/{program}"))?;
    Ok(())
}

/// The remote host's rules by iptables of both kinds.
fn the_lan_opens_none_where_the_bastion_has_iptables_alone(carrier: Carrier) -> Result<()> {
    for flavour in ["nft", "legacy"] {
        let lab = lab(carrier)?;
        let bastion = &lab.direct.bastion;
        has_iptables_alone(bastion, flavour)?;
        let before = hosts(&lab)?;
        hide(bastion, "nft")?;
        closed_then_open(&lab, carrier).context(flavour)?;
        show(bastion, "nft")?;
        before.is_back().context(flavour)?;
    }
    Ok(())
}

/// With a remote host that blocks nothing, since it is old or hostile, the client refuses
/// connections by itself, and still answers pings.
fn the_client_needs_no_remote_end_to_refuse(carrier: Carrier) -> Result<()> {
    let lab = lab(carrier)?;
    let (laptop, bastion) = (&lab.direct.laptop, &lab.direct.bastion);
    let before = Before::of(&[laptop])?;
    let up = carrier.up(laptop, &["bastion"])?;
    bastion.sh("nft flush ruleset")?;
    let here = Device::only(laptop)?;
    none_opens(&lab.lan, laptop, &here.addresses)?;
    none_opens(bastion, laptop, &here.addresses)?;
    no_datagram_arrives(bastion, laptop, &here.addresses)?;
    for address in &here.addresses {
        ping(bastion, &address.to_string())?;
    }
    for address in Device::only(bastion)?.addresses {
        ping(laptop, &address.to_string())?;
        ensure!(opens(laptop, bastion, address)?, "{address} is not reached");
    }
    ensure!(up.end_with(Signal::SIGINT)?.code() == 0);
    before.is_back()
}

/// With --no-nat the networks of --route may open connections; others may not.
fn without_nat_the_named_networks_may_open_connections(carrier: Carrier) -> Result<()> {
    let lab = lab(carrier)?;
    let (laptop, bastion) = (&lab.direct.laptop, &lab.direct.bastion);
    let other = Host::new("other")?;
    connect(
        (bastion, "other", &["10.55.0.1/24", "2001:db8:55::1/64"]),
        (&other, "wan", &["10.55.0.2/24", "2001:db8:55::2/64"]),
    )?;
    other.sh("ip route add default via 10.55.0.1; ip -6 route add default via 2001:db8:55::1")?;
    let before = hosts(&lab)?;
    let up = carrier.up(laptop, &[&ROUTES[..], &["--no-nat"]].concat())?;
    laptop.sh(
        "ip route add 10.55.0.0/24 dev sshvpn0; ip -6 route add 2001:db8:55::/64 dev sshvpn0",
    )?;
    let here = Device::only(laptop)?;
    client_reaches_the_lan(&lab)?;
    all_open(&lab.lan, laptop, &here.addresses)?;
    none_opens(&other, laptop, &here.addresses)?;
    ends(up, &before)
}

/// The addresses of both clients.
struct Pair {
    laptop: [&'static str; 2],
    phone: [&'static str; 2],
    route: &'static str,
}

/// The bastion separates two of its clients, even if one requests a route to the other.
fn clients_of_one_bastion_do_not_reach_each_other(carrier: Carrier) -> Result<()> {
    let pairs = [
        Pair {
            laptop: ["10.60.0.1", "10.60.0.2"],
            phone: ["10.60.1.1", "10.60.1.2"],
            route: LAN4,
        },
        Pair {
            laptop: ["fd60::1", "fd60::2"],
            phone: ["fd60:1::1", "fd60:1::2"],
            route: LAN6,
        },
    ];
    let lab = lab(carrier)?;
    let (laptop, bastion) = (&lab.direct.laptop, &lab.direct.bastion);
    let phone = Host::new("phone")?;
    connect(
        (&phone, "wan", &["203.0.113.1/24"]),
        (bastion, "side", &["203.0.113.2/24"]),
    )?;
    introduce(&phone, bastion, &["203.0.113.2"])?;
    authorize(&phone, bastion, "root")?;
    let before = hosts(&lab)?;
    for pair in pairs {
        let arguments = |pair: [&'static str; 2], more: &[&'static str]| {
            let addresses = ["bastion", "--address", pair[0], "--peer-address", pair[1]];
            [&addresses[..], more].concat()
        };
        let target: IpAddr = pair.laptop[0].parse()?;
        let way = ["--route", pair.route, "--route", pair.laptop[0]];
        let other = carrier.up(&phone, &arguments(pair.phone, &way))?;

        let up = carrier.up(laptop, &arguments(pair.laptop, &["--route", pair.route]))?;
        laptop.sh(&format!("ip route add {} dev sshvpn0", pair.phone[0]))?;
        stays_apart(&phone, laptop, target, pair.phone[0])?;
        ensure!(up.end_with(Signal::SIGINT)?.code() == 0);

        let asks = ["--route", pair.route, "--route", pair.phone[0], "--inbound"];
        let up = carrier.up(laptop, &arguments(pair.laptop, &asks))?;
        stays_apart(&phone, laptop, target, pair.phone[0])?;
        // The bastion's rules are what separated them.
        bastion.sh("nft flush ruleset")?;
        ensure!(opens(&phone, laptop, target)?, "no path exists");
        ensure!(up.end_with(Signal::SIGINT)?.code() == 0);
        ensure!(other.end_with(Signal::SIGINT)?.code() == 0);
        before.is_back()?;
    }
    Ok(())
}

fn stays_apart(phone: &Host, laptop: &Host, target: IpAddr, source: &str) -> Result<()> {
    let capture = Capture::start(laptop, "sshvpn0")?;
    none_opens(phone, laptop, &[target])?;
    let seen = capture.end()?.matching("tcp")?;
    ensure!(seen.is_empty(), "of {source}: {seen:?}");
    Ok(())
}

/// agent.toml may let tunnels of its host reach each other; then those that request it do.
#[test]
fn an_agents_host_may_let_its_clients_reach_each_other() -> Result<()> {
    let lab = lab(Carrier::Agent)?;
    let (laptop, bastion) = (&lab.direct.laptop, &lab.direct.bastion);
    bastion.write("/etc/sshvpn/agent.toml", "allow-tunnels = true\n")?;
    let phone = Host::new("phone")?;
    connect(
        (&phone, "wan", &["203.0.113.1/24"]),
        (bastion, "side", &["203.0.113.2/24"]),
    )?;
    introduce(&phone, bastion, &["203.0.113.2"])?;
    authorize(&phone, bastion, "root")?;
    let phones = ["--address", "10.60.1.1", "--peer-address", "10.60.1.2"];
    let way = ["bastion", "--route", "10.60.0.1"];
    let _other = Carrier::Agent.up(&phone, &[&way[..], &phones].concat())?;
    let target = ["10.60.0.1".parse()?];
    let asks = [
        "bastion",
        "--address",
        "10.60.0.1",
        "--peer-address",
        "10.60.0.2",
        "--route",
        "10.60.1.1",
    ];
    let up = Carrier::Agent.up(laptop, &asks)?;
    none_opens(&phone, laptop, &target)?;
    ensure!(up.end_with(Signal::SIGINT)?.code() == 0);
    let _up = Carrier::Agent.up(laptop, &[&asks[..], &["--inbound"]].concat())?;
    all_open(&phone, laptop, &target)
}

/// Adds a network behind the laptop, which forwards.
fn home(lab: &Subnet) -> Result<Host> {
    let (laptop, home) = (&lab.direct.laptop, Host::new("home")?);
    connect(
        (laptop, "home", &["10.66.0.1/24", "2001:db8:66::1/64"]),
        (&home, "wan", &["10.66.0.2/24", "2001:db8:66::2/64"]),
    )?;
    laptop.sh(
        "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding",
    )?;
    home.sh("ip route add default via 10.66.0.1; ip -6 route add default via 2001:db8:66::1")?;
    Ok(home)
}

fn routes_to_home(bastion: &Host) -> Result<Device> {
    let there = Device::only(bastion)?;
    let name = &there.name;
    bastion.sh(&format!(
        "ip route add 10.66.0.0/24 dev {name}; ip -6 route add 2001:db8:66::/64 dev {name}"
    ))?;
    Ok(there)
}

/// The client's host forwards, as with Docker; only a network of --forward may use the tunnel.
fn a_client_that_forwards_opens_no_network(carrier: Carrier) -> Result<()> {
    let lab = lab(carrier)?;
    let (laptop, bastion) = (&lab.direct.laptop, &lab.direct.bastion);
    let home = home(&lab)?;
    let sources = "allow-source = [\"10.66.0.0/24\", \"2001:db8:66::/64\"]\n";
    bastion.write("/etc/sshvpn/agent.toml", sources)?;
    let addresses: [IpAddr; 2] = ["10.66.0.2".parse()?, "2001:db8:66::2".parse()?];
    let before = hosts(&lab)?;

    let up = carrier.up(laptop, &ROUTES)?;
    let there = routes_to_home(bastion)?;
    none_opens(bastion, &home, &addresses)?;
    none_opens(&home, bastion, &there.addresses)?;
    no_ping(&home, HOST4)?;
    let value = laptop.sh("cat /proc/sys/net/ipv4/conf/sshvpn0/forwarding")?;
    ensure!(value.trim() == "0", "forwarding is {value}");
    client_reaches_the_lan(&lab)?;
    ensure!(up.end_with(Signal::SIGINT)?.code() == 0);

    let forward = ["--forward", "10.66.0.0/24", "--forward", "2001:db8:66::/64"];
    let up = carrier.up(laptop, &[&ROUTES[..], &forward].concat())?;
    let there = routes_to_home(bastion)?;
    all_open(&home, bastion, &there.addresses)?;
    none_opens(bastion, &home, &addresses)?;
    ensure!(up.end_with(Signal::SIGINT)?.code() == 0);

    let up = carrier.up(laptop, &[&ROUTES[..], &forward, &["--inbound"]].concat())?;
    routes_to_home(bastion)?;
    all_open(bastion, &home, &addresses)?;
    ends(up, &before)
}

/// The same on a client without nft, by iptables of both kinds.
fn iptables_does_at_the_client(carrier: Carrier) -> Result<()> {
    for flavour in ["nft", "legacy"] {
        let lab = lab(carrier)?;
        let (laptop, bastion) = (&lab.direct.laptop, &lab.direct.bastion);
        let home = home(&lab)?;
        has_iptables_alone(laptop, flavour)?;
        let before = hosts(&lab)?;
        hide(laptop, "nft")?;
        closed_then_open(&lab, carrier).context(flavour)?;
        let up = carrier.up(laptop, &ROUTES)?;
        let there = routes_to_home(bastion)?;
        let addresses = ["10.66.0.2".parse()?, "2001:db8:66::2".parse()?];
        none_opens(bastion, &home, &addresses)?;
        none_opens(&home, bastion, &there.addresses)?;
        let warned = up.stderr().contains("warning");
        ensure!(!warned, "{}", up.stderr());
        up.end_with(Signal::SIGKILL)?;
        vpn::cleanup(laptop)?;
        show(laptop, "nft")?;
        before.is_back().context(flavour)?;
    }
    Ok(())
}

/// One line reports what is missing, and what stays open.
fn without_any_firewall_the_client_says_so(carrier: Carrier) -> Result<()> {
    let lab = lab(carrier)?;
    let laptop = &lab.direct.laptop;
    let before = hosts(&lab)?;
    for program in ["nft", "iptables", "iptables-legacy"] {
        hide(laptop, program)?;
    }
    let up = carrier.up(laptop, &ROUTES)?;
    client_reaches_the_lan(&lab)?;
    let said = up.stderr();
    let warnings: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("warning"))
        .collect();
    ensure!(warnings.len() == 1, "{warnings:?}");
    for part in ["no firewall:", "bastion", "nft", "iptables"] {
        ensure!(
            warnings[0].contains(part),
            "'{part}' is missing: {warnings:?}"
        );
    }
    ensure!(up.end_with(Signal::SIGINT)?.code() == 0);
    for program in ["nft", "xtables-nft-multi", "xtables-legacy-multi"] {
        show(laptop, program)?;
    }
    before.is_back()
}

/// Stands in for nft on a kernel without connection tracking.
const NFT_WITHOUT_TRACKING: &str = r#"#!/bin/bash
input=$(cat)
if [[ $input == *"ct state"* ]]; then
    echo 'Error: Could not process rule: No such file or directory' >&2
    exit 1
fi
/run/lab/nft "$@" <<<"$input"
"#;

/// TCP connections are then refused by their first packet, and a line reports that datagrams are
/// not.
fn without_connection_tracking_tcp_is_refused(carrier: Carrier) -> Result<()> {
    let lab = lab(carrier)?;
    let (laptop, bastion) = (&lab.direct.laptop, &lab.direct.bastion);
    let home = home(&lab)?;
    laptop.write("/run/lab/stand-in", NFT_WITHOUT_TRACKING)?;
    laptop.sh("cp /usr/sbin/nft /run/lab/nft; chmod 755 /run/lab/stand-in
               mount --bind /run/lab/stand-in /usr/sbin/nft")?;
    let before = hosts(&lab)?;
    hide(laptop, "iptables")?;
    hide(laptop, "iptables-legacy")?;
    let up = carrier.up(laptop, &ROUTES)?;
    let here = Device::only(laptop)?;
    client_reaches_the_lan(&lab)?;
    none_opens(bastion, laptop, &here.addresses)?;
    routes_to_home(bastion)?;
    none_opens(
        bastion,
        &home,
        &["10.66.0.2".parse()?, "2001:db8:66::2".parse()?],
    )?;
    let said = up.stderr();
    ensure!(said.contains("connection tracking"), "{said}");
    ensure!(up.end_with(Signal::SIGINT)?.code() == 0);
    show(laptop, "xtables-nft-multi")?;
    show(laptop, "xtables-legacy-multi")?;
    before.is_back()
}

/// The bastion's ICMP error for a packet that is too big for a link beyond it reaches the client.
fn errors_on_the_way_come_back(carrier: Carrier) -> Result<()> {
    let lab = lab(carrier)?;
    let (laptop, bastion) = (&lab.direct.laptop, &lab.direct.bastion);
    bastion.sh("ip link set dev lan mtu 1300")?;
    let before = hosts(&lab)?;
    let up = carrier.up(laptop, &ROUTES)?;
    client_reaches_the_lan(&lab)?;
    for address in [HOST4, HOST6] {
        let ping = [
            "ping", "-n", "-c2", "-i0.2", "-W1", "-M", "do", "-s", "1350", address,
        ];
        laptop.run(&ping)?;
        let way = laptop.sh(&format!("ip route get {address}"))?;
        ensure!(way.contains("mtu 1300"), "{address}: {way}");
    }
    ends(up, &before)
}

/// A server is no more trusted than an agent, whatever its own rules say.
#[test]
fn a_server_opens_no_connection_to_a_client() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let network = "[network]\npool = [\"10.99.0.0/24\", \"fd99::/64\"]\nroute = [\"198.51.100.0/24\"]\n\
                   nat = false\ninbound = true\n";
    let _server = Serve::default().config(network).start(&lab.bastion)?;
    lab.lan.sh("ip route add default via 198.51.100.1")?;
    let before = Before::of(&[&lab.laptop])?;
    let arguments = ["bastion", "--accept-routes"];
    let up = vpn::up(&lab.laptop, &arguments)?;
    let here = Device::only(&lab.laptop)?;
    let ipv4: Vec<IpAddr> = here
        .addresses
        .iter()
        .copied()
        .filter(IpAddr::is_ipv4)
        .collect();
    ping(&lab.laptop, LAN)?;
    none_opens(&lab.bastion, &lab.laptop, &here.addresses)?;
    none_opens(&lab.lan, &lab.laptop, &ipv4)?;
    no_datagram_arrives(&lab.bastion, &lab.laptop, &here.addresses)?;
    ensure!(up.end_with(Signal::SIGINT)?.code() == 0);
    let up = vpn::up(&lab.laptop, &[&arguments[..], &["--inbound"]].concat())?;
    all_open(&lab.bastion, &lab.laptop, &here.addresses)?;
    all_open(&lab.lan, &lab.laptop, &ipv4)?;
    ensure!(up.end_with(Signal::SIGINT)?.code() == 0);
    before.is_back()
}
