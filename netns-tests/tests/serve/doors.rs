//! Connections to `sshvpn serve`: listening sockets, logins during a reload or the server's end,
//! refusals, and the order of steps at the end of a client.
//!
//! ```text
//!   laptop, phone ── ssh, or only a TCP connection ──► bastion: sshvpn serve
//! ```

use std::io::Read;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netns_tests::lab::link::has_device;
use netns_tests::program::tunnel::{Mode, Tunnel};
use netns_tests::program::vpn;
use netns_tests::serve::attempt;
use netns_tests::serve::joined::Joined;
use netns_tests::serve::lab::{LAN, ServeLab};
use netns_tests::serve::{CONFIG, NO_PENALTIES, Serve, Server};
use netns_tests::{Child, Client, Host, PATIENCE, until};
use nix::sys::signal::Signal;
use serde_json::Value;

const ALICE: Tunnel<'static> = Tunnel {
    client: Client::Ssh,
    mode: Mode::PointToPoint,
    units: "3:7",
    mtu: 1500,
    arguments: &[],
    destination: "alice@bastion",
};
/// The server's address for the laptop.
const SERVER: &str = "192.0.2.2:22";
const HOST_KEY: &str = "host-key = [\"/etc/ssh/ssh_host_ed25519_key\"]";

/// Checks the identification of a server at port 2201 of this host.
fn greeting() -> Result<()> {
    let mut stream = TcpStream::connect("127.0.0.1:2201").context("connecting")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut greeting = [0; 8];
    stream.read_exact(&mut greeting).context("a greeting")?;
    ensure!(&greeting == b"SSH-2.0-", "{greeting:?}");
    Ok(())
}

/// Every connection succeeds while reloads change the listeners from one family to both and back.
#[test]
fn a_reload_between_families_has_no_gap() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let listening = |place: &str| {
        format!("{HOST_KEY}\nlisten = [\"{place}:2201\"]\n{NO_PENALTIES}max-startups = 10000\n")
    };
    let (v4, both) = (listening("0.0.0.0"), listening("[::]"));
    let server = Serve::bare().config(&v4).start(&lab.bastion)?;
    let done = AtomicBool::new(false);
    let connect = || {
        let mut count = 0;
        while !done.load(Ordering::Relaxed) {
            greeting().with_context(|| format!("connection {count}"))?;
            count += 1;
        }
        Ok(count)
    };
    let count: usize = thread::scope(|scope| -> Result<usize> {
        let connecting = scope.spawn(|| lab.bastion.in_network(connect));
        let reloads = || -> Result<()> {
            for config in [&both, &v4, &both, &v4, &both] {
                lab.bastion.write(CONFIG, config)?;
                server.reload()?;
                let list = lab.bastion.sh("ss -Hltn sport = :2201")?;
                ensure!(list.contains("[::]") == (config == &both), "{list}");
            }
            Ok(())
        };
        let reloaded = reloads();
        done.store(true, Ordering::Relaxed);
        let count = connecting
            .join()
            .map_err(|_| anyhow::anyhow!("it panicked"))?;
        reloaded?;
        count
    })?;
    ensure!(count > 50, "only {count} connections meanwhile");
    Ok(())
}

/// While the server waits for a frozen client before it ends, its port is closed to others.
#[test]
fn the_port_is_closed_before_the_goodbyes() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let server = Serve::default().start(&lab.bastion)?;
    let frozen = vpn::up(&lab.phone, &["--via", "serve", "bastion"])?;
    frozen.signal(Signal::SIGSTOP)?;
    server.child.signal(Signal::SIGTERM)?;
    until("the port is closed", PATIENCE, || {
        let list = lab.bastion.sh("ss -Hltn sport = :22").ok()?;
        list.trim().is_empty().then_some(())
    })?;
    let refused = lab.laptop.in_network(|| Ok(TcpStream::connect(SERVER)))?;
    ensure!(
        refused.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused),
        "a connection was accepted"
    );
    ensure!(server.child.is_running(), "it ended without a goodbye");
    server.stop()?;
    Ok(())
}

