//! `sshvpn serve` with least privilege: its own user, one capability, no way to gain more, limited
//! files and system calls. It can do everything that it can as root, and undoes it.
//!
//! ```text
//!   laptop ssh -w ══ SSH ══ tunN  bastion: sshvpn serve --user vpn ── lan host
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netns_tests::lab::sshd::{Privilege, Sshd, add_account, authorize};
use netns_tests::program::tunnel::{Mode, Tunnel};
use netns_tests::program::vpn::fails_clearly;
use netns_tests::serve::joined::Joined;
use netns_tests::serve::lab::{LAN, ServeLab};
use netns_tests::serve::{Serve, Server};
use netns_tests::{Before, Carrier, Child, Client, Host, PATIENCE, traffic, until};
use nix::sys::signal::Signal;

/// The account of the server, by its number in `add_account`.
const UID: &str = "2001";

const ALICE: Tunnel<'static> = Tunnel {
    client: Client::Ssh,
    mode: Mode::PointToPoint,
    units: "3:7",
    mtu: 1500,
    arguments: &["-o", "StrictHostKeyChecking=accept-new"],
    destination: "alice@bastion",
};

fn lab() -> Result<ServeLab> {
    let lab = ServeLab::with_tunnels()?;
    add_account(&lab.bastion, "vpn", Privilege::None)?;
    lab.laptop.sh("rm -f /run/home/root/.ssh/known_hosts")?;
    lab.phone.sh("rm -f /run/home/root/.ssh/known_hosts")?;
    // The lab's directory for the audit log and the notify socket.
    lab.bastion.sh("chown vpn /run/lab")?;
    Ok(lab)
}

/// At port 22, which only root can open.
fn serve() -> Serve {
    at_port("22")
}

fn at_port(port: &str) -> Serve {
    Serve::bare().audited().with(&[
        "--listen",
        &format!("[::]:{port}"),
        "--user",
        "vpn",
        "--route",
        "198.51.100.0/24",
    ])
}

/// The kernel's status of a process, which has to be equal for all its threads.
fn status(pid: i32) -> Result<BTreeMap<String, String>> {
    let mut found: Option<BTreeMap<String, String>> = None;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("status"))?;
        let wanted = ["Uid", "Gid", "Groups", "NoNewPrivs", "Seccomp"];
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        let lines = lines.filter(|(name, _)| wanted.contains(name) || name.starts_with("Cap"));
        let words = |value: &str| value.split_whitespace().collect::<Vec<_>>().join(" ");
        let of_thread: BTreeMap<String, String> = lines
            .map(|(name, value)| (name.to_owned(), words(value)))
            .collect();
        match &found {
            None => found = Some(of_thread),
            Some(first) => ensure!(*first == of_thread, "{first:?} and {of_thread:?}"),
        }
    }
    found.context("no threads")
}

const NET_ADMIN: &str = "0000000000001000";
const NOTHING: &str = "0000000000000000";

/// Checks the properties of every confined process.
fn is_confined(pid: i32, capabilities: &str) -> Result<BTreeMap<String, String>> {
    let status = status(pid)?;
    for (name, expected) in [
        ("CapPrm", capabilities),
        ("CapEff", capabilities),
        ("CapBnd", capabilities),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
    ] {
        let found = status.get(name).map(String::as_str);
        ensure!(found == Some(expected), "{name}: {status:?}");
    }
    Ok(status)
}

fn is_users(server: &Server<'_>) -> Result<()> {
    let status = is_confined(server.child.pid().as_raw(), NET_ADMIN)?;
    for (name, expected) in [
        ("Uid", "2001 2001 2001 2001"),
        ("Gid", "2001 2001 2001 2001"),
        ("Groups", UID),
        ("CapInh", NET_ADMIN),
        ("CapAmb", NET_ADMIN),
    ] {
        let found = status.get(name).map(String::as_str);
        ensure!(found == Some(expected), "{name}: {status:?}");
    }
    Ok(())
}

