//! A local user who is not root: the program has the capability, or the user has sudo.
//!
//! ```text
//!   laptop wan 192.0.2.1 ───────── 192.0.2.2 wan bastion
//!   alice: sshvpn  sshvpn0 ═ SSH ═ tunN  sshd, root
//! ```

use anyhow::{Context, Result, ensure};
use netns_tests::lab::sshd::{Privilege, add_account, as_user};
use netns_tests::lab::topology::{self, Direct};
use netns_tests::program::vpn::Device;
use netns_tests::{Before, Client, PATIENCE, traffic, until};
use nix::sys::signal::Signal;

/// The lab with an account `alice` on the laptop, who has root's keys for the bastion.
fn lab_of_alice(privilege: Privilege) -> Result<Direct> {
    let lab = topology::direct()?;
    add_account(&lab.laptop, "alice", privilege)?;
    lab.laptop
        .sh("cp -a /run/home/root/.ssh /run/home/alice/; chown -R alice: /run/home/alice")?;
    Ok(lab)
}

/// That lab with a copy of sshvpn that has CAP_NET_ADMIN.
fn lab() -> Result<Direct> {
    let lab = lab_of_alice(Privilege::None)?;
    let program = Client::Sshvpn.program()?;
    lab.laptop.sh(&format!(
        "cp {program} /run/lab/sshvpn; setcap cap_net_admin+ep /run/lab/sshvpn"
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
    // alice cannot change the firewall, which a line reports.
    let warning = "warning: no firewall: bastion";
    ensure!(up.stderr().contains(warning), "{}", up.stderr());
    ensure!(up.end_with(Signal::SIGINT)?.code() == 0);
    before.is_back()
}

/// Root has neither key nor known host: alice's are used.
#[test]
fn sudo_uses_the_keys_of_who_came_through_it() -> Result<()> {
    let lab = lab_of_alice(Privilege::Sudo)?;
    lab.laptop.sh("rm -r /run/home/root/.ssh")?;
    goes_up_by_sudo(&lab, "")
}

/// sudo removes SSH_AUTH_SOCK; the agent is found nevertheless.
#[test]
fn sudo_uses_the_agent_of_who_came_through_it() -> Result<()> {
    let lab = lab_of_alice(Privilege::Sudo)?;
    lab.laptop.sh("rm -r /run/home/root/.ssh")?;
    let key = "/run/home/alice/.ssh/id_ed25519";
    goes_up_by_sudo(&lab, &format!("ssh-add -q {key} && rm {key} {key}.pub;"))
}

/// As alice, runs `first` under an agent, then sshvpn by sudo.
fn goes_up_by_sudo(lab: &Direct, first: &str) -> Result<()> {
    let program = Client::Sshvpn.program()?;
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    let line = format!("{first} sudo -n {program} up root@bastion; echo \"exit $?\"");
    let agent = ["ssh-agent", "sh", "-c", &line].map(str::to_owned);
    let up = lab.laptop.spawn(&as_user("alice", &agent))?;
    up.wait_for_line("up:", PATIENCE)?;
    let device = Device::only(&lab.bastion)?;
    for address in device.addresses {
        traffic::ping(&lab.laptop, &address.to_string())?;
    }
    let running = lab.laptop.processes()?;
    let start = format!("{program} up");
    let program = running
        .iter()
        .find(|process| process.command.starts_with(&start));
    let pid = program.context("sshvpn runs")?.pid;
    lab.laptop.sh(&format!("kill -TERM {pid}"))?;
    up.wait_for_line("exit 0", PATIENCE)?;
    up.wait(PATIENCE)?;
    before.is_back()
}
