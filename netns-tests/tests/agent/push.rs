//! `sshvpn up --push`: sends the program to a host without sshvpn for as long as the tunnel is up,
//! and leaves no trace there, or fails with a reason.
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

/// The line about a tunnel by an agent.
const BY_AGENT: &str = "by agent: sshvpn ";

/// The lab; the bastion has its own /tmp.
fn lab() -> Result<Direct> {
    let lab = topology::direct()?;
    lab.bastion
        .sh("mount -t tmpfs -o mode=1777,size=128m tmpfs /tmp")?;
    Ok(lab)
}

/// The files of `host` in all directories for a copy.
fn files(host: &Host) -> Result<String> {
    host.sh("find /tmp /run/home /usr/local/sbin /var/tmp /dev/shm -path '*sshvpn*'")
}

/// Waits until there are none.
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

/// Runs `end` on a tunnel by a copy, and checks that nothing of the copy is left.
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
    // The device is gone with it; the next copy undoes the rest.
    let next = self::up(&lab)?;
    ensure!(next.end_with(Signal::SIGINT)?.code() == 0);
    before.is_back()
}

/// The client is killed in mid-transfer.
#[test]
fn local_end_killed_while_sending() -> Result<()> {
    let lab = lab()?;
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    // Slow enough that the program does not arrive before the kill.
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

/// The client sends no program if sshvpn is installed.
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

/// After `arrange` on the bastion a push fails with a reason that contains `parts`; the tunnel then
/// goes by tun, and fails with `--via agent`.
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

/// Replaces `program` of `host` by `script`.
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

/// The remote host computes another checksum than the client's.
#[test]
fn another_checksum() -> Result<()> {
    let script = "cat >/dev/null; printf '%064d  -\\n' 0";
    is_refused(
        |bastion| replace(bastion, "sha256sum", script),
        &["what arrived is not what was sent"],
    )
}

/// /tmp is too small, and the home directory is mounted noexec.
#[test]
fn no_room_and_no_right_to_run() -> Result<()> {
    let mounts = "mount -t tmpfs -o size=1m tmpfs /tmp; \
         mount -t tmpfs -o noexec,mode=700 tmpfs /run/home/root";
    is_refused(
        |bastion| bastion.sh(mounts).map(drop),
        &["has room for an executable file"],
    )
}

/// The home directory is used if /tmp cannot be.
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
