//! `sshvpn up --route auto`: reaches the networks that the bastion is connected to or has routes to,
//! shows them before it takes them, and says why it leaves others out.
//!
//! ```text
//!   laptop wan 192.0.2.1 ── 192.0.2.2 wan bastion lan 198.51.100.1   ── 198.51.100.2  lan host ── 10.77.0.1
//!     lab 172.31.0.1                        lab 172.31.0.1           2001:db8:64::2   lan host ── fd77::1
//! ```

use anyhow::{Result, ensure};
use netns_tests::lab::topology::{self, Subnet};
use netns_tests::program::vpn::{self, fails_clearly};
use netns_tests::{Before, Carrier, Child, Host, traffic, with_each_carrier};
use nix::sys::signal::Signal;

with_each_carrier!(
    networks_of_both_families_are_taken,
    excludes_and_named_routes_stay_what_they_are,
    nothing_to_take_is_an_error,
);

fn lab(carrier: Carrier) -> Result<Subnet> {
    let lab = topology::subnet()?;
    carrier.prepare(&lab.direct.bastion)?;
    let bastion = &lab.direct.bastion;
    for host in [&lab.direct.laptop, bastion] {
        host.sh(
            "ip link add lab type veth peer name other; ip link set lab up; ip link set other up
             ip address add 172.31.0.1/24 dev lab",
        )?;
    }
    bastion.sh(
        "ip route add default via 198.51.100.2; ip -6 route add default via 2001:db8:64::2
         ip route add 10.77.0.0/16 via 198.51.100.2; ip -6 route add fd77::/48 via 2001:db8:64::2
         ip route add blackhole 10.66.0.0/16; ip route add 10.55.0.0/16 dev lan table 55
         ip tuntap add dev tun9 mode tun; ip link set tun9 up; ip address add 10.44.0.1 peer 10.44.0.2 dev tun9",
    )?;
    lab.lan
        .sh("ip address add 10.77.0.1/32 dev lo; ip address add fd77::1/128 dev lo")?;
    Ok(lab)
}

/// The networks that it says it takes.
fn taken(up: &Child) -> Vec<String> {
    let said = up.stderr();
    let lists = said
        .lines()
        .filter_map(|line| line.split_once("--route auto takes "));
    lists
        .flat_map(|(_, list)| list.split(", "))
        .map(str::to_owned)
        .collect()
}

fn reaches(host: &Host, addresses: &[&str]) -> Result<()> {
    addresses
        .iter()
        .try_for_each(|address| traffic::ping(host, address))
}

fn networks_of_both_families_are_taken(carrier: Carrier) -> Result<()> {
    let lab = lab(carrier)?;
    let (laptop, bastion) = (&lab.direct.laptop, &lab.direct.bastion);
    let before = Before::of(&[laptop, bastion])?;
    let up = carrier.up(laptop, &["bastion", "--route", "auto", "--strict"])?;
    let all = [
        "10.77.0.0/16",
        "198.51.100.0/24",
        "2001:db8:64::/64",
        "fd77::/48",
    ];
    ensure!(taken(&up) == all, "{}", up.stderr());
    let said = up.stderr();
    for part in [
        "bastion: --route auto leaves out 172.31.0.0/24: this host has 172.31.0.0/24 itself, on lab",
        "bastion: --route auto leaves out 192.0.2.0/24: this host has 192.0.2.0/24 itself, on wan",
        "here: route 10.77.0.0/16",
    ] {
        ensure!(said.contains(part), "'{part}' is missing: {said}");
    }
    reaches(
        laptop,
        &["198.51.100.2", "10.77.0.1", "2001:db8:64::2", "fd77::1"],
    )?;
    let output = up.end_with(Signal::SIGINT)?;
    ensure!(output.code() == 0, "{output:?}");
    before.is_back()
}

fn excludes_and_named_routes_stay_what_they_are(carrier: Carrier) -> Result<()> {
    let lab = lab(carrier)?;
    let laptop = &lab.direct.laptop;
    let before = Before::of(&[laptop, &lab.direct.bastion])?;
    let arguments = [
        "bastion",
        "--route",
        "auto",
        "--route",
        "10.77.0.0/24",
        "--exclude",
        "198.51.100.128/25",
        "--exclude",
        "fd77::/48",
    ];
    let up = carrier.up(laptop, &arguments)?;
    let all = ["10.77.0.0/16", "198.51.100.0/24", "2001:db8:64::/64"];
    ensure!(taken(&up) == all, "{}", up.stderr());
    reaches(laptop, &["198.51.100.2", "10.77.0.1", "2001:db8:64::2"])?;
    let routes = laptop.sh("ip route show; ip -6 route show")?;
    ensure!(!routes.contains("fd77"), "{routes}");
    ensure!(
        routes.contains("198.51.100.0/25 ") && !routes.contains("198.51.100.128"),
        "{routes}"
    );
    up.end_with(Signal::SIGINT)?;
    before.is_back()
}

fn nothing_to_take_is_an_error(carrier: Carrier) -> Result<()> {
    let lab = topology::direct()?;
    carrier.prepare(&lab.bastion)?;
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    let command = vpn::command(&carrier.arguments(&["bastion", "--route", "auto"]))?;
    let output = lab.laptop.run(&command)?;
    let part = "bastion has no network that --route auto can take: name one with --route";
    fails_clearly(&output, Some(1), &[part])?;
    before.is_back()
}

/// A remote end whose `ip` is busybox's has the same networks.
#[test]
fn busybox_lists_the_same_networks() -> Result<()> {
    let lab = lab(Carrier::Tun)?;
    let list = |host: &Host| {
        host.sh(&format!(
            "sh -c '{}'",
            include_str!("../../../src/client/remote/shell/routed.sh").replace('\'', "'\\''")
        ))
    };
    let by_iproute2 = list(&lab.direct.bastion)?;
    lab.direct.bastion.sh(
        "printf '#!/bin/sh\\nexec busybox ip \"$@\"\\n' >/run/ip; chmod 755 /run/ip; \
         mount --bind /run/ip $(readlink -f $(command -v ip))",
    )?;
    let by_busybox = list(&lab.direct.bastion)?;
    let meant = |text: &str| {
        let lines = text
            .lines()
            .filter(|line| !line.contains(" ff00") && !line.contains(" fe80"));
        let mut lines: Vec<String> = lines.map(str::to_owned).collect();
        lines.sort();
        lines.dedup();
        lines
    };
    let (ours, theirs) = (meant(&by_iproute2), meant(&by_busybox));
    ensure!(ours == theirs, "iproute2: {ours:?}\nbusybox: {theirs:?}");
    Ok(())
}
