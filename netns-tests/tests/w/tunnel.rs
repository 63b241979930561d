//! `-w` against a stock sshd: point-to-point, ethernet, units and `any`.
//!
//! ```text
//!   laptop wan 192.0.2.1 ──────────── 192.0.2.2 wan bastion
//!   client tunL 10.99.0.1/30 ═ SSH ═ 10.99.0.2/30 tunR sshd
//!               fd99::1/64           fd99::2/64
//! ```

use anyhow::{Result, ensure};
use netns_tests::lab::link::has_device;
use netns_tests::lab::sshd::{Privilege, add_account, as_user, authorize};
use netns_tests::lab::topology::{self, Direct};
use netns_tests::program::tunnel::{LOCAL, Mode, REMOTE, Tunnel};
use netns_tests::{Before, Client, PATIENCE, traffic, until, with_each_client};
use nix::sys::signal::Signal;

with_each_client!(
    point_to_point,
    ethernet,
    any_unit,
    command_runs_beside_the_tunnel,
    unread_output_does_not_hold_up_the_tunnel,
    lost_connection_is_an_error,
    devices_go_with_the_connection,
    devices_made_beforehand_need_no_root,
);

/// Checks both families, in both directions.
fn passes_both_ways(lab: &Direct) -> Result<()> {
    for (local, remote) in LOCAL.iter().zip(REMOTE) {
        traffic::ping(&lab.laptop, remote)?;
        traffic::ping(&lab.bastion, local)?;
    }
    Ok(())
}

fn point_to_point(client: Client) -> Result<()> {
    let lab = topology::direct()?;
    let _open = Tunnel {
        client,
        ..Tunnel::default()
    }
    .open(&lab.laptop, &lab.bastion)?;
    passes_both_ways(&lab)
}

fn ethernet(client: Client) -> Result<()> {
    let lab = topology::direct()?;
    let tunnel = Tunnel {
        client,
        mode: Mode::Ethernet,
        ..Tunnel::default()
    };
    let _open = tunnel.open(&lab.laptop, &lab.bastion)?;
    passes_both_ways(&lab)?;
    let neighbour = lab.laptop.sh("ip neigh show dev tap3 to 10.99.0.2")?;
    ensure!(
        neighbour.contains("lladdr"),
        "no ARP through the tunnel: {neighbour}"
    );
    Ok(())
}

fn any_unit(client: Client) -> Result<()> {
    let lab = topology::direct()?;
    let tunnel = Tunnel {
        client,
        units: "any:any",
        ..Tunnel::default()
    };
    let _open = tunnel.open(&lab.laptop, &lab.bastion)?;
    passes_both_ways(&lab)
}

/// The command runs, and after its end the tunnel stays until the client is interrupted.
fn command_runs_beside_the_tunnel(client: Client) -> Result<()> {
    let lab = topology::direct()?;
    let command = client.command(&["-w", "any:5", "bastion", "echo unit is $SSH_TUNNEL"])?;
    let running = lab.laptop.spawn(&command)?;
    running.wait_for_line("unit is tun5", PATIENCE)?;
    lab.sshd.wait_for_line("Close session", PATIENCE)?;
    ensure!(running.is_running() && has_device(&lab.bastion, "tun5"));
    ensure!(running.stdout() == "unit is tun5\n", "{}", running.stdout());
    let output = running.end_with(Signal::SIGTERM)?;
    ensure!(output.code() == 255, "{output:?}");
    Ok(())
}

/// The command writes output that is not read; once it is read, it is complete.
fn unread_output_does_not_hold_up_the_tunnel(client: Client) -> Result<()> {
    const BYTES: u64 = 64 << 20;
    let lab = topology::direct()?;
    let write = format!("head -c {BYTES} /dev/zero");
    let command = client.command(&["-T", "-w", "3:7", "bastion", &format!("'{write}'")])?;
    lab.laptop.sh("mkfifo /run/lab/go")?;
    let line = format!(
        "{} | {{ read -r _ </run/lab/go; wc -c; }}",
        command.join(" ")
    );
    let running = lab.laptop.spawn(&["bash", "-c", &line])?;
    let mut before = 0;
    until("the command waits for a reader", PATIENCE, || {
        let processes = lab.bastion.processes().ok()?;
        let writer = processes.iter().find(|process| process.command == write)?;
        let io = lab.bastion.read(&format!("/proc/{}/io", writer.pid)).ok()?;
        let written = io
            .lines()
            .find_map(|line| line.strip_prefix("wchar: "))?
            .parse()
            .ok()?;
        let stands = written == before && written > 1 << 20;
        before = written;
        stands.then_some(())
    })?;
    Tunnel {
        client,
        ..Tunnel::default()
    }
    .set_up(&lab.laptop, &lab.bastion)?;
    passes_both_ways(&lab)?;
    lab.laptop.sh("echo >/run/lab/go")?;
    running.wait_for_line(&BYTES.to_string(), PATIENCE)?;
    passes_both_ways(&lab)
}

fn lost_connection_is_an_error(client: Client) -> Result<()> {
    let lab = topology::direct()?;
    let tunnel = Tunnel {
        client,
        ..Tunnel::default()
    };
    let open = tunnel.open(&lab.laptop, &lab.bastion)?;
    lab.bastion.kill("sshd: root")?;
    let output = open.wait(PATIENCE)?;
    ensure!(output.code() == 255, "{output:?}");
    ensure!(output.stderr.contains("bastion"), "which host? {output:?}");
    Ok(())
}

fn devices_go_with_the_connection(client: Client) -> Result<()> {
    let lab = topology::direct()?;
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    let tunnel = Tunnel {
        client,
        ..Tunnel::default()
    };
    let open = tunnel.open(&lab.laptop, &lab.bastion)?;
    ensure!(has_device(&lab.laptop, "tun3") && has_device(&lab.bastion, "tun7"));
    open.end_with(Signal::SIGTERM)?;
    before.is_back()
}

/// An unprivileged user on each host, with a premade device.
fn devices_made_beforehand_need_no_root(client: Client) -> Result<()> {
    let lab = topology::direct()?;
    for (host, device, address) in [
        (&lab.laptop, "tun3", "10.99.0.1/30"),
        (&lab.bastion, "tun7", "10.99.0.2/30"),
    ] {
        add_account(host, "alice", Privilege::None)?;
        host.sh(&format!("ip tuntap add dev {device} mode tun user alice"))?;
        // With IPv6, the kernel would add permanent state of its own at the first use.
        host.sh(&format!(
            "echo 1 >/proc/sys/net/ipv6/conf/{device}/disable_ipv6"
        ))?;
        host.sh(&format!(
            "ip address add {address} dev {device}; ip link set {device} up"
        ))?;
    }
    authorize(&lab.laptop, &lab.bastion, "alice")?;
    lab.laptop
        .sh("cp -a /run/home/root/.ssh /run/home/alice/; chown -R alice: /run/home/alice")?;
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    let command = client.command(&["-N", "-w", "3:7", "bastion"])?;
    let open = lab.laptop.spawn(&as_user("alice", &command))?;
    traffic::ping(&lab.laptop, "10.99.0.2")?;
    traffic::ping(&lab.bastion, "10.99.0.1")?;
    open.end_with(Signal::SIGTERM)?;
    before.is_back()
}
