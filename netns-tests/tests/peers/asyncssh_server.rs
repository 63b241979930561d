//! Our client with asyncssh as its server: every algorithm, questions, and
//! the answer to a tunnel.
//!
//! ```text
//!   laptop wan 192.0.2.1 ──── 192.0.2.2 wan bastion
//!   sshvpn ═══════════════ SSH ═════════════ asyncssh_server.py
//! ```

use anyhow::{Context, Result, ensure};
use netns_tests::lab::sshd::Sshd;
use netns_tests::lab::topology::{self, Direct};
use netns_tests::program::vpn::fails_clearly;
use netns_tests::{Child, Client, Output, PATIENCE};

use crate::python::python;

const SERVERS: &str = include_str!("asyncssh_server.py");

/// The lab, and asyncssh's servers beside its sshd.
fn lab() -> Result<(Direct, Child)> {
    let lab = topology::direct_with(&Sshd::default())?;
    // A port of its own counts as another host.
    let known = lab.laptop.read("/run/home/root/.ssh/known_hosts")?;
    let key = known.split_once(' ').context("a line of known_hosts")?.1;
    lab.laptop.append(
        "/run/home/root/.ssh/known_hosts",
        &format!("[bastion]:* {key}"),
    )?;
    let servers = lab.bastion.spawn(&python(&lab.bastion, SERVERS, &[])?)?;
    servers.wait_for_line("all of them listen", PATIENCE)?;
    Ok((lab, servers))
}

/// Runs `sshvpn -w any:any ARGUMENTS` with `word` as the answer to every question.
fn answering(lab: &Direct, word: &str, arguments: &[&str]) -> Result<Output> {
    let program = "/run/lab/askpass";
    let text = format!("#!/bin/sh\necho \"$1\" >>/run/lab/asked\necho '{word}'\n");
    lab.laptop.write(program, &text)?;
    lab.laptop.sh(&format!("chmod 755 {program}"))?;
    let askpass = format!("SSH_ASKPASS={program}");
    let mut command = ["env", &askpass, "SSH_ASKPASS_REQUIRE=force"]
        .map(str::to_owned)
        .to_vec();
    command.extend(Client::Sshvpn.command(&[&["-w", "any:any"], arguments].concat())?);
    lab.laptop.run(&command)
}

/// Three megabytes go to each server and come back.
#[test]
fn every_algorithm() -> Result<()> {
    let (lab, servers) = lab()?;
    let sshvpn = Client::Sshvpn.command(&["-w", "any:any"])?.join(" ");
    let written = servers.stdout();
    let ports: Vec<&str> = written
        .lines()
        .filter_map(|line| line.strip_prefix("works at "))
        .collect();
    ensure!(ports.len() > 15, "{ports:?}");
    lab.laptop
        .sh("head -c 3000000 /dev/urandom >/run/lab/sent")?;
    for port in ports {
        let line = format!(
            "cd /run/lab; {sshvpn} -p {port} bastion cat <sent >heard; echo $?; cmp sent heard"
        );
        // Groups of 8192 bits take their time in a debug build.
        let output = lab
            .laptop
            .spawn(&["bash", "-c", &line])?
            .wait(3 * PATIENCE)?;
        ensure!(output.stdout == "7\n", "{port}: {output:?}");
    }
    Ok(())
}

#[test]
fn a_tunnel_is_refused() -> Result<()> {
    let (lab, _servers) = lab()?;
    let fatal = ["-N", "-w", "any:any", "-o", "ExitOnForwardFailure=yes"];
    let arguments = [&fatal[..], &["-p", "2201", "bastion"]].concat();
    let output = lab.laptop.run(&Client::Sshvpn.command(&arguments)?)?;
    let parts = ["bastion refused the tunnel: its SSH server, AsyncSSH_"];
    fails_clearly(&output, Some(255), &parts)
}

#[test]
fn a_jump_host() -> Result<()> {
    let (lab, _servers) = lab()?;
    let arguments = ["-J", "bastion:2201", "bastion", "echo there"];
    lab.bastion
        .sh("sed -i s/PermitTunnel.yes/PermitTunnel\\ no/ /etc/ssh/sshd_config")?;
    lab.sshd.signal(nix::sys::signal::Signal::SIGHUP)?;
    lab.sshd.wait_for_line("Received SIGHUP", PATIENCE)?;
    let output = answering(&lab, "", &arguments)?;
    ensure!(output.stdout == "there\n", "{output:?}");
    Ok(())
}

#[test]
fn two_questions_and_a_password_that_has_expired() -> Result<()> {
    let (lab, _servers) = lab()?;
    let arguments = ["-p", "2301", "bastion", "cat"];
    let output = answering(&lab, "open-sesame", &arguments)?;
    ensure!(output.code() == 7, "{output:?}");
    let asked = lab.laptop.read("/run/lab/asked")?;
    ensure!(
        asked.contains("First:") && asked.contains("Second:"),
        "{asked}"
    );
    let output = answering(&lab, "wrong", &arguments)?;
    fails_clearly(
        &output,
        Some(255),
        &["Permission denied (keyboard-interactive)"],
    )?;
    let output = answering(&lab, "old", &["-p", "2302", "bastion", "cat"])?;
    let parts = ["It has expired.", "Permission denied (password)"];
    fails_clearly(&output, Some(255), &parts)
}
