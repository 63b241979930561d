//! The limits of an agent: the client gets an error before anything is changed, and packets beyond
//! the limits do not pass.
//!
//! ```text
//!   laptop wan 192.0.2.1 ── 192.0.2.2 wan bastion lan 198.51.100.1 ── 198.51.100.2, .3 lan host
//!   sshvpn up  sshvpn0 ═ SSH ═ sshd ─► sshvpn agent --allow-route … sshvpn0
//! ```

use anyhow::{Result, ensure};
use netns_tests::lab::topology::{self, Subnet};
use netns_tests::program::carrier::{INSTALLED, install};
use netns_tests::program::vpn::{self, Device};
use netns_tests::traffic::{no_ping, ping};
use netns_tests::{Before, Child};
use nix::sys::signal::Signal;

const LIMITS: &str = "/etc/sshvpn/agent.toml";
const LAN4: &str = "198.51.100.0/24";
const LAN6: &str = "2001:db8:64::/64";

/// The lab with an agent whose host has this agent.toml; the LAN host has two addresses.
fn lab(limits: &str) -> Result<Subnet> {
    let lab = topology::subnet()?;
    install(&lab.direct.bastion)?;
    lab.lan.sh("ip address add 198.51.100.3/24 dev lan")?;
    if !limits.is_empty() {
        lab.direct.bastion.write(LIMITS, limits)?;
    }
    Ok(lab)
}

/// The lab with only iptables on the agent's host, and the tables that it makes at its first use.
fn lab_without_nft() -> Result<Subnet> {
    let lab = lab("")?;
    for program in ["iptables", "ip6tables"] {
        lab.direct.bastion.sh(&format!(
            "{program} -t mangle -A FORWARD -j ACCEPT; {program} -t mangle -D FORWARD -j ACCEPT
             {program} -t nat -A POSTROUTING -j ACCEPT; {program} -t nat -D POSTROUTING -j ACCEPT"
        ))?;
    }
    let bastion = &lab.direct.bastion;
    bastion.sh("mount --bind /dev/null /usr/sbin/nft")?;
    Ok(lab)
}

fn hosts(lab: &Subnet) -> Result<Before<'_>> {
    Before::of(&[&lab.direct.laptop, &lab.direct.bastion, &lab.lan])
}

/// The command `sshvpn up --via agent ARGUMENTS bastion`, with an agent with these options.
fn arguments<'a>(command: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let by = ["--via", "agent", "--agent-command", command];
    [&by[..], more, &["bastion"]].concat()
}

fn up(lab: &Subnet, options: &str, more: &[&str]) -> Result<Child> {
    let command = format!("{INSTALLED} agent {options}");
    vpn::up(&lab.direct.laptop, &arguments(&command, more))
}

/// Checks that `up` fails with a message that contains `parts`, and changes nothing.
fn is_denied(lab: &Subnet, options: &str, more: &[&str], parts: &[&str]) -> Result<()> {
    let before = hosts(lab)?;
    let command = format!("{INSTALLED} agent {options}");
    let line = vpn::command(&arguments(&command, more))?;
    let output = lab.direct.laptop.run(&line)?;
    vpn::fails_clearly(&output, None, &[&["bastion"], parts].concat())?;
    before.is_back()
}

fn ends(up: Child, before: &Before<'_>) -> Result<()> {
    let output = up.end_with(Signal::SIGINT)?;
    ensure!(output.code() == 0, "{output:?}");
    before.is_back()
}

#[test]
fn a_route_that_is_not_allowed() -> Result<()> {
    let lab = lab("")?;
    let allowed = "--allow-route 10.0.0.0/8 --allow-route 198.51.100.2/32";
    let parts = [
        "does not permit forwarding to 198.51.100.0/24",
        "198.51.100.2/32",
        "--allow-route",
    ];
    is_denied(&lab, allowed, &["--route", LAN4], &parts)?;
    is_denied(
        &lab,
        "--no-forward",
        &["--route", LAN4],
        &["does not permit forwarding", "none"],
    )?;
    // A list of one family permits nothing of the other.
    is_denied(
        &lab,
        "--allow-route 0.0.0.0/0",
        &["--route", LAN6],
        &["does not permit forwarding"],
    )
}

/// Packets to destinations beyond the limits do not pass, though the bastion forwards for others.
fn packets_beyond_an_allowed_route(lab: &Subnet) -> Result<()> {
    let (laptop, bastion) = (&lab.direct.laptop, &lab.direct.bastion);
    bastion.sh(
        "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding",
    )?;
    lab.lan
        .sh("ip route add default via 198.51.100.1; ip -6 route add default via 2001:db8:64::1")?;
    let before = hosts(lab)?;
    let tunnel = up(
        lab,
        "--allow-route 198.51.100.2",
        &["--route", "198.51.100.2/32"],
    )?;
    laptop.sh(&format!(
        "ip route add {LAN4} dev sshvpn0; ip -6 route add {LAN6} dev sshvpn0"
    ))?;
    ping(laptop, "198.51.100.2")?;
    no_ping(laptop, "198.51.100.3")?;
    no_ping(laptop, "2001:db8:64::2")?;
    // The limits also apply to the bastion's own addresses, except for the tunnel's.
    no_ping(laptop, "198.51.100.1")?;
    ping(
        laptop,
        &Device::only(&lab.direct.bastion)?.addresses[0].to_string(),
    )?;
    ends(tunnel, &before)
}

