//! Connections over a jump host, over two, and by a ProxyCommand.
//!
//! ```text
//!   laptop wan 192.0.2.1 ── 192.0.2.2 wan jump inner 203.0.113.1 ── 203.0.113.2 wan bastion
//!   client tun3 10.99.0.1/30 ════════════════ SSH in SSH ═══════════ 10.99.0.2/30 tun7 sshd
//! ```

use anyhow::{Result, ensure};
use netns_tests::lab::sshd::{Sshd, authorize, introduce};
use netns_tests::lab::topology;
use netns_tests::program::tunnel::{LOCAL, REMOTE, Tunnel};
use netns_tests::{Client, Host, connect, traffic, with_each_client};

with_each_client!(one_jump, jump_by_configuration, two_jumps, proxy_command);

fn one_jump(client: Client) -> Result<()> {
    let lab = topology::hops()?;
    let tunnel = Tunnel {
        client,
        arguments: &["-J", "jump"],
        ..Tunnel::default()
    };
    let _open = tunnel.open(&lab.laptop, &lab.bastion)?;
    traffic::ping(&lab.laptop, REMOTE[0])?;
    traffic::ping(&lab.bastion, LOCAL[1])
}

fn jump_by_configuration(client: Client) -> Result<()> {
    let lab = topology::hops()?;
    lab.laptop.write(
        "/run/lab/config",
        "Host inside\n HostName bastion\n ProxyJump root@jump:22\n HostKeyAlias bastion\n",
    )?;
    let arguments = ["-F", "/run/lab/config"];
    let tunnel = Tunnel {
        client,
        arguments: &arguments,
        destination: "inside",
        ..Tunnel::default()
    };
    let _open = tunnel.open(&lab.laptop, &lab.bastion)?;
    traffic::ping(&lab.laptop, REMOTE[0])
}

/// ```text
///   laptop ── jump ── bastion wan2 100.64.0.1 ── 100.64.0.2 wan vault
/// ```
fn two_jumps(client: Client) -> Result<()> {
    let lab = topology::hops()?;
    let vault = Host::new("vault")?;
    connect(
        (&lab.bastion, "wan2", &["100.64.0.1/24"]),
        (&vault, "wan", &["100.64.0.2/24"]),
    )?;
    for from in [&lab.laptop, &lab.bastion] {
        introduce(from, &vault, &["100.64.0.2"])?;
    }
    authorize(&lab.laptop, &vault, "root")?;
    let sshd = Sshd::default().start(&vault)?;
    let arguments = ["-J", "jump,bastion"];
    let tunnel = Tunnel {
        client,
        arguments: &arguments,
        destination: "vault",
        ..Tunnel::default()
    };
    let _open = tunnel.open(&lab.laptop, &vault)?;
    traffic::ping(&lab.laptop, REMOTE[0])?;
    ensure!(
        sshd.stderr().contains("Connection from 100.64.0.1"),
        "{}",
        sshd.stderr()
    );
    Ok(())
}

fn proxy_command(client: Client) -> Result<()> {
    let lab = topology::hops()?;
    let proxy = "ProxyCommand=ssh -q -W %h:%p root@jump";
    let tunnel = Tunnel {
        client,
        arguments: &["-o", proxy],
        ..Tunnel::default()
    };
    let _open = tunnel.open(&lab.laptop, &lab.bastion)?;
    traffic::ping(&lab.laptop, REMOTE[0])?;
    traffic::ping(&lab.bastion, LOCAL[1])
}
