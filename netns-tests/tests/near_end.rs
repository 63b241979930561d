//! A near end without root: the program has the capability, and the person has
//! nothing.
//!
//! ```text
//!   laptop wan 192.0.2.1 ───────── 192.0.2.2 wan bastion
//!   alice: sshvpn  sshvpn0 ═ SSH ═ tunN  sshd, root
//! ```

use anyhow::{Result, ensure};
use netns_tests::sshd::{Privilege, add_account, as_user};
use netns_tests::topology::{self, Direct};
use netns_tests::vpn::Device;
use netns_tests::{Before, Client, PATIENCE, traffic, until};
use nix::sys::signal::Signal;

/// The lab with an account `alice` on the laptop, who has root's keys for the
/// bastion, and a copy of sshvpn that has CAP_NET_ADMIN.
fn lab() -> Result<Direct> {
    let lab = topology::direct()?;
    add_account(&lab.laptop, "alice", Privilege::None)?;
    let program = Client::Sshvpn.program()?;
    lab.laptop.sh(&format!(
        "cp -a /run/home/root/.ssh /run/home/alice/; chown -R alice: /run/home/alice
         cp {program} /run/lab/sshvpn; setcap cap_net_admin+ep /run/lab/sshvpn"
    ))?;
    Ok(lab)
}

fn command(arguments: &[&str]) -> Vec<String> {
    let words = [&["/run/lab/sshvpn"], arguments].concat();
    as_user(
        "alice",
        &words.into_iter().map(str::to_owned).collect::<Vec<_>>(),
    )
}

#[test]
fn capability_is_enough_for_a_tunnel() -> Result<()> {
    let lab = lab()?;
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    let open = lab
        .laptop
        .spawn(&command(&["-N", "-w", "3:7", "root@bastion"]))?;
    until("both devices", PATIENCE, || {
        let both = [&lab.laptop, &lab.bastion].map(|host| Device::only(host).ok());
        both.iter().all(Option::is_some).then_some(())
    })?;
    open.end_with(Signal::SIGTERM)?;
    before.is_back()
}

#[test]
fn capability_is_enough_for_a_vpn() -> Result<()> {
    let lab = lab()?;
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    let up = lab.laptop.spawn(&command(&["up", "root@bastion"]))?;
    up.wait_for_line("up:", PATIENCE)?;
    for address in Device::only(&lab.bastion)?.addresses {
        traffic::ping(&lab.laptop, &address.to_string())?;
    }
    ensure!(up.end_with(Signal::SIGINT)?.code() == 0);
    before.is_back()
}
