//! The distribution's ssh with `sshvpn serve`, at its extremes: every algorithm, small rekey
//! limits, shared connections with many forwards, hops, and what is refused.
//!
//! ```text
//!   laptop: ssh ══ SSH ══ bastion: sshvpn serve ── lan host
//! ```

use anyhow::{Context, Result, ensure};
use netns_tests::lab::sshd::{Sshd, authorize, introduce, make_key};
use netns_tests::serve::lab::{LAN, ServeLab};
use netns_tests::serve::{Serve, Server};
use netns_tests::{Child, Client, Output, PATIENCE, until};
use nix::sys::signal::Signal;

use crate::forwards::{self, FAR, Service};
use crate::python;

/// The network, with any forward for the laptop.
fn lab() -> Result<ServeLab> {
    let lab = ServeLab::new()?;
    lab.authorize(&[(&lab.laptop, "port-forwarding")])?;
    Ok(lab)
}

fn spawn(lab: &ServeLab, arguments: &[&str]) -> Result<Child> {
    let arguments = [arguments, &["alice@bastion"]].concat();
    lab.laptop.spawn(&Client::Ssh.command(&arguments)?)
}

fn ssh(lab: &ServeLab, arguments: &[&str]) -> Result<Output> {
    spawn(lab, arguments)?.wait(PATIENCE)
}

/// Sends 100 kB through `ssh OPTIONS -W` to the echo service of the LAN host.
fn passes(lab: &ServeLab, options: &str) -> Result<()> {
    let line = format!(
        "cd /run/lab; [ -e sent ] || head -c 100000 /dev/urandom >sent
         ssh {options} -W {FAR} alice@bastion <sent >heard
         head -c 100000 heard | cmp - sent; tail -c +100001 heard | grep -qx end"
    );
    lab.laptop.sh(&line).with_context(|| options.to_owned())?;
    Ok(())
}

/// `ssh OPTIONS` and the server have no algorithm in common.
fn fails(lab: &ServeLab, option: &str) -> Result<()> {
    let output = ssh(lab, &["-N", "-o", option])?;
    let is_clear = output.stderr.contains("no matching");
    ensure!(output.code() == 255 && is_clear, "{option}: {output:?}");
    Ok(())
}

#[test]
fn every_algorithm_of_both() -> Result<()> {
    let lab = lab()?;
    let mut serve = Serve::default();
    for kind in ["ecdsa", "rsa"] {
        let file = format!("/etc/ssh/ssh_host_{kind}_key");
        make_key(&lab.bastion, &file, kind)?;
        serve = serve.with(&["--host-key", &file]);
    }
    let _server = serve.start(&lab.bastion)?;
    let _echo = python::echo(&lab.lan)?;
    for aead in [
        "aes128-gcm@openssh.com",
        "aes256-gcm@openssh.com",
        "chacha20-poly1305@openssh.com",
    ] {
        passes(&lab, &format!("-o Ciphers={aead}"))?;
    }
    for bits in ["128", "192", "256"] {
        for mac in ["256", "512"] {
            let mac = format!("hmac-sha2-{mac}-etm@openssh.com");
            passes(&lab, &format!("-o Ciphers=aes{bits}-ctr -o MACs={mac}"))?;
        }
    }
    for kex in [
        "curve25519-sha256",
        "curve25519-sha256@libssh.org",
        "ecdh-sha2-nistp256",
        "ecdh-sha2-nistp384",
        "ecdh-sha2-nistp521",
    ] {
        passes(&lab, &format!("-o KexAlgorithms={kex}"))?;
    }
    let unknown = "-o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no";
    for key in [
        "ssh-ed25519",
        "ecdsa-sha2-nistp256",
        "rsa-sha2-256",
        "rsa-sha2-512",
    ] {
        passes(&lab, &format!("-o HostKeyAlgorithms={key} {unknown}"))?;
    }
    for weak in [
        "Ciphers=aes128-cbc",
        "KexAlgorithms=diffie-hellman-group14-sha1",
        "HostKeyAlgorithms=ssh-rsa",
    ] {
        fails(&lab, weak)?;
    }
    Ok(())
}

/// In the background, with compression requested, and new keys at each half a megabyte.
#[test]
fn forwards_of_every_kind_in_the_background() -> Result<()> {
    let lab = lab()?;
    let server = forwards::serve(&lab)?;
    let local = format!("8001:{FAR}");
    let options = ["-f", "-N", "-C", "-o", "RekeyLimit=500K"];
    let forwards = ["-L", &local, "-R", "8080:127.0.0.1:9000", "-D", "1080"];
    ssh(&lab, &[&options[..], &forwards].concat())?.ok()?;
    let service = Service::on_lan(&lab)?;
    service.behind(&lab.laptop, 8001).context("-L")?;
    service.behind_socks(&lab.laptop, 1080).context("-D")?;
    Service::on_laptop(&lab)?
        .behind(&lab.bastion, 8080)
        .context("-R")?;
    lab.laptop.kill("/usr/bin/ssh -f")?;
    no_sessions(&server)
}

/// Waits until the server has no client.
fn no_sessions(server: &Server<'_>) -> Result<()> {
    until("the end of all sessions", PATIENCE, || {
        let status = server.status().ok()?;
        status["sessions"].as_array()?.is_empty().then_some(())
    })
}

