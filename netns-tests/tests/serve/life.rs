//! `sshvpn serve` from start to end: its changes and their undoing, reloads and restarts under
//! traffic, and its privileges.
//!
//! ```text
//!   laptop ssh -w ══ SSH ══╗
//!                          ╠═ tunN  bastion: sshvpn serve ── lan host
//!   phone  ssh -w ══ SSH ══╝
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv6Addr, TcpListener};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netns_tests::lab::link::has_device;
use netns_tests::lab::sshd::{Privilege, add_account};
use netns_tests::program::tunnel::Tunnel;
use netns_tests::program::vpn::{self, fails_clearly};
use netns_tests::serve::joined::Joined;
use netns_tests::serve::lab::{LAN, ServeLab};
use netns_tests::serve::{AUTHORIZED_KEYS, Serve, Server};
use netns_tests::traffic::Counted;
use netns_tests::{Before, Client, Host, PATIENCE, traffic, until};
use nix::sys::signal::Signal;

/// Limit for the server to notice a dead client: three keepalives, 15 s apart, and some margin.
const SILENCE: Duration = Duration::from_secs(75);

const ALICE: Tunnel<'static> = Tunnel {
    client: Client::Ssh,
    mode: netns_tests::program::tunnel::Mode::PointToPoint,
    units: "3:7",
    mtu: 1500,
    arguments: &[],
    destination: "alice@bastion",
};
const BOB: Tunnel<'static> = Tunnel {
    destination: "bob@bastion",
    units: "3:8",
    ..ALICE
};

/// Without configuration, except for an authorized key.
#[test]
fn the_first_start_makes_a_host_key() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let key = "/etc/sshvpn/host_ed25519_key";
    let mut first = String::new();
    for _ in 0..2 {
        let server = Serve::bare().audited().start(&lab.bastion)?;
        let tunnel = Tunnel {
            arguments: &["-p", "2222", "-o", "StrictHostKeyChecking=accept-new"],
            ..ALICE
        };
        Joined::open(&server, &lab.laptop, &tunnel)?.pings(&lab.laptop)?;
        server.stop()?;
        let mode = lab.bastion.sh(&format!("stat -c %a:%U {key}"))?;
        ensure!(mode.trim() == "600:root", "{mode}");
        let found = lab.bastion.read(key)?;
        ensure!(
            first.is_empty() || first == found,
            "it made another host key"
        );
        first = found;
    }
    Ok(())
}

/// Clients, forwards, NAT: after the server's end the host is as before.
#[test]
fn nothing_is_left_at_the_end() -> Result<()> {
    let lab = ServeLab::new()?;
    lab.authorize(&[
        (&lab.laptop, "tunnel=\"any\",port-forwarding"),
        (&lab.phone, "tunnel=\"any\""),
    ])?;
    let serve = Serve::default().with(&["--route", "198.51.100.0/24"]);
    // The first start makes some permanent files.
    serve.start(&lab.bastion)?.stop()?;
    let before = Before::of(&[&lab.bastion, &lab.lan])?;
    let server = serve.start(&lab.bastion)?;
    let tunnel = Tunnel {
        arguments: &["-R", "8080:127.0.0.1:80", "-L", "9000:127.0.0.1:80"],
        ..ALICE
    };
    let alice = Joined::open(&server, &lab.laptop, &tunnel)?;
    let bob = Joined::open(&server, &lab.phone, &BOB)?;
    alice.route(&lab.laptop, &["198.51.100.0/24"])?;
    traffic::ping(&lab.laptop, LAN)?;
    let changed = before.differences()?;
    ensure!(changed.contains("forwarding:1"), "{changed}");
    server.stop()?;
    before.is_back()?;
    // The clients got the reason.
    for client in [alice, bob] {
        let output = client.child.wait(PATIENCE)?;
        ensure!(
            output.code() == 255 && output.stderr.contains("disconnect"),
            "{output:?}"
        );
    }
    Ok(())
}

/// A frozen client does not keep the server from ending, and a second signal does not keep it from
/// undoing its changes.
fn ends_with_a_frozen_client(signals: usize) -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let serve = Serve::default().with(&["--route", "198.51.100.0/24"]);
    serve.start(&lab.bastion)?.stop()?;
    let before = Before::of(&[&lab.bastion])?;
    let server = serve.start(&lab.bastion)?;
    let alice = Joined::open(&server, &lab.laptop, &ALICE)?;
    alice.route(&lab.laptop, &["198.51.100.0/24"])?;
    traffic::ping(&lab.laptop, LAN)?;
    alice.child.signal(Signal::SIGSTOP)?;
    for _ in 1..signals {
        server.child.signal(Signal::SIGTERM)?;
    }
    server.stop()?;
    before.is_back()
}

