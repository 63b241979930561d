//! `sshvpn up` with a fault at each step, and killed at each step: both hosts are as before, and a
//! message says what failed.
//!
//! ```text
//!   laptop wan 192.0.2.1 ── 192.0.2.2 wan bastion lan 198.51.100.1 ── 198.51.100.2 lan host
//!   sshvpn up under strace ═ SSH ═ sshd, stand-ins for ip, nft and sysctl
//! ```

use anyhow::{Context, Result, bail, ensure};
use netns_tests::attack::fault::{self, Calls, Fault, RemoteCommands};
use netns_tests::lab::topology;
use netns_tests::program::vpn::{self, cleanup, fails_clearly};
use netns_tests::{Before, Carrier, Host, PATIENCE, until, with_each_carrier};
use nix::sys::signal::Signal;

with_each_carrier!(
    ioctl_fails,
    send_kills,
    remote_command_fails,
    connection_dies_at_a_remote_command,
);

const ARGUMENTS: [&str; 5] = [
    "bastion",
    "--route",
    "198.51.100.0/24",
    "--route",
    "2001:db8:64::/64",
];

/// A bound on the calls on the way up; more are a fault of the scenario.
const MOST: usize = 400;

/// The outcome of one start.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// It came up, and was interrupted.
    Up,
    /// It ended by itself.
    Failed,
    /// It was killed.
    Killed,
}

/// Starts `command`, and if it comes up, interrupts it.
fn attempt(laptop: &Host, command: &[String]) -> Result<Outcome> {
    let child = laptop.spawn(command)?;
    let came_up = until("up, or an end", PATIENCE, || {
        let is_up = child.stderr().lines().any(|line| line.starts_with("up:"));
        (is_up || !child.is_running()).then_some(is_up)
    })?;
    if came_up {
        child.signal(Signal::SIGINT)?;
        // The fault may hit the byte by which a signal wakes the program.
        let ended = || (!child.is_running()).then_some(());
        if until("its end", PATIENCE / 2, ended).is_err() {
            child.signal(Signal::SIGINT)?;
        }
    }
    let output = child.wait(PATIENCE)?;
    match output.code() {
        // Once it is up, the fault may be in the undoing, which may then fail.
        _ if came_up => Ok(Outcome::Up),
        137 => Ok(Outcome::Killed),
        _ => {
            fails_clearly(&output, None, &[])?;
            ensure!(!output.stderr.trim().is_empty(), "no message: {output:?}");
            Ok(Outcome::Failed)
        }
    }
}

/// Applies `fault` to the 1st, 2nd, 3rd… of `calls` on the way up, in one run each, until there are
/// no more.
fn local_end(carrier: Carrier, calls: Calls<'_>, fault: Fault) -> Result<()> {
    let lab = topology::subnet()?;
    let laptop = &lab.direct.laptop;
    carrier.prepare(&lab.direct.bastion)?;
    let before = Before::of(&[laptop, &lab.direct.bastion, &lab.lan])?;
    let command = vpn::command(&carrier.arguments(&ARGUMENTS))?;
    let names = calls.names;
    for number in 1..MOST {
        let traced = fault::at_system_call(fault, calls, number, &command);
        let outcome =
            attempt(laptop, &traced).with_context(|| format!("{names} number {number}"))?;
        let done = match fault {
            Fault::Fails => !fault::was_injected(laptop)?,
            Fault::Kills => outcome == Outcome::Up,
        };
        if outcome == Outcome::Failed {
            before
                .is_back()
                .with_context(|| format!("after {names} number {number}, before cleanup"))?;
        }
        // Undoes what a killed process left, or what the fault kept from being undone.
        cleanup(laptop)?;
        before
            .is_back()
            .with_context(|| format!("after {names} number {number}: {outcome:?}"))?;
        if done {
            println!("{names}: {} starts with a fault, {fault:?}", number - 1);
            ensure!(number > 1, "no call of {names} was ever made");
            return Ok(());
        }
    }
    bail!("more than {MOST} calls of {names}");
}

