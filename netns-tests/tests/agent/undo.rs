//! However a tunnel by agent ends, both hosts are as before: at once if the agent lives, else by
//! the next sshvpn on its host.
//!
//! ```text
//!   laptop wan 192.0.2.1 ── 192.0.2.2 wan bastion lan 198.51.100.1 ── 198.51.100.2 lan host
//!   sshvpn up  sshvpn0 ═ SSH ═ sshd ─► sshvpn agent, under strace  sshvpn0
//! ```

use anyhow::{Context, Result, bail, ensure};
use netns_tests::attack::fault::{self, Calls, Fault};
use netns_tests::lab::topology::{self, Subnet};
use netns_tests::program::carrier::INSTALLED;
use netns_tests::program::vpn::{self, cleanup, fails_clearly};
use netns_tests::traffic::{no_ping, ping};
use netns_tests::{Before, Carrier, Child, PATIENCE, until};
use nix::sys::signal::Signal;

const ROUTES: [&str; 4] = ["--route", "198.51.100.0/24", "--route", "2001:db8:64::/64"];
const LAN: [&str; 2] = ["198.51.100.2", "2001:db8:64::2"];

/// The beginning of the agent's command line.
const AGENT: &str = "/usr/local/sbin/sshvpn agent";

/// A bound on the calls on the way up; more are a fault of the scenario.
const MOST: usize = 400;

fn lab() -> Result<Subnet> {
    let lab = topology::subnet()?;
    Carrier::Agent.prepare(&lab.direct.bastion)?;
    Ok(lab)
}

fn hosts(lab: &Subnet) -> Result<Before<'_>> {
    Before::of(&[&lab.direct.laptop, &lab.direct.bastion, &lab.lan])
}

fn up(lab: &Subnet) -> Result<Child> {
    let up = Carrier::Agent.up(&lab.direct.laptop, &[&ROUTES[..], &["bastion"]].concat())?;
    for address in LAN {
        ping(&lab.direct.laptop, address)?;
    }
    Ok(up)
}

fn ends(up: Child) -> Result<()> {
    let output = up.end_with(Signal::SIGINT)?;
    ensure!(output.code() == 0, "{output:?}");
    ensure!(output.stderr.contains("bastion: undone"), "{output:?}");
    Ok(())
}

/// Kills the agent; the client has to end and to say what to do on the remote host.
fn kill_agent(lab: &Subnet, up: Child) -> Result<()> {
    lab.direct.bastion.kill(AGENT)?;
    let parts = ["bastion: the agent there is gone", "'sshvpn cleanup' there"];
    fails_clearly(&up.wait(PATIENCE)?, Some(255), &parts)
}

#[test]
fn agent_killed_then_cleanup() -> Result<()> {
    let lab = lab()?;
    let before = hosts(&lab)?;
    kill_agent(&lab, up(&lab)?)?;
    let left = before.differences()?;
    ensure!(
        left.contains("forwarding"),
        "nothing was left to undo: {left}"
    );
    cleanup(&lab.direct.bastion)?;
    before.is_back()?;
    // No change is left to undo; that is not an error.
    cleanup(&lab.direct.bastion)?;
    before.is_back()
}

#[test]
fn agent_killed_then_up_again() -> Result<()> {
    let lab = lab()?;
    let before = hosts(&lab)?;
    kill_agent(&lab, up(&lab)?)?;
    ends(up(&lab)?)?;
    before.is_back()
}

#[test]
fn agent_terminated() -> Result<()> {
    let lab = lab()?;
    let before = hosts(&lab)?;
    let up = up(&lab)?;
    let bastion = &lab.direct.bastion;
    bastion.sh(&format!("kill -TERM $(pgrep -f '^{AGENT}')"))?;
    let output = up.wait(PATIENCE)?;
    fails_clearly(
        &output,
        Some(255),
        &["bastion", "ended by signal 15", "bastion: undone"],
    )?;
    before.is_back()
}

/// Two tunnels forward by the same interfaces; the first to end keeps the shared settings, and the
/// last restores them.
fn shared(first_goes: impl FnOnce(&Subnet, Child) -> Result<()>) -> Result<()> {
    let lab = lab()?;
    let laptop = &lab.direct.laptop;
    lab.lan.sh(
        "ip address add 203.0.113.2/24 dev lan; ip address add 2001:db8:65::2/64 dev lan nodad",
    )?;
    lab.direct.bastion.sh(
        "ip address add 203.0.113.1/24 dev lan; ip address add 2001:db8:65::1/64 dev lan nodad",
    )?;
    let before = hosts(&lab)?;
    let first = up(&lab)?;
    let more = [
        "--route",
        "203.0.113.0/24",
        "--route",
        "2001:db8:65::/64",
        "bastion",
    ];
    let second = Carrier::Agent.up(laptop, &more)?;
    first_goes(&lab, first)?;
    for address in ["203.0.113.2", "2001:db8:65::2"] {
        ping(laptop, address)?;
    }
    ends(second)?;
    cleanup(&lab.direct.bastion)?;
    before.is_back()
}

