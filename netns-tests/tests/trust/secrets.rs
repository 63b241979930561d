//! A client's memory has no secrets after the login (password, answer, passphrase, private key),
//! and is closed to other processes and core dumps.
//!
//! ```text
//!   laptop wan 192.0.2.1 ═════ sshvpn up ═════ 192.0.2.2 wan bastion (sshd)
//! ```

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};

use anyhow::{Context, Result, ensure};
use netns_tests::lab::sshd::{Privilege, Sshd, add_account};
use netns_tests::lab::topology::{self, Direct};
use netns_tests::program::vpn;
use netns_tests::{Child, PATIENCE};
use nix::sys::signal::Signal;

/// A password; its middle occurs nowhere else.
const PASSWORD: &str = "kU3vVw9sQn2eHc8tXm4yLb7pRf6dJg5z";
/// The middle of it, which the allocator does not overwrite when the text is freed.
const MIDDLE: std::ops::Range<usize> = 16..28;

/// A bastion whose root has the password, and a laptop whose askpass program prints it.
fn lab(sshd: &Sshd) -> Result<Direct> {
    let lab = topology::direct_with(sshd)?;
    lab.bastion
        .sh(&format!("echo 'root:{PASSWORD}' | chpasswd -c SHA512"))?;
    lab.laptop.sh(&format!(
        "mkdir -p /run/lab; printf '#!/bin/sh\\necho {PASSWORD}\\n' >/run/lab/askpass; \
         chmod 755 /run/lab/askpass"
    ))?;
    Ok(lab)
}

/// Starts `sshvpn up` with that askpass program, and waits until it is up.
fn up(lab: &Direct, options: &[&str]) -> Result<Child> {
    let environment = [
        "env",
        "SSH_ASKPASS=/run/lab/askpass",
        "SSH_ASKPASS_REQUIRE=force",
    ];
    let mut words = environment.map(str::to_owned).to_vec();
    words.extend(vpn::command(&[&["root@bastion"], options].concat())?);
    let up = lab.laptop.spawn(&words)?;
    up.wait_for_line("up:", PATIENCE)?;
    Ok(up)
}

/// The number of occurrences of `bytes` in a process's writable memory.
fn occurrences(process: &Child, bytes: &[u8]) -> Result<usize> {
    let pid = process.pid();
    let program = fs::read_link(format!("/proc/{pid}/exe"))?;
    ensure!(program.ends_with("sshvpn"), "{} runs", program.display());
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let mut found = 0;
    for line in maps.lines() {
        let (range, rest) = line.split_once(' ').context("a line without a range")?;
        let (from, to) = range.split_once('-').context("a range without an end")?;
        if !rest.starts_with("rw") {
            continue;
        }
        let (from, to) = (u64::from_str_radix(from, 16)?, u64::from_str_radix(to, 16)?);
        let mut content = vec![0; usize::try_from(to - from)?];
        // Some mappings cannot be read.
        if memory.read_exact_at(&mut content, from).is_ok() {
            found += content
                .windows(bytes.len())
                .filter(|window| *window == bytes)
                .count();
        }
    }
    Ok(found)
}

/// Checks that the process's memory has the password nowhere, and that the search finds known text.
fn forgot(process: &Child) -> Result<()> {
    let known = occurrences(process, b"ssh-connection")? + occurrences(process, b"bastion")?;
    ensure!(known > 0, "nothing is found in its memory");
    let found = occurrences(process, &PASSWORD.as_bytes()[MIDDLE])?;
    ensure!(found == 0, "found {found} times");
    Ok(())
}

#[test]
fn a_password_is_wiped() -> Result<()> {
    let sshd = Sshd::default()
        .set("PasswordAuthentication", "yes")
        .set("PermitRootLogin", "yes");
    let lab = lab(&sshd)?;
    let up = up(&lab, &["-o", "PreferredAuthentications=password"])?;
    forgot(&up)?;
    up.end_with(Signal::SIGTERM)?;
    Ok(())
}

#[test]
fn an_answer_to_a_question_is_wiped() -> Result<()> {
    let sshd = Sshd::default()
        .set("KbdInteractiveAuthentication", "yes")
        .set("UsePAM", "yes")
        .set("PermitRootLogin", "yes");
    let lab = lab(&sshd)?;
    let up = up(
        &lab,
        &["-o", "PreferredAuthentications=keyboard-interactive"],
    )?;
    forgot(&up)?;
    up.end_with(Signal::SIGTERM)?;
    Ok(())
}