/// One connection, with forwards that come and go and many channels at once.
#[test]
fn a_shared_connection() -> Result<()> {
    const MUX: &str = "/run/lab/mux";
    let lab = lab()?;
    let server = forwards::serve(&lab)?;
    let master = spawn(&lab, &["-N", "-M", "-S", MUX, "-o", "RekeyLimit=500K"])?;
    until("the connection", PATIENCE, || {
        let check = lab.laptop.sh(&format!("ssh -S {MUX} -O check bastion"));
        check.ok()
    })?;
    let control = |what: &str, forward: &str| {
        let line = format!("ssh -S {MUX} -O {what} {forward} bastion");
        lab.laptop.sh(&line)
    };
    let local = format!("-L 8001:{FAR}");
    let remote = "-R 8080:127.0.0.1:9000";
    let (far, here) = (Service::on_lan(&lab)?, Service::on_laptop(&lab)?);
    for _ in 0..2 {
        control("forward", &local)?;
        control("forward", remote)?;
        far.behind(&lab.laptop, 8001)?;
        here.behind(&lab.bastion, 8080)?;
        control("cancel", &local)?;
        control("cancel", remote)?;
        let list = lab.bastion.sh("ss -Hltn sport = :8080")?;
        ensure!(list.trim().is_empty(), "{list}");
    }
    // A port that the server picks.
    let port: u16 = control("forward", "-R 0:127.0.0.1:9000")?.trim().parse()?;
    here.behind(&lab.bastion, port)?;
    drop(far);
    let _echo = python::echo(&lab.lan)?;
    lab.laptop.sh(&format!(
        "cd /run/lab; head -c 100000 /dev/urandom >sent
         for n in $(seq 30); do ssh -S {MUX} -W {FAR} bastion <sent >heard$n & done; wait
         for n in $(seq 30); do head -c 100000 heard$n | cmp - sent; done"
    ))?;
    ensure!(master.is_running(), "{}", master.stderr());
    control("exit", "")?;
    master.wait(PATIENCE)?;
    no_sessions(&server)
}

/// ssh and sshvpn go through the server to an sshd behind it.
#[test]
fn the_server_is_a_jump_host() -> Result<()> {
    let lab = ServeLab::new()?;
    lab.authorize(&[(&lab.laptop, "permitopen=\"198.51.100.2:22\"")])?;
    let _server = forwards::serve(&lab)?;
    // A tunnel would outlive its command.
    let _sshd = Sshd::default().set("PermitTunnel", "no").start(&lab.lan)?;
    introduce(&lab.laptop, &lab.lan, &[LAN])?;
    authorize(&lab.laptop, &lab.lan, "root")?;
    let hop = ["-J", "alice@bastion", LAN, "echo there"];
    let said = lab.laptop.run(&Client::Ssh.command(&hop)?)?;
    ensure!(said.ok()? == "there\n");
    let hop = [&["-w", "any:any"], &hop[..]].concat();
    let said = lab.laptop.run(&Client::Sshvpn.command(&hop)?)?;
    ensure!(said.ok()? == "there\n");
    // Another place there is not permitted.
    let hop = ["-J", "alice@bastion", "198.51.100.3", "true"];
    let refused = lab.laptop.run(&Client::Ssh.command(&hop)?)?;
    ensure!(
        refused.code() == 255 && refused.stderr.contains("administratively prohibited"),
        "{refused:?}"
    );
    let hop = [&["-w", "any:any"], &hop[..]].concat();
    let refused = lab.laptop.run(&Client::Sshvpn.command(&hop)?)?;
    let parts = ["jump host bastion cannot connect", "not permitted"];
    netns_tests::program::vpn::fails_clearly(&refused, Some(255), &parts)
}

/// A refused extra does not end the connection unless the user says so.
#[test]
fn what_is_refused() -> Result<()> {
    let lab = lab()?;
    let _server = forwards::serve(&lab)?;
    let service = Service::on_lan(&lab)?;
    let local = format!("8001:{FAR}");
    for extra in [
        &["-A", "-X"][..],
        &["-t", "-o", "SetEnv=A=b"],
        &["-R", "/run/there:127.0.0.1:9000"],
        &["-L", "/run/lab/here:/run/there"],
        &["-o", "ServerAliveInterval=1", "-o", "UpdateHostKeys=yes"],
    ] {
        let child = spawn(&lab, &[&["-N", "-L", &local], extra].concat())?;
        service
            .behind(&lab.laptop, 8001)
            .with_context(|| format!("{extra:?}"))?;
        child.end_with(Signal::SIGTERM)?;
    }
    let fatal = ["-N", "-o", "ExitOnForwardFailure=yes"];
    let refused = ssh(
        &lab,
        &[&fatal[..], &["-R", "/run/there:127.0.0.1:9000"]].concat(),
    )?;
    ensure!(
        refused.code() == 255 && refused.stderr.contains("remote port forwarding failed"),
        "{refused:?}"
    );
    let refused = ssh(&lab, &["-W", "198.51.100.2:9"])?;
    ensure!(
        refused.code() == 255 && refused.stderr.contains("cannot connect to 198.51.100.2:9"),
        "{refused:?}"
    );
    Ok(())
}