#[test]
fn packets_beyond_an_allowed_route_are_dropped() -> Result<()> {
    packets_beyond_an_allowed_route(&lab("")?)
}

#[test]
fn packets_beyond_an_allowed_route_are_dropped_by_iptables() -> Result<()> {
    packets_beyond_an_allowed_route(&lab_without_nft()?)
}

/// Allowed packets pass, in both families and by either firewall.
fn allowed_routes(lab: &Subnet) -> Result<()> {
    let before = hosts(lab)?;
    let allowed = format!("--allow-route {LAN4} --allow-route {LAN6}");
    let tunnel = up(lab, &allowed, &["--route", LAN4, "--route", LAN6])?;
    for address in ["198.51.100.2", "2001:db8:64::2"] {
        ping(&lab.direct.laptop, address)?;
    }
    for address in Device::only(&lab.direct.bastion)?.addresses {
        ping(&lab.direct.laptop, &address.to_string())?;
    }
    ends(tunnel, &before)
}

#[test]
fn allowed_routes_pass() -> Result<()> {
    allowed_routes(&lab("")?)
}

#[test]
fn allowed_routes_pass_by_iptables() -> Result<()> {
    allowed_routes(&lab_without_nft()?)
}

/// The client may only use a premade device if a limit names it, or without limits.
#[test]
fn an_agent_with_limits_takes_no_device_that_exists() -> Result<()> {
    let lab = lab("")?;
    // Setting it up once gives it the queueing discipline of a used device.
    lab.direct.bastion.sh(
        "ip tuntap add dev tun5 mode tun; ip address add 10.55.0.1/24 dev tun5
         ip link set tun5 up; ip link set tun5 down",
    )?;
    let before = hosts(&lab)?;
    let exists = ["tun5 exists on this host already"];
    for options in ["--no-nat", "--no-forward", "--max-mtu 1400"] {
        is_denied(&lab, options, &["--peer-unit", "5"], &exists)?;
    }
    for options in ["", "--device-prefix tun5"] {
        let tunnel = up(&lab, options, &["--peer-unit", "5"])?;
        ends(tunnel, &before)?;
    }
    Ok(())
}

#[test]
fn without_forwarding_the_tunnel_address_is_reached() -> Result<()> {
    let lab = lab("")?;
    let (laptop, bastion) = (&lab.direct.laptop, &lab.direct.bastion);
    bastion.sh("echo 1 >/proc/sys/net/ipv4/ip_forward")?;
    lab.lan.sh("ip route add default via 198.51.100.1")?;
    let before = hosts(&lab)?;
    let tunnel = up(&lab, "--no-forward", &[])?;
    laptop.sh(&format!("ip route add {LAN4} dev sshvpn0"))?;
    for address in Device::only(bastion)?.addresses {
        ping(laptop, &address.to_string())?;
    }
    no_ping(laptop, "198.51.100.1")?;
    no_ping(laptop, "198.51.100.2")?;
    ends(tunnel, &before)
}

/// Packets with a source address that is not routed into the tunnel do not pass.
fn a_foreign_source_address(lab: &Subnet) -> Result<()> {
    let laptop = &lab.direct.laptop;
    lab.lan.sh("ip route add default via 198.51.100.1")?;
    // Only the agent's table may drop it, not the kernel's reverse path filter.
    lab.direct.bastion.sh(
        "echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter; echo 0 >/proc/sys/net/ipv4/conf/default/rp_filter",
    )?;
    laptop.sh("ip address add 203.0.113.9/32 dev lo")?;
    let before = hosts(lab)?;
    let tunnel = up(lab, &format!("--allow-route {LAN4}"), &["--route", LAN4])?;
    ping(laptop, "198.51.100.2")?;
    let capture = netns_tests::traffic::capture::Capture::start(&lab.lan, "lan")?;
    let output = laptop.run(&[
        "ping",
        "-n",
        "-c3",
        "-i0.1",
        "-W1",
        "-I",
        "203.0.113.9",
        "198.51.100.2",
    ])?;
    ensure!(!output.status.success(), "{output:?}");
    // A later ping passes the same queue, so earlier packets have arrived.
    ping(laptop, "198.51.100.2")?;
    let captured = capture.end()?;
    ensure!(
        !captured.matching("icmp")?.is_empty(),
        "the capture shows nothing"
    );
    let foreign = captured.matching("host 203.0.113.9")?;
    ensure!(foreign.is_empty(), "{foreign:?}");
    ends(tunnel, &before)
}