/// Applies `fault` to the 1st, 2nd, 3rd… command of the remote host on the way up.
fn remote_end(carrier: Carrier, fault: Fault) -> Result<()> {
    let lab = topology::subnet()?;
    let (laptop, bastion) = (&lab.direct.laptop, &lab.direct.bastion);
    carrier.prepare(bastion)?;
    // Where nft fails, iptables-nft makes the rules, whose empty chains stay.
    bastion.sh("for iptables in iptables ip6tables; do
             $iptables -t nat -P POSTROUTING ACCEPT
             $iptables -t mangle -P FORWARD ACCEPT
         done")?;
    let commands = RemoteCommands::on(bastion)?;
    let before = Before::of(&[laptop, bastion, &lab.lan])?;
    let command = vpn::command(&carrier.arguments(&ARGUMENTS))?;

    commands.fail_at(usize::MAX, fault)?;
    let child = carrier.up(laptop, &ARGUMENTS)?;
    let uses = commands.disarm()?;
    child.end_with(Signal::SIGINT)?;
    before.is_back()?;
    ensure!(uses > 0, "the remote end used none of the commands");

    for number in 1..=uses {
        commands.fail_at(number, fault)?;
        let outcome = attempt(laptop, &command).with_context(|| format!("command {number}"))?;
        commands.disarm()?;
        ensure!(
            outcome != Outcome::Killed,
            "a fault on the remote host killed the client"
        );
        ensure!(
            fault == Fault::Fails || outcome == Outcome::Failed,
            "up without a connection"
        );
        before
            .is_back()
            .with_context(|| format!("after command {number}: {outcome:?}"))?;
    }
    println!("{uses} commands of the remote end, {fault:?}");
    Ok(())
}

/// The calls that make and set up the device.
const IOCTL: Calls<'_> = Calls {
    names: "ioctl",
    file: Some("/dev/net/tun"),
};
/// The calls for netlink and the connection.
const SEND: Calls<'_> = Calls {
    names: "sendto,sendmsg",
    file: None,
};
/// The calls that open files.
const OPEN: Calls<'_> = Calls {
    names: "openat",
    file: None,
};
/// The calls that write the journal.
const JOURNAL: Calls<'_> = Calls {
    names: "rename,renameat,renameat2,fsync,fdatasync,mkdir,mkdirat",
    file: None,
};
/// The calls that write files and print lines.
const WRITE: Calls<'_> = Calls {
    names: "write,writev,pwrite64",
    file: None,
};

fn ioctl_fails(carrier: Carrier) -> Result<()> {
    local_end(carrier, IOCTL, Fault::Fails)
}

#[test]
fn ioctl_kills() -> Result<()> {
    local_end(Carrier::Tun, IOCTL, Fault::Kills)
}

#[test]
fn send_fails() -> Result<()> {
    local_end(Carrier::Tun, SEND, Fault::Fails)
}

fn send_kills(carrier: Carrier) -> Result<()> {
    local_end(carrier, SEND, Fault::Kills)
}

#[test]
fn open_fails() -> Result<()> {
    local_end(Carrier::Tun, OPEN, Fault::Fails)
}

#[test]
fn open_kills() -> Result<()> {
    local_end(Carrier::Tun, OPEN, Fault::Kills)
}

#[test]
fn journal_fails() -> Result<()> {
    local_end(Carrier::Tun, JOURNAL, Fault::Fails)
}

#[test]
fn journal_kills() -> Result<()> {
    local_end(Carrier::Tun, JOURNAL, Fault::Kills)
}

#[test]
fn write_kills() -> Result<()> {
    local_end(Carrier::Tun, WRITE, Fault::Kills)
}

fn remote_command_fails(carrier: Carrier) -> Result<()> {
    remote_end(carrier, Fault::Fails)
}

fn connection_dies_at_a_remote_command(carrier: Carrier) -> Result<()> {
    remote_end(carrier, Fault::Kills)
}