fn says_what_is_in_force(server: &Child) -> Result<()> {
    let line = server.wait_for_line("sandbox:", PATIENCE)?;
    for part in ["capabilities: CAP_NET_ADMIN;", "no_new_privs", "seccomp"] {
        ensure!(line.contains(part), "{line}");
    }
    if line.contains("no Landlock") {
        eprintln!("SKIPPED: this kernel has no Landlock: its limits are not tested");
    }
    Ok(())
}

/// Clients, NAT, a full reload, status; and nothing is left.
#[test]
fn it_serves_as_a_user_of_its_own() -> Result<()> {
    let lab = lab()?;
    let bastion = &lab.bastion;
    // The first start makes permanent files: the host key, the leases, /run/sshvpn.
    serve().start(bastion)?.stop()?;
    let key = "stat -c %a:%U /etc/sshvpn/host_ed25519_key";
    ensure!(bastion.sh(key)?.trim() == "600:vpn");
    ensure!(bastion.sh("stat -c %a:%U:%G /run/sshvpn")?.trim() == "750:root:vpn");
    ensure!(bastion.sh("stat -c %a:%U /run/sshvpn/server")?.trim() == "755:vpn");
    ensure!(bastion.sh("stat -c %a:%U /var/lib/sshvpn")?.trim() == "700:vpn");
    let before = Before::of(&[bastion, &lab.lan])?;
    let server = serve().start(bastion)?;
    is_users(&server)?;
    says_what_is_in_force(&server.child)?;
    let alice = Joined::open(&server, &lab.laptop, &ALICE)?;
    alice.route(&lab.laptop, &["198.51.100.0/24"])?;
    traffic::ping(&lab.laptop, LAN)?;
    server.reload()?;
    let said = server.child.stderr();
    ensure!(!said.contains("nothing was reloaded"), "{said}");
    let bob = Tunnel {
        units: "3:8",
        destination: "bob@bastion",
        ..ALICE
    };
    let bob = Joined::open(&server, &lab.phone, &bob)?;
    bob.pings(&lab.phone)?;
    ensure!(server.status()?.to_string().contains("\"alice\""));
    is_users(&server)?;
    server.stop()?;
    drop((alice, bob));
    before.is_back()
}

/// The server is killed with a client and its changes, which `then` undoes.
fn killed(then: impl FnOnce(&ServeLab) -> Result<()>) -> Result<()> {
    let lab = lab()?;
    serve().start(&lab.bastion)?.stop()?;
    let before = Before::of(&[&lab.bastion, &lab.lan])?;
    let server = serve().start(&lab.bastion)?;
    let alice = Joined::open(&server, &lab.laptop, &ALICE)?;
    alice.route(&lab.laptop, &["198.51.100.0/24"])?;
    traffic::ping(&lab.laptop, LAN)?;
    server.child.signal(Signal::SIGKILL)?;
    server.child.wait(PATIENCE)?;
    let left = before.differences()?;
    ensure!(left.contains("sshvpn_serve"), "nothing was left: {left}");
    then(&lab)?;
    before.is_back()
}

#[test]
fn killed_then_cleanup_by_root() -> Result<()> {
    killed(|lab| {
        let command = Client::Sshvpn.command(&["cleanup"])?;
        let output = lab.bastion.run(&command)?;
        let said = output.stderr.clone();
        output.ok()?;
        ensure!(said.contains("here: undone"), "{said}");
        ensure!(!said.contains("nothing to clean up"), "{said}");
        Ok(())
    })
}

#[test]
fn killed_then_cleanup_by_its_user() -> Result<()> {
    killed(|lab| {
        let mut command = AMBIENT.map(str::to_owned).to_vec();
        command.extend(Client::Sshvpn.command(&["cleanup"])?);
        lab.bastion.run(&command)?.ok()?;
        Ok(())
    })
}

#[test]
fn killed_then_started_again() -> Result<()> {
    killed(|lab| {
        let server = serve().start(&lab.bastion)?;
        Joined::open(&server, &lab.laptop, &ALICE)?.pings(&lab.laptop)?;
        server.stop()?;
        Ok(())
    })
}

