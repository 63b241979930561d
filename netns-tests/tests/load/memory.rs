//! `sshvpn serve` against a key without any entitlement: whatever its client sends, the server's
//! memory does not grow.
//!
//! ```text
//!   laptop  data, requests, names, key exchanges ══ bastion: sshvpn serve
//! ```

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netns_tests::serve::lab::ServeLab;
use netns_tests::serve::{AUTHORIZED_KEYS, NO_PENALTIES, Serve, Server};
use tokio::time::timeout_at;

#[allow(dead_code)]
#[path = "../../../src/ssh/wire/mod.rs"]
mod wire;

use wire::client::{WireKey, open};
use wire::{Message, Reader, Wire, about, adjust, data, number};

/// The server's address for the laptop.
const SERVER: &str = "192.0.2.2:22";
/// The duration of all attacks together.
const ATTACKED: Duration = Duration::from_secs(30);
/// The acceptable growth of its memory, in bytes.
const AFFORDABLE: u64 = 16 << 20;
/// Nearly the longest packet, in bytes.
const LONG: usize = 250_000;
/// The most channels that a client may have.
const CHANNELS: u32 = 64;

/// One attack: its name and its messages; it does not read the answers.
type Attack = (&'static str, fn(u32) -> Message);

/// The attacks, each on its own connection with [`CHANNELS`] sessions.
const ATTACKS: [Attack; 8] = [
    ("data that pins what it was read with", |turn| {
        match turn % 2 {
            0 => data(session(turn / 2), vec![1; 8200]),
            _ => Message::new(number::IGNORE).string(vec![2; LONG]),
        }
    }),
    ("data in small pieces", |turn| data(session(turn), [1])),
    ("ends and windows", |turn| match turn % 2 {
        0 => about(number::CHANNEL_EOF, session(turn / 2)),
        _ => adjust(session(turn / 2), 1),
    }),
    ("channel requests", |turn| {
        let request = about(number::CHANNEL_REQUEST, session(turn));
        let name = ["env", "exec", "subsystem", "nonsense"][turn as usize % 4];
        let request = request.string(name).byte(1);
        match name {
            "env" => request.string("NAME").string(vec![b'x'; LONG]),
            _ => request.string(vec![b'x'; LONG]),
        }
    }),
    ("names to connect to", |turn| {
        let open = open("direct-tcpip", 1000 + turn, 1 << 20);
        let name = vec![b'x'; LONG / 2];
        open.string(&name).word(80).string(&name).word(1)
    }),
    ("names of channels", |turn| {
        open(&"x".repeat(LONG), 1000 + turn, 1 << 20)
    }),
    ("global requests", |turn| {
        let request = Message::new(number::GLOBAL_REQUEST);
        match turn % 2 {
            0 => {
                let request = request.string("tcpip-forward").byte(1);
                request.string(vec![b'x'; LONG]).word(80)
            }
            _ => request.string(vec![b'x'; LONG]).byte(1),
        }
    }),
    ("debug messages", |_| {
        let debug = Message::new(number::DEBUG).byte(1);
        debug.string(vec![b'x'; LONG]).string("")
    }),
];

/// The server's number of a session; it counts them from two.
fn session(turn: u32) -> u32 {
    2 + turn % CHANNELS
}

/// A KEXINIT with nearly as many names as fit a packet.
fn long_kexinit() -> Message {
    let mut message = Wire::kexinit();
    message.0.truncate(message.0.len() - 9);
    let languages = "x".repeat(LONG - message.0.len());
    message.string(languages).byte(0).word(0)
}

async fn log_in() -> Result<Wire> {
    let address: SocketAddr = SERVER.parse()?;
    let mut wire = Wire::dial(address).await;
    wire.log_in_as_client(&WireKey::new(1)).await?;
    Ok(wire)
}

/// Opens [`CHANNELS`] sessions.
async fn open_sessions(wire: &mut Wire) -> Result<()> {
    for channel in 0..CHANNELS {
        wire.put(&open("session", channel, 1 << 20)).await?;
    }
    wire.flush().await?;
    for turn in 0..CHANNELS {
        let packet = wire.wait_for(number::CHANNEL_OPEN_CONFIRMATION).await?;
        let mut reader = Reader::new(&packet);
        reader.word();
        let number = reader.word();
        ensure!(number == session(turn), "session {turn} is {number}");
    }
    Ok(())
}

/// Repeats one attack until its time is over.
async fn attack(message: fn(u32) -> Message, over: Instant) -> Result<()> {
    let again = async {
        loop {
            let mut wire = log_in().await?;
            open_sessions(&mut wire).await?;
            wire.flood((0..).map(message)).await;
        }
    };
    match timeout_at(over.into(), again).await {
        Ok(result) => result,
        Err(_) => Ok(()),
    }
}

/// Key exchanges that are begun and never finished, before and after a login.
async fn unfinished_exchanges(over: Instant) -> Result<()> {
    let mut begun = Vec::new();
    for _ in 0..4 {
        let mut wire = log_in().await?;
        open_sessions(&mut wire).await?;
        wire.send(&long_kexinit()).await?;
        begun.push(wire);
    }
    for _ in 0..20 {
        let mut wire = Wire::dial(SERVER.parse()?).await;
        let begin = async {
            wire.identify().await?;
            wire.send(&long_kexinit()).await
        };
        // The server limits their number.
        if begin.await.is_ok() {
            begun.push(wire);
        }
    }
    tokio::time::sleep_until(over.into()).await;
    Ok(())
}

/// The server's resident memory, in bytes (proc_pid_status(5)).
fn resident(server: &Server<'_>) -> Result<u64> {
    let status = std::fs::read_to_string(server.proc().join("status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.context("no VmRSS")?.trim().trim_end_matches(" kB");
    Ok(kilobytes.parse::<u64>()? * 1024)
}

/// The server's peak memory during `work`.
fn most_resident(server: &Server<'_>, work: impl FnOnce() -> Result<()>) -> Result<u64> {
    let (over, most) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let watch = scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                most.fetch_max(resident(server)?, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(10)); // the pace, not a wait for something
            }
            Ok(())
        });
        let done = work();
        over.store(true, Ordering::SeqCst);
        watch.join().expect("the watch panicked").and(done)
    })?;
    Ok(most.into_inner())
}

