//! Tunnels of one or several clients that start at the same moment get different addresses at both
//! ends.
//!
//! ```text
//!   laptop wan 192.0.2.1 ─────── 192.0.2.2 wan  bastion (sshd)
//!   clone  wan 203.0.113.1 ── 203.0.113.2 side      (the same machine-id, login and destination)
//! ```

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use netns_tests::lab::sshd::{Sshd, authorize, introduce};
use netns_tests::lab::topology;
use netns_tests::program::vpn::{self, Device};
use netns_tests::{Before, Carrier, Child, Host, connect, traffic, with_each_carrier};
use nix::sys::signal::Signal;

with_each_carrier!(of_one_host, of_clones, of_a_host_with_itself);

/// Many programs start on two processors.
const STARTING: Duration = Duration::from_secs(120);

/// More than sshd lets log in at once by default.
fn sshd() -> Sshd {
    Sshd::default().set("MaxStartups", "100")
}

/// Starts `count` tunnels from each of these hosts at once, and waits until all are up.
fn start(carrier: Carrier, hosts: &[&Host], count: usize) -> Result<Vec<Child>> {
    let command = vpn::command(&carrier.arguments(&["bastion"]))?;
    let mut ups = Vec::new();
    for _ in 0..count {
        for host in hosts {
            ups.push(host.spawn(&command)?);
        }
    }
    for up in &ups {
        up.wait_for_line("up:", STARTING)?;
    }
    Ok(ups)
}

/// Checks that no two devices of a host have an address in common, nor two of all `hosts`.
fn differ(hosts: &[&Host], count: usize) -> Result<Vec<IpAddr>> {
    let mut all = Vec::new();
    for host in hosts {
        let devices = Device::all(host)?;
        ensure!(devices.len() == count, "{devices:?}");
        all.extend(devices.into_iter().flat_map(|device| device.addresses));
    }
    let different: BTreeSet<IpAddr> = all.iter().copied().collect();
    ensure!(different.len() == all.len(), "{all:?}");
    Ok(all)
}

fn end(ups: Vec<Child>) -> Result<()> {
    for up in &ups {
        up.signal(Signal::SIGINT)?;
    }
    for up in ups {
        let output = up.wait(STARTING)?;
        ensure!(output.code() == 0, "{output:?}");
    }
    Ok(())
}

fn of_one_host(carrier: Carrier) -> Result<()> {
    let lab = topology::direct_with(&sshd())?;
    carrier.prepare(&lab.bastion)?;
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    let count = match carrier {
        Carrier::Tun => 6,
        Carrier::Agent => 20,
    };
    let ups = start(carrier, &[&lab.laptop], count)?;
    differ(&[&lab.laptop], count)?;
    for address in differ(&[&lab.bastion], count)? {
        traffic::ping(&lab.laptop, &address.to_string())?;
    }
    end(ups)?;
    before.is_back()
}

/// Whether a tunnel of the host leads to the address, by which it answers then.
fn leads_to(host: &Host, address: IpAddr) -> Result<bool> {
    let way = host.sh(&format!("ip -o route get {address} || true"))?;
    if !way.contains("dev sshvpn") {
        return Ok(false);
    }
    traffic::ping(host, &address.to_string())?;
    Ok(true)
}

/// The addresses of clones are drawn from one seed.
fn of_clones(carrier: Carrier) -> Result<()> {
    let lab = topology::direct_with(&sshd())?;
    carrier.prepare(&lab.bastion)?;
    let clone = Host::new("clone")?;
    connect(
        (&clone, "wan", &["203.0.113.1/24"]),
        (&lab.bastion, "side", &["203.0.113.2/24"]),
    )?;
    introduce(&clone, &lab.bastion, &["203.0.113.2"])?;
    authorize(&clone, &lab.bastion, "root")?;
    let hosts = [&lab.laptop, &clone];
    let before = Before::of(&[&lab.laptop, &clone, &lab.bastion])?;
    let ups = start(carrier, &hosts, 2)?;
    differ(&hosts, 2)?;
    for address in differ(&[&lab.bastion], 4)? {
        let [laptop, clone] = hosts.map(|host| leads_to(host, address));
        ensure!(
            laptop? != clone?,
            "{address} is at the end of both or of none"
        );
    }
    end(ups)?;
    before.is_back()
}

/// An address that another tunnel at the remote end has is refused, and said.
#[test]
fn an_address_of_another_tunnel_is_refused() -> Result<()> {
    let lab = topology::direct_with(&sshd())?;
    let clone = Host::new("clone")?;
    connect(
        (&clone, "wan", &["203.0.113.1/24"]),
        (&lab.bastion, "side", &["203.0.113.2/24"]),
    )?;
    introduce(&clone, &lab.bastion, &["203.0.113.2"])?;
    authorize(&clone, &lab.bastion, "root")?;
    Carrier::Agent.prepare(&lab.bastion)?;
    for (first, second) in [
        (Carrier::Tun, Carrier::Agent),
        (Carrier::Agent, Carrier::Tun),
    ] {
        let up = first.up(&lab.laptop, &["--address", "10.77.0.2", "bastion"])?;
        let again = [
            "--address",
            "10.77.0.2",
            "--peer-address",
            "10.77.0.9",
            "bastion",
        ];
        let output = clone.run(&vpn::command(&second.arguments(&again))?)?;
        let said = "10.77.0.2 is the address of another tunnel";
        vpn::fails_clearly(&output, Some(1), &[said, "--address"])?;
        end(vec![up])?;
        let up = second.up(&clone, &again)?;
        end(vec![up])?;
    }
    Ok(())
}

/// One host is both ends, so that both ends' claims are its own.
fn of_a_host_with_itself(carrier: Carrier) -> Result<()> {
    let lab = topology::direct_with(&sshd())?;
    introduce(&lab.bastion, &lab.bastion, &["127.0.0.1"])?;
    authorize(&lab.bastion, &lab.bastion, "root")?;
    carrier.prepare(&lab.bastion)?;
    let before = Before::of(&[&lab.bastion])?;
    let ups = start(carrier, &[&lab.bastion], 2)?;
    let addresses = Device::all(&lab.bastion)?;
    ensure!(addresses.len() == 4, "{addresses:?}");
    end(ups)?;
    before.is_back()
}
