//! `sshvpn serve` with the distribution's ssh as its client: tunnels of both modes, units,
//! addresses, networks behind the server, and the end of forwards.
//!
//! ```text
//!   laptop ssh -w ══ SSH ══╗
//!                          ╠═ tunN  bastion: sshvpn serve ── lan host
//!   phone  ssh -w ══ SSH ══╝
//! ```

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use anyhow::{Context, Result, ensure};
use netns_tests::lab::link::has_device;
use netns_tests::program::tunnel::{Mode, Tunnel};
use netns_tests::serve::Serve;
use netns_tests::serve::attempt::{self, Outcome};
use netns_tests::serve::joined::Joined;
use netns_tests::serve::lab::{LAN, ServeLab};
use netns_tests::{Before, Child, Client, Host, PATIENCE, bridge, traffic, until};
use nix::sys::signal::Signal;

/// The control socket of a shared connection.
const MUX: &str = "/run/lab/mux";

/// A tunnel to `destination` with `units`.
fn asking<'a>(destination: &'a str, units: &'a str) -> Tunnel<'a> {
    Tunnel {
        units,
        destination,
        ..Tunnel::default()
    }
}

#[test]
fn point_to_point_at_the_unit_that_is_asked_for() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let server = Serve::default().start(&lab.bastion)?;
    let joined = Joined::open(&server, &lab.laptop, &asking("alice@bastion", "3:7"))?;
    ensure!(joined.remote == "tun7", "{}", joined.remote);
    ensure!(joined.addresses.len() == 2, "{:?}", joined.addresses);
    joined.pings(&lab.laptop)?;
    for address in &joined.addresses {
        traffic::ping(&lab.bastion, &address.to_string())?;
    }
    traffic::echo_every_size(
        (&lab.laptop, &joined.v4()?),
        (&lab.bastion, &joined.server[0].to_string()),
        1..=1472,
    )
}

#[test]
fn any_unit() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let server = Serve::default().start(&lab.bastion)?;
    let first = Joined::open(&server, &lab.laptop, &asking("alice@bastion", "any:any"))?;
    let second = Joined::open(&server, &lab.phone, &asking("bob@bastion", "any:any"))?;
    ensure!(first.remote != second.remote, "{} twice", first.remote);
    ensure!(first.addresses != second.addresses);
    first.pings(&lab.laptop)?;
    second.pings(&lab.phone)
}

#[test]
fn ethernet_without_a_bridge() -> Result<()> {
    let lab = ServeLab::new()?;
    lab.authorize(&[(&lab.laptop, "tunnel=\"any\"")])?;
    let server = Serve::default().start(&lab.bastion)?;
    let tunnel = Tunnel {
        mode: Mode::Ethernet,
        ..asking("alice@bastion", "3:7")
    };
    let joined = Joined::open(&server, &lab.laptop, &tunnel)?;
    ensure!(joined.remote == "tap7", "{}", joined.remote);
    joined.pings(&lab.laptop)
}

/// The client is one more host of the server's network.
#[test]
fn ethernet_on_a_bridge() -> Result<()> {
    let lab = ServeLab::new()?;
    lab.authorize(&[(&lab.laptop, "tunnel=\"any\"")])?;
    bridge(&lab.bastion, "br0", &["lan"])?;
    lab.bastion
        .sh("ip address flush dev lan; ip address add 198.51.100.1/24 dev br0")?;
    let server = Serve::default()
        .with(&["--bridge", "br0", "--pool", "198.51.100.128/25"])
        // The bridge's hosts are reached like any network behind the server: if it is granted.
        .with(&["--route", "198.51.100.0/24"])
        .start(&lab.bastion)?;
    let before = server.audit()?.len();
    let tunnel = Tunnel {
        mode: Mode::Ethernet,
        ..asking("alice@bastion", "3:7")
    };
    let _client = lab.laptop.spawn(&tunnel.command()?)?;
    let record = server.wait_for_record(before, "tunnel-up", |_| true)?;
    let address = record["addresses"][0].as_str().context("no address")?;
    let master = lab.bastion.sh("ip -o link show dev tap7")?;
    ensure!(master.contains("master br0"), "{master}");
    until("tap3", PATIENCE, || {
        has_device(&lab.laptop, "tap3").then_some(())
    })?;
    lab.laptop.sh(&format!(
        "ip link set tap3 up; ip address add {address}/24 dev tap3"
    ))?;
    traffic::ping(&lab.laptop, LAN)?;
    traffic::ping(&lab.lan, address)?;
    traffic::ping(&lab.laptop, "198.51.100.1")
}

