//! `sshvpn up` by an agent that is installed or pushed: works as by sshd's forwarding, and restores
//! the same state.
//!
//! ```text
//!   laptop wan 192.0.2.1 ── 192.0.2.2 wan bastion lan 198.51.100.1   ── 198.51.100.2  lan host
//!   sshvpn up  sshvpn0 ═ SSH ═ sshvpn0 sshvpn agent   2001:db8:64::1 ── 2001:db8:64::2
//! ```

use anyhow::{Result, ensure};
use netns_tests::lab::sshd::{self, Privilege, Sshd};
use netns_tests::lab::topology::{self, Subnet};
use netns_tests::program::client::Client;
use netns_tests::program::vpn::{self, Device};
use netns_tests::traffic::iperf3::{self, Direction, Flow};
use netns_tests::{Before, Child, Host, traffic};
use nix::sys::signal::Signal;

const LAN4: &str = "198.51.100.0/24";
const LAN6: &str = "2001:db8:64::/64";
const HOST4: &str = "198.51.100.2";
const HOST6: &str = "2001:db8:64::2";
const ROUTES: [&str; 4] = ["--route", LAN4, "--route", LAN6];

/// A bastion whose sshd starts `agent` as the subsystem.
fn with_subsystem(agent: &str) -> Result<Subnet> {
    topology::subnet_with(&Sshd::default().set("Subsystem", &format!("sshvpn {agent}")))
}

fn own_agent(arguments: &str) -> Result<String> {
    Ok(format!("{} agent {arguments}", Client::Sshvpn.program()?))
}

/// Installs sshvpn on `host`.
fn install(host: &Host) -> Result<()> {
    let program = Client::Sshvpn.program()?;
    host.sh("mount -t tmpfs none /usr/local/bin")?;
    host.sh(&format!("ln -s {program} /usr/local/bin/sshvpn"))?;
    Ok(())
}

fn before(lab: &Subnet) -> Result<Before<'_>> {
    Before::of(&[&lab.direct.laptop, &lab.direct.bastion, &lab.lan])
}

fn up(lab: &Subnet, more: &[&str]) -> Result<Child> {
    let arguments = [&["bastion"], &ROUTES[..], more].concat();
    vpn::up(&lab.direct.laptop, &arguments)
}

fn reaches_the_lan(lab: &Subnet) -> Result<()> {
    for address in [HOST4, HOST6] {
        traffic::ping(&lab.direct.laptop, address)?;
    }
    Ok(())
}

/// Checks that the tunnel went by the carrier in `line`, ends it, and checks that both hosts are as
/// before.
fn ends(up: Child, line: &str, before: &Before<'_>) -> Result<()> {
    let output = up.end_with(Signal::SIGINT)?;
    ensure!(output.code() == 0, "{output:?}");
    ensure!(output.stderr.contains(line), "not '{line}': {output:?}");
    for undone in ["here: undone", "bastion: undone"] {
        ensure!(output.stderr.contains(undone), "{output:?}");
    }
    before.is_back()
}

#[test]
fn a_subsystem_is_taken_and_everything_put_back() -> Result<()> {
    let lab = with_subsystem(&own_agent("")?)?;
    let before = before(&lab)?;
    let up = up(&lab, &[])?;
    reaches_the_lan(&lab)?;
    for (address, direction) in [(HOST4, Direction::Up), (HOST6, Direction::Down)] {
        let flow = Flow {
            direction,
            seconds: 1,
            pace: None,
        };
        let figures = iperf3::measure(&lab.direct.laptop, &lab.lan, address, flow)?;
        ensure!(
            figures.bytes > 1 << 20,
            "almost no data passed: {figures:?}"
        );
    }
    let (local, remote) = (
        Device::only(&lab.direct.laptop)?,
        Device::only(&lab.direct.bastion)?,
    );
    ensure!(
        local.mtu == 1500 && remote.mtu == 1500,
        "{local:?} {remote:?}"
    );
    ends(up, "by agent: sshvpn ", &before)
}

