//! `sshvpn up --push`: the program goes to a remote end that has none, for as long
//! as the tunnel is up, and leaves no trace there; or it is refused with a reason.
//!
//! ```text
//!   laptop wan 192.0.2.1 ──────────── 192.0.2.2 wan bastion
//!   sshvpn up --push ═════ SSH ═════ sshd ─► push.sh ─► its copy: sshvpn agent
//! ```

use anyhow::{Result, ensure};
use netns_tests::lab::sshd::{Privilege, add_account, authorize};
use netns_tests::lab::topology::{self, Direct};
use netns_tests::program::carrier;
use netns_tests::program::vpn::{self, Device};
use netns_tests::{Before, Child, Host, PATIENCE, traffic, until};
use nix::sys::signal::Signal;

/// What is said of a tunnel by an agent.
const BY_AGENT: &str = "by agent: sshvpn ";

/// The lab; the bastion has a /tmp of its own.
fn lab() -> Result<Direct> {
    let lab = topology::direct()?;
    lab.bastion
        .sh("mount -t tmpfs -o mode=1777,size=128m tmpfs /tmp")?;
    Ok(lab)
}

/// The files of `host` in places where a copy could have been put.
fn files(host: &Host) -> Result<String> {
    host.sh("find /tmp /run/home /usr/local/sbin /var/tmp /dev/shm -path '*sshvpn*'")
}

/// Succeeds as soon as there are none.
fn is_gone(host: &Host) -> Result<()> {
    until("no file of a copy", PATIENCE, || {
        files(host).ok()?.is_empty().then_some(())
    })
}

fn up(lab: &Direct) -> Result<Child> {
    let up = vpn::up(&lab.laptop, &["--push", "bastion"])?;
    ensure!(up.stderr().contains(BY_AGENT), "{}", up.stderr());
    for address in Device::only(&lab.bastion)?.addresses {
        traffic::ping(&lab.laptop, &address.to_string())?;
    }
    let files = files(&lab.bastion)?;
    ensure!(files.is_empty(), "left while it runs:\n{files}");
    Ok(up)
}

/// Runs `end` on a tunnel by a copy; afterwards nothing is left of it.
fn leaves_nothing(end: impl FnOnce(&Direct, Child) -> Result<()>) -> Result<()> {
    let lab = lab()?;
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    let up = up(&lab)?;
    end(&lab, up)?;
    vpn::cleanup(&lab.laptop)?;
    before.is_back()?;
    is_gone(&lab.bastion)?;
    Ok(())
}

#[test]
fn told_to_go() -> Result<()> {
    leaves_nothing(|_, up| {
        ensure!(up.end_with(Signal::SIGINT)?.code() == 0);
        Ok(())
    })
}

#[test]
fn local_end_killed() -> Result<()> {
    leaves_nothing(|_, up| {
        up.end_with(Signal::SIGKILL)?;
        Ok(())
    })
}

#[test]
fn remote_end_killed() -> Result<()> {
    let lab = lab()?;
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    let up = up(&lab)?;
    lab.bastion.kill("/tmp/sshvpn-push.")?;
    vpn::fails_clearly(
        &up.wait(PATIENCE)?,
        Some(255),
        &["bastion: the agent there is gone", "137"],
    )?;
    is_gone(&lab.bastion)?;
    // The device went with it; the next copy undoes what is left besides.
    let next = self::up(&lab)?;
    ensure!(next.end_with(Signal::SIGINT)?.code() == 0);
    before.is_back()
}

/// Killed in the middle of sending.
#[test]
fn local_end_killed_while_sending() -> Result<()> {
    let lab = lab()?;
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    // Too slow for the program to arrive meanwhile.
    lab.laptop
        .sh("tc qdisc add dev wan root tbf rate 4mbit burst 16kb latency 50ms")?;
    let up = lab.laptop.spawn(&vpn::command(&["--push", "bastion"])?)?;
    up.wait_for_line("sending sshvpn", PATIENCE)?;
    until("a part of it there", PATIENCE, || {
        (!files(&lab.bastion).ok()?.is_empty()).then_some(())
    })?;
    up.end_with(Signal::SIGKILL)?;
    lab.laptop.sh("tc qdisc del dev wan root")?;
    is_gone(&lab.bastion)?;
    before.is_back()
}

