//! Servers that refuse connections before the banner, because many log in at once: `up` tries
//! again, and says why it gives up.
//!
//! ```text
//!   laptop wan 192.0.2.1 ──────────── 192.0.2.2 wan bastion
//!   sshvpn up ═════════════ SSH ═════════════ sshd, MaxStartups 1
//! ```

use anyhow::{Result, ensure};
use netns_tests::lab::sshd::Sshd;
use netns_tests::lab::topology::{self, Direct};
use netns_tests::program::vpn::{self, fails_clearly};
use netns_tests::{Before, Child, Client, PATIENCE};
use nix::sys::signal::Signal;

/// A lab whose sshd has room for one login at a time.
fn narrow() -> Result<Direct> {
    topology::direct_with(&Sshd::default().set("MaxStartups", "1"))
}

/// A connection that takes the only room.
fn idle(lab: &Direct) -> Result<Child> {
    let connection = "exec 3<>/dev/tcp/bastion/22; head -n 1 <&3; cat <&3";
    let idle = lab.laptop.spawn(&["bash", "-c", connection])?;
    // sshd has counted it.
    idle.wait_for_line("SSH-2.0-", PATIENCE)?;
    Ok(idle)
}

#[test]
fn there_is_room_again() -> Result<()> {
    let lab = narrow()?;
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    let idle = idle(&lab)?;
    let up = lab.laptop.spawn(&vpn::command(&["bastion"])?)?;
    up.wait_for_line(
        "it said 'Exceeded MaxStartups'); trying again in ",
        PATIENCE,
    )?;
    idle.end_with(Signal::SIGKILL)?;
    up.wait_for_line("up:", PATIENCE)?;
    ensure!(up.end_with(Signal::SIGINT)?.code() == 0);
    before.is_back()
}

#[test]
fn there_is_no_room() -> Result<()> {
    let lab = narrow()?;
    let _idle = idle(&lab)?;
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    let up = lab.laptop.spawn(&vpn::command(&["bastion"])?)?;
    let output = up.wait(2 * PATIENCE)?;
    let parts = [
        "sshvpn: bastion port 22: the server closed the connection before the banner (it said \
         'Exceeded MaxStartups')",
    ];
    fails_clearly(&output, Some(255), &parts)?;
    ensure!(
        output.stderr.matches("trying again").count() == 5,
        "{output:?}"
    );
    // -w fails at once, as ssh does.
    let command = Client::Sshvpn.command(&["-w", "any:any", "bastion", "true"])?;
    let output = lab.laptop.run(&command)?;
    fails_clearly(&output, Some(255), &parts)?;
    ensure!(!output.stderr.contains("trying again"), "{output:?}");
    before.is_back()
}

/// The server says nothing at all.
#[test]
fn no_reason_is_given() -> Result<()> {
    let lab = topology::direct()?;
    let silent = "socat TCP-LISTEN:2222,reuseaddr,fork SYSTEM:true";
    let silent = lab
        .bastion
        .spawn(&["bash", "-c", &format!("exec {silent}")])?;
    netns_tests::until("the silent server", PATIENCE, || {
        lab.bastion.sh("ss -Hltn sport = :2222 | grep -q .").ok()
    })?;
    let command = Client::Sshvpn.command(&["-w", "any:any", "-p", "2222", "bastion", "true"])?;
    let parts = [
        "bastion port 2222: the server closed the connection before the banner (MaxStartups or \
         PerSourcePenalties?)",
    ];
    fails_clearly(&lab.laptop.run(&command)?, Some(255), &parts)?;
    silent.end_with(Signal::SIGTERM)?;
    Ok(())
}
