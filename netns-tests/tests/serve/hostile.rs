//! `sshvpn serve` with hostile clients and strangers: whatever the laptop does, the phone's tunnel
//! works.
//!
//! ```text
//!   laptop  garbage, floods, lies ══╗
//!                                   ╠═ bastion: sshvpn serve ── lan host
//!   phone   ping, ping, ping ═══════╝
//! ```

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netns_tests::program::client::Client;
use netns_tests::program::tunnel::{Mode, Tunnel};
use netns_tests::serve::joined::Joined;
use netns_tests::serve::lab::{KEY, LAN, ServeLab};
use netns_tests::serve::{NO_PENALTIES, Serve, Server};
use netns_tests::traffic::Counted;
use netns_tests::traffic::capture::Capture;
use netns_tests::traffic::transfer;
use netns_tests::{Host, PATIENCE, traffic, until};
use nix::sys::signal::Signal;

const ALICE: Tunnel<'static> = Tunnel {
    client: Client::Ssh,
    mode: Mode::PointToPoint,
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
/// The server's address for the laptop.
const SERVER: &str = "192.0.2.2:22";
/// Acceptable loss of the phone's datagrams, in percent, since both cores are busy.
const TOLERATED: usize = 1;

/// Runs `work` while the phone sends one datagram per millisecond through its tunnel; at least
/// 99 % have to come back.
fn undisturbed<T>(
    server: &Server<'_>,
    lab: &ServeLab,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let bob = Joined::open(server, &lab.phone, &BOB)?;
    bob.pings(&lab.phone)?;
    let local = (&lab.phone, &*bob.v4()?);
    let remote = (&lab.bastion, &*bob.server[0].to_string());
    let (counted, done) = Counted::during(local, remote, work)?;
    let (lost, sent) = (counted.lost.len(), counted.sent);
    ensure!(
        lost * 100 <= usize::try_from(sent)? * TOLERATED,
        "the phone lost {lost} of {sent}"
    );
    bob.pings(&lab.phone)?;
    ensure!(bob.child.is_running() && server.child.is_running());
    Ok(done)
}

/// The packets of `user`'s session that the server dropped, by reason.
fn dropped(server: &Server<'_>, user: &str) -> Result<serde_json::Value> {
    let mut record = server.wait_for_record(0, "session", |record| record["user"] == user)?;
    Ok(record["upload"]["dropped"].take())
}

fn sum(dropped: &serde_json::Value) -> u64 {
    let counts = dropped.as_object().into_iter().flatten();
    counts.filter_map(|(_, count)| count.as_u64()).sum()
}

/// Packets with the source address of the server, of another of its networks, of no host, of the
/// pool, or of the phone: none passes.
#[test]
fn spoofed_sources() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let server = Serve::default()
        .with(&["--route", "198.51.100.0/24"])
        .start(&lab.bastion)?;
    // It will get the same address again.
    let bob = Joined::open(&server, &lab.phone, &BOB)?;
    let phone = bob.v4()?;
    bob.leave()?;
    let alice = Joined::open(&server, &lab.laptop, &ALICE)?;
    alice.pings(&lab.laptop)?;
    alice.route(&lab.laptop, &["198.51.100.0/24"])?;
    traffic::ping(&lab.laptop, LAN)?;
    let behind = Capture::start(&lab.lan, "lan")?;
    let inside = Capture::start(&lab.bastion, "tun7")?;
    const EACH: u64 = 20;
    let sources = [
        "198.51.100.1",
        "203.0.113.1",
        "8.8.8.8",
        "10.255.255.254",
        &phone,
        "fd99::99",
    ];
    undisturbed(&server, &lab, || {
        for source in sources {
            let (family, target) = match source.contains(':') {
                true => ("-6", alice.server.last()),
                false => ("-4", alice.server.first()),
            };
            let target = target.context("an address of the server")?;
            lab.laptop.sh(&format!(
                "ip address add {source} dev tun3 nodad; \
                 ping {family} -q -n -c{EACH} -i0.01 -W0.2 -I {source} {target} || true; \
                 [ {family} = -6 ] || ping -q -n -c{EACH} -i0.01 -W0.2 -I {source} {LAN} || true; \
                 ip address del {source} dev tun3"
            ))?;
        }
        Ok(())
    })?;
    let (behind, inside) = (behind.end()?, inside.end()?);
    for source in sources {
        let from = format!("src host {source} and (icmp or icmp6)");
        let seen = inside.matching(&from)?;
        ensure!(seen.is_empty(), "the kernel got {seen:#?}");
        let seen = behind.matching(&from)?;
        // The server's own address is also the source of the permitted pings.
        let allowed = source == "198.51.100.1";
        ensure!(allowed || seen.is_empty(), "the network got {seen:#?}");
    }
    alice.pings(&lab.laptop)?;
    alice.leave()?;
    let dropped = dropped(&server, "alice")?;
    let sent = EACH * 2 * (sources.len() as u64 - 1) + EACH;
    ensure!(sum(&dropped) >= sent, "{dropped:#} of {sent}");
    Ok(())
}

