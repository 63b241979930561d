//! Wrong input: the message names it, the exit code is right, and nothing is left behind.
//!
//! ```text
//!   laptop wan 192.0.2.1, 172.20.0.1/24 ── 192.0.2.2 wan bastion
//! ```

use anyhow::{Result, ensure};
use netns_tests::lab::sshd::{Privilege, Sshd, add_account, as_user, authorize, make_key};
use netns_tests::lab::topology::{self, Direct};
use netns_tests::program::tunnel::Tunnel;
use netns_tests::program::vpn::{self, fails_clearly};
use netns_tests::{Before, Client, with_each_client};
use nix::sys::signal::Signal;

/// ssh's exit code for its own errors.
const SSH_ERROR: Option<i32> = Some(255);

with_each_client!(
    unknown_host,
    refused_port,
    changed_host_key,
    unknown_host_key_without_a_terminal,
    no_key_is_accepted,
    tunnels_are_not_permitted,
    unit_is_busy_at_the_remote_end,
    unit_is_busy_at_the_local_end,
    tunnel_device_is_nonsense,
);

/// Runs `client ARGUMENTS` on the laptop, which has to fail clearly and change nothing.
fn refused(
    lab: &Direct,
    client: Client,
    arguments: &[&str],
    code: Option<i32>,
    parts: &[&str],
) -> Result<()> {
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    fails_clearly(&lab.laptop.run(&client.command(arguments)?)?, code, parts)?;
    before.is_back()
}

/// Runs `sshvpn up ARGUMENTS`, which has to fail clearly and change nothing.
fn up_refused(lab: &Direct, arguments: &[&str], code: Option<i32>, parts: &[&str]) -> Result<()> {
    refused(
        lab,
        Client::Sshvpn,
        &[&["up"], arguments].concat(),
        code,
        parts,
    )
}

const W: [&str; 5] = ["-N", "-w", "3:7", "-o", "ExitOnForwardFailure=yes"];

fn unknown_host(client: Client) -> Result<()> {
    let lab = topology::direct()?;
    refused(
        &lab,
        client,
        &[&W[..], &["nowhere"]].concat(),
        SSH_ERROR,
        &["nowhere"],
    )
}

fn refused_port(client: Client) -> Result<()> {
    let lab = topology::direct()?;
    let arguments = [&W[..], &["-p", "2222", "bastion"]].concat();
    refused(
        &lab,
        client,
        &arguments,
        SSH_ERROR,
        &["bastion", "2222", "refused"],
    )
}

fn changed_host_key(client: Client) -> Result<()> {
    let lab = topology::direct()?;
    make_key(&lab.laptop, "/run/lab/other", "ed25519")?;
    let other = lab.laptop.read("/run/lab/other.pub")?;
    lab.laptop.write(
        "/run/home/root/.ssh/known_hosts",
        &format!("bastion {other}"),
    )?;
    let parts = [
        "REMOTE HOST IDENTIFICATION HAS CHANGED!",
        "Host key verification failed.",
    ];
    refused(
        &lab,
        client,
        &[&W[..], &["bastion"]].concat(),
        SSH_ERROR,
        &parts,
    )
}

fn unknown_host_key_without_a_terminal(client: Client) -> Result<()> {
    let lab = topology::direct()?;
    lab.laptop.write("/run/home/root/.ssh/known_hosts", "")?;
    let parts = ["Host key verification failed."];
    refused(
        &lab,
        client,
        &[&W[..], &["bastion"]].concat(),
        SSH_ERROR,
        &parts,
    )?;
    ensure!(
        lab.laptop
            .read("/run/home/root/.ssh/known_hosts")?
            .is_empty(),
        "the host key was added"
    );
    Ok(())
}

fn no_key_is_accepted(client: Client) -> Result<()> {
    let lab = topology::direct()?;
    lab.bastion.write("/etc/ssh/authorized_keys/root", "")?;
    let parts = ["root@bastion", "Permission denied", "publickey"];
    refused(
        &lab,
        client,
        &[&W[..], &["bastion"]].concat(),
        SSH_ERROR,
        &parts,
    )
}

fn tunnels_are_not_permitted(client: Client) -> Result<()> {
    let lab = topology::direct_with(&Sshd::default().set("PermitTunnel", "no"))?;
    let arguments = [&W[..], &["bastion"]].concat();
    // ssh itself only says that it failed.
    let parts: &[&str] = if client == Client::Ssh {
        &["unnel"]
    } else {
        &["bastion", "PermitTunnel"]
    };
    refused(&lab, client, &arguments, SSH_ERROR, parts)
}

fn unit_is_busy_at_the_remote_end(client: Client) -> Result<()> {
    let lab = topology::direct()?;
    let _open = Tunnel::default().open(&lab.laptop, &lab.bastion)?;
    let arguments = [
        "-N",
        "-w",
        "4:7",
        "-o",
        "ExitOnForwardFailure=yes",
        "bastion",
    ];
    let parts: &[&str] = if client == Client::Ssh {
        &["unnel"]
    } else {
        &["bastion", "7"]
    };
    refused(&lab, client, &arguments, SSH_ERROR, parts)
}

fn tunnel_device_is_nonsense(client: Client) -> Result<()> {
    let lab = topology::direct()?;
    refused(&lab, client, &["-w", "a:b", "bastion"], SSH_ERROR, &["a:b"])
}