/// Starts it as a service manager does, after root has prepared everything.
const AMBIENT: [&str; 6] = [
    "setpriv",
    "--reuid=vpn",
    "--regid=vpn",
    "--init-groups",
    "--inh-caps=-all,+net_admin",
    "--ambient-caps=+net_admin",
];

#[test]
fn a_service_manager_starts_it_as_that_user() -> Result<()> {
    let lab = lab()?;
    let bastion = &lab.bastion;
    let prepare = Client::Sshvpn.command(&["serve", "--user", "vpn", "--prepare"])?;
    for _ in 0..2 {
        bastion.run(&prepare)?.ok()?;
    }
    let key = bastion.read("/etc/sshvpn/host_ed25519_key")?;
    let serve = Serve::bare()
        .audited()
        .with(&["--route", "198.51.100.0/24"])
        .behind(&AMBIENT);
    let server = serve.start(bastion)?;
    says_what_is_in_force(&server.child)?;
    let status = status(server.child.pid().as_raw())?;
    ensure!(status["Uid"] == "2001 2001 2001 2001", "{status:?}");
    ensure!(status["CapEff"] == NET_ADMIN && status["Seccomp"] == "2");
    let tunnel = Tunnel {
        arguments: &["-p", "2222", "-o", "StrictHostKeyChecking=accept-new"],
        ..ALICE
    };
    let alice = Joined::open(&server, &lab.laptop, &tunnel)?;
    alice.route(&lab.laptop, &["198.51.100.0/24"])?;
    traffic::ping(&lab.laptop, LAN)?;
    server.reload()?;
    let said = server.child.stderr();
    ensure!(!said.contains("nothing was reloaded"), "{said}");
    server.stop()?;
    ensure!(bastion.read("/etc/sshvpn/host_ed25519_key")? == key);
    Ok(())
}

/// As root without its own user, every confinement except for the user id applies.
#[test]
fn root_is_confined_too() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let server = Serve::default().start(&lab.bastion)?;
    is_confined(server.child.pid().as_raw(), NET_ADMIN)?;
    says_what_is_in_force(&server.child)?;
    let alice = Joined::open(&server, &lab.laptop, &ALICE)?;
    alice.pings(&lab.laptop)
}

/// Settings shared by root's tunnels and the server, whichever ends first.
#[test]
fn forwarding_is_shared_with_roots_tunnels() -> Result<()> {
    let lab = lab()?;
    let bastion = &lab.bastion;
    let serve = at_port("2222");
    serve.start(bastion)?.stop()?;
    authorize(&lab.phone, bastion, "root")?;
    Carrier::Agent.prepare(bastion)?;
    let _sshd = Sshd::default().start(bastion)?;
    let forwards = || bastion.sh("cat /proc/sys/net/ipv4/conf/lan/forwarding");
    let up = || {
        let address = "203.0.113.2";
        let arguments = [
            "-o",
            "StrictHostKeyChecking=accept-new",
            "--route",
            "198.51.100.0/24",
            address,
        ];
        Carrier::Agent.up(&lab.phone, &arguments)
    };
    let ends = |up: Child| -> Result<()> {
        let output = up.end_with(Signal::SIGINT)?;
        ensure!(output.code() == 0, "{output:?}");
        Ok(())
    };
    ensure!(forwards()?.trim() == "0");
    // The agent set it first, and ends first.
    let agent = up()?;
    let server = serve.start(bastion)?;
    ends(agent)?;
    ensure!(forwards()?.trim() == "1", "the agent reset it");
    // The server set it first, and ends first.
    let agent = up()?;
    server.stop()?;
    ensure!(forwards()?.trim() == "1", "the server reset it");
    traffic::ping(&lab.phone, LAN)?;
    ends(agent)?;
    until("forwarding is off again", PATIENCE, || {
        forwards()
            .is_ok_and(|value| value.trim() == "0")
            .then_some(())
    })
}

