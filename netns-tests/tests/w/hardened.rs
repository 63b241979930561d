//! Servers with the lists of algorithms of hardening guides: a login, and data in both directions.
//!
//! ```text
//!   laptop wan 192.0.2.1 ──────────── 192.0.2.2 wan bastion
//!   client ═══════════════════ SSH ═══════════════════ sshd
//! ```

use anyhow::Result;
use netns_tests::lab::sshd::{Sshd, make_key};
use netns_tests::lab::topology::{self, Direct};
use netns_tests::{Client, PATIENCE, until, with_each_client};
use nix::sys::signal::Signal;

with_each_client!(hardened_servers);

/// The host key of servers that permit only RSA.
const RSA_HOST_KEY: &str = "/etc/ssh/ssh_host_rsa_key";
/// The user's key for servers that permit only RSA.
const RSA_KEY: &str = "/run/home/root/.ssh/id_rsa";

/// Settings of an sshd.
type Settings = &'static [(&'static str, &'static str)];

/// The lists, by their guide.
const GUIDES: &[(&str, Settings)] = &[
    (
        "DISA STIG of 2021: counter mode and plain SHA-2 MACs",
        &[
            ("Ciphers", "aes256-ctr,aes192-ctr,aes128-ctr"),
            ("MACs", "hmac-sha2-512,hmac-sha2-256"),
            (
                "KexAlgorithms",
                "ecdh-sha2-nistp256,ecdh-sha2-nistp384,ecdh-sha2-nistp521,\
                 diffie-hellman-group-exchange-sha256",
            ),
        ],
    ),
    (
        "Ubuntu 22.04 STIG",
        &[
            (
                "Ciphers",
                "aes256-ctr,aes256-gcm@openssh.com,aes192-ctr,aes128-ctr,aes128-gcm@openssh.com",
            ),
            (
                "MACs",
                "hmac-sha2-512,hmac-sha2-512-etm@openssh.com,hmac-sha2-256,\
                 hmac-sha2-256-etm@openssh.com",
            ),
            (
                "KexAlgorithms",
                "ecdh-sha2-nistp256,ecdh-sha2-nistp384,ecdh-sha2-nistp521,\
                 diffie-hellman-group-exchange-sha256",
            ),
        ],
    ),
    (
        "one plain MAC: SHA-256",
        &[
            ("Ciphers", "aes128-ctr"),
            ("MACs", "hmac-sha2-256"),
            ("KexAlgorithms", "diffie-hellman-group14-sha256"),
        ],
    ),
    (
        "one plain MAC: SHA-512",
        &[
            ("Ciphers", "aes192-ctr"),
            ("MACs", "hmac-sha2-512"),
            ("KexAlgorithms", "diffie-hellman-group16-sha512"),
        ],
    ),
    (
        "CIS Debian 11",
        &[
            (
                "Ciphers",
                "chacha20-poly1305@openssh.com,aes256-gcm@openssh.com,aes128-gcm@openssh.com,\
                 aes256-ctr,aes192-ctr,aes128-ctr",
            ),
            (
                "MACs",
                "hmac-sha2-512-etm@openssh.com,hmac-sha2-256-etm@openssh.com,hmac-sha2-512,\
                 hmac-sha2-256",
            ),
            (
                "KexAlgorithms",
                "curve25519-sha256,curve25519-sha256@libssh.org,diffie-hellman-group14-sha256,\
                 diffie-hellman-group16-sha512,diffie-hellman-group18-sha512,ecdh-sha2-nistp521,\
                 ecdh-sha2-nistp384,ecdh-sha2-nistp256,diffie-hellman-group-exchange-sha256",
            ),
        ],
    ),
    (
        "CIS Debian 12",
        &[
            (
                "Ciphers",
                "-3des-cbc,aes128-cbc,aes192-cbc,aes256-cbc,chacha20-poly1305@openssh.com",
            ),
            (
                "MACs",
                "-hmac-md5,hmac-md5-96,hmac-sha1,hmac-sha1-96,umac-64@openssh.com,\
                 hmac-md5-etm@openssh.com,hmac-sha1-etm@openssh.com,umac-64-etm@openssh.com,\
                 umac-128-etm@openssh.com",
            ),
            (
                "KexAlgorithms",
                "-diffie-hellman-group1-sha1,diffie-hellman-group14-sha1,\
                 diffie-hellman-group-exchange-sha1",
            ),
        ],
    ),
    (
        "ssh-audit's guide for Debian 12",
        &[
            (
                "Ciphers",
                "chacha20-poly1305@openssh.com,aes256-gcm@openssh.com,aes256-ctr,aes192-ctr,\
                 aes128-gcm@openssh.com,aes128-ctr",
            ),
            (
                "MACs",
                "hmac-sha2-256-etm@openssh.com,hmac-sha2-512-etm@openssh.com,\
                 umac-128-etm@openssh.com",
            ),
            (
                "KexAlgorithms",
                "sntrup761x25519-sha512@openssh.com,curve25519-sha256,\
                 curve25519-sha256@libssh.org,diffie-hellman-group16-sha512,\
                 diffie-hellman-group18-sha512,diffie-hellman-group-exchange-sha256",
            ),
            (
                "HostKeyAlgorithms",
                "sk-ssh-ed25519-cert-v01@openssh.com,ssh-ed25519-cert-v01@openssh.com,\
                 rsa-sha2-512-cert-v01@openssh.com,rsa-sha2-256-cert-v01@openssh.com,\
                 sk-ssh-ed25519@openssh.com,ssh-ed25519,rsa-sha2-512,rsa-sha2-256",
            ),
            ("RequiredRSASize", "3072"),
        ],
    ),
    (
        "FIPS 140: AES, NIST curves, RSA keys with SHA-2",
        &[
            (
                "Ciphers",
                "aes256-gcm@openssh.com,aes256-ctr,aes128-gcm@openssh.com,aes128-ctr",
            ),
            (
                "MACs",
                "hmac-sha2-256-etm@openssh.com,hmac-sha2-512,hmac-sha2-256",
            ),
            (
                "KexAlgorithms",
                "ecdh-sha2-nistp256,ecdh-sha2-nistp384,ecdh-sha2-nistp521",
            ),
            ("HostKey", RSA_HOST_KEY),
            ("HostKeyAlgorithms", "rsa-sha2-256,rsa-sha2-512"),
            ("PubkeyAcceptedAlgorithms", "rsa-sha2-256,rsa-sha2-512"),
        ],
    ),
    (
        "FIPS 140 as in RHEL 8: counter mode, plain SHA-2 MACs, RSA",
        &[
            ("Ciphers", "aes256-ctr,aes128-ctr"),
            ("MACs", "hmac-sha2-256,hmac-sha2-512"),
            ("KexAlgorithms", "ecdh-sha2-nistp384"),
            ("HostKey", RSA_HOST_KEY),
            ("HostKeyAlgorithms", "rsa-sha2-512"),
            ("PubkeyAcceptedAlgorithms", "rsa-sha2-512"),
        ],
    ),
];