/// Invalid packets: all kinds of first bytes, and wrong lengths. (Shorter ones end ssh itself.)
#[test]
fn what_is_no_packet() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let server = Serve::default().start(&lab.bastion)?;
    let alice = Joined::open(&server, &lab.laptop, &ALICE)?;
    undisturbed(&server, &lab, || {
        lab.laptop
            .sh(r#"for length in 21 22 39 40 41 60 500 1400; do
                for first in 00 45 46 4f 60 6f ff; do
                    { printf "\x$first"; head -c $((length - 1)) /dev/urandom; } >/run/lab/packet
                    socat -u -b 2000 OPEN:/run/lab/packet INTERFACE:tun3
                done
            done"#)?;
        Ok(())
    })?;
    alice.pings(&lab.laptop)?;
    alice.leave()?;
    let dropped = dropped(&server, "alice")?;
    ensure!(sum(&dropped) >= 50, "{dropped:#}");
    Ok(())
}

/// A flood with right and wrong source addresses.
#[test]
fn floods_through_a_tunnel() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let server = Serve::default()
        .with(&["--route", "198.51.100.0/24"])
        .start(&lab.bastion)?;
    let alice = Joined::open(&server, &lab.laptop, &ALICE)?;
    alice.route(&lab.laptop, &["198.51.100.0/24"])?;
    lab.laptop.sh("ip address add 10.255.255.254 dev tun3")?;
    let target = alice.server[0].to_string();
    undisturbed(&server, &lab, || {
        let floods = [
            [
                "ping", "-q", "-f", "-s", "1400", "-w5", "-c200000", &target, "-n",
            ],
            [
                "ping",
                "-q",
                "-f",
                "-I",
                "10.255.255.254",
                "-w5",
                "-c200000",
                &target,
                "-n",
            ],
            [
                "ping", "-q", "-f", "-s", "9000", "-w5", "-c200000", LAN, "-n",
            ],
        ]
        .map(|command| lab.laptop.spawn(&command));
        for flood in floods {
            flood?.wait(PATIENCE)?;
        }
        Ok(())
    })?;
    alice.pings(&lab.laptop)
}

/// Opens connections that send only `greeting`, or nothing.
fn half_open(laptop: &Host, count: usize, greeting: &[u8]) -> Result<Vec<TcpStream>> {
    laptop.in_network(|| {
        let mut open = Vec::new();
        for _ in 0..count {
            // A refused connection counts as well: the server has closed it.
            if let Ok(mut stream) = TcpStream::connect(SERVER) {
                let _ = stream.write_all(greeting);
                open.push(stream);
            }
        }
        Ok(open)
    })
}