#[test]
fn users_that_cannot_be() -> Result<()> {
    let lab = lab()?;
    let bastion = &lab.bastion;
    let run = |prefix: &[&str], user: &str| {
        let mut command: Vec<String> = prefix.iter().map(|word| (*word).to_owned()).collect();
        command.extend(Client::Sshvpn.command(&["serve", "--user", user])?);
        bastion.run(&command)
    };
    fails_clearly(
        &run(&[], "nobody.there")?,
        Some(1),
        &["no user 'nobody.there'"],
    )?;
    fails_clearly(&run(&[], "root")?, Some(1), &["this user is root"])?;
    let as_vpn = ["setpriv", "--reuid=vpn", "--regid=vpn", "--init-groups"];
    fails_clearly(&run(&as_vpn, "nobody")?, Some(1), &["only root can"])?;
    bastion.sh("sed -i 's/^vpn:x:2001:$/vpn:x:2001:mallory/' /etc/group")?;
    fails_clearly(&run(&[], "vpn")?, Some(1), &["mallory", "group of its own"])?;
    // That group has no access.
    ensure!(
        bastion
            .sh("! [ -e /run/sshvpn ] || stat -c %G /run/sshvpn")?
            .trim()
            != "vpn"
    );
    Ok(())
}

/// A key that the user cannot read is an error at the start, not at a reload.
#[test]
fn a_host_key_of_roots_is_named() -> Result<()> {
    let lab = lab()?;
    let arguments = [
        "--host-key",
        "/etc/ssh/ssh_host_ed25519_key",
        "--user",
        "vpn",
    ];
    let command = Client::Sshvpn.command(&[&["serve"], &arguments[..]].concat())?;
    let output = lab.bastion.run(&command)?;
    let parts = ["/etc/ssh/ssh_host_ed25519_key", "ermission denied"];
    fails_clearly(&output, Some(1), &parts)
}

/// The pid, in the test's namespace, of the process of `host` whose command line begins with
/// `start`.
fn pid_of(host: &Host, start: &str) -> Result<i32> {
    let namespace = fs::read_link(format!("/proc/{}/ns/pid", host.init_pid()))?;
    until(start, Duration::from_secs(10), || {
        fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let line = fs::read_to_string(entry.path().join("cmdline")).ok()?;
            let there = fs::read_link(entry.path().join("ns/pid")).ok()? == namespace;
            (there && line.replace('\0', " ").starts_with(start)).then_some(pid)
        })
    })
}

/// A client and its agent keep the rights that undoing needs; `-w` keeps none.
#[test]
fn clients_and_agents_are_confined() -> Result<()> {
    let lab = netns_tests::lab::topology::subnet()?;
    let (laptop, bastion) = (&lab.direct.laptop, &lab.direct.bastion);
    Carrier::Agent.prepare(bastion)?;
    let before = Before::of(&[laptop, bastion, &lab.lan])?;
    let up = Carrier::Agent.up(laptop, &["--route", "198.51.100.0/24", "bastion"])?;
    traffic::ping(laptop, LAN)?;
    until("up is confined", PATIENCE, || {
        is_confined(up.pid().as_raw(), NET_ADMIN).ok()
    })?;
    let agent = pid_of(bastion, "/usr/local/sbin/sshvpn agent")?;
    until("the agent is confined", PATIENCE, || {
        is_confined(agent, NET_ADMIN).ok()
    })?;
    let output = up.end_with(Signal::SIGINT)?;
    ensure!(output.code() == 0, "{output:?}");
    before.is_back()?;
    let tunnel = Tunnel {
        client: Client::Sshvpn,
        units: "4:5",
        destination: "bastion",
        ..ALICE
    };
    let tunnel = tunnel.open(laptop, bastion)?;
    until("-w is confined", PATIENCE, || {
        is_confined(tunnel.pid().as_raw(), NOTHING).ok()
    })?;
    tunnel.end_with(Signal::SIGINT)?;
    before.is_back()
}
