//! However `sshvpn up` ends, both hosts are as before.
//!
//! ```text
//!   laptop wan 192.0.2.1 ── (switch) ── 192.0.2.2 wan bastion lan 198.51.100.1 ── 198.51.100.2 lan host
//!   sshvpn up  sshvpn0 ════════ SSH ═══════ tunN  sshd, or an agent's sshvpn0
//! ```

use anyhow::{Context, Result, ensure};
use netns_tests::lab::link::has_device;
use netns_tests::lab::sshd::{Sshd, authorize, introduce};
use netns_tests::lab::topology;
use netns_tests::program::vpn::{self, cleanup};
use netns_tests::{
    Before, Carrier, Host, PATIENCE, bridge, connect, traffic, until, with_each_carrier,
};
use nix::sys::signal::Signal;

with_each_carrier!(
    interrupted,
    interrupted_twice_at_once,
    terminated,
    killed_then_cleanup,
    killed_then_up_again,
    cleanup_leaves_the_living_alone,
    server_process_killed,
    device_removed,
    nobody_reads_its_messages,
    only_its_own_is_removed,
    link_cut,
    link_cut_under_load,
);

const ARGUMENTS: [&str; 5] = [
    "bastion",
    "--route",
    "198.51.100.0/24",
    "--route",
    "2001:db8:64::/64",
];
const LAN: &str = "198.51.100.2";

/// It ends by the signal, with success.
fn ends_by(carrier: Carrier, signal: Signal) -> Result<()> {
    let lab = topology::subnet()?;
    carrier.prepare(&lab.direct.bastion)?;
    let before = Before::of(&[&lab.direct.laptop, &lab.direct.bastion, &lab.lan])?;
    let up = carrier.up(&lab.direct.laptop, &ARGUMENTS)?;
    traffic::ping(&lab.direct.laptop, LAN)?;
    let output = up.end_with(signal)?;
    ensure!(output.code() == 0, "{output:?}");
    before.is_back()
}

fn interrupted(carrier: Carrier) -> Result<()> {
    ends_by(carrier, Signal::SIGINT)
}

/// A terminal sends each Ctrl-C to the whole foreground group.
fn interrupted_twice_at_once(carrier: Carrier) -> Result<()> {
    let lab = topology::subnet()?;
    carrier.prepare(&lab.direct.bastion)?;
    let before = Before::of(&[&lab.direct.laptop, &lab.direct.bastion, &lab.lan])?;
    for _ in 0..6 {
        let up = carrier.up(&lab.direct.laptop, &ARGUMENTS)?;
        up.signal(Signal::SIGINT)?;
        let output = up.end_with(Signal::SIGINT)?;
        ensure!(
            output.code() == 0 && !output.stderr.contains("could not undo"),
            "{output:?}"
        );
        before.is_back()?;
    }
    Ok(())
}

fn terminated(carrier: Carrier) -> Result<()> {
    ends_by(carrier, Signal::SIGTERM)
}

fn killed_then_cleanup(carrier: Carrier) -> Result<()> {
    let lab = topology::subnet()?;
    carrier.prepare(&lab.direct.bastion)?;
    let before = Before::of(&[&lab.direct.laptop, &lab.direct.bastion, &lab.lan])?;
    let up = carrier.up(&lab.direct.laptop, &ARGUMENTS)?;
    traffic::ping(&lab.direct.laptop, LAN)?;
    up.end_with(Signal::SIGKILL)?;
    cleanup(&lab.direct.laptop)?;
    before.is_back()?;
    // Nothing is left to undo, which is no error.
    cleanup(&lab.direct.laptop)?;
    before.is_back()
}

fn killed_then_up_again(carrier: Carrier) -> Result<()> {
    let lab = topology::subnet()?;
    carrier.prepare(&lab.direct.bastion)?;
    let before = Before::of(&[&lab.direct.laptop, &lab.direct.bastion, &lab.lan])?;
    carrier
        .up(&lab.direct.laptop, &ARGUMENTS)?
        .end_with(Signal::SIGKILL)?;
    let up = carrier.up(&lab.direct.laptop, &ARGUMENTS)?;
    traffic::ping(&lab.direct.laptop, LAN)?;
    ensure!(has_device(&lab.direct.laptop, "sshvpn0"));
    ensure!(up.end_with(Signal::SIGINT)?.code() == 0);
    before.is_back()
}

/// `cleanup` undoes only the changes of dead processes.
fn cleanup_leaves_the_living_alone(carrier: Carrier) -> Result<()> {
    let lab = topology::subnet()?;
    carrier.prepare(&lab.direct.bastion)?;
    let before = Before::of(&[&lab.direct.laptop, &lab.direct.bastion, &lab.lan])?;
    let up = carrier.up(&lab.direct.laptop, &ARGUMENTS)?;
    cleanup(&lab.direct.laptop)?;
    traffic::ping(&lab.direct.laptop, LAN)?;
    ensure!(up.end_with(Signal::SIGINT)?.code() == 0);
    before.is_back()
}