#[test]
fn an_installed_sshvpn_is_found() -> Result<()> {
    let lab = topology::subnet()?;
    install(&lab.direct.bastion)?;
    let before = before(&lab)?;
    let up = up(&lab, &["--tap", "--peer-unit", "7"])?;
    reaches_the_lan(&lab)?;
    ensure!(Device::only(&lab.direct.bastion)?.name == "tap7");
    ends(up, "by agent: sshvpn ", &before)
}

#[test]
fn a_login_that_may_sudo_has_an_agent_that_is_root() -> Result<()> {
    let lab = with_subsystem(&own_agent("")?)?;
    let (laptop, bastion) = (&lab.direct.laptop, &lab.direct.bastion);
    sshd::add_account(bastion, "alice", Privilege::Sudo)?;
    sshd::authorize(laptop, bastion, "alice")?;
    install(bastion)?;
    let before = before(&lab)?;
    // The subsystem runs as alice, without any privilege.
    let arguments = [&["alice@bastion"], &ROUTES[..]].concat();
    let up = vpn::up(laptop, &arguments)?;
    reaches_the_lan(&lab)?;
    ends(up, "the agent runs as root", &before)
}

#[test]
fn our_own_program_is_sent_and_removed() -> Result<()> {
    let lab = topology::subnet()?;
    let bastion = &lab.direct.bastion;
    let before = before(&lab)?;
    let up = up(&lab, &["--push"])?;
    reaches_the_lan(&lab)?;
    let left = bastion.sh(
        "find /tmp /run /run/home/root -maxdepth 1 -name 'sshvpn-push.*' 2>/dev/null || true",
    )?;
    ensure!(left.trim().is_empty(), "not removed: {left}");
    ends(up, "bastion: sending sshvpn, ", &before)
}

#[test]
fn without_sshvpn_there_it_is_sshds_forwarding() -> Result<()> {
    let lab = topology::subnet()?;
    let before = before(&lab)?;
    let up_by_tun = up(&lab, &[])?;
    reaches_the_lan(&lab)?;
    let line = "by tun: no sshvpn at bastion (install it there, or use --push)";
    ends(up_by_tun, line, &before)?;
    let forced = vpn::command(&["--via", "agent", "bastion"])?;
    let output = lab.direct.laptop.run(&forced)?;
    vpn::fails_clearly(&output, Some(255), &["no sshvpn at bastion"])?;
    before.is_back()
}

#[test]
fn what_the_agent_may_not_do_is_said_and_nothing_is_left() -> Result<()> {
    let lab = with_subsystem(&own_agent("--allow-route 203.0.113.0/24 --no-nat")?)?;
    let before = before(&lab)?;
    let command = vpn::command(&["bastion", "--route", LAN4])?;
    let output = lab.direct.laptop.run(&command)?;
    vpn::fails_clearly(&output, None, &["bastion", LAN4, "203.0.113.0/24"])?;
    before.is_back()
}

/// The agent is killed by SIGKILL; the next one undoes its changes.
#[test]
fn the_next_agent_undoes_what_a_killed_one_left() -> Result<()> {
    let lab = with_subsystem(&own_agent("")?)?;
    let before = before(&lab)?;
    let first = up(&lab, &[])?;
    lab.direct.bastion.kill(own_agent("")?.trim_end())?;
    let output = first.wait(netns_tests::PATIENCE)?;
    vpn::fails_clearly(&output, Some(255), &["bastion: the agent there is gone"])?;
    let second = up(&lab, &[])?;
    reaches_the_lan(&lab)?;
    ends(second, "by agent", &before)
}

/// The client is killed by SIGKILL, so the agent's stream ends.
#[test]
fn an_agent_whose_client_dies_undoes_its_part() -> Result<()> {
    let lab = with_subsystem(&own_agent("")?)?;
    let before = before(&lab)?;
    let up = up(&lab, &[])?;
    reaches_the_lan(&lab)?;
    up.end_with(Signal::SIGKILL)?;
    vpn::cleanup(&lab.direct.laptop)?;
    before.is_back()
}