fn hardened_servers(client: Client) -> Result<()> {
    let lab = topology::direct()?;
    add_rsa_keys(&lab)?;
    // Each list has an sshd of its own.
    lab.sshd.end_with(Signal::SIGTERM)?;
    let command = client.command(&["-w", "any:any", "bastion", "cat"])?;
    let line = format!("exec {} </run/lab/sent >/run/lab/back", command.join(" "));
    lab.laptop
        .sh("head -c 3000000 /dev/urandom >/run/lab/sent")?;
    for (guide, settings) in GUIDES {
        let mut sshd = Sshd::default();
        for (name, value) in *settings {
            sshd = sshd.set(name, value);
        }
        let sshd = sshd.start(&lab.bastion)?;
        lab.laptop.sh("rm -f /run/lab/back")?;
        // The tunnel outlives the command.
        let running = lab.laptop.spawn(&["bash", "-c", &line])?;
        until(guide, PATIENCE, || {
            lab.laptop.sh("cmp /run/lab/sent /run/lab/back").ok()
        })?;
        running.end_with(Signal::SIGTERM)?;
        sshd.end_with(Signal::SIGTERM)?;
    }
    Ok(())
}

/// Adds RSA keys of the bastion and of root on the laptop beside the lab's own.
fn add_rsa_keys(lab: &Direct) -> Result<()> {
    make_key(&lab.bastion, RSA_HOST_KEY, "rsa")?;
    let host_key = lab.bastion.read(&format!("{RSA_HOST_KEY}.pub"))?;
    lab.laptop.append(
        "/run/home/root/.ssh/known_hosts",
        &format!("bastion,192.0.2.2 {host_key}"),
    )?;
    make_key(&lab.laptop, RSA_KEY, "rsa")?;
    let key = lab.laptop.read(&format!("{RSA_KEY}.pub"))?;
    lab.bastion.append("/etc/ssh/authorized_keys/root", &key)
}