#[test]
fn a_frozen_client_does_not_hold_up_the_end() -> Result<()> {
    ends_with_a_frozen_client(1)
}

#[test]
fn a_second_signal_ends_it_at_once() -> Result<()> {
    ends_with_a_frozen_client(2)
}

/// Two Ctrl-C at once: the terminal sends each to the whole foreground group, which the program that
/// undoes the firewall must not be in, from its first moment on.
#[test]
fn a_double_interrupt_leaves_no_firewall_table() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let serve = Serve::default().with(&["--route", "198.51.100.0/24"]);
    serve.start(&lab.bastion)?.stop()?;
    let before = Before::of(&[&lab.bastion])?;
    for _ in 0..16 {
        let server = serve.start(&lab.bastion)?;
        server.child.signal(Signal::SIGINT)?;
        let output = server.child.end_with(Signal::SIGINT)?;
        ensure!(
            output.code() == 0 && !output.stderr.contains("could not undo"),
            "{output:?}"
        );
        before.is_back()?;
    }
    Ok(())
}

/// A reload changes every setting, and the connected clients stay.
#[test]
fn a_reload_loses_no_packet() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let server = Serve::default().start(&lab.bastion)?;
    let alice = Joined::open(&server, &lab.laptop, &ALICE)?;
    alice.pings(&lab.laptop)?;
    let local = (&lab.laptop, &*alice.v4()?);
    let remote = (&lab.bastion, &*alice.server[0].to_string());
    let (counted, ()) = Counted::during(local, remote, || {
        for options in ["tunnel=\"8\"", "restrict", "tunnel=\"any\""] {
            lab.authorize(&[(&lab.laptop, "tunnel=\"any\""), (&lab.phone, options)])?;
            server.reload()?;
        }
        // The last configuration applies.
        Joined::open(&server, &lab.phone, &BOB)?.pings(&lab.phone)
    })?;
    ensure!(
        counted.lost.is_empty() && counted.reordered == 0,
        "{} of {} lost, {} out of order",
        counted.lost.len(),
        counted.sent,
        counted.reordered
    );
    Ok(())
}

#[test]
fn a_reload_opens_and_closes_ports() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let serve = Serve::bare().audited();
    let key = "host-key = [\"/etc/ssh/ssh_host_ed25519_key\"]";
    let listening = |ports: &str| format!("{key}\nlisten = [{ports}]\n");
    let server = serve
        .config(&listening("\"[::]:22\", \"[::]:2201\""))
        .start(&lab.bastion)?;
    let alice = Joined::open(&server, &lab.laptop, &ALICE)?;
    let ports = |host: &Host| -> Result<BTreeSet<String>> {
        let list = host.sh("ss -Hltn | awk '{print $4}'")?;
        Ok(list.lines().map(str::to_owned).collect())
    };
    let each_family = |port: &&str| [format!("0.0.0.0:{port}"), format!("[::]:{port}")];
    let expected = |list: &[&str]| list.iter().flat_map(each_family).collect();
    ensure!(ports(&lab.bastion)? == expected(&["22", "2201"]));
    lab.bastion.write(
        netns_tests::serve::CONFIG,
        &listening("\"[::]:22\", \"[::]:2202\""),
    )?;
    server.reload()?;
    ensure!(ports(&lab.bastion)? == expected(&["22", "2202"]));
    // A port that cannot be bound changes nothing.
    lab.bastion
        .write(netns_tests::serve::CONFIG, &listening("\"[::]:23\""))?;
    server.reload()?;
    server
        .child
        .wait_for_line("CAP_NET_BIND_SERVICE", PATIENCE)?;
    ensure!(ports(&lab.bastion)? == expected(&["22", "2202"]));
    alice.pings(&lab.laptop)
}

#[test]
fn a_reload_of_nonsense_changes_nothing() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let server = Serve::default().config("# nothing\n").start(&lab.bastion)?;
    let alice = Joined::open(&server, &lab.laptop, &ALICE)?;
    lab.bastion
        .write(netns_tests::serve::CONFIG, "nonsense = 1\n")?;
    server.reload()?;
    server.child.wait_for_line("nonsense", PATIENCE)?;
    alice.pings(&lab.laptop)?;
    Joined::open(&server, &lab.phone, &BOB)?.pings(&lab.phone)
}