fn unit_is_busy_at_the_local_end(client: Client) -> Result<()> {
    let lab = topology::direct()?;
    let _open = Tunnel::default().open(&lab.laptop, &lab.bastion)?;
    let arguments = [
        "-N",
        "-w",
        "3:8",
        "-o",
        "ExitOnForwardFailure=yes",
        "bastion",
    ];
    refused(
        &lab,
        client,
        &arguments,
        SSH_ERROR,
        if client == Client::Ssh {
            &["unnel"]
        } else {
            &["tun3"]
        },
    )
}

#[test]
fn no_tun_device_here() -> Result<()> {
    let lab = topology::direct()?;
    lab.laptop.sh("rm /dev/net/tun")?;
    up_refused(&lab, &["bastion"], None, &["/dev/net/tun"])
}

#[test]
fn no_tun_device_there() -> Result<()> {
    let lab = topology::direct()?;
    lab.bastion.sh("rm /dev/net/tun")?;
    up_refused(&lab, &["bastion"], None, &["bastion"])
}

#[test]
fn no_privilege_here() -> Result<()> {
    let lab = topology::direct()?;
    add_account(&lab.laptop, "alice", Privilege::None)?;
    lab.laptop
        .sh("cp -a /run/home/root/.ssh /run/home/alice/; chown -R alice: /run/home/alice")?;
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    let command = as_user("alice", &vpn::command(&["root@bastion"])?);
    let output = lab.laptop.run(&command)?;
    fails_clearly(&output, None, &[])?;
    let words = ["root", "sudo", "cap_net_admin"];
    ensure!(
        words.iter().any(|word| output.stderr.contains(word)),
        "no advice: {output:?}"
    );
    before.is_back()
}

#[test]
fn no_privilege_there() -> Result<()> {
    let lab = topology::direct()?;
    add_account(&lab.bastion, "alice", Privilege::None)?;
    authorize(&lab.laptop, &lab.bastion, "alice")?;
    up_refused(&lab, &["alice@bastion"], None, &["bastion", "sudo"])
}

#[test]
fn no_ip_command_there() -> Result<()> {
    let lab = topology::direct()?;
    // A file that is not executable is not found.
    lab.bastion
        .sh("touch /run/lab/none; mount --bind /run/lab/none $(readlink -f /usr/bin/ip)")?;
    let output = lab.laptop.run(&vpn::command(&["bastion"])?)?;
    fails_clearly(&output, None, &["bastion", "ip"])?;
    lab.bastion.sh("umount $(readlink -f /usr/bin/ip)")?;
    ensure!(
        lab.bastion
            .sh("ls -d /sys/class/net/*/tun_flags || true")?
            .is_empty()
    );
    Ok(())
}

#[test]
fn routes_that_are_no_network() -> Result<()> {
    let lab = topology::direct()?;
    for route in [
        "10.1.2.3/8",
        "2001:db8::1/32",
        "banana",
        "10.0.0.0/33",
        "",
        "300.0.0.0/8",
    ] {
        up_refused(&lab, &["bastion", "--route", route], None, &[route])?;
    }
    Ok(())
}

#[test]
fn route_over_a_local_network() -> Result<()> {
    let lab = topology::direct()?;
    lab.laptop.sh("ip address add 172.20.0.1/24 dev wan")?;
    for route in ["172.20.0.0/24", "172.20.0.0/25"] {
        up_refused(
            &lab,
            &["bastion", "--route", route],
            None,
            &[route, "172.20.0.0/24"],
        )?;
    }
    Ok(())
}

/// The local network keeps its more specific route, and a line says so.
#[test]
fn route_around_a_local_network() -> Result<()> {
    let lab = topology::direct()?;
    lab.laptop.sh("ip address add 172.20.0.1/24 dev wan")?;
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    let up = vpn::up(&lab.laptop, &["bastion", "--route", "172.16.0.0/12"])?;
    let written = up.stderr();
    ensure!(
        written.contains("172.16.0.0/12") && written.contains("172.20.0.0/24"),
        "{written}"
    );
    let path = lab.laptop.sh("ip route get 172.20.0.2")?;
    ensure!(path.contains("dev wan"), "{path}");
    ensure!(up.end_with(Signal::SIGINT)?.code() == 0);
    before.is_back()
}

#[test]
fn route_that_swallows_the_path_to_the_server() -> Result<()> {
    let lab = topology::direct()?;
    for (route, address) in [
        ("192.0.2.2/32", "192.0.2.2"),
        ("2001:db8:2::2/128", "2001:db8:2::2"),
    ] {
        let family = if address.contains(':') { "-6" } else { "-4" };
        up_refused(
            &lab,
            &[family, "bastion", "--route", route],
            None,
            &[route, address],
        )?;
    }
    Ok(())
}

#[test]
fn mtu_out_of_range() -> Result<()> {
    let lab = topology::direct()?;
    for mtu in ["0", "67", "16381", "65536", "-1", "big"] {
        up_refused(&lab, &["bastion", &format!("--mtu={mtu}")], None, &[mtu])?;
    }
    Ok(())
}

#[test]
fn addresses_that_are_none() -> Result<()> {
    let lab = topology::direct()?;
    for address in ["10.0.0", "banana", "10.0.0.1/40"] {
        up_refused(&lab, &["bastion", "--address", address], None, &[address])?;
    }
    Ok(())
}

#[test]
fn nonsense_on_the_command_line() -> Result<()> {
    let lab = topology::direct()?;
    up_refused(&lab, &["bastion", "--banana"], None, &["--banana"])?;
    up_refused(&lab, &[], None, &[])?;
    up_refused(&lab, &["bastion", "-o", "Port=banana"], None, &["banana"])
}
