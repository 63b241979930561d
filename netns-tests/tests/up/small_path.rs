//! `sshvpn up` over a path whose router drops packets of more than 1300 bytes and reports nothing.
//!
//! ```text
//!   laptop wan 192.0.2.1 ── 192.0.2.2 router 203.0.113.1 ── 203.0.113.2 wan bastion (sshd)
//!              2001:db8:2::1 ── ::2          2001:db8:3::1 ── ::2
//! ```

use anyhow::{Result, ensure};
use netns_tests::lab::sshd::{Sshd, authorize, introduce};
use netns_tests::program::vpn::{self, Device};
use netns_tests::{Before, Carrier, Child, Host, PATIENCE, connect, with_each_carrier};
use nix::sys::signal::Signal;

with_each_carrier!(a_path_that_drops_large_packets_gets_small_segments);

struct Lab {
    laptop: Host,
    router: Host,
    bastion: Host,
    _sshd: Child,
}

const RSA_KEY: &str = "/etc/ssh/ssh_host_rsa_key";

fn lab(carrier: Carrier) -> Result<Lab> {
    lab_with(carrier, &Sshd::default())
}

fn lab_with(carrier: Carrier, sshd: &Sshd) -> Result<Lab> {
    let (laptop, router, bastion) = (
        Host::new("laptop")?,
        Host::new("router")?,
        Host::new("bastion")?,
    );
    connect(
        (&laptop, "wan", &["192.0.2.1/24", "2001:db8:2::1/64"]),
        (&router, "near", &["192.0.2.2/24", "2001:db8:2::2/64"]),
    )?;
    connect(
        (&router, "far", &["203.0.113.1/24", "2001:db8:3::1/64"]),
        (&bastion, "wan", &["203.0.113.2/24", "2001:db8:3::2/64"]),
    )?;
    laptop.sh("ip route add default via 192.0.2.2; ip -6 route add default via 2001:db8:2::2")?;
    bastion
        .sh("ip route add default via 203.0.113.1; ip -6 route add default via 2001:db8:3::1")?;
    router.sh(
        "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding",
    )?;
    // Packets of the wire, not the kernel's super-packets, are to meet the router's filter.
    for (host, device) in [
        (&laptop, "wan"),
        (&bastion, "wan"),
        (&router, "near"),
        (&router, "far"),
    ] {
        host.sh(&format!(
            "ethtool -K {device} tso off gso off gro off tx off"
        ))?;
    }
    introduce(&laptop, &bastion, &["203.0.113.2", "2001:db8:3::2"])?;
    authorize(&laptop, &bastion, "root")?;
    carrier.prepare(&bastion)?;
    bastion.sh(&format!("ssh-keygen -q -t rsa -b 4096 -N '' -f {RSA_KEY}"))?;
    let sshd = sshd.start(&bastion)?;
    Ok(Lab {
        laptop,
        router,
        bastion,
        _sshd: sshd,
    })
}

/// Drops what is larger than 1300 bytes, without a report.
fn narrow(router: &Host) -> Result<()> {
    router.sh("nft add table inet lab
         nft 'add chain inet lab through { type filter hook forward priority 0; }'
         nft add rule inet lab through meta length gt 1300 counter drop")?;
    Ok(())
}

/// Comes up with small segments, for both families, carries full packets, and leaves nothing.
fn a_path_that_drops_large_packets_gets_small_segments(carrier: Carrier) -> Result<()> {
    let lab = lab(carrier)?;
    narrow(&lab.router)?;
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    for family in ["AddressFamily=inet", "AddressFamily=inet6"] {
        let up = comes_up(carrier, &lab.laptop, &["bastion", "-o", family])?;
        let said = up.stderr();
        let part = "(path MTU): connecting again with segments of at most 1200 bytes";
        ensure!(said.matches(part).count() == 1, "{said}");
        carries_full_packets(&lab)?;
        let output = up.end_with(Signal::SIGINT)?;
        ensure!(output.code() == 0, "{output:?}");
        before.is_back()?;
    }
    let up = comes_up(
        carrier,
        &lab.laptop,
        &["bastion", "--segment-size", "1200", "--strict"],
    )?;
    ensure!(!up.stderr().contains("warning"), "{}", up.stderr());
    carries_full_packets(&lab)?;
    up.end_with(Signal::SIGINT)?;
    before.is_back()
}

fn carries_full_packets(lab: &Lab) -> Result<()> {
    let remote = Device::only(&lab.bastion)?;
    for address in &remote.addresses {
        let length = if address.is_ipv4() { "1472" } else { "1452" };
        let address = address.to_string();
        let ping = ["ping", "-n", "-c3", "-i0.2", "-W3", "-s", length, &address];
        lab.laptop.run(&ping)?.ok()?;
    }
    Ok(())
}

/// The server's answer in the key exchange is the first packet that is too large.
#[test]
fn a_stalled_key_exchange_gets_small_segments() -> Result<()> {
    let lab = lab_with(Carrier::Agent, &Sshd::default().set("HostKey", RSA_KEY))?;
    narrow(&lab.router)?;
    let up = comes_up(
        Carrier::Agent,
        &lab.laptop,
        &[
            "bastion",
            "-o",
            "KexAlgorithms=diffie-hellman-group14-sha256",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
        ],
    )?;
    let said = up.stderr();
    let part = "large packets to bastion get lost on the way";
    ensure!(said.contains(part), "'{part}' is missing: {said}");
    carries_full_packets(&lab)?;
    up.end_with(Signal::SIGINT)?;
    Ok(())
}

/// Only the way back is narrow: nothing that this host sends gets lost.
#[test]
fn a_way_back_that_drops_large_packets_is_reported() -> Result<()> {
    let lab = lab(Carrier::Agent)?;
    lab.router.sh("nft add table inet lab
         nft 'add chain inet lab through { type filter hook forward priority 0; }'
         nft add rule inet lab through iifname far meta length gt 1300 counter drop")?;
    let up = comes_up(Carrier::Agent, &lab.laptop, &["bastion"])?;
    let said = up.stderr();
    let part = "answers small packets through the tunnel, and none of 1500 bytes";
    ensure!(said.contains(part), "'{part}' is missing: {said}");
    up.end_with(Signal::SIGINT)?;
    Ok(())
}

/// Starts `sshvpn up`, which takes longer here than usually, and waits until it is up.
fn comes_up(carrier: Carrier, host: &Host, arguments: &[&str]) -> Result<Child> {
    let child = host.spawn(&vpn::command(&carrier.arguments(arguments))?)?;
    child.wait_for_line("up:", 3 * PATIENCE)?;
    Ok(child)
}
