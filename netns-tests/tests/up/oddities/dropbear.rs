//! Dropbear as the remote host's SSH server: an agent's stream works, sshd's forwarding is not there.
//!
//! ```text
//!   laptop wan 192.0.2.1 ── 192.0.2.2 wan bastion
//!   sshvpn up  sshvpn0 ═ SSH ═ sshvpn0  dropbear
//! ```

use anyhow::{Result, ensure};
use netns_tests::lab::sshd::{authorize, make_key};
use netns_tests::program::vpn::{self, Device};
use netns_tests::{Before, Carrier, Child, Host, PATIENCE, connect, traffic};
use nix::sys::signal::Signal;

struct Lab {
    laptop: Host,
    bastion: Host,
    _dropbear: Child,
}

fn lab() -> Result<Lab> {
    let (laptop, bastion) = (Host::new("laptop")?, Host::new("bastion")?);
    connect(
        (&laptop, "wan", &["192.0.2.1/24"]),
        (&bastion, "wan", &["192.0.2.2/24"]),
    )?;
    make_key(&laptop, "/run/home/root/.ssh/id_ed25519", "ed25519")?;
    authorize(&laptop, &bastion, "root")?;
    bastion.sh(
        "cp /etc/ssh/authorized_keys/root /run/home/root/.ssh/authorized_keys
         chmod 600 /run/home/root/.ssh/authorized_keys; chmod 755 /run/home
         dropbearkey -t ed25519 -f /run/lab/key >/dev/null",
    )?;
    let public = bastion.sh("dropbearkey -y -f /run/lab/key | grep ^ssh-")?;
    laptop.append("/etc/hosts", "192.0.2.2 bastion\n")?;
    laptop.write(
        "/run/home/root/.ssh/known_hosts",
        &format!("bastion,192.0.2.2 {public}"),
    )?;
    let dropbear = bastion.spawn(&[
        "dropbear",
        "-F",
        "-E",
        "-s",
        "-r",
        "/run/lab/key",
        "-p",
        "22",
    ])?;
    dropbear.wait_for_line("Not backgrounding", PATIENCE)?;
    Ok(Lab {
        laptop,
        bastion,
        _dropbear: dropbear,
    })
}

fn tunnel(options: &[&str], install: bool) -> Result<()> {
    let lab = lab()?;
    if install {
        Carrier::Agent.prepare(&lab.bastion)?;
    }
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    let up = vpn::up(&lab.laptop, &[options, &["bastion"]].concat())?;
    for address in Device::only(&lab.bastion)?.addresses {
        traffic::ping(&lab.laptop, &address.to_string())?;
    }
    ensure!(up.end_with(Signal::SIGINT)?.code() == 0);
    before.is_back()
}

#[test]
fn an_agent_there() -> Result<()> {
    tunnel(&[], true)
}

#[test]
fn an_agent_pushed() -> Result<()> {
    tunnel(&["--push"], false)
}

/// Dropbear has no tunnels.
#[test]
fn no_tunnel_of_its_own() -> Result<()> {
    let lab = lab()?;
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    for options in [&["--via", "tun"][..], &[]] {
        let output = lab
            .laptop
            .run(&vpn::command(&[options, &["bastion"]].concat())?)?;
        vpn::fails_clearly(&output, Some(255), &["bastion", "dropbear", "--push"])?;
    }
    before.is_back()
}