/// Starts ssh on the laptop, which pauses after its identification until /run/lab/go exists.
fn held_up(server: &Server<'_>, lab: &ServeLab) -> Result<Child> {
    lab.laptop.sh("rm -f /run/lab/go")?;
    let proxy = format!(
        "ProxyCommand=bash -c '{{ dd bs=1 count=8 status=none; \
         until [ -e /run/lab/go ]; do sleep 0.05; done; cat; }} | socat - TCP:{SERVER}'"
    );
    let arguments = ["-v", "-N", "-w", "3:7", "-o", &proxy, "alice@bastion"];
    let child = lab.laptop.spawn(&Client::Ssh.command(&arguments)?)?;
    until("a connection without a login", PATIENCE, || {
        (server.status().ok()?["totals"]["startups"] == 1).then_some(())
    })?;
    Ok(child)
}

/// A login during a reload is judged by the rules at the time of authentication, not by those when
/// the client connected.
#[test]
fn a_reload_counts_for_a_login_that_is_under_way() -> Result<()> {
    let lab = ServeLab::new()?;
    lab.authorize(&[(&lab.laptop, "tunnel=\"any\"")])?;
    let server = Serve::default().config(NO_PENALTIES).start(&lab.bastion)?;
    let removed = held_up(&server, &lab)?;
    lab.authorize(&[(&lab.phone, "tunnel=\"any\"")])?;
    server.reload()?;
    lab.laptop.sh("touch /run/lab/go")?;
    let output = removed.wait(PATIENCE)?;
    ensure!(
        output.code() == 255 && output.stderr.contains("Permission denied (publickey)"),
        "{output:?}"
    );
    let added = held_up(&server, &lab)?;
    lab.authorize(&[(&lab.laptop, "tunnel=\"7\"")])?;
    server.reload()?;
    lab.laptop.sh("touch /run/lab/go")?;
    server.wait_for_record(0, "tunnel-up", |record| record["device"] == "tun7")?;
    ensure!(added.is_running());
    Ok(())
}

/// A connection without a login at the server's end is logged, without a penalty.
#[test]
fn the_end_of_the_server_is_the_reason_for_those_at_the_door() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let server = Serve::default().start(&lab.bastion)?;
    let _silent = lab.laptop.in_network(|| Ok(TcpStream::connect(SERVER)?))?;
    until("a connection without a login", PATIENCE, || {
        (server.status().ok()?["totals"]["startups"] == 1).then_some(())
    })?;
    let log = lab.bastion.path("/run/lab/audit.jsonl");
    server.stop()?;
    let text = std::fs::read_to_string(log)?;
    let records: Vec<Value> = text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let failed: Vec<&Value> = records
        .iter()
        .filter(|record| record["event"] == "login-failed")
        .collect();
    ensure!(
        failed.len() == 1
            && failed[0]["reason"] == "server-stopping"
            && failed[0]["peer_address"] == "192.0.2.1",
        "{text}"
    );
    Ok(())
}