/// More strangers than the server accepts of one source; clients of other sources can still
/// connect.
#[test]
fn half_open_logins() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let config = format!("{NO_PENALTIES}per-source-max-startups = 5\ngrace-time = \"3s\"\n");
    let server = Serve::default().config(&config).start(&lab.bastion)?;
    undisturbed(&server, &lab, || {
        let greeting: &[u8] = b"SSH-2.0-lab\r\n";
        let open = [
            half_open(&lab.laptop, 200, b"")?,
            half_open(&lab.laptop, 200, greeting)?,
            half_open(&lab.laptop, 100, &greeting[..5])?,
        ];
        server.wait_for_record(0, "connection-refused", |record| {
            record["peer_address"] == "192.0.2.1"
        })?;
        let carol = Tunnel {
            units: "4:9",
            destination: "carol@bastion",
            ..ALICE
        };
        // From another source, while they are connected.
        Joined::open(&server, &lab.phone, &carol)?.leave()?;
        // The login grace time ends them all.
        for mut stream in open.into_iter().flatten() {
            stream.set_read_timeout(Some(PATIENCE))?;
            let ended = stream.read_to_end(&mut Vec::new());
            let reset =
                |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionReset;
            ensure!(ended.as_ref().err().is_none_or(reset), "{ended:?}");
        }
        Joined::open(&server, &lab.laptop, &ALICE)?.pings(&lab.laptop)
    })
}

/// Bytes that are not SSH, and invalid SSH, before a login.
#[test]
fn garbage_before_the_login() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let server = Serve::default().config(NO_PENALTIES).start(&lab.bastion)?;
    undisturbed(&server, &lab, || {
        for garbage in [
            "head -c 1000000 /dev/urandom",
            "head -c 1000000 /dev/zero",
            "yes '' | head -c 1000000",
            "printf 'GET / HTTP/1.1\\r\\nHost: bastion\\r\\n\\r\\n'",
            "{ printf SSH-2.0-; head -c 1000000 /dev/zero | tr '\\0' A; }",
            "printf 'SSH-1.99-old\\r\\n'",
            "{ printf 'SSH-2.0-lab\\r\\n'; head -c 1000000 /dev/urandom; }",
            // A packet of 4 GiB, of 35000 bytes, of length zero.
            "{ printf 'SSH-2.0-lab\\r\\n\\377\\377\\377\\377'; head -c 100000 /dev/zero; }",
            "{ printf 'SSH-2.0-lab\\r\\n\\0\\0\\210\\270\\4\\24'; head -c 100000 /dev/zero; }",
            "{ printf 'SSH-2.0-lab\\r\\n\\0\\0\\0\\0\\0'; head -c 100 /dev/zero; }",
            // A key exchange without any algorithm, and a login message before it.
            "{ printf 'SSH-2.0-lab\\r\\n\\0\\0\\0\\104\\4\\24'; head -c 66 /dev/zero; }",
            "{ printf 'SSH-2.0-lab\\r\\n\\0\\0\\0\\14\\12\\62'; head -c 10 /dev/zero; }",
        ] {
            let socket = format!("socat -u -t 1 - TCP:{SERVER}");
            lab.laptop.sh(&format!(
                "for i in 1 2 3; do {garbage} | timeout 5 {socket} || true; done"
            ))?;
        }
        Ok(())
    })?;
    Joined::open(&server, &lab.laptop, &ALICE)?.pings(&lab.laptop)
}

/// A client that logs in and then sends random bytes: its connection ends, and the log says so.
#[test]
fn garbage_after_the_login() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let server = Serve::default().config(NO_PENALTIES).start(&lab.bastion)?;
    undisturbed(&server, &lab, || {
        for _ in 0..3 {
            let before = server.audit()?.len();
            // From the 8000th byte on, the client's bytes are random.
            let proxy = format!(
                "ProxyCommand=bash -c '{{ dd bs=1 count=8000 status=none; cat /dev/urandom; }} \
                 | socat - TCP:{SERVER}'"
            );
            let tunnel = Tunnel {
                arguments: &["-o", &proxy],
                ..ALICE
            };
            let alice = Joined::open(&server, &lab.laptop, &tunnel)?;
            let _pings = lab.laptop.spawn(&[
                "ping",
                "-q",
                "-s",
                "1000",
                "-i0.05",
                &alice.server[0].to_string(),
            ])?;
            server.wait_for_record(before, "session", |record| record["user"] == "alice")?;
            ensure!(alice.child.wait(PATIENCE)?.code() == 255);
        }
        Ok(())
    })?;
    Joined::open(&server, &lab.laptop, &ALICE)?.pings(&lab.laptop)
}