/// logrotate: the file is renamed, and SIGHUP opens a new one.
#[test]
fn a_reload_reopens_the_audit_log() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let server = Serve::default().start(&lab.bastion)?;
    Joined::open(&server, &lab.laptop, &ALICE)?.leave()?;
    server.wait_for_record(0, "session", |_| true)?;
    lab.bastion
        .sh("cd /run/lab; mv audit.jsonl audit.jsonl.1")?;
    server.reload()?;
    Joined::open(&server, &lab.laptop, &ALICE)?.leave()?;
    server.wait_for_record(0, "session", |_| true)?;
    ensure!(
        lab.bastion
            .read("/run/lab/audit.jsonl.1")?
            .contains("\"session\"")
    );
    Ok(())
}

/// A client that reconnects by itself, as a service would.
#[test]
fn a_restart_under_traffic() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let serve = Serve::default().with(&["--pool", "10.88.0.0/24"]);
    let mut server = serve.start(&lab.bastion)?;
    let first = Joined::open(&server, &lab.laptop, &ALICE)?;
    let address = first.v4()?;
    let flood = lab.laptop.spawn(&[
        "ping",
        "-q",
        "-f",
        "-s",
        "1400",
        &first.server[0].to_string(),
    ])?;
    for _ in 0..3 {
        server.stop()?;
        server = serve.start(&lab.bastion)?;
        let again = Joined::open(&server, &lab.laptop, &ALICE)?;
        ensure!(again.v4()? == address, "{:?}", again.addresses);
        again.pings(&lab.laptop)?;
    }
    drop(flood);
    Ok(())
}

/// The server is killed with clients; then `then` undoes its changes (`cleanup`, or another start).
fn killed(lab: &ServeLab, serve: &Serve, then: impl FnOnce(&Host) -> Result<()>) -> Result<()> {
    serve.start(&lab.bastion)?.stop()?;
    let before = Before::of(&[&lab.bastion])?;
    let server = serve.start(&lab.bastion)?;
    let alice = Joined::open(&server, &lab.laptop, &ALICE)?;
    let bob = Joined::open(&server, &lab.phone, &BOB)?;
    alice.route(&lab.laptop, &["198.51.100.0/24"])?;
    traffic::ping(&lab.laptop, LAN)?;
    bob.pings(&lab.phone)?;
    server.child.signal(Signal::SIGKILL)?;
    server.child.wait(PATIENCE)?;
    then(&lab.bastion)?;
    before.is_back()
}

#[test]
fn killed_then_cleanup() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let serve = Serve::default().with(&["--route", "198.51.100.0/24"]);
    killed(&lab, &serve, vpn::cleanup)
}

#[test]
fn killed_then_started_again() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let serve = Serve::default().with(&["--route", "198.51.100.0/24"]);
    killed(&lab, &serve, |bastion| {
        let server = serve.start(bastion)?;
        Joined::open(&server, &lab.laptop, &ALICE)?.pings(&lab.laptop)?;
        server.stop()?;
        Ok(())
    })
}

fn is_free(server: &Server<'_>, device: &str, limit: Duration) -> Result<()> {
    until(&format!("{device} is gone"), limit, || {
        (!has_device(server.host(), device)).then_some(())
    })
}

/// A client that ends without a message leaves nothing: its device and addresses are free.
#[test]
fn a_client_that_is_killed() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let server = Serve::default().start(&lab.bastion)?;
    let alice = Joined::open(&server, &lab.laptop, &ALICE)?;
    let addresses = alice.addresses.clone();
    alice.child.end_with(Signal::SIGKILL)?;
    is_free(&server, "tun7", PATIENCE)?;
    let again = Joined::open(&server, &lab.laptop, &ALICE)?;
    ensure!(again.addresses == addresses, "{:?}", again.addresses);
    again.pings(&lab.laptop)
}

/// The same if its kernel cannot send anything either.
#[test]
fn a_client_that_falls_silent() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let server = Serve::default().start(&lab.bastion)?;
    let _alice = Joined::open(&server, &lab.laptop, &ALICE)?;
    let bob = Joined::open(&server, &lab.phone, &BOB)?;
    lab.laptop
        .sh("nft 'add table inet cut; add chain inet cut out { type filter hook output priority 0; policy drop; }'")?;
    is_free(&server, "tun7", SILENCE)?;
    server.wait_for_record(0, "session", |record| record["user"] == "alice")?;
    bob.pings(&lab.phone)
}