#[test]
fn by_sudo() -> Result<()> {
    let lab = lab()?;
    add_account(&lab.bastion, "alice", Privilege::Sudo)?;
    authorize(&lab.laptop, &lab.bastion, "alice")?;
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    let up = vpn::up(&lab.laptop, &["--push", "alice@bastion"])?;
    ensure!(
        up.stderr().contains("the agent runs as root"),
        "{}",
        up.stderr()
    );
    let left = files(&lab.bastion)?;
    ensure!(left.is_empty(), "left while it runs:\n{left}");
    ensure!(up.end_with(Signal::SIGINT)?.code() == 0);
    before.is_back()
}

/// Nothing is sent where sshvpn is there already.
#[test]
fn not_where_there_is_one() -> Result<()> {
    let lab = topology::direct()?;
    carrier::install(&lab.bastion)?;
    let up = vpn::up(&lab.laptop, &["--push", "bastion"])?;
    let stderr = up.stderr();
    ensure!(
        stderr.contains(BY_AGENT) && !stderr.contains("sending"),
        "{stderr}"
    );
    ensure!(up.end_with(Signal::SIGINT)?.code() == 0);
    Ok(())
}

/// After `arrange` at the bastion no copy is taken, for a reason that contains
/// `parts`; the tunnel goes by tun then, and by agent alone it fails.
fn is_refused(arrange: impl FnOnce(&Host) -> Result<()>, parts: &[&str]) -> Result<()> {
    let lab = lab()?;
    arrange(&lab.bastion)?;
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    let command = vpn::command(&["--via", "agent", "--push", "bastion"])?;
    let reason = [&["bastion: cannot push sshvpn"], parts].concat();
    vpn::fails_clearly(&lab.laptop.run(&command)?, Some(255), &reason)?;
    is_gone(&lab.bastion)?;
    let up = vpn::up(&lab.laptop, &["--push", "bastion"])?;
    let stderr = up.stderr();
    ensure!(
        parts.iter().all(|part| stderr.contains(part)) && stderr.contains("by tun: "),
        "{stderr}"
    );
    ensure!(up.end_with(Signal::SIGINT)?.code() == 0);
    before.is_back()
}

/// Puts `script` in the place of `program` at `host`.
fn replace(host: &Host, program: &str, script: &str) -> Result<()> {
    let path = format!("/run/lab/{program}");
    host.write(&path, &format!("#!/bin/sh\n{script}\n"))?;
    host.sh(&format!(
        "chmod 755 {path}; mount --bind {path} $(readlink -f $(command -v {program}))"
    ))?;
    Ok(())
}

#[test]
fn another_architecture() -> Result<()> {
    let script = "[ \"$1\" = -m ] && echo sparc64 || echo Linux";
    is_refused(
        |bastion| replace(bastion, "uname", script),
        &["it runs Linux sparc64"],
    )
}

/// What arrives is not what was sent, as far as the remote end can tell.
#[test]
fn another_checksum() -> Result<()> {
    let script = "cat >/dev/null; printf '%064d  -\\n' 0";
    is_refused(
        |bastion| replace(bastion, "sha256sum", script),
        &["what arrived is not what was sent"],
    )
}

/// /tmp takes too little, and in the home directory nothing can be run.
#[test]
fn no_room_and_no_right_to_run() -> Result<()> {
    let mounts = "mount -t tmpfs -o size=1m tmpfs /tmp; \
         mount -t tmpfs -o noexec,mode=700 tmpfs /run/home/root";
    is_refused(
        |bastion| bastion.sh(mounts).map(drop),
        &["has room for an executable file"],
    )
}

/// The home directory does where /tmp does not.
#[test]
fn the_next_directory_is_tried() -> Result<()> {
    let lab = lab()?;
    lab.bastion.sh("mount -o remount,noexec /tmp")?;
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    let up = up(&lab)?;
    ensure!(up.end_with(Signal::SIGINT)?.code() == 0);
    is_gone(&lab.bastion)?;
    before.is_back()
}