fn server_process_killed(carrier: Carrier) -> Result<()> {
    let lab = topology::subnet()?;
    carrier.prepare(&lab.direct.bastion)?;
    let before = Before::of(&[&lab.direct.laptop, &lab.direct.bastion, &lab.lan])?;
    let up = carrier.up(&lab.direct.laptop, &ARGUMENTS)?;
    traffic::ping(&lab.direct.laptop, LAN)?;
    lab.direct.bastion.kill("sshd: root")?;
    vpn::fails_clearly(&up.wait(PATIENCE)?, Some(255), &["bastion"])?;
    before.is_back()
}

/// A device is deleted while no packets pass.
fn device_removed(carrier: Carrier) -> Result<()> {
    let lab = topology::subnet()?;
    let (laptop, bastion) = (&lab.direct.laptop, &lab.direct.bastion);
    carrier.prepare(bastion)?;
    let before = Before::of(&[laptop, bastion, &lab.lan])?;
    for (host, code) in [(bastion, 255), (laptop, 1)] {
        let up = carrier.up(laptop, &ARGUMENTS)?;
        traffic::ping(laptop, LAN)?;
        host.sh(&format!("ip link del {}", vpn::Device::only(host)?.name))?;
        vpn::fails_clearly(&up.wait(PATIENCE)?, Some(code), &["device"])
            .with_context(|| format!("deleted at {}", host.name()))?;
        before.is_back()?;
    }
    Ok(())
}

/// The reader of its messages ends, and later it is interrupted.
fn nobody_reads_its_messages(carrier: Carrier) -> Result<()> {
    let lab = topology::subnet()?;
    carrier.prepare(&lab.direct.bastion)?;
    let laptop = &lab.direct.laptop;
    let before = Before::of(&[laptop, &lab.direct.bastion, &lab.lan])?;
    let line = format!(
        "{} 2>&1 | head -n 1",
        vpn::command(&carrier.arguments(&ARGUMENTS))?.join(" ")
    );
    let pipe = laptop.spawn(&["bash", "-c", &line])?;
    traffic::ping(laptop, LAN)?;
    pipe.signal(Signal::SIGINT)?;
    pipe.wait(PATIENCE)?;
    before.is_back()
}

/// Additions of other programs meanwhile stay.
fn only_its_own_is_removed(carrier: Carrier) -> Result<()> {
    let lab = topology::subnet()?;
    carrier.prepare(&lab.direct.bastion)?;
    let laptop = &lab.direct.laptop;
    let up = carrier.up(laptop, &ARGUMENTS)?;
    laptop.sh("ip route add 203.0.113.0/24 via 192.0.2.2; nft add table inet somebody")?;
    lab.direct.bastion.sh("nft add table inet somebody")?;
    ensure!(up.end_with(Signal::SIGINT)?.code() == 0);
    let routes = laptop.sh("ip route; nft list ruleset")?;
    ensure!(
        routes.contains("203.0.113.0/24") && routes.contains("somebody"),
        "{routes}"
    );
    let tables = lab.direct.bastion.sh("nft list ruleset")?;
    ensure!(tables.contains("somebody"), "{tables}");
    Ok(())
}

/// The cable is cut in the middle: neither host's link goes down, neither gets packets of the other
/// again, and each notices by itself.
///
/// ```text
///   laptop wan 192.0.2.1 ── a  switch br  b ── 192.0.2.2 wan bastion
/// ```
fn cut(carrier: Carrier, load: bool) -> Result<()> {
    let [laptop, switch, bastion] = [
        Host::new("laptop")?,
        Host::new("switch")?,
        Host::new("bastion")?,
    ];
    connect((&laptop, "wan", &["192.0.2.1/24"]), (&switch, "a", &[]))?;
    connect((&bastion, "wan", &["192.0.2.2/24"]), (&switch, "b", &[]))?;
    bridge(&switch, "br", &["a", "b"])?;
    introduce(&laptop, &bastion, &["192.0.2.2"])?;
    authorize(&laptop, &bastion, "root")?;
    let _sshd = Sshd::default()
        .set("ClientAliveInterval", "1")
        .set("ClientAliveCountMax", "2")
        .start(&bastion)?;
    traffic::ping(&laptop, "192.0.2.2")?;
    carrier.prepare(&bastion)?;
    let before = Before::of(&[&laptop, &bastion])?;
    let alive = [
        "-o",
        "ServerAliveInterval=1",
        "-o",
        "ServerAliveCountMax=2",
        "bastion",
    ];
    let up = carrier.up(
        &laptop,
        &[&alive[..], &["--route", "198.51.100.0/24"]].concat(),
    )?;
    // More than the socket's buffer once nothing is acknowledged.
    let flood = ["ping", "-q", "-f", "-s", "1400", "198.51.100.2"];
    let flooding = match load {
        true => Some(laptop.spawn(&flood)?),
        false => None,
    };
    until("traffic", PATIENCE, || {
        let sent = laptop.read("/sys/class/net/sshvpn0/statistics/tx_packets");
        let enough = |sent: u32| !load || sent > 1000;
        sent.ok()?.trim().parse().is_ok_and(enough).then_some(())
    })?;
    switch.sh("ip link set dev br down")?;
    vpn::fails_clearly(&up.wait(PATIENCE)?, Some(255), &["bastion"])?;
    drop(flooding);
    before.is_back()
}

fn link_cut(carrier: Carrier) -> Result<()> {
    cut(carrier, false)
}

fn link_cut_under_load(carrier: Carrier) -> Result<()> {
    cut(carrier, true)
}
