//! Our client with Dropbear as its server: host keys, logins, commands, jump hosts, and the answer
//! to a tunnel, which Dropbear does not have.
//!
//! ```text
//!   laptop wan 192.0.2.1 ──── 192.0.2.2 wan bastion
//!   sshvpn ═══════════════ SSH ═════════════ dropbear
//! ```

use anyhow::{Context, Result, ensure};
use netns_tests::lab::sshd::make_key;
use netns_tests::lab::{dropbear, topology};
use netns_tests::program::tunnel::{FAR, Tunnel};
use netns_tests::program::vpn::{self, fails_clearly};
use netns_tests::{Before, Child, Client, Host, Output, connect, traffic};
use nix::sys::signal::Signal;

const KEY: &str = "/run/home/root/.ssh/id_ed25519";
const KNOWN_HOSTS: &str = "/run/home/root/.ssh/known_hosts";

/// The laptop and the bastion.
struct Lab {
    laptop: Host,
    bastion: Host,
}

/// Makes the two hosts; the laptop has a key that the bastion takes, and knows no host key.
fn lab() -> Result<Lab> {
    let lab = Lab {
        laptop: Host::new("laptop")?,
        bastion: Host::new("bastion")?,
    };
    connect(
        (&lab.laptop, "wan", &["192.0.2.1/24"]),
        (&lab.bastion, "wan", &["192.0.2.2/24"]),
    )?;
    lab.laptop.append("/etc/hosts", "192.0.2.2 bastion\n")?;
    make_key(&lab.laptop, KEY, "ed25519")?;
    let public = lab.laptop.read(&format!("{KEY}.pub"))?;
    dropbear::authorize(&lab.bastion, &public)?;
    Ok(lab)
}

impl Lab {
    /// Starts Dropbear with a host key of this type, which the laptop knows.
    fn start(&self, kind: &str, options: &[&str]) -> Result<Child> {
        let key = dropbear::make_host_key(&self.bastion, kind)?;
        self.laptop
            .write(KNOWN_HOSTS, &format!("bastion {key}\n"))?;
        dropbear::start(&self.bastion, &[kind], options)
    }

    /// Runs `sshvpn -w any:any ARGUMENTS` on the laptop; only the session beside the tunnel works.
    fn sshvpn(&self, arguments: &[&str]) -> Result<Output> {
        self.laptop.run(&session(arguments)?)
    }

    /// Runs `sshvpn ARGUMENTS bastion`, with `word` as the answer to every prompt.
    fn answering(&self, word: &str, arguments: &[&str]) -> Result<Output> {
        let program = "/run/lab/askpass";
        self.laptop
            .write(program, &format!("#!/bin/sh\necho '{word}'\n"))?;
        self.laptop.sh(&format!("chmod 755 {program}"))?;
        let askpass = format!("SSH_ASKPASS={program}");
        let mut command = ["env", &askpass, "SSH_ASKPASS_REQUIRE=force"]
            .map(str::to_owned)
            .to_vec();
        command.extend(session(arguments)?);
        self.laptop.run(&command)
    }
}

/// The command line `sshvpn -w any:any ARGUMENTS`.
fn session(arguments: &[&str]) -> Result<Vec<String>> {
    Client::Sshvpn.command(&[&["-w", "any:any"], arguments].concat())
}

#[test]
fn every_type_of_host_key() -> Result<()> {
    let lab = lab()?;
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let server = lab.start(kind, &[])?;
        let said = lab.sshvpn(&["bastion", "echo there"])?.ok();
        ensure!(said.with_context(|| kind)? == "there\n");
        server.end_with(Signal::SIGTERM)?;
    }
    Ok(())
}

#[test]
fn every_type_of_user_key() -> Result<()> {
    let lab = lab()?;
    let _server = lab.start("ed25519", &["-s"])?;
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let file = format!("/run/lab/{kind}");
        make_key(&lab.laptop, &file, kind)?;
        let public = lab.laptop.read(&format!("{file}.pub"))?;
        let arguments = ["-i", &file, "-o", "IdentitiesOnly=yes", "bastion", "exit 3"];
        let refused = lab.sshvpn(&arguments)?;
        fails_clearly(&refused, Some(255), &["Permission denied (publickey)"])
            .with_context(|| kind)?;
        dropbear::authorize(&lab.bastion, &public)?;
        let output = lab.sshvpn(&arguments)?;
        ensure!(output.code() == 3, "{kind}: {output:?}");
    }
    Ok(())
}

/// Dropbear knows no certificates: the key itself is offered after its certificate.
#[test]
fn a_key_with_a_certificate() -> Result<()> {
    let lab = lab()?;
    let _server = lab.start("ed25519", &[])?;
    make_key(&lab.laptop, "/run/lab/ca", "ed25519")?;
    lab.laptop.sh(&format!(
        "ssh-keygen -q -s /run/lab/ca -I laptop -n root {KEY}.pub"
    ))?;
    lab.sshvpn(&["bastion", "true"])?.ok().map(drop)
}

#[test]
fn unknown_and_changed_host_keys() -> Result<()> {
    let lab = lab()?;
    let _server = lab.start("ed25519", &[])?;
    lab.laptop.write(KNOWN_HOSTS, "")?;
    let verification = "Host key verification failed.";
    let output = lab.sshvpn(&["bastion", "true"])?;
    fails_clearly(&output, Some(255), &[verification])?;
    let accept = ["-o", "StrictHostKeyChecking=accept-new", "bastion", "true"];
    lab.sshvpn(&accept)?.ok()?;
    ensure!(
        lab.laptop.read(KNOWN_HOSTS)?.contains("ssh-ed25519"),
        "not added"
    );
    lab.sshvpn(&["bastion", "true"])?.ok()?;
    make_key(&lab.laptop, "/run/lab/other", "ed25519")?;
    let other = lab.laptop.read("/run/lab/other.pub")?;
    lab.laptop.write(KNOWN_HOSTS, &format!("bastion {other}"))?;
    let output = lab.sshvpn(&accept)?;
    let parts = ["REMOTE HOST IDENTIFICATION HAS CHANGED!", verification];
    fails_clearly(&output, Some(255), &parts)
}