#[test]
fn a_foreign_source_address_is_dropped() -> Result<()> {
    a_foreign_source_address(&lab("")?)
}

#[test]
fn a_foreign_source_address_is_dropped_by_iptables() -> Result<()> {
    a_foreign_source_address(&lab_without_nft()?)
}

#[test]
fn nat_that_is_not_allowed() -> Result<()> {
    let lab = lab("")?;
    is_denied(
        &lab,
        "--no-nat",
        &["--route", LAN4],
        &["does not permit NAT", "--no-nat"],
    )?;
    lab.lan.sh("ip route add default via 198.51.100.1")?;
    let before = hosts(&lab)?;
    let tunnel = up(&lab, "--no-nat", &["--route", LAN4, "--no-nat"])?;
    ping(&lab.direct.laptop, "198.51.100.2")?;
    ends(tunnel, &before)
}

#[test]
fn addresses_that_are_not_allowed() -> Result<()> {
    let lab = lab("")?;
    let allowed = "--allow-address 10.50.0.0/24 --allow-address fd50::/64";
    let asked = ["--address", "10.60.0.1", "--peer-address", "10.60.0.2"];
    is_denied(
        &lab,
        allowed,
        &asked,
        &["tunnel address 10.60.0.", "10.50.0.0/24", "--allow-address"],
    )?;
    // The address of another host would replace that host.
    let local = ["--address", "198.51.100.2", "--peer-address", "10.50.0.2"];
    is_denied(&lab, allowed, &local, &["tunnel address 198.51.100.2"])?;
    let before = hosts(&lab)?;
    let tunnel = up(&lab, allowed, &[])?;
    for address in Device::only(&lab.direct.bastion)?.addresses {
        let text = address.to_string();
        ensure!(
            text.starts_with("10.50.0.") || text.starts_with("fd50::"),
            "{text}"
        );
        ping(&lab.direct.laptop, &text)?;
    }
    ends(tunnel, &before)
}

#[test]
fn an_mtu_that_is_not_allowed() -> Result<()> {
    let lab = lab("")?;
    is_denied(
        &lab,
        "--max-mtu 1300",
        &["--mtu", "1400"],
        &["an MTU of at most 1300, not 1400"],
    )
}

/// The file limits every agent of the host; a command line only narrows that.
#[test]
fn the_file_binds_every_agent() -> Result<()> {
    let lab =
        lab("allow-route = [\"198.51.100.0/25\"]\nmax-mtu = 1350\ndevice-prefix = \"vpn\"\n")?;
    let wide = "--allow-route 0.0.0.0/0 --max-mtu 9000";
    is_denied(
        &lab,
        wide,
        &["--route", LAN4],
        &["does not permit forwarding", "198.51.100.0/25"],
    )?;
    let narrow = "--allow-route 198.51.100.3";
    is_denied(
        &lab,
        narrow,
        &["--route", "198.51.100.0/25"],
        &["permitted: 198.51.100.3/32"],
    )?;
    is_denied(
        &lab,
        "--device-prefix other",
        &[],
        &["--device-prefix other", "'vpn'"],
    )?;
    let before = hosts(&lab)?;
    let tunnel = up(&lab, "", &["--route", "198.51.100.0/25"])?;
    let device = Device::only(&lab.direct.bastion)?;
    ensure!(
        (device.name.as_str(), device.mtu) == ("vpn0", 1350),
        "{device:?}"
    );
    ping(&lab.direct.laptop, "198.51.100.2")?;
    ends(tunnel, &before)
}

#[test]
fn a_file_that_others_can_write_is_refused() -> Result<()> {
    let lab = lab("no-forward = true\n")?;
    let bastion = &lab.direct.bastion;
    for how in ["chmod 666", "chmod 664", "chown 1000"] {
        bastion.sh(&format!("{how} {LIMITS}"))?;
        let parts = [
            LIMITS,
            "must belong to root and no other user may write to it",
        ];
        is_denied(&lab, "", &[], &parts)?;
        bastion.sh(&format!("chmod 644 {LIMITS}; chown 0 {LIMITS}"))?;
    }
    // A directory in which other users can replace the file.
    bastion.sh("chmod 777 /etc/sshvpn")?;
    is_denied(&lab, "", &[], &["/etc/sshvpn must belong to root"])?;
    bastion.sh("chmod 755 /etc/sshvpn")?;
    for text in ["allow-route = 5\n", "no-foward = true\n", "[[[\n"] {
        bastion.write(LIMITS, text)?;
        is_denied(&lab, "", &[], &[LIMITS, "line 1"])?;
    }
    bastion.write(LIMITS, "no-forward = true\n")?;
    let before = hosts(&lab)?;
    ends(up(&lab, "", &[])?, &before)
}