/// A client that keeps requesting what it is not entitled to.
#[test]
fn a_flood_of_channels() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let server = Serve::default().start(&lab.bastion)?;
    let forward = ["-N", "-L", "9000:127.0.0.1:1", "alice@bastion"];
    undisturbed(&server, &lab, || {
        let client = lab.laptop.spawn(&Client::Ssh.command(&forward)?)?;
        until("port 9000", PATIENCE, || {
            let list = lab.laptop.sh("ss -Hltn sport = :9000").ok()?;
            (!list.trim().is_empty()).then_some(())
        })?;
        lab.laptop
            .in_network(|| {
                let connect = || {
                    TcpStream::connect_timeout(
                        &"127.0.0.1:9000".parse().expect("an address"),
                        Duration::from_secs(5),
                    )
                };
                // The server refuses some once a limit is reached.
                Ok((0..2000).filter_map(|_| connect().ok()).count())
            })
            .map(drop)?;
        server.wait_for_record(0, "request-refused", |record| record["user"] == "alice")?;
        client.signal(Signal::SIGTERM)?;
        Ok(())
    })
}

/// A client that opens tunnels and closes them again, on one connection.
#[test]
fn tunnels_in_a_loop() -> Result<()> {
    const ASKED: usize = 30;
    let lab = ServeLab::with_tunnels()?;
    let server = Serve::default().start(&lab.bastion)?;
    undisturbed(&server, &lab, || {
        let mux = ["-N", "-M", "-S", "/run/lab/mux", "alice@bastion"];
        let client = lab.laptop.spawn(&Client::Ssh.command(&mux)?)?;
        until("the connection", PATIENCE, || {
            let check = lab.laptop.sh("ssh -S /run/lab/mux -O check bastion");
            check.ok()
        })?;
        let start = Instant::now();
        lab.laptop.sh(&format!(
            "for n in $(seq {ASKED}); do
                 ssh -S /run/lab/mux -s alice@bastion sshvpn </dev/null >/dev/null 2>&1 || true
             done"
        ))?;
        let seconds = usize::try_from(start.elapsed().as_secs())?;
        let refused = server.wait_for_record(0, "request-refused", |record| {
            let reason = record["reason"].as_str().unwrap_or_default();
            record["user"] == "alice" && reason.contains("too often")
        })?;
        ensure!(refused["request"] == "subsystem", "{refused}");
        client.end_with(Signal::SIGTERM)?;
        let ended = server.wait_for_record(0, "session", |record| record["user"] == "alice")?;
        let asked = &ended["requests"]["subsystem"];
        let count = |what: &str| asked[what].as_u64().unwrap_or(0) as usize;
        ensure!(count("granted") <= 11 + seconds, "{asked} in {seconds} s");
        ensure!(count("granted") + count("refused") == ASKED, "{asked}");
        Ok(())
    })
}

/// Two connections of one key share its rate limit.
#[test]
fn a_rate_is_that_of_a_key() -> Result<()> {
    const MEGABYTES: usize = 2;
    let lab = ServeLab::with_tunnels()?;
    for file in [KEY.to_owned(), format!("{KEY}.pub")] {
        lab.phone.write(&file, &lab.laptop.read(&file)?)?;
    }
    let limits = "[limits]\nupload = \"2MiB\"\n";
    let server = Serve::default().config(limits).start(&lab.bastion)?;
    let alice = Joined::open(&server, &lab.laptop, &ALICE)?;
    let again = Joined::open(&server, &lab.phone, &BOB)?;
    let start = Instant::now();
    std::thread::scope(|scope| {
        let transfers = [(&lab.laptop, &alice), (&lab.phone, &again)].map(|(local, joined)| {
            let server = joined.server[0].to_string();
            let bastion = &lab.bastion;
            scope.spawn(move || transfer::both_ways(local, bastion, &server, MEGABYTES))
        });
        let results = transfers.map(|thread| thread.join().expect("a thread panicked"));
        results.into_iter().collect::<Result<()>>()
    })?;
    // With the rate for each, both at once would take one second.
    let took = start.elapsed();
    ensure!(took > Duration::from_millis(1800), "{took:?}");
    alice.leave()?;
    again.leave()?;
    Ok(())
}