#[test]
fn two_share_the_forwarding() -> Result<()> {
    shared(|_, first| ends(first))
}

#[test]
fn two_share_the_forwarding_and_one_local_end_is_killed() -> Result<()> {
    shared(|lab, first| {
        first.end_with(Signal::SIGKILL)?;
        until("the end of its agent", PATIENCE, || {
            let devices = vpn::Device::all(&lab.direct.bastion).ok()?;
            (devices.len() == 1).then_some(())
        })?;
        cleanup(&lab.direct.laptop)
    })
}

#[test]
fn two_share_the_forwarding_and_one_agent_is_killed() -> Result<()> {
    shared(|lab, first| {
        // The older of the two.
        lab.direct
            .bastion
            .sh(&format!("kill -KILL $(pgrep -of '^{AGENT}')"))?;
        fails_clearly(
            &first.wait(PATIENCE)?,
            Some(255),
            &["the agent there is gone"],
        )
    })
}

/// Applies `fault` to the 1st of the agent's `calls`, and every `step`th after it, in one run each,
/// until there are no more. The client has to fail with a reason, and `sshvpn cleanup` has to undo
/// what a killed agent left.
fn at_the_agent(calls: Calls<'_>, step: usize, fault: Fault) -> Result<()> {
    let lab = lab()?;
    let (laptop, bastion) = (&lab.direct.laptop, &lab.direct.bastion);
    let before = hosts(&lab)?;
    let names = calls.names;
    for number in (1..MOST).step_by(step) {
        bastion.sh("rm -f /run/lab/strace")?;
        let agent = [INSTALLED, "agent"].map(str::to_owned);
        let command = fault::at_system_call(fault, calls, number, &agent).join(" ");
        let by = ["--agent-command", &command, "bastion"];
        let child = laptop.spawn(&vpn::command(&[&ROUTES[..], &by].concat())?)?;
        let came_up = until("up, or an end", PATIENCE, || {
            let is_up = child.stderr().lines().any(|line| line.starts_with("up:"));
            (is_up || !child.is_running()).then_some(is_up)
        })?;
        child.signal(Signal::SIGINT)?;
        let output = child.wait(PATIENCE)?;
        let after = || format!("{names} number {number}: {output:?}");
        if !came_up {
            fails_clearly(&output, Some(255), &["bastion"]).with_context(after)?;
        }
        let injected = match fault {
            Fault::Fails => fault::was_injected(bastion)?,
            Fault::Kills => bastion
                .read("/run/lab/strace")?
                .contains("killed by SIGKILL"),
        };
        // A living agent undoes everything itself, unless the fault is in the undoing.
        if fault == Fault::Fails && !came_up {
            before.is_back().with_context(after)?;
        }
        cleanup(bastion)?;
        before.is_back().with_context(after)?;
        if !injected {
            println!("{names}: {} and fewer, {fault:?}", number - 1);
            ensure!(number > 1, "no call of {names} was ever made");
            return Ok(());
        }
    }
    bail!("more than {MOST} calls of {names}");
}

/// The calls that make and set up the device.
const IOCTL: Calls<'_> = Calls {
    names: "ioctl",
    file: Some("/dev/net/tun"),
};
/// The netlink calls, most of which only read.
const SEND: Calls<'_> = Calls {
    names: "sendto,sendmsg",
    file: None,
};
/// The calls that write the journal, before and after each change.
const JOURNAL: Calls<'_> = Calls {
    names: "rename,renameat,renameat2",
    file: None,
};

#[test]
fn ioctl_fails() -> Result<()> {
    at_the_agent(IOCTL, 1, Fault::Fails)
}

#[test]
fn send_fails() -> Result<()> {
    at_the_agent(SEND, 5, Fault::Fails)
}

#[test]
fn journal_fails() -> Result<()> {
    at_the_agent(JOURNAL, 1, Fault::Fails)
}

#[test]
fn journal_kills() -> Result<()> {
    at_the_agent(JOURNAL, 1, Fault::Kills)
}

/// Forwarding ends once no tunnel holds the setting.
#[test]
fn nothing_is_forwarded_afterwards() -> Result<()> {
    let lab = lab()?;
    lab.lan.sh("ip route add default via 198.51.100.1")?;
    ends(up(&lab)?)?;
    lab.direct
        .laptop
        .sh("ip route add 198.51.100.0/24 via 192.0.2.2")?;
    no_ping(&lab.direct.laptop, LAN[0])
}
