//! Command lines that can never work: refused with one sentence before anything is connected to.
//!
//! ```text
//!   laptop wan 192.0.2.1 ──────────── 192.0.2.2 wan bastion
//! ```

use anyhow::{Result, ensure};
use netns_tests::lab::topology;
use netns_tests::program::vpn::{self, fails_clearly};
use netns_tests::{Before, Client, Host};
use nix::sys::signal::Signal;

/// The exit code for a wrong command line of a subcommand.
const USAGE: Option<i32> = Some(2);

/// `sshvpn ARGUMENTS` fails with exit code `code` and `parts`, on a host without any network.
fn refused(laptop: &Host, arguments: &[&str], code: Option<i32>, parts: &[&str]) -> Result<()> {
    let output = laptop.run(&Client::Sshvpn.command(arguments)?)?;
    fails_clearly(&output, code, parts)
}

#[test]
fn values_that_contradict_each_other() -> Result<()> {
    let laptop = Host::new("laptop")?;
    for (options, parts) in [
        (&["--nat", "--no-nat"][..], &["--nat", "--no-nat"][..]),
        (&["--route", "224.0.0.0/4"], &["224.0.0.0/4", "multicast"]),
        (&["--route", "ff05::/16"], &["ff05::/16", "multicast"]),
        (&["--route", "127.0.0.1"], &["127.0.0.1", "loopback"]),
        (&["--route", "fe80::/64"], &["fe80::/64", "link-local"]),
        (
            &["--address", "10.0.0.1", "--peer-address", "fd00::1"],
            &["--address 10.0.0.1", "same family"],
        ),
        (
            &["--address", "10.0.0.1", "--peer-address", "10.0.0.1"],
            &["10.0.0.1", "different addresses"],
        ),
        (
            &["--address", "224.0.0.1"],
            &["--address 224.0.0.1", "unicast"],
        ),
    ] {
        let line = [&["up", "bastion"], options].concat();
        refused(&laptop, &line, USAGE, parts)?;
    }
    Ok(())
}

#[test]
fn no_host() -> Result<()> {
    let laptop = Host::new("laptop")?;
    refused(&laptop, &["up"], USAGE, &["HOST"])?;
    refused(&laptop, &["up", ""], USAGE, &["''"])?;
    // As in ssh.
    refused(&laptop, &["-w", "0:1"], Some(255), &["HOST"])?;
    refused(&laptop, &["-w", "0:1", ""], Some(255), &["''"])
}

#[test]
fn commands_that_do_not_exist() -> Result<()> {
    let laptop = Host::new("laptop")?;
    for word in ["status", "down", "ping", "doctor", "logs", "exec"] {
        refused(&laptop, &[word], USAGE, &[&format!("no command '{word}'")])?;
    }
    // Hosts of these names.
    refused(
        &laptop,
        &["clenup"],
        Some(255),
        &["did you mean 'sshvpn cleanup'?"],
    )?;
    refused(
        &laptop,
        &["--", "status"],
        Some(255),
        &["resolve hostname status"],
    )?;
    refused(
        &laptop,
        &["-w", "0:1", "status"],
        Some(255),
        &["resolve hostname status"],
    )
}

/// `up` does not forward these ports, and says so.
#[test]
fn forwards_of_ssh_config() -> Result<()> {
    let lab = topology::direct()?;
    lab.laptop.write(
        "/run/home/root/.ssh/config",
        "Host bastion\n LocalForward 8080 localhost:80\n DynamicForward 1080\n",
    )?;
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    let line = "warning: ssh_config has LocalForward, DynamicForward for bastion, which 'sshvpn up' does not set up";
    let up = vpn::up(&lab.laptop, &["bastion"])?;
    ensure!(up.stderr().matches(line).count() == 1, "{}", up.stderr());
    up.end_with(Signal::SIGINT)?;
    let up = vpn::up(&lab.laptop, &["bastion", "-o", "ClearAllForwardings=yes"])?;
    ensure!(!up.stderr().contains("Forward"), "{}", up.stderr());
    up.end_with(Signal::SIGINT)?;
    before.is_back()
}

#[test]
fn device_in_use() -> Result<()> {
    let lab = topology::direct()?;
    let up = vpn::up(&lab.laptop, &["bastion", "--device", "vpn0"])?;
    let command = vpn::command(&["bastion", "--device", "vpn0"])?;
    let output = lab.laptop.run(&command)?;
    fails_clearly(&output, Some(1), &["vpn0 is in use", "name another device"])?;
    ensure!(!output.stderr.contains("unit"), "{output:?}");
    up.end_with(Signal::SIGINT)?;
    Ok(())
}