/// Runs a client on the laptop.
fn on_laptop<T: Send>(lab: &ServeLab, client: impl AsyncFnOnce() -> Result<T> + Send) -> Result<T> {
    lab.laptop.in_network(|| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build()?.block_on(client())
    })
}

/// Authorizes the key of the attacks, without any entitlement.
fn authorize(lab: &ServeLab) -> Result<()> {
    let octal: String = WireKey::new(1)
        .blob()
        .iter()
        .map(|byte| format!("\\0{byte:03o}"))
        .collect();
    let encoded = lab
        .bastion
        .sh(&format!("printf %b '{octal}' | base64 -w0"))?;
    let line = format!("restrict ssh-ed25519 {encoded} mallory\n");
    lab.bastion.write(AUTHORIZED_KEYS, &line)
}

#[test]
fn a_key_without_grants_takes_no_memory() -> Result<()> {
    let lab = ServeLab::new()?;
    authorize(&lab)?;
    let server = Serve::default().config(NO_PENALTIES).start(&lab.bastion)?;
    // The memory of a first login is not counted.
    on_laptop(&lab, async || {
        let mut wire = log_in().await?;
        open_sessions(&mut wire).await
    })?;
    let before = resident(&server)?;
    let each = ATTACKED / (ATTACKS.len() as u32 + 1);
    let mut grown = Vec::new();
    for (name, message) in ATTACKS {
        let most = most_resident(&server, || {
            on_laptop(&lab, async || attack(message, Instant::now() + each).await)
        })?;
        grown.push((name, most.saturating_sub(before) >> 10));
    }
    let most = most_resident(&server, || {
        on_laptop(&lab, async || {
            unfinished_exchanges(Instant::now() + each).await
        })
    })?;
    grown.push((
        "unfinished key exchanges",
        most.saturating_sub(before) >> 10,
    ));
    ensure!(server.child.is_running());
    ensure!(
        grown
            .iter()
            .all(|(_, kilobytes)| kilobytes << 10 <= AFFORDABLE),
        "growth of the server's memory in KiB: {grown:#?}"
    );
    println!("growth of the server's memory in KiB: {grown:?}");
    Ok(())
}