/// The passphrase and the private number, in each format of a key file.
#[test]
fn a_passphrase_and_most_copies_of_its_key_are_wiped() -> Result<()> {
    let lab = lab(&Sshd::default())?;
    let laptop = &lab.laptop;
    for (name, kind, form) in [
        ("ed25519", "-t ed25519", ""),
        ("rsa", "-t rsa -b 2048", "-m PEM"),
        ("ecdsa", "-t ecdsa", "-m PKCS8"),
    ] {
        let key = format!("/run/lab/{name}");
        // The unencrypted key gives the bytes to search for.
        laptop.sh(&format!(
            "ssh-keygen -q {kind} {form} -N '' -f {key}; \
             grep -v -- ----- {key} | base64 -d >{key}.raw; \
             ssh-keygen -q -p -P '' -N {PASSWORD} {form} -f {key} >/dev/null"
        ))?;
        let private = private_part(name, &fs::read(laptop.path(&format!("{key}.raw")))?)?;
        let public = laptop.read(&format!("{key}.pub"))?;
        lab.bastion
            .append("/etc/ssh/authorized_keys/root", &public)?;
        let identity = format!("IdentityFile={key}");
        let up = up(&lab, &["-o", &identity, "-o", "IdentitiesOnly=yes"]).context(name)?;
        forgot(&up).context(name)?;
        let found = occurrences(&up, &private)?;
        // Without wiping there were 33 copies of an ed25519 key. Copies that the compiler leaves
        // on a stack cannot be wiped, and their number depends on the optimizer.
        ensure!(found <= 6, "{name}: found the key {found} times");
        up.end_with(Signal::SIGTERM)?;
    }
    Ok(())
}

/// The files in /proc of a process that is not dumpable belong to root, whichever user runs it.
#[test]
fn another_process_of_the_user_cannot_read_the_memory() -> Result<()> {
    let lab = lab(&Sshd::default())?;
    let laptop = &lab.laptop;
    add_account(laptop, "alice", Privilege::None)?;
    laptop.sh("mkdir -p /run/home/alice/.ssh /run/sshvpn; \
         cp /run/home/root/.ssh/known_hosts /run/home/root/.ssh/id_ed25519 /run/home/alice/.ssh/; \
         chown -R alice: /run/home/alice /run/sshvpn")?;
    let words = [
        "setpriv",
        "--reuid=alice",
        "--regid=alice",
        "--init-groups",
        "--inh-caps=+net_admin",
        "--ambient-caps=+net_admin",
        "env",
        "HOME=/run/home/alice",
    ];
    let mut words = words.map(str::to_owned).to_vec();
    words.extend(vpn::command(&["root@bastion"])?);
    let up = laptop.spawn(&words)?;
    up.wait_for_line("up:", PATIENCE)?;
    let process = format!("/proc/{}", up.pid());
    let status = fs::read_to_string(format!("{process}/status"))?;
    let alice = laptop.sh("id -u alice")?;
    let ran_as = format!("Uid:\t{}\t", alice.trim());
    ensure!(status.contains(&ran_as), "not alice's: {status}");
    let owner = fs::metadata(format!("{process}/mem"))?.uid();
    ensure!(owner == 0, "its memory belongs to {owner}");
    up.end_with(Signal::SIGTERM)?;
    Ok(())
}

/// Bytes of the private number of an unencrypted key.
fn private_part(kind: &str, raw: &[u8]) -> Result<Vec<u8>> {
    // The bytes before it: in OpenSSH's format the length of seed and public key; in
    // PKCS#8 version and length of an ECPrivateKey (RFC 5915); in PKCS#1 the public
    // exponent, and tag and length of the private one.
    let before: &[u8] = match kind {
        "ed25519" => &[0, 0, 0, 64],
        "ecdsa" => &[2, 1, 1, 4, 32],
        _ => &[2, 3, 1, 0, 1, 2, 0x82],
    };
    let at = raw.windows(before.len()).position(|part| part == before);
    let at = at.context("no private number")? + before.len();
    // The allocator overwrites the first bytes of freed memory.
    let part = raw.get(at + 16..at + 28).context("a short number")?;
    Ok(part.to_vec())
}