#[test]
fn two_units_in_a_row_and_one_that_is_taken() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let server = Serve::default().start(&lab.bastion)?;
    for unit in ["3:7", "3:8"] {
        let joined = Joined::open(&server, &lab.laptop, &asking("alice@bastion", unit))?;
        joined.pings(&lab.laptop)?;
        joined.leave()?;
    }
    let joined = Joined::open(&server, &lab.laptop, &asking("alice@bastion", "3:7"))?;
    attempt::tunnel(&server, &lab.phone, "bob@bastion", "3:7", Outcome::NoTunnel)?;
    joined.pings(&lab.laptop)?;
    joined.leave()?;
    until("the device is gone", PATIENCE, || {
        (!has_device(&lab.bastion, "tun7")).then_some(())
    })?;
    Joined::open(&server, &lab.phone, &asking("bob@bastion", "3:7"))?.pings(&lab.phone)
}

/// A returning client gets its address again, also after other clients and after a restart.
#[test]
fn a_key_keeps_its_addresses() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let alice = asking("alice@bastion", "3:any");
    let bob = asking("bob@bastion", "3:any");
    let server = Serve::default().start(&lab.bastion)?;
    let first = Joined::open(&server, &lab.laptop, &alice)?;
    let addresses = first.addresses.clone();
    first.leave()?;
    let other = Joined::open(&server, &lab.phone, &bob)?;
    ensure!(
        other.addresses.iter().all(|one| !addresses.contains(one)),
        "{addresses:?} belong to another key"
    );
    let again = Joined::open(&server, &lab.laptop, &alice)?;
    ensure!(again.addresses == addresses, "{:?}", again.addresses);
    let others = other.addresses.clone();
    server.stop()?;
    let server = Serve::default().start(&lab.bastion)?;
    for (host, tunnel, before) in [
        (&lab.phone, &bob, &others),
        (&lab.laptop, &alice, &addresses),
    ] {
        let joined = Joined::open(&server, host, tunnel)?;
        ensure!(joined.addresses == *before, "{:?}", joined.addresses);
        joined.pings(host)?;
        joined.leave()?;
    }
    Ok(())
}

/// A client reaches the granted networks behind the server, with its own address, but no other
/// network and no other client.
#[test]
fn only_the_networks_that_are_meant() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let before = Before::of(&[&lab.lan])?;
    let server = Serve::default()
        .with(&["--route", "198.51.100.0/24"])
        .start(&lab.bastion)?;
    let alice = Joined::open(&server, &lab.laptop, &asking("alice@bastion", "3:any"))?;
    let bob = Joined::open(&server, &lab.phone, &asking("bob@bastion", "3:any"))?;
    alice.route(
        &lab.laptop,
        &[
            "198.51.100.0/24",
            "203.0.113.0/24",
            &format!("{}/32", bob.v4()?),
        ],
    )?;
    traffic::ping(&lab.laptop, LAN)?;
    traffic::no_ping(&lab.laptop, "203.0.113.1")?;
    traffic::no_ping(&lab.laptop, &bob.v4()?)?;
    alice.pings(&lab.laptop)?;
    alice.leave()?;
    let record = server.wait_for_record(0, "session", |record| record["user"] == "alice")?;
    let dropped = &record["upload"]["dropped"];
    let counted: u64 = dropped
        .as_object()
        .context("no drops")?
        .values()
        .filter_map(serde_json::Value::as_u64)
        .sum();
    ensure!(counted >= 2, "not counted: {record:#}");
    before.is_back()
}