#[test]
fn passwords() -> Result<()> {
    let lab = lab()?;
    dropbear::set_password(&lab.bastion, "root", "open-sesame")?;
    let _server = lab.start("ed25519", &[])?;
    let arguments = ["-o", "PubkeyAuthentication=no", "bastion", "echo there"];
    ensure!(lab.answering("open-sesame", &arguments)?.ok()? == "there\n");
    let output = lab.answering("wrong", &arguments)?;
    fails_clearly(
        &output,
        Some(255),
        &["Permission denied (publickey,password)"],
    )
}

/// Dropbear asks for a key, and then for the password.
#[test]
fn key_and_password() -> Result<()> {
    let lab = lab()?;
    dropbear::set_password(&lab.bastion, "root", "open-sesame")?;
    let _server = lab.start("ed25519", &["-t"])?;
    let arguments = ["bastion", "echo there"];
    ensure!(lab.answering("open-sesame", &arguments)?.ok()? == "there\n");
    let output = lab.sshvpn(&["-o", "BatchMode=yes", "bastion", "true"])?;
    fails_clearly(&output, Some(255), &["Permission denied (password)"])
}

#[test]
fn commands_and_their_streams() -> Result<()> {
    let lab = lab()?;
    // The least window that Dropbear takes.
    let _server = lab.start("ed25519", &["-W", "1024"])?;
    let sshvpn = session(&["bastion"])?.join(" ");
    let line = format!(
        "head -c 20000000 /dev/zero | {sshvpn} 'cat; echo >&2 warned; exit 7' | wc -c; echo ${{PIPESTATUS[1]}}"
    );
    let output = lab.laptop.run(&["bash", "-c", &line])?;
    ensure!(output.stdout == "20000000\n7\n", "{output:?}");
    ensure!(output.stderr.contains("warned"), "{output:?}");
    Ok(())
}

/// Both sides ask whether the other is there, on a connection that carries nothing else.
#[test]
fn keepalives_of_both_sides() -> Result<()> {
    let lab = lab()?;
    let _server = lab.start("ed25519", &["-K", "1"])?;
    let alive = ["-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=2"];
    let output = lab.sshvpn(&[&alive[..], &["bastion", "sleep 5; echo there"]].concat())?;
    ensure!(output.ok()? == "there\n");
    Ok(())
}

/// Dropbear knows no tun@openssh.com: one sentence says so, and ssh's exit code.
#[test]
fn a_tunnel_is_refused_in_one_sentence() -> Result<()> {
    const SENTENCE: &str = "bastion refused the tunnel: its SSH server, dropbear_";
    const OF_UP: &str = "bastion: its SSH server, dropbear_";
    let lab = lab()?;
    let _server = lab.start("ed25519", &[])?;
    let before = Before::of(&[&lab.laptop])?;
    let output = lab.sshvpn(&["-o", "ExitOnForwardFailure=yes", "-N", "bastion"])?;
    fails_clearly(&output, Some(255), &[SENTENCE, "tun@openssh.com"])?;
    let output = lab.sshvpn(&["bastion", "echo there"])?;
    ensure!(output.stderr.contains(SENTENCE), "{output:?}");
    ensure!(output.ok()? == "there\n");
    for way in [&[][..], &["--via", "tun"]] {
        let output = lab
            .laptop
            .run(&vpn::command(&[way, &["bastion"]].concat())?)?;
        fails_clearly(&output, Some(255), &[OF_UP, "--push"])?;
    }
    before.is_back()
}

/// ```text
///   laptop ── jump (dropbear) ── bastion (sshd)
/// ```
#[test]
fn a_jump_host() -> Result<()> {
    let lab = topology::hops()?;
    // Dropbear takes the place of the jump host's sshd.
    let [jump, _bastion] = lab.sshd;
    jump.end_with(Signal::SIGTERM)?;
    let key = dropbear::make_host_key(&lab.jump, "ed25519")?;
    lab.laptop.sh(&format!("sed -i /^jump/d {KNOWN_HOSTS}"))?;
    lab.laptop
        .append(KNOWN_HOSTS, &format!("jump,192.0.2.2 {key}\n"))?;
    dropbear::authorize(&lab.jump, &lab.laptop.read(&format!("{KEY}.pub"))?)?;
    let server = dropbear::start(&lab.jump, &["ed25519"], &[])?;
    let tunnel = Tunnel {
        client: Client::Sshvpn,
        arguments: &["-J", "jump"],
        ..Tunnel::default()
    };
    let open = tunnel.open(&lab.laptop, &lab.bastion)?;
    traffic::ping(&lab.laptop, FAR[0])?;
    traffic::transfer::both_ways(&lab.laptop, &lab.bastion, FAR[0], 20)?;
    open.end_with(Signal::SIGINT)?;
    server.end_with(Signal::SIGTERM)?;
    // -j: no forwarding.
    let _server = dropbear::start(&lab.jump, &["ed25519"], &["-j"])?;
    let command = session(&["-J", "jump", "bastion", "true"])?;
    let output = lab.laptop.run(&command)?;
    let sentence = "jump host jump cannot connect to bastion port 22: administratively prohibited";
    fails_clearly(&output, Some(255), &[sentence])
}
