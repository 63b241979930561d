//! `sshvpn up` to remote hosts with ordinary oddities, each a row of a table: what startup files
//! print, which shell the login has, how many sessions its sshd permits.
//!
//! ```text
//!   laptop wan 192.0.2.1 ── 192.0.2.2 wan bastion
//!   sshvpn up  sshvpn0 ═ SSH ═ tunN  sshd with the oddity
//! ```

use anyhow::{Context, Result, ensure};
use netns_tests::lab::sshd::Sshd;
use netns_tests::lab::topology;
use netns_tests::program::vpn::Device;
use netns_tests::{Before, Carrier, traffic};
use nix::sys::signal::Signal;

/// What is odd about the remote host; empty where it is as Debian installs it.
#[derive(Debug, Clone, Copy, Default)]
struct Oddity {
    /// root's login shell.
    shell: &'static str,
    /// A startup file that sshd or the shell reads, below root's home, and its text.
    startup: (&'static str, &'static str),
    /// A line of sshd_config.
    sshd: (&'static str, &'static str),
}

/// How `up` gets to the remote host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Tun,
    Agent,
    Push,
}

fn tunnel(oddity: Oddity, ways: &[Way]) -> Result<()> {
    for way in ways {
        up(oddity, *way).with_context(|| format!("{way:?}, {oddity:?}"))?;
    }
    Ok(())
}

fn up(oddity: Oddity, way: Way) -> Result<()> {
    let sshd = match oddity.sshd {
        ("", _) => Sshd::default(),
        (name, value) => Sshd::default().set(name, value),
    };
    let lab = topology::direct_with(&sshd)?;
    let bastion = &lab.bastion;
    let (file, text) = oddity.startup;
    if !file.is_empty() {
        bastion.write(&format!("/run/home/root/{file}"), text)?;
    }
    if !oddity.shell.is_empty() {
        if oddity.shell.ends_with(file) && !file.is_empty() {
            bastion.sh(&format!("chmod 755 {}", oddity.shell))?;
        }
        bastion.sh(&format!(
            "sed -i 's,^\\(root:.*:\\)[^:]*$,\\1{},' /etc/passwd",
            oddity.shell
        ))?;
    }
    let (carrier, more): (_, &[&str]) = match way {
        Way::Tun => (Carrier::Tun, &[]),
        Way::Agent => (Carrier::Agent, &[]),
        Way::Push => (Carrier::Agent, &["--push"]),
    };
    if way != Way::Push {
        carrier.prepare(bastion)?;
    }
    let before = Before::of(&[&lab.laptop, bastion])?;
    let up = carrier.up(&lab.laptop, &[more, &["bastion"]].concat())?;
    for address in Device::only(bastion)?.addresses {
        traffic::ping(&lab.laptop, &address.to_string())?;
    }
    let ended = up.end_with(Signal::SIGINT)?;
    ensure!(ended.code() == 0, "{ended:?}");
    before.is_back()
}

const ALL: &[Way] = &[Way::Tun, Way::Agent, Way::Push];

fn greeting(file: &'static str, text: &'static str) -> Result<()> {
    let startup = (file, text);
    let oddity = Oddity {
        startup,
        ..Oddity::default()
    };
    tunnel(oddity, ALL)
}

#[test]
fn a_bashrc_that_prints_a_line() -> Result<()> {
    greeting(".bashrc", "echo Welcome to the bastion\n")
}

#[test]
fn a_bashrc_that_prints_no_line_end() -> Result<()> {
    greeting(".bashrc", "printf 'last login: today; '\n")
}

#[test]
fn an_ssh_rc_that_prints_many_lines() -> Result<()> {
    greeting(".ssh/rc", "seq 300; printf 'and no line end'\n")
}

fn shell(shell: &'static str) -> Result<()> {
    let oddity = Oddity {
        shell,
        ..Oddity::default()
    };
    tunnel(oddity, ALL)
}

#[test]
fn csh() -> Result<()> {
    shell("/bin/tcsh")
}

#[test]
fn zsh() -> Result<()> {
    shell("/bin/zsh")
}

#[test]
fn fish() -> Result<()> {
    shell("/usr/bin/fish")
}

/// sshd before OpenSSH 7.7 names the tunnel's device to no session.
#[test]
fn no_name_of_the_device() -> Result<()> {
    let oddity = Oddity {
        shell: "/run/home/root/old-sshd",
        startup: (
            "old-sshd",
            "#!/bin/sh\nunset SSH_TUNNEL\nexec /bin/sh \"$@\"\n",
        ),
        ..Oddity::default()
    };
    tunnel(oddity, &[Way::Tun])
}

fn sessions(most: &'static str) -> Result<()> {
    let oddity = Oddity {
        sshd: ("MaxSessions", most),
        ..Oddity::default()
    };
    tunnel(oddity, ALL)
}

#[test]
fn two_sessions_at_a_time() -> Result<()> {
    sessions("2")
}

#[test]
fn one_session_at_a_time() -> Result<()> {
    sessions("1")
}
