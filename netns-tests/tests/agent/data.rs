//! Data through a tunnel by agent arrives byte for byte: of every size and protocol, between
//! networks behind both hosts, checked by kernels without offloads.
//!
//! ```text
//!   branch ────── laptop ══════ SSH ══════ bastion ────── lan host
//!   10.77.0.2     sshvpn0                  sshvpn0    198.51.100.2
//!   2001:db8:77::2                                  2001:db8:64::2
//! ```

use anyhow::{Context, Result, ensure};
use netns_tests::lab::topology::{self, Direct, Subnet};
use netns_tests::program::vpn::Device;
use netns_tests::traffic::capture::Capture;
use netns_tests::traffic::iperf3::{self, Direction, Flow};
use netns_tests::traffic::transfer::both_ways;
use netns_tests::traffic::{echo_every_size, ping};
use netns_tests::{Before, Carrier, Host, connect};
use nix::sys::signal::Signal;

const LAN: [&str; 2] = ["198.51.100.2", "2001:db8:64::2"];
const ROUTES: [&str; 4] = ["--route", "198.51.100.0/24", "--route", "2001:db8:64::/64"];

/// Turns the offloads of `device` of `host` off: packets have at most its MTU, and each has its
/// checksum, which the receiving kernel verifies.
fn without_offloads(host: &Host, device: &str) -> Result<()> {
    host.sh(&format!(
        "ethtool -K {device} rx off tx off sg off tso off gso off gro off >/dev/null"
    ))?;
    Ok(())
}

/// TCP and UDP packets that `host` dropped for a wrong checksum.
fn bad_checksums(host: &Host) -> Result<u64> {
    let text = host.sh("nstat -asz TcpInCsumErrors UdpInCsumErrors Udp6InCsumErrors IcmpInCsumErrors Icmp6InCsumErrors")?;
    let counts = text
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1));
    Ok(counts.filter_map(|count| count.parse::<u64>().ok()).sum())
}

fn subnet() -> Result<Subnet> {
    let lab = topology::subnet()?;
    Carrier::Agent.prepare(&lab.direct.bastion)?;
    without_offloads(&lab.direct.bastion, "lan")?;
    without_offloads(&lab.lan, "lan")?;
    Ok(lab)
}

fn direct() -> Result<Direct> {
    let lab = topology::direct()?;
    Carrier::Agent.prepare(&lab.bastion)?;
    Ok(lab)
}

/// The tunnel's addresses, a pair for each family.
fn pairs(lab: &Direct) -> Result<Vec<(String, String)>> {
    let (local, remote) = (Device::only(&lab.laptop)?, Device::only(&lab.bastion)?);
    ensure!(local.addresses.len() == 2 && remote.addresses.len() == 2);
    let text = local.addresses.iter().zip(&remote.addresses);
    Ok(text
        .map(|(local, remote)| (local.to_string(), remote.to_string()))
        .collect())
}

#[test]
fn host_to_host() -> Result<()> {
    let lab = direct()?;
    let _up = Carrier::Agent.up(&lab.laptop, &["bastion"])?;
    for (_, remote) in pairs(&lab)? {
        both_ways(&lab.laptop, &lab.bastion, &remote, 50)?;
    }
    Ok(())
}

#[test]
fn in_ethernet_frames() -> Result<()> {
    let lab = direct()?;
    let _up = Carrier::Agent.up(&lab.laptop, &["--tap", "bastion"])?;
    for (local, remote) in pairs(&lab)? {
        both_ways(&lab.laptop, &lab.bastion, &remote, 30)?;
        let headers = if remote.contains(':') { 48 } else { 28 };
        echo_every_size(
            (&lab.laptop, &local),
            (&lab.bastion, &remote),
            0..=1500 - headers,
        )?;
    }
    Ok(())
}

#[test]
fn to_the_subnet_with_nat() -> Result<()> {
    let lab = subnet()?;
    let laptop = &lab.direct.laptop;
    let _up = Carrier::Agent.up(laptop, &[&ROUTES[..], &["bastion"]].concat())?;
    for address in LAN {
        both_ways(laptop, &lab.lan, address, 50)?;
    }
    let bad = bad_checksums(&lab.lan)?;
    ensure!(bad == 0, "{bad} checksums were wrong");
    Ok(())
}

