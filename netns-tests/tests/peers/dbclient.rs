//! Dropbear's client with `sshvpn serve`: forwards, the netcat mode, and hops.
//!
//! ```text
//!   laptop: dbclient ══ SSH ══ bastion: sshvpn serve ── lan host
//! ```

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use netns_tests::lab::dropbear;
use netns_tests::serve::AUTHORIZED_KEYS;
use netns_tests::serve::lab::{LAN, ServeLab};
use netns_tests::{Child, PATIENCE, until};
use nix::sys::signal::Signal;

use crate::forwards::{self, FAR, Service};

/// dbclient's default key.
const KEY: &str = "/run/home/root/.ssh/id_dropbear";

const KNOWN_HOSTS: &str = "/run/home/root/.ssh/known_hosts";

/// The network; a key of dbclient of type `kind` may log in.
fn lab(kind: &str, options: &str) -> Result<ServeLab> {
    let lab = ServeLab::new()?;
    let host_key = lab.bastion.read("/etc/ssh/ssh_host_ed25519_key.pub")?;
    let host_key = host_key.trim().trim_end_matches(" lab");
    // dbclient knows neither lists of names nor comments.
    lab.laptop
        .append(KNOWN_HOSTS, &format!("bastion {host_key}\n"))?;
    let public = make_key(&lab, kind)?;
    lab.bastion
        .write(AUTHORIZED_KEYS, &format!("{options} {public}\n"))?;
    Ok(lab)
}

/// Makes the laptop a new key of type `kind` in Dropbear's format; returns the public key.
fn make_key(lab: &ServeLab, kind: &str) -> Result<String> {
    let shown = lab.laptop.sh(&format!(
        "rm -f {KEY}; dropbearkey -t {kind} -f {KEY} | grep -E '^(ssh|ecdsa)-'"
    ))?;
    Ok(shown.trim().to_owned())
}

fn dbclient(lab: &ServeLab, arguments: &[&str]) -> Result<Child> {
    lab.laptop
        .spawn(&[&["/usr/bin/dbclient"], arguments].concat())
}

#[test]
fn local_and_remote_forwards() -> Result<()> {
    let lab = lab("ed25519", "port-forwarding")?;
    let _server = forwards::serve(&lab)?;
    let local = format!("8001:{FAR}");
    let _client = dbclient(
        &lab,
        &["-N", "-L", &local, "-R", "8080:127.0.0.1:9000", "bastion"],
    )?;
    Service::on_lan(&lab)?.behind(&lab.laptop, 8001)?;
    Service::on_laptop(&lab)?.behind(&lab.bastion, 8080)
}

#[test]
fn every_type_of_key() -> Result<()> {
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let lab = lab(kind, "port-forwarding")?;
        let _server = forwards::serve(&lab)?;
        let local = format!("8001:{FAR}");
        let client = dbclient(&lab, &["-N", "-L", &local, "bastion"])?;
        Service::on_lan(&lab)?.behind(&lab.laptop, 8001)?;
        client.end_with(Signal::SIGTERM)?;
    }
    Ok(())
}

#[test]
fn the_netcat_mode() -> Result<()> {
    let lab = lab("ed25519", "permitopen=\"198.51.100.2:9000\"")?;
    let server = forwards::serve(&lab)?;
    let _socat = forwards::netcat(&lab.laptop, &format!("dbclient -B {FAR} bastion"))?;
    Service::on_lan(&lab)?.behind(&lab.laptop, 8001)?;
    // dbclient ends with 0 for a refusal too, without a word.
    let refused = dbclient(&lab, &["-B", "198.51.100.2:9001", "bastion"])?.wait(PATIENCE)?;
    ensure!(refused.stdout.is_empty(), "{refused:?}");
    server.wait_for_record(0, "request-refused", |record| record["port"] == 9001)?;
    Ok(())
}

/// dbclient goes to a host behind the server: by hops of its own, and with itself as the proxy.
#[test]
fn the_server_is_a_jump_host() -> Result<()> {
    let lab = lab("ed25519", "permitopen=\"198.51.100.2:22\"")?;
    let _server = forwards::serve(&lab)?;
    let public = lab
        .laptop
        .sh(&format!("dropbearkey -y -f {KEY} | grep -E '^ssh-'"))?;
    dropbear::authorize(&lab.lan, &public)?;
    let key = dropbear::make_host_key(&lab.lan, "ed25519")?;
    lab.laptop.append(KNOWN_HOSTS, &format!("{LAN} {key}\n"))?;
    let _there = dropbear::start(&lab.lan, &["ed25519"], &[])?;
    let proxy = format!("dbclient -B {LAN}:22 bastion");
    let hops = format!("root@bastion,root@{LAN}");
    for arguments in [
        &["-J", &proxy, LAN, "echo there"][..],
        &[&hops, "echo there"],
    ] {
        let said = dbclient(&lab, arguments)?.wait(PATIENCE)?;
        ensure!(said.stdout == "there\n", "{said:?}");
    }
    Ok(())
}

/// dbclient hears an answer to each of its keepalives; it ends after three without one.
#[test]
fn keepalives() -> Result<()> {
    let lab = lab("ed25519", "port-forwarding")?;
    let _server = forwards::serve(&lab)?;
    let local = format!("8001:{FAR}");
    let client = dbclient(&lab, &["-K", "1", "-N", "-L", &local, "bastion"])?;
    let service = Service::on_lan(&lab)?;
    service.behind(&lab.laptop, 8001)?;
    let begun = Instant::now();
    until("six keepalives", PATIENCE, || {
        (begun.elapsed() > Duration::from_secs(6) || client.has_ended()).then_some(())
    })?;
    service.behind(&lab.laptop, 8001)
}

#[test]
fn no_shell_and_no_command() -> Result<()> {
    let lab = lab("ed25519", "port-forwarding")?;
    let _server = forwards::serve(&lab)?;
    for arguments in [
        &["bastion", "true"][..],
        &["-T", "bastion"],
        &["-t", "bastion"],
    ] {
        let refused = dbclient(&lab, arguments)?.wait(PATIENCE)?;
        ensure!(refused.code() != 0, "{refused:?}");
    }
    Ok(())
}
