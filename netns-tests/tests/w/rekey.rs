//! Rekeying at every megabyte, with TCP at a steady rate and one numbered datagram per millisecond
//! in each direction: none is lost.
//!
//! ```text
//!   laptop wan 192.0.2.1 ──────────── 192.0.2.2 wan bastion
//!   client tun3 10.99.0.1/30 ═ SSH ═ 10.99.0.2/30 tun7 sshd
//!      iperf3 -c ───────────────────────────▶ iperf3 -s
//!      numbers  ────────────────────────────▶ echo
//! ```

use anyhow::{Result, ensure};
use netns_tests::lab::sshd::Sshd;
use netns_tests::lab::topology::{self, Direct};
use netns_tests::program::tunnel::{LOCAL, REMOTE, Tunnel};
use netns_tests::program::vpn::Device;
use netns_tests::traffic::Counted;
use netns_tests::traffic::iperf3::{self, Direction, Flow};
use netns_tests::traffic::transfer::both_ways;
use netns_tests::{Carrier, Client, traffic, with_each_client};

with_each_client!(upwards, downwards);

/// Slow enough that queues stay short between two rekeys, so that any loss is due to a rekey.
const PACE: u64 = 30_000_000;

fn upwards(client: Client) -> Result<()> {
    loses_nothing(client, Direction::Up)
}

fn downwards(client: Client) -> Result<()> {
    loses_nothing(client, Direction::Down)
}

fn loses_nothing(client: Client, direction: Direction) -> Result<()> {
    let lab = lab()?;
    let tunnel = Tunnel {
        client,
        arguments: &["-o", "RekeyLimit=1M"],
        ..Tunnel::default()
    };
    let open = tunnel.open(&lab.laptop, &lab.bastion)?;
    let (local, remote) = tunnel.devices();
    passes_unharmed(&lab, [&local, &remote], [LOCAL[0], REMOTE[0]], direction)?;
    ensure!(open.is_running(), "the client has ended");
    Ok(())
}

fn lab() -> Result<Direct> {
    topology::direct_with(&Sshd::default().set("LogLevel", "DEBUG1"))
}

/// Runs the flows between the two `devices`, at their `addresses`.
fn passes_unharmed(
    lab: &Direct,
    devices: [&str; 2],
    addresses: [&str; 2],
    direction: Direction,
) -> Result<()> {
    let [local, remote] = addresses;
    // Room for packets that arrive while both sides compute their keys.
    for (host, device) in [&lab.laptop, &lab.bastion].into_iter().zip(devices) {
        host.sh(&format!("ip link set {device} txqueuelen 4000"))?;
    }
    traffic::ping(&lab.laptop, remote)?;
    let (counted, figures) = Counted::during((&lab.laptop, local), (&lab.bastion, remote), || {
        let flow = Flow {
            direction,
            seconds: 5,
            pace: Some(PACE),
        };
        iperf3::measure(&lab.laptop, &lab.bastion, remote, flow)
    })?;
    let megabytes = usize::try_from(figures.bytes >> 20)?;
    let keys = lab
        .sshd
        .stderr()
        .matches("SSH2_MSG_NEWKEYS received")
        .count();
    println!(
        "{keys} rekeys in {megabytes} MB; {} datagrams",
        counted.sent
    );
    ensure!(megabytes >= 3, "only {megabytes} MB passed");
    ensure!(keys > megabytes / 2, "only {keys} rekeys in {megabytes} MB");
    ensure!(
        counted.sent > 1000,
        "only {} datagrams were sent",
        counted.sent
    );
    ensure!(
        counted.lost.is_empty(),
        "lost of {}: {:?}",
        counted.sent,
        counted.lost
    );
    ensure!(
        counted.reordered == 0,
        "{} of {} came late",
        counted.reordered,
        counted.sent
    );
    Ok(())
}

/// The same by the carrier `agent`.
fn by_agent(direction: Direction) -> Result<()> {
    let lab = lab()?;
    Carrier::Agent.prepare(&lab.bastion)?;
    let up = Carrier::Agent.up(&lab.laptop, &["-o", "RekeyLimit=1M", "bastion"])?;
    let devices = [Device::only(&lab.laptop)?, Device::only(&lab.bastion)?];
    let [local, remote] = devices.map(|device| device.addresses[0].to_string());
    passes_unharmed(&lab, ["sshvpn0"; 2], [&local, &remote], direction)?;
    ensure!(up.is_running(), "the client has ended");
    Ok(())
}

#[test]
fn upwards_by_agent() -> Result<()> {
    by_agent(Direction::Up)
}

#[test]
fn downwards_by_agent() -> Result<()> {
    by_agent(Direction::Down)
}

/// At full speed in both directions: the transfer does not stall, and no byte changes.
#[test]
fn under_full_load_by_agent() -> Result<()> {
    let lab = lab()?;
    Carrier::Agent.prepare(&lab.bastion)?;
    let _up = Carrier::Agent.up(&lab.laptop, &["-o", "RekeyLimit=1M", "bastion"])?;
    let remote = Device::only(&lab.bastion)?.addresses[0].to_string();
    both_ways(&lab.laptop, &lab.bastion, &remote, 30)
}
