//! `--congestion`: what the client's socket uses, and names that the kernel does not have.
//!
//! ```text
//!   laptop wan 192.0.2.1 ──────────── 192.0.2.2 wan bastion
//!   sshvpn ═══════════════ SSH over TCP ═══════════════ sshd
//! ```

use anyhow::{Result, ensure};
use netns_tests::lab::sshd::{Privilege, add_account, as_user};
use netns_tests::lab::topology;
use netns_tests::program::vpn::{self, fails_clearly};
use netns_tests::{Before, Client, Host, PATIENCE};
use nix::sys::signal::Signal;

/// What the connection to port 22 uses, as ss(8) shows it.
fn of_connection(host: &Host) -> Result<String> {
    host.sh("ss -Htin state established dport = :22")
}

#[test]
fn what_is_asked_for_is_used() -> Result<()> {
    let lab = topology::direct()?;
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    let up = vpn::up(&lab.laptop, &["--congestion", "reno", "-v", "bastion"])?;
    let shown = of_connection(&lab.laptop)?;
    ensure!(shown.contains(" reno "), "{shown}");
    ensure!(
        up.stderr().contains("congestion control reno"),
        "{}",
        up.stderr()
    );
    ensure!(up.end_with(Signal::SIGINT)?.code() == 0);
    before.is_back()
}

/// Without the option it is the host's own.
#[test]
fn the_hosts_own() -> Result<()> {
    let lab = topology::direct()?;
    lab.laptop
        .sh("sysctl -q -w net.ipv4.tcp_congestion_control=reno")?;
    let up = vpn::up(&lab.laptop, &["bastion"])?;
    let shown = of_connection(&lab.laptop)?;
    ensure!(shown.contains(" reno "), "{shown}");
    up.end_with(Signal::SIGINT)?;
    Ok(())
}

#[test]
fn names_that_the_kernel_does_not_have() -> Result<()> {
    let lab = topology::direct()?;
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    for (name, code, part) in [
        (
            "no_such",
            255,
            "this kernel does not have the congestion control no_such, only ",
        ),
        ("a b", 2, "give a name such as bbr or cubic"),
    ] {
        let command = vpn::command(&["--congestion", name, "bastion"])?;
        fails_clearly(&lab.laptop.run(&command)?, Some(code), &[part])?;
    }
    before.is_back()
}

/// `-w` without root uses what is permitted to everybody.
#[test]
fn without_privilege() -> Result<()> {
    let lab = topology::direct()?;
    add_account(&lab.laptop, "alice", Privilege::None)?;
    lab.laptop.sh("ip tuntap add tun3 mode tun user alice; \
         cp -a /run/home/root/.ssh /run/home/alice/; chown -R alice: /run/home/alice")?;
    let command = Client::Sshvpn.command(&[
        "-N",
        "-v",
        "-w",
        "3:7",
        "--congestion",
        "reno",
        "root@bastion",
    ])?;
    let tunnel = lab.laptop.spawn(&as_user("alice", &command))?;
    tunnel.wait_for_line("congestion control reno", PATIENCE)?;
    tunnel.end_with(Signal::SIGTERM)?;
    Ok(())
}
