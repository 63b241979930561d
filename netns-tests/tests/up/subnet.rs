//! `sshvpn up --route`: reaches the network behind the bastion.
//!
//! ```text
//!   laptop wan 192.0.2.1 ── 192.0.2.2 wan bastion lan 198.51.100.1   ── 198.51.100.2  lan host
//!   sshvpn up  sshvpn0 ═ SSH ═ tunN  sshd             2001:db8:64::1 ── 2001:db8:64::2
//! ```

use anyhow::{Result, ensure};
use netns_tests::lab::topology::{self, Subnet};
use netns_tests::program::vpn::Device;
use netns_tests::traffic::iperf3::{self, Direction, Flow};
use netns_tests::{Before, Carrier, Child, traffic, with_each_carrier};
use nix::sys::signal::Signal;

with_each_carrier!(
    a_forward_chain_that_drops_lets_the_tunnel_through,
    iptables_does_where_nft_is_missing,
    nat_needs_no_route_back,
    without_nat_the_lan_sees_who_asks,
    without_nat_ipv6_goes_by_the_route_back,
    excluded_addresses_stay_outside,
    tcp_fits_a_smaller_link,
    forwarding_is_left_as_it_was,
);

const LAN4: &str = "198.51.100.0/24";
const LAN6: &str = "2001:db8:64::/64";
const HOST4: &str = "198.51.100.2";
const HOST6: &str = "2001:db8:64::2";

fn hosts(lab: &Subnet) -> Result<Before<'_>> {
    Before::of(&[&lab.direct.laptop, &lab.direct.bastion, &lab.lan])
}

fn ends(up: Child, before: &Before<'_>) -> Result<()> {
    let output = up.end_with(Signal::SIGINT)?;
    ensure!(output.code() == 0, "{output:?}");
    before.is_back()
}

/// With a forward chain that drops by default, as with Docker, the tunnel's packets are accepted.
fn a_forward_chain_that_drops_lets_the_tunnel_through(carrier: Carrier) -> Result<()> {
    let lab = topology::subnet()?;
    carrier.prepare(&lab.direct.bastion)?;
    let laptop = &lab.direct.laptop;
    lab.direct
        .bastion
        .sh("iptables -P FORWARD DROP; ip6tables -P FORWARD DROP")?;
    let before = hosts(&lab)?;
    let up = carrier.up(laptop, &["bastion", "--route", LAN4, "--route", LAN6])?;
    traffic::ping(laptop, HOST4)?;
    traffic::ping(laptop, HOST6)?;
    ends(up, &before)
}

/// The bastion has only iptables, with the tables that it makes at its first use, and a forward
/// chain that drops.
fn iptables_does_where_nft_is_missing(carrier: Carrier) -> Result<()> {
    let lab = topology::subnet()?;
    carrier.prepare(&lab.direct.bastion)?;
    let (laptop, bastion) = (&lab.direct.laptop, &lab.direct.bastion);
    for program in ["iptables", "ip6tables"] {
        bastion.sh(&format!("{program} -P FORWARD DROP"))?;
        for (table, chain) in [("nat", "POSTROUTING"), ("mangle", "FORWARD")] {
            bastion.sh(&format!(
                "{program} -t {table} -A {chain} -j ACCEPT; {program} -t {table} -D {chain} -j ACCEPT"
            ))?;
        }
    }
    let before = hosts(&lab)?;
    bastion.sh("mount --bind /dev/null /usr/sbin/nft")?;
    let up = carrier.up(laptop, &["bastion", "--route", LAN4, "--route", LAN6])?;
    traffic::ping(laptop, HOST4)?;
    traffic::ping(laptop, HOST6)?;
    ensure!(
        bastion.sh("iptables -t nat -S")?.contains("MASQUERADE"),
        "no rule of iptables was made"
    );
    let output = up.end_with(Signal::SIGINT)?;
    ensure!(output.code() == 0, "{output:?}");
    bastion.sh("umount /usr/sbin/nft")?;
    before.is_back()
}

fn nat_needs_no_route_back(carrier: Carrier) -> Result<()> {
    let lab = topology::subnet()?;
    carrier.prepare(&lab.direct.bastion)?;
    let laptop = &lab.direct.laptop;
    let before = hosts(&lab)?;
    traffic::no_ping(laptop, HOST4)?;
    let up = carrier.up(laptop, &["bastion", "--route", LAN4, "--route", LAN6])?;
    traffic::ping(laptop, HOST4)?;
    traffic::ping(laptop, HOST6)?;
    for (address, direction) in [(HOST4, Direction::Up), (HOST6, Direction::Down)] {
        let flow = Flow {
            direction,
            seconds: 1,
            pace: None,
        };
        let figures = iperf3::measure(laptop, &lab.lan, address, flow)?;
        ensure!(
            figures.bytes > 1 << 20,
            "almost no data passed: {figures:?}"
        );
    }
    let device = Device::only(laptop)?;
    ensure!(device.mtu == 1500, "not the MTU of Ethernet: {device:?}");
    ends(up, &before)
}

