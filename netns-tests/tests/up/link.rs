//! `sshvpn up` from host to host: default addresses, both families, both modes, and the options for
//! them.
//!
//! ```text
//!   laptop wan 192.0.2.1 ──────────── 192.0.2.2 wan bastion
//!   sshvpn up  sshvpn0 ═════ SSH ═════ tunN  sshd
//! ```

use std::net::IpAddr;

use anyhow::{Result, ensure};
use netns_tests::lab::topology::{self, Direct};
use netns_tests::program::vpn::{self, Device};
use netns_tests::traffic::iperf3::{self, Direction, Flow};
use netns_tests::{Before, Carrier, PATIENCE, traffic, until, with_each_carrier};
use nix::sys::signal::Signal;

with_each_carrier!(
    ends_reach_each_other_without_being_configured,
    every_size_passes_at_the_default_mtu,
    tcp_flows_both_ways,
    given_addresses_are_used,
    a_given_mtu_is_used,
    tap_carries_ethernet_frames,
    two_at_once_do_not_collide,
    in_the_background_it_stays_until_told,
    the_wire_shows_only_ssh,
);

/// Checks that both hosts reach each other at every address of the tunnel devices.
fn reach_each_other(lab: &Direct) -> Result<(Device, Device)> {
    let (local, remote) = (Device::only(&lab.laptop)?, Device::only(&lab.bastion)?);
    for device in [&local, &remote] {
        ensure!(
            device.addresses.iter().any(IpAddr::is_ipv4),
            "no IPv4: {device:?}"
        );
        ensure!(
            device.addresses.iter().any(IpAddr::is_ipv6),
            "no IPv6: {device:?}"
        );
    }
    for address in &remote.addresses {
        traffic::ping(&lab.laptop, &address.to_string())?;
    }
    for address in &local.addresses {
        traffic::ping(&lab.bastion, &address.to_string())?;
    }
    Ok((local, remote))
}

fn ends_reach_each_other_without_being_configured(carrier: Carrier) -> Result<()> {
    let lab = topology::direct()?;
    carrier.prepare(&lab.bastion)?;
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    let up = carrier.up(&lab.laptop, &["bastion"])?;
    let (local, remote) = reach_each_other(&lab)?;
    ensure!(local.name == "sshvpn0", "{local:?}");
    // sshd carries single packets, so it is fastest with large ones.
    let large = carrier == Carrier::Tun;
    ensure!(
        local.mtu == remote.mtu && local.mtu >= 1500 && (local.mtu > 1500) == large,
        "a host-to-host tunnel by sshd has a large MTU: {local:?} {remote:?}"
    );
    let output = up.end_with(Signal::SIGINT)?;
    ensure!(output.code() == 0 && output.stdout.is_empty(), "{output:?}");
    before.is_back()
}

fn every_size_passes_at_the_default_mtu(carrier: Carrier) -> Result<()> {
    let lab = topology::direct()?;
    carrier.prepare(&lab.bastion)?;
    let _up = carrier.up(&lab.laptop, &["bastion"])?;
    let (local, remote) = reach_each_other(&lab)?;
    let largest = usize::try_from(local.mtu)? - 28;
    let (local, remote) = (
        local.addresses[0].to_string(),
        remote.addresses[0].to_string(),
    );
    traffic::echo_every_size((&lab.laptop, &local), (&lab.bastion, &remote), 0..=largest)
}

fn tcp_flows_both_ways(carrier: Carrier) -> Result<()> {
    let lab = topology::direct()?;
    carrier.prepare(&lab.bastion)?;
    let _up = carrier.up(&lab.laptop, &["bastion"])?;
    let (_, remote) = reach_each_other(&lab)?;
    for direction in [Direction::Up, Direction::Down] {
        let flow = Flow {
            direction,
            seconds: 2,
            pace: None,
        };
        let address = remote.addresses[0].to_string();
        let figures = iperf3::measure(&lab.laptop, &lab.bastion, &address, flow)?;
        println!("{direction:?}: {:.0} Mbit/s", figures.bits_per_second / 1e6);
        ensure!(
            figures.bytes > 1 << 20,
            "almost no data passed: {figures:?}"
        );
    }
    Ok(())
}