/// Queries the status socket as `sshvpn serve --status` does, without the start of a program.
fn status(host: &Host) -> Result<Value> {
    let mut stream = UnixStream::connect(host.path("/run/sshvpn/serve-22.sock"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(serde_json::from_str(&text)?)
}

/// The record of a session's end comes last: its device and addresses are free by then. (The kernel
/// takes 10 ms and more to remove a device, so a wrong order is noticed.)
#[test]
fn a_session_is_written_down_when_all_of_it_is_gone() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let server = Serve::default().start(&lab.bastion)?;
    let log = lab.bastion.path("/run/lab/audit.jsonl");
    for round in 1..=10 {
        let alice = Joined::open(&server, &lab.laptop, &ALICE)?;
        ensure!(status(&lab.bastion)?["totals"]["leases"] != 0);
        // Half of them end without a message.
        let signal = [Signal::SIGTERM, Signal::SIGKILL][round % 2];
        alice.child.signal(signal)?;
        let patience = Instant::now() + PATIENCE;
        loop {
            let text = std::fs::read_to_string(&log)?;
            if text.matches("\"event\":\"session\"").count() == round {
                break;
            }
            ensure!(Instant::now() < patience, "round {round}: {text}");
            thread::yield_now();
        }
        let device = has_device(&lab.bastion, "tun7");
        let status = status(&lab.bastion)?;
        ensure!(!device, "round {round}: its device still exists");
        ensure!(status["totals"]["leases"] == 0, "round {round}: {status:#}");
        let sessions = status["sessions"].as_array().map(Vec::len);
        ensure!(sessions == Some(0), "round {round}: {status:#}");
        alice.child.wait(PATIENCE)?;
    }
    Ok(())
}

/// If as many sources are penalised as are remembered, and the configured overflow mode refuses
/// new sources, only exempt sources can connect.
#[test]
fn a_full_table_of_penalties_shuts_the_door() -> Result<()> {
    let lab = ServeLab::new()?;
    lab.authorize(&[(&lab.phone, "tunnel=\"any\"")])?;
    let config = |exempt: &str| {
        format!(
            "[login]\nper-source-penalties = {{ authfail = \"1h\", max = \"1h\", max-sources4 = 1, \
             overflow = \"deny-all\" }}\nper-source-penalty-exempt = [{exempt}]\n"
        )
    };
    let server = Serve::default().config(&config("")).start(&lab.bastion)?;
    let bob = Tunnel {
        destination: "bob@bastion",
        ..ALICE
    };
    Joined::open(&server, &lab.phone, &bob)?.leave()?;
    let output = attempt::ssh(&lab.laptop, &["-N", "alice@bastion"])?;
    ensure!(output.code() == 255, "{output:?}");
    server.wait_for_record(0, "login-failed", |_| true)?;
    let output = attempt::ssh(&lab.phone, &["-N", "bob@bastion"])?;
    ensure!(output.code() == 255, "{output:?}");
    server.wait_for_record(0, "connection-refused", |record| {
        record["reason"] == "penalty-overflow" && record["peer_address"] == "203.0.113.1"
    })?;
    lab.bastion.write(CONFIG, &config("\"203.0.113.0/24\""))?;
    server.reload()?;
    Joined::open(&server, &lab.phone, &bob)?.pings(&lab.phone)
}

fn listens(host: &Host, port: u16) -> Result<()> {
    until(&format!("port {port} of {}", host.name()), PATIENCE, || {
        let list = host.sh(&format!("ss -Hltn sport = :{port}")).ok()?;
        (!list.trim().is_empty()).then_some(())
    })
}

/// With a name server that does not answer, only the client with many lookups waits, and further
/// ones are refused; addresses and other clients' names still work.
#[test]
fn names_that_nobody_knows() -> Result<()> {
    let lab = ServeLab::new()?;
    lab.authorize(&[
        (&lab.laptop, "port-forwarding"),
        (&lab.phone, "port-forwarding"),
    ])?;
    lab.lan.sh(
        "nft 'add table inet cut; add chain inet cut in { type filter hook input priority 0; \
         policy drop; }'",
    )?;
    lab.bastion
        .write("/etc/nsswitch.conf", "hosts: files dns\n")?;
    lab.bastion
        .write("/etc/resolv.conf", &format!("nameserver {LAN}\n"))?;
    let _echo = lab
        .bastion
        .spawn(&["socat", "TCP-LISTEN:8080,fork,reuseaddr", "EXEC:cat"])?;
    listens(&lab.bastion, 8080)?;
    let server = Serve::default().start(&lab.bastion)?;
    let forwards = [
        "-N",
        "-L",
        "9000:nobody.example:80",
        "-L",
        "9001:127.0.0.1:8080",
        "-L",
        "9002:localhost:8080",
    ];
    let command = |user| Client::Ssh.command(&[&forwards[..], &[user]].concat());
    let alice = lab.laptop.spawn(&command("alice@bastion")?)?;
    let _bob = lab.phone.spawn(&command("bob@bastion")?)?;
    listens(&lab.laptop, 9002)?;
    listens(&lab.phone, 9002)?;
    let answers = |host: &Host, port: u16| -> Result<bool> {
        let line = format!("echo hello | timeout 3 socat -t 3 - TCP:127.0.0.1:{port} || true");
        Ok(host.sh(&line)?.trim() == "hello")
    };
    let waiting = lab.laptop.in_network(|| {
        let connect = |_| TcpStream::connect("127.0.0.1:9000");
        Ok((0..12).map(connect).collect::<Result<Vec<_>, _>>()?)
    })?;
    ensure!(answers(&lab.laptop, 9001)?, "an address has to wait");
    ensure!(answers(&lab.phone, 9002)?, "another client has to wait");
    let refused = server.wait_for_record(0, "request-refused", |record| {
        record["user"] == "alice" && record["host"] == "nobody.example"
    })?;
    ensure!(
        refused["reason"] == "too many names are looked up",
        "{refused:#}"
    );
    alice.wait_for_line("resource shortage: too many names", PATIENCE)?;
    drop(waiting);
    // After the resolver's timeout, lookups work again.
    until("a name is found", Duration::from_secs(60), || {
        answers(&lab.laptop, 9002).ok()?.then_some(())
    })
}