/// The five capability sets, the groups and NoNewPrivs of each thread of `server`.
fn privileges(server: &Server<'_>) -> Result<BTreeSet<String>> {
    let wanted = [
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Groups",
    ];
    let mut found = BTreeSet::new();
    for task in fs::read_dir(server.proc().join("task"))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        let lines = status
            .lines()
            .filter(|line| wanted.contains(&line.split(':').next().unwrap_or_default()));
        found.extend(lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")));
    }
    Ok(found)
}

/// The expected values of every thread.
const REDUCED: [&str; 5] = [
    "CapAmb: 0000000000001000",
    "CapEff: 0000000000001000",
    "CapInh: 0000000000001000",
    "CapPrm: 0000000000001000",
    "NoNewPrivs: 1",
];

fn has_net_admin_alone(server: &Server<'_>, others: &[&str]) -> Result<()> {
    let expected = REDUCED.iter().chain(others).map(|line| (*line).to_owned());
    let found = privileges(server)?;
    ensure!(found == expected.collect(), "{found:#?}");
    Ok(())
}

/// A server started as root keeps only CAP_NET_ADMIN once it has opened its port and read its
/// files.
#[test]
fn root_keeps_net_admin_alone() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let server = Serve::default()
        .with(&["--route", "198.51.100.0/24"])
        .behind(&["setpriv", "--groups", "4,20"])
        .start(&lab.bastion)?;
    let others = ["CapBnd: 0000000000001000", "Groups:"];
    has_net_admin_alone(&server, &others)?;
    let alice = Joined::open(&server, &lab.laptop, &ALICE)?;
    alice.route(&lab.laptop, &["198.51.100.0/24"])?;
    traffic::ping(&lab.laptop, LAN)?;
    server.reload()?;
    has_net_admin_alone(&server, &others)?;
    let before = Before::of(&[&lab.lan])?;
    server.stop()?;
    before.is_back()
}

/// The server's own user with only that capability, as a service manager starts it.
#[test]
fn a_user_of_its_own_does() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let bastion = &lab.bastion;
    add_account(bastion, "vpn", Privilege::None)?;
    bastion.sh(
        "install -d -m 700 -o vpn -g vpn /run/sshvpn /var/lib/sshvpn; chown -R vpn: /etc/sshvpn; \
         chown vpn: /run/lab",
    )?;
    let ambient = [
        "setpriv",
        "--reuid=vpn",
        "--regid=vpn",
        "--init-groups",
        "--inh-caps=-all,+net_admin",
        "--ambient-caps=+net_admin",
    ];
    let server = Serve::bare()
        .audited()
        .with(&["--route", "198.51.100.0/24"])
        .behind(&ambient)
        .start(bastion)?;
    let status = fs::read_to_string(server.proc().join("status"))?;
    let bounding = status
        .lines()
        .find(|line| line.starts_with("CapBnd"))
        .context("no CapBnd")?;
    let bounding = bounding.split_whitespace().collect::<Vec<_>>().join(" ");
    has_net_admin_alone(&server, &[&bounding, "Groups: 2001"])?;
    let tunnel = Tunnel {
        arguments: &["-p", "2222", "-o", "StrictHostKeyChecking=accept-new"],
        ..ALICE
    };
    let alice = Joined::open(&server, &lab.laptop, &tunnel)?;
    alice.route(&lab.laptop, &["198.51.100.0/24"])?;
    traffic::ping(&lab.laptop, LAN)?;
    server.stop()?;
    Ok(())
}

#[test]
fn without_the_capability_it_says_so() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    add_account(&lab.bastion, "vpn", Privilege::None)?;
    let command = Client::Sshvpn.command(&["serve", "--host-key", "/run/home/vpn/key"])?;
    let as_vpn = ["setpriv", "--reuid=vpn", "--regid=vpn", "--init-groups"].map(str::to_owned);
    lab.bastion.sh("chmod 755 /etc/sshvpn")?;
    let output = lab.bastion.run(&[&as_vpn[..], &command].concat())?;
    fails_clearly(&output, Some(1), &["CAP_NET_ADMIN"])
}