#[test]
fn without_nat_the_network_behind_sees_the_client() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let server = Serve::default()
        .with(&[
            "--route",
            "198.51.100.0/24",
            "--no-nat",
            "--pool",
            "10.88.0.0/24",
        ])
        .start(&lab.bastion)?;
    let joined = Joined::open(&server, &lab.laptop, &asking("alice@bastion", "3:any"))?;
    joined.route(&lab.laptop, &["198.51.100.0/24"])?;
    traffic::no_ping(&lab.laptop, LAN)?;
    lab.lan.sh("ip route add 10.88.0.0/24 via 198.51.100.1")?;
    traffic::ping(&lab.laptop, LAN)
}

/// The server offers only tunnels and granted forwards.
#[test]
fn no_shell_no_command_no_files() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let server = Serve::default().start(&lab.bastion)?;
    for (arguments, refused) in [
        (&["bastion"][..], "shell"),
        (&["-tt", "bastion"], "pty-req"),
        (&["bastion", "true"], "exec true"),
        (&["-s", "bastion", "sftp"], "sftp"),
        (&["-A", "bastion", "id"], "exec id"),
        (&["-s", "bastion", "nonsense"], "nonsense"),
    ] {
        let before = server.audit()?.len();
        let output = attempt::ssh(&lab.laptop, arguments)?;
        ensure!(
            output.code() == 255 && output.stdout.is_empty(),
            "{output:?}"
        );
        ensure!(output.stderr.contains("request failed"), "{output:?}");
        server.wait_for_record(before, "request-refused", |record| {
            record["name"] == refused
        })?;
    }
    let sftp = lab.laptop.run(&["sftp", "-b", "/dev/null", "bastion"])?;
    ensure!(sftp.code() != 0, "{sftp:?}");
    let before = server.audit()?.len();
    // A refusal does not end the tunnel.
    let joined = Joined::open(&server, &lab.laptop, &asking("alice@bastion", "3:any"))?;
    joined.pings(&lab.laptop)?;
    ensure!(server.audit()?.len() > before);
    Ok(())
}

#[test]
fn nobody_without_a_key() -> Result<()> {
    let lab = ServeLab::new()?;
    lab.authorize(&[(&lab.phone, "tunnel=\"any\"")])?;
    let server = Serve::default().start(&lab.bastion)?;
    attempt::tunnel(&server, &lab.laptop, "bastion", "3:any", Outcome::NoLogin)?;
    for methods in ["password", "keyboard-interactive", "none", "hostbased"] {
        let option = format!("PreferredAuthentications={methods}");
        let output = attempt::ssh(&lab.phone, &["-N", "-o", &option, "bastion"])?;
        ensure!(
            output.code() == 255 && output.stderr.contains("Permission denied (publickey)"),
            "{output:?}"
        );
    }
    Joined::open(&server, &lab.phone, &asking("bob@bastion", "3:any"))?.pings(&lab.phone)
}

/// Starts ssh on the laptop with these forwards, and waits for its control socket.
fn sharing(lab: &ServeLab, forwards: &[&str]) -> Result<Child> {
    let arguments = [&["-N", "-M", "-S", MUX][..], forwards, &["alice@bastion"]].concat();
    let child = lab.laptop.spawn(&Client::Ssh.command(&arguments)?)?;
    until("the connection", PATIENCE, || {
        let check = lab.laptop.sh(&format!("ssh -S {MUX} -O check bastion"));
        check.ok()
    })?;
    Ok(child)
}

/// Waits until `port` of `host` has a listener, or none, as `expected` says.
fn listens(host: &Host, port: u16, expected: bool) -> Result<()> {
    until(&format!("port {port}: {expected}"), PATIENCE, || {
        let list = host.sh(&format!("ss -Hltn sport = :{port}")).ok()?;
        (list.trim().is_empty() != expected).then_some(())
    })
}

