//! PuTTY's plink with `sshvpn serve`: forwards of every kind, keys in PuTTY's format, the host key
//! by its fingerprint.
//!
//! ```text
//!   laptop: plink ══ SSH ══ bastion: sshvpn serve ── lan host
//! ```

use anyhow::{Context, Result, ensure};
use netns_tests::lab::sshd::make_key;
use netns_tests::serve::AUTHORIZED_KEYS;
use netns_tests::serve::lab::ServeLab;
use netns_tests::{Child, PATIENCE};
use nix::sys::signal::Signal;

use crate::forwards::{self, FAR, Service};

/// The key, in PuTTY's format.
const PPK: &str = "/run/lab/key.ppk";

/// Makes the laptop a key of type `kind`, which may log in and forward.
fn authorize(lab: &ServeLab, kind: &str) -> Result<()> {
    let file = format!("/run/lab/{kind}");
    make_key(&lab.laptop, &file, kind)?;
    lab.laptop
        .sh(&format!("puttygen {file} -O private -o {PPK}"))?;
    let public = lab.laptop.read(&format!("{file}.pub"))?;
    lab.bastion
        .write(AUTHORIZED_KEYS, &format!("port-forwarding {public}"))
}

/// The server's host key, as ssh-keygen shows it.
fn fingerprint(lab: &ServeLab) -> Result<String> {
    let shown = lab
        .bastion
        .sh("ssh-keygen -l -f /etc/ssh/ssh_host_ed25519_key.pub")?;
    let word = shown.split_whitespace().nth(1);
    Ok(word.context("no fingerprint")?.to_owned())
}

/// Starts plink with the host key `known`.
fn plink(lab: &ServeLab, known: &str, arguments: &[&str]) -> Result<Child> {
    let options = ["plink", "-batch", "-ssh", "-i", PPK, "-hostkey", known];
    lab.laptop.spawn(&[&options[..], arguments].concat())
}

#[test]
fn forwards_of_every_kind() -> Result<()> {
    let lab = ServeLab::new()?;
    authorize(&lab, "ed25519")?;
    let _server = forwards::serve(&lab)?;
    let known = fingerprint(&lab)?;
    let local = format!("8001:{FAR}");
    let remote = "8080:127.0.0.1:9000";
    let arguments = [
        "-N",
        "-C",
        "-L",
        &local,
        "-R",
        remote,
        "-D",
        "1080",
        "root@bastion",
    ];
    let _plink = plink(&lab, &known, &arguments)?;
    let service = Service::on_lan(&lab)?;
    service.behind(&lab.laptop, 8001).context("-L")?;
    service.behind_socks(&lab.laptop, 1080).context("-D")?;
    Service::on_laptop(&lab)?
        .behind(&lab.bastion, 8080)
        .context("-R")
}

/// `-nc` asks for a window of 2 GiB.
#[test]
fn the_netcat_mode_with_every_type_of_key() -> Result<()> {
    let lab = ServeLab::new()?;
    let known = fingerprint(&lab)?;
    let command = format!("plink -batch -i {PPK} -hostkey {known} -nc {FAR} root@bastion");
    for kind in ["ed25519", "ecdsa", "rsa"] {
        authorize(&lab, kind)?;
        let server = forwards::serve(&lab)?;
        let socat = forwards::netcat(&lab.laptop, &command)?;
        Service::on_lan(&lab)?
            .behind(&lab.laptop, 8001)
            .with_context(|| kind)?;
        socat.end_with(Signal::SIGTERM)?;
        server.stop()?;
    }
    Ok(())
}

#[test]
fn another_host_key_no_shell_and_no_command() -> Result<()> {
    let lab = ServeLab::new()?;
    authorize(&lab, "ed25519")?;
    let _server = forwards::serve(&lab)?;
    let known = fingerprint(&lab)?;
    let other = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let refused = plink(&lab, other, &["-N", "root@bastion"])?.wait(PATIENCE)?;
    ensure!(refused.code() != 0, "{refused:?}");
    for arguments in [&["root@bastion", "true"][..], &["root@bastion"]] {
        let refused = plink(&lab, &known, arguments)?.wait(PATIENCE)?;
        ensure!(refused.code() != 0, "{refused:?}");
    }
    Ok(())
}