fn given_addresses_are_used(carrier: Carrier) -> Result<()> {
    let lab = topology::direct()?;
    carrier.prepare(&lab.bastion)?;
    let arguments = [
        "bastion",
        "--address",
        "10.50.0.1",
        "--peer-address",
        "10.50.0.2",
    ];
    let _up = carrier.up(&lab.laptop, &arguments)?;
    ensure!(
        Device::only(&lab.laptop)?
            .addresses
            .contains(&"10.50.0.1".parse()?)
    );
    ensure!(
        Device::only(&lab.bastion)?
            .addresses
            .contains(&"10.50.0.2".parse()?)
    );
    traffic::ping(&lab.laptop, "10.50.0.2")?;
    traffic::ping(&lab.bastion, "10.50.0.1")
}

fn a_given_mtu_is_used(carrier: Carrier) -> Result<()> {
    let lab = topology::direct()?;
    carrier.prepare(&lab.bastion)?;
    let _up = carrier.up(&lab.laptop, &["bastion", "--mtu", "1400"])?;
    let (local, remote) = reach_each_other(&lab)?;
    ensure!(
        (local.mtu, remote.mtu) == (1400, 1400),
        "{local:?} {remote:?}"
    );
    Ok(())
}

fn tap_carries_ethernet_frames(carrier: Carrier) -> Result<()> {
    let lab = topology::direct()?;
    carrier.prepare(&lab.bastion)?;
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    let up = carrier.up(&lab.laptop, &["bastion", "--tap"])?;
    let (local, remote) = reach_each_other(&lab)?;
    let neighbours = lab
        .laptop
        .sh(&format!("ip neigh show dev {}", local.name))?;
    ensure!(
        neighbours.contains(&remote.addresses[0].to_string()),
        "no ARP: {neighbours}"
    );
    ensure!(up.end_with(Signal::SIGTERM)?.code() == 0);
    before.is_back()
}

fn two_at_once_do_not_collide(carrier: Carrier) -> Result<()> {
    let lab = topology::direct()?;
    carrier.prepare(&lab.bastion)?;
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    let first = carrier.up(&lab.laptop, &["bastion"])?;
    let remote = Device::only(&lab.bastion)?;
    let second = carrier.up(&lab.laptop, &["bastion"])?;
    let devices = Device::all(&lab.bastion)?;
    ensure!(devices.len() == 2, "{devices:?}");
    for device in &devices {
        for address in &device.addresses {
            traffic::ping(&lab.laptop, &address.to_string())?;
        }
    }
    ensure!(second.end_with(Signal::SIGINT)?.code() == 0);
    traffic::ping(&lab.laptop, &remote.addresses[0].to_string())?;
    ensure!(first.end_with(Signal::SIGINT)?.code() == 0);
    before.is_back()
}

fn in_the_background_it_stays_until_told(carrier: Carrier) -> Result<()> {
    let lab = topology::direct()?;
    carrier.prepare(&lab.bastion)?;
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    let output = lab
        .laptop
        .run(&vpn::command(&carrier.arguments(&["-f", "bastion"]))?)?;
    ensure!(
        output.code() == 0 && output.stderr.contains("up:"),
        "{output:?}"
    );
    reach_each_other(&lab)?;
    let own = |line: &str| line.contains("sshvpn") && line.contains("bastion");
    let processes = lab.laptop.processes()?;
    let pid = processes
        .iter()
        .find(|process| own(&process.command))
        .map(|process| process.pid);
    let Some(pid) = pid else {
        anyhow::bail!("nothing in the background: {processes:?}")
    };
    lab.laptop.sh(&format!("kill -TERM {pid}"))?;
    until("its end", PATIENCE, || {
        let left = lab.laptop.processes().ok()?;
        (!left.iter().any(|process| process.pid == pid)).then_some(())
    })?;
    before.is_back()
}

fn the_wire_shows_only_ssh(carrier: Carrier) -> Result<()> {
    let lab = topology::direct()?;
    carrier.prepare(&lab.bastion)?;
    let capture = netns_tests::traffic::capture::Capture::start(&lab.bastion, "wan")?;
    let up = carrier.up(&lab.laptop, &["bastion"])?;
    reach_each_other(&lab)?;
    up.end_with(Signal::SIGINT)?;
    capture.end()?.shows_only_ssh()
}