/// When the process that shares a connection ends, its forward ends, though the remote host neither
/// sends nor closes anything.
#[test]
fn a_forward_ends_with_its_channel() -> Result<()> {
    let lab = ServeLab::new()?;
    lab.authorize(&[(&lab.laptop, "port-forwarding")])?;
    let remote = lab.lan.in_network(|| Ok(TcpListener::bind((LAN, 8080))?))?;
    let server = Serve::default().start(&lab.bastion)?;
    let ssh = sharing(&lab, &[])?;
    let place = format!("{LAN}:8080");
    let command = Client::Ssh.command(&["-S", MUX, "-W", &place, "bastion"])?;
    // Its input does not end while this process holds the other half.
    let (input, mut says) = std::io::pipe()?;
    let leaves = lab.laptop.spawn_with_input(&command, input.into())?;
    server.wait_for_record(0, "request-granted", |record| record["request"] == "open")?;
    let (mut remote, _) = remote.accept()?;
    remote.set_read_timeout(Some(PATIENCE))?;
    says.write_all(b"hello")?;
    let mut heard = [0; 5];
    remote.read_exact(&mut heard)?;
    ensure!(&heard == b"hello", "{heard:?}");
    let live = || server.status().ok()?["sessions"][0]["forwards"][0]["live"].as_u64();
    ensure!(live() == Some(1), "{:#}", server.status()?);
    until("keep-alives", PATIENCE, || {
        let sockets = lab.bastion.sh("ss -Htno dport = :8080").ok()?;
        sockets.contains("timer:(keepalive").then_some(())
    })?;
    leaves.signal(Signal::SIGKILL)?;
    until("the end of the forward", PATIENCE, || {
        (live()? == 0).then_some(())
    })?;
    ensure!(remote.read(&mut heard)? == 0, "more bytes came");
    ensure!(ssh.is_running(), "its connection ended");
    Ok(())
}

/// Sends a byte, which has to come back.
fn echoes(stream: &mut TcpStream) -> Result<()> {
    let mut answer = [0];
    stream.write_all(b"x")?;
    stream.read_exact(&mut answer).context("no answer")?;
    ensure!(&answer == b"x", "{answer:?}");
    Ok(())
}

/// Cancelling a listener keeps its accepted connections, until a reload revokes the permission for
/// both.
#[test]
fn a_listener_that_is_cancelled_leaves_its_connections() -> Result<()> {
    let lab = ServeLab::new()?;
    lab.authorize(&[(&lab.laptop, "permitlisten=\"8080\"")])?;
    let _echo = lab
        .laptop
        .spawn(&["socat", "TCP-LISTEN:9000,fork,reuseaddr", "EXEC:cat"])?;
    listens(&lab.laptop, 9000, true)?;
    let server = Serve::default().start(&lab.bastion)?;
    let forward = "8080:127.0.0.1:9000";
    let ssh = sharing(&lab, &["-R", forward])?;
    listens(&lab.bastion, 8080, true)?;
    let connect = || {
        lab.bastion
            .in_network(|| Ok(TcpStream::connect("127.0.0.1:8080")))
    };
    let mut early = connect()??;
    early.set_read_timeout(Some(PATIENCE))?;
    echoes(&mut early)?;
    lab.laptop
        .sh(&format!("ssh -S {MUX} -O cancel -R {forward} bastion"))?;
    listens(&lab.bastion, 8080, false)?;
    ensure!(connect()?.is_err(), "a connection was accepted");
    echoes(&mut early)?;
    lab.authorize(&[(&lab.laptop, "permitlisten=\"8081\"")])?;
    server.reload()?;
    server.wait_for_record(0, "access-withdrawn", |record| {
        record["reason"].to_string().contains(":8080")
    })?;
    let output = ssh.wait(PATIENCE)?;
    ensure!(
        output.code() == 255 && output.stderr.contains("access was withdrawn"),
        "{output:?}"
    );
    Ok(())
}

/// A client with the lists of a hardening guide (DISA STIG): counter mode, plain SHA-2 MACs.
#[test]
fn hardened_client() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let server = Serve::default().start(&lab.bastion)?;
    let tunnel = Tunnel {
        arguments: &[
            "-oCiphers=aes256-ctr,aes192-ctr,aes128-ctr",
            "-oMACs=hmac-sha2-512,hmac-sha2-256",
            "-oKexAlgorithms=ecdh-sha2-nistp256,ecdh-sha2-nistp384",
        ],
        ..asking("alice@bastion", "3:7")
    };
    let joined = Joined::open(&server, &lab.laptop, &tunnel)?;
    traffic::echo_every_size(
        (&lab.laptop, &joined.v4()?),
        (&lab.bastion, &joined.server[0].to_string()),
        1..=1472,
    )
}