#[test]
fn a_port_that_is_taken() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let server = Serve::default().start(&lab.bastion)?;
    let alice = Joined::open(&server, &lab.laptop, &ALICE)?;
    let before = Before::of(&[&lab.bastion])?;
    let arguments = ["--listen", "192.0.2.2:22", "--host-key", "/run/lab/key"];
    let command = Client::Sshvpn.command(&[&["serve"], &arguments[..]].concat())?;
    let output = lab.bastion.run(&command)?;
    fails_clearly(&output, Some(1), &["192.0.2.2:22", "--listen"])?;
    before.is_back()?;
    alice.pings(&lab.laptop)
}

/// Two servers on one host, each with its own clients and rules.
#[test]
fn two_servers_on_one_host() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let first = Serve::default()
        .with(&["--pool", "10.88.0.0/24", "--route", "198.51.100.0/24"])
        .start(&lab.bastion)?;
    let alice = Joined::open(&first, &lab.laptop, &ALICE)?;
    alice.route(&lab.laptop, &["198.51.100.0/24"])?;
    lab.bastion.write(
        "/run/lab/second.toml",
        "listen = [\"[::]:2222\"]\n[network]\nleases = \"/run/lab/leases.json\"\n\
         pool = [\"10.89.0.0/24\"]\nroute = [\"198.51.100.0/24\"]\n",
    )?;
    let second = Client::Sshvpn.command(&["serve", "--config", "/run/lab/second.toml"])?;
    let second = lab.bastion.spawn(&second)?;
    second.wait_for_line("2222", PATIENCE)?;
    traffic::ping(&lab.laptop, LAN)?;
    ensure!(second.end_with(Signal::SIGTERM)?.code() == 0);
    traffic::ping(&lab.laptop, LAN)
}

/// Socket activation by the service manager, and the messages to it.
#[test]
fn socket_activation_and_the_watchdog() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let socket = lab
        .bastion
        .in_network(|| Ok(TcpListener::bind((Ipv6Addr::UNSPECIFIED, 22))?))?;
    let server = Serve::default()
        .with(&["--listen", "[::]:2222"])
        .behind(&["env", "WATCHDOG_USEC=200000"])
        .start_activated(&lab.bastion, socket.into())?;
    let alice = Joined::open(&server, &lab.laptop, &ALICE)?;
    alice.pings(&lab.laptop)?;
    let others = lab.bastion.sh("ss -Hltn sport = :2222")?;
    ensure!(others.trim().is_empty(), "it listens by itself: {others}");
    server.reload()?;
    server.watchdog()?;
    alice.pings(&lab.laptop)?;
    Joined::open(&server, &lab.phone, &BOB)?.pings(&lab.phone)
}

#[test]
fn status_tells_of_the_clients_that_are_there() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let server = Serve::default().start(&lab.bastion)?;
    let alice = Joined::open(&server, &lab.laptop, &ALICE)?;
    alice.pings(&lab.laptop)?;
    let told = server.status()?.to_string();
    for part in ["\"alice\"", "\"tun7\"", "192.0.2.1", &alice.v4()?] {
        ensure!(told.contains(part), "{part} is missing in {told}");
    }
    let table = lab
        .bastion
        .run(&Client::Sshvpn.command(&["serve", "--status"])?)?
        .ok()?;
    ensure!(table.contains("alice") && table.contains("tun7"), "{table}");
    alice.leave()?;
    server.wait_for_record(0, "session", |_| true)?;
    let told = server.status()?.to_string();
    ensure!(!told.contains("\"alice\""), "{told}");
    server.stop()?;
    let none = lab
        .bastion
        .run(&Client::Sshvpn.command(&["serve", "--status"])?)?;
    fails_clearly(&none, Some(1), &["no"])
}

/// An invalid line of authorized_keys does not keep the server from starting.
#[test]
fn keys_that_are_refused_are_named() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let good = lab.bastion.read(AUTHORIZED_KEYS)?;
    let key = good.lines().next().context("no key")?;
    let bad = format!(
        "command=\"true\" {}\nnonsense\n{good}",
        key.replace("tunnel=\"any\" ", "")
    );
    lab.bastion.write(AUTHORIZED_KEYS, &bad)?;
    let server = Serve::default().start(&lab.bastion)?;
    for line in ["authorized_keys:1", "authorized_keys:2"] {
        server.child.wait_for_line(line, PATIENCE)?;
    }
    Joined::open(&server, &lab.phone, &BOB)?.pings(&lab.phone)
}