fn without_nat_the_lan_sees_who_asks(carrier: Carrier) -> Result<()> {
    let lab = topology::subnet()?;
    carrier.prepare(&lab.direct.bastion)?;
    let laptop = &lab.direct.laptop;
    lab.lan.sh("ip route add 10.60.0.0/24 via 198.51.100.1")?;
    let before = hosts(&lab)?;
    let arguments = ["bastion", "--route", LAN4, "--no-nat"];
    let addresses = ["--address", "10.60.0.1", "--peer-address", "10.60.0.2"];
    let up = carrier.up(laptop, &[&arguments[..], &addresses].concat())?;
    traffic::ping(laptop, HOST4)?;
    // With NAT the LAN host would see the bastion's address, not the laptop's.
    traffic::ping(&lab.lan, "10.60.0.1")?;
    ends(up, &before)
}

fn without_nat_ipv6_goes_by_the_route_back(carrier: Carrier) -> Result<()> {
    let lab = topology::subnet()?;
    carrier.prepare(&lab.direct.bastion)?;
    let laptop = &lab.direct.laptop;
    lab.lan.sh("ip -6 route add fd60::/64 via 2001:db8:64::1")?;
    let before = hosts(&lab)?;
    let arguments = ["bastion", "--route", LAN6, "--no-nat"];
    let addresses = ["--address", "fd60::1", "--peer-address", "fd60::2"];
    let up = carrier.up(laptop, &[&arguments[..], &addresses].concat())?;
    traffic::ping(laptop, HOST6)?;
    traffic::ping(&lab.lan, "fd60::1")?;
    ends(up, &before)
}

fn excluded_addresses_stay_outside(carrier: Carrier) -> Result<()> {
    let lab = topology::subnet()?;
    carrier.prepare(&lab.direct.bastion)?;
    let laptop = &lab.direct.laptop;
    lab.lan.sh("ip address add 198.51.100.130/24 dev lan")?;
    let before = hosts(&lab)?;
    let arguments = ["bastion", "--route", LAN4, "--exclude", "198.51.100.128/25"];
    let up = carrier.up(laptop, &arguments)?;
    traffic::ping(laptop, HOST4)?;
    traffic::no_ping(laptop, "198.51.100.130")?;
    ends(up, &before)
}

/// TCP passes although the bastion's link to the LAN has a smaller MTU than the tunnel and the LAN
/// host, and no errors about too big packets arrive: the segment size is clamped.
fn tcp_fits_a_smaller_link(carrier: Carrier) -> Result<()> {
    let lab = topology::subnet()?;
    carrier.prepare(&lab.direct.bastion)?;
    let (laptop, bastion) = (&lab.direct.laptop, &lab.direct.bastion);
    bastion.sh("ip link set dev lan mtu 1300")?;
    bastion.sh("nft add table ip lab
         nft 'add chain ip lab out { type filter hook output priority 0; }'
         nft add rule ip lab out icmp type destination-unreachable drop")?;
    let before = hosts(&lab)?;
    let up = carrier.up(laptop, &["bastion", "--route", LAN4])?;
    traffic::ping(laptop, HOST4)?;
    for direction in [Direction::Up, Direction::Down] {
        let flow = Flow {
            direction,
            seconds: 1,
            pace: None,
        };
        let figures = iperf3::measure(laptop, &lab.lan, HOST4, flow)?;
        ensure!(
            figures.bytes > 1 << 20,
            "{direction:?}: almost no data passed: {figures:?}"
        );
    }
    ends(up, &before)
}

/// Interfaces that forward before the tunnel forward afterwards, and no others do.
fn forwarding_is_left_as_it_was(carrier: Carrier) -> Result<()> {
    let lab = topology::subnet()?;
    carrier.prepare(&lab.direct.bastion)?;
    lab.direct.bastion.sh(
        "echo 1 >/proc/sys/net/ipv6/conf/lan/forwarding; echo 1 >/proc/sys/net/ipv4/conf/lan/forwarding; \
         echo 2 >/proc/sys/net/ipv6/conf/wan/accept_ra",
    )?;
    let before = hosts(&lab)?;
    let up = carrier.up(
        &lab.direct.laptop,
        &["bastion", "--route", LAN4, "--route", LAN6],
    )?;
    traffic::ping(&lab.direct.laptop, HOST4)?;
    traffic::ping(&lab.direct.laptop, HOST6)?;
    ends(up, &before)
}