/// A network behind each host, without NAT; most packets are not of the tunnel's own addresses.
#[test]
fn between_the_subnets_of_both_ends() -> Result<()> {
    let lab = subnet()?;
    let (laptop, bastion) = (&lab.direct.laptop, &lab.direct.bastion);
    let branch = Host::new("branch")?;
    connect(
        (laptop, "branch", &["10.77.0.1/24", "2001:db8:77::1/64"]),
        (&branch, "wan", &["10.77.0.2/24", "2001:db8:77::2/64"]),
    )?;
    without_offloads(laptop, "branch")?;
    without_offloads(&branch, "wan")?;
    laptop.sh(
        "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding",
    )?;
    branch.sh("ip route add default via 10.77.0.1; ip -6 route add default via 2001:db8:77::1")?;
    lab.lan
        .sh("ip route add default via 198.51.100.1; ip -6 route add default via 2001:db8:64::1")?;
    let sources = "allow-source = [\"10.77.0.0/24\", \"2001:db8:77::/64\"]\n";
    bastion.write("/etc/sshvpn/agent.toml", sources)?;
    let before = Before::of(&[laptop, bastion, &lab.lan, &branch])?;
    let forward = ["--forward", "10.77.0.0/24", "--forward", "2001:db8:77::/64"];
    let more = ["--no-nat", "bastion"];
    let up = Carrier::Agent.up(laptop, &[&ROUTES[..], &forward, &more].concat())?;
    bastion.sh(
        "ip route add 10.77.0.0/24 dev sshvpn0; ip -6 route add 2001:db8:77::/64 dev sshvpn0",
    )?;
    for (local, remote) in [("10.77.0.2", LAN[0]), ("2001:db8:77::2", LAN[1])] {
        both_ways(&branch, &lab.lan, remote, 50)?;
        both_ways(&lab.lan, &branch, local, 10)?;
        let headers = if remote.contains(':') { 48 } else { 28 };
        echo_every_size((&branch, local), (&lab.lan, remote), 0..=1500 - headers)?;
    }
    for host in [&branch, &lab.lan] {
        let bad = bad_checksums(host)?;
        ensure!(bad == 0, "{}: {bad} checksums were wrong", host.name());
    }
    ensure!(up.end_with(Signal::SIGINT)?.code() == 0);
    before.is_back()
}

/// Pings of many sizes, from one without payload to one of 45 fragments.
#[test]
fn pings_of_every_kind() -> Result<()> {
    let lab = subnet()?;
    let (laptop, bastion) = (&lab.direct.laptop, &lab.direct.bastion);
    let _up = Carrier::Agent.up(laptop, &[&ROUTES[..], &["bastion"]].concat())?;
    let targets = pairs(&lab.direct)?;
    for address in LAN {
        sweep(laptop, address)?;
    }
    for (local, remote) in &targets {
        sweep(laptop, remote)?;
        sweep(bastion, local)?;
    }
    Ok(())
}

fn sweep(host: &Host, address: &str) -> Result<()> {
    ping(host, address)?;
    host.sh(&format!(
        "for size in $(seq 0 97 1430) $(seq 1440 1480) 2000 4000 8972 16384 40000 65000; do \
             ping -n -q -c1 -W5 -s $size {address} >/dev/null || {{ echo \"size $size\" >&2; exit 1; }}; \
         done"
    ))
    .with_context(|| format!("{}: ping {address}", host.name()))?;
    Ok(())
}

/// One send call makes many datagrams (UDP_SEGMENT, udp(7)), which the tunnel carries as one
/// packet and the receivers get one by one.
#[test]
fn datagrams_that_are_sent_many_at_once() -> Result<()> {
    let lab = subnet()?;
    let laptop = &lab.direct.laptop;
    let _up = Carrier::Agent.up(laptop, &[&ROUTES[..], &["bastion"]].concat())?;
    for address in LAN {
        let receiver = lab.lan.spawn(&["python3", "-c", RECEIVE, address])?;
        receiver.wait_for_line("ready", netns_tests::PATIENCE)?;
        laptop.run(&["python3", "-c", SEND, address])?.ok()?;
        receiver.wait(netns_tests::PATIENCE)?.ok()?;
    }
    let bad = bad_checksums(&lab.lan)?;
    ensure!(bad == 0, "{bad} checksums were wrong");
    Ok(())
}

/// Sends 20 times 40 datagrams of 1000 bytes and one of 123, numbered.
const SEND: &str = r#"
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
sender = socket.socket(family, socket.SOCK_DGRAM)
sender.setsockopt(socket.IPPROTO_UDP, 103, 1000)
sender.connect((sys.argv[1], 7777))
for batch in range(20):
    sender.send(b"".join(bytes([batch, part]) * 500 for part in range(40)) + bytes([batch, 40]) + bytes(121))
    sender.recv(1)
"#;

/// Receives them in order and answers each batch.
const RECEIVE: &str = r#"
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
receiver = socket.socket(family, socket.SOCK_DGRAM)
receiver.settimeout(10)
receiver.bind((sys.argv[1], 7777))
print("ready", flush=True)
for batch in range(20):
    for part in range(41):
        data, sender = receiver.recvfrom(65536)
        expected = bytes([batch, part]) * 500 if part < 40 else bytes([batch, 40]) + bytes(121)
        assert data == expected, (batch, part, len(data), data[:2])
    receiver.sendto(b"k", sender)
"#;

/// The remote device gets unsegmented packets, in both directions.
#[test]
fn super_packets_cross() -> Result<()> {
    let lab = direct()?;
    let _up = Carrier::Agent.up(&lab.laptop, &["bastion"])?;
    let capture = Capture::start(&lab.bastion, "sshvpn0")?;
    let pairs = pairs(&lab)?;
    for (_, remote) in &pairs {
        for direction in [Direction::Up, Direction::Down] {
            let pace = Some(200_000_000);
            let seconds = 1;
            let flow = Flow {
                direction,
                seconds,
                pace,
            };
            let figures = iperf3::measure(&lab.laptop, &lab.bastion, remote, flow)?;
            ensure!(
                figures.bytes > 1 << 20,
                "almost no data passed: {figures:?}"
            );
        }
    }
    let captured = capture.end()?;
    for (local, remote) in pairs {
        for filter in [format!("src host {local}"), format!("src host {remote}")] {
            let large = captured
                .matching(&format!("greater 1600 and tcp and {filter}"))?
                .len();
            ensure!(large > 20, "{filter}: only {large} packets above the MTU");
        }
    }
    Ok(())
}
