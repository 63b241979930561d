//! Many connections without a login from one attacker's network do not delay the logins of others.
//!
//! ```text
//!   laptop wan 192.0.2.0/24 ── 2,000 connections ──► bastion: sshvpn serve
//!   phone  wan 203.0.113.1  ── ssh, sshvpn up ──────►
//! ```

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netns_tests::program::tunnel::Tunnel;
use netns_tests::program::vpn::{self, Device};
use netns_tests::serve::lab::ServeLab;
use netns_tests::serve::{Serve, Server};
use netns_tests::{Client, Host, PATIENCE, traffic, until};
use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt,
};

const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 2), 22);
/// Connections held.
const HELD: usize = 2000;
/// Source addresses on the laptop, from .10 on.
const ADDRESSES: usize = 200;
/// Limit for a login, from the start of the program, on an idle machine.
const LOGIN: Duration = Duration::from_secs(2);
/// Limit for a login on a busy machine: far less than the time for which a full server refuses new
/// connections.
const SLOWEST: Duration = Duration::from_secs(10);

/// The behaviour of the connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Conduct {
    /// They send nothing.
    Silent,
    /// They send their identification, one byte per round.
    Trickle,
    /// They close as soon as they are open, and connect again.
    Churn,
}

/// One connection from the laptop's address number `number`.
fn open(number: usize) -> Result<TcpStream> {
    let from = Ipv4Addr::new(192, 0, 2, u8::try_from(10 + number % ADDRESSES)?);
    let socket = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
    bind(
        std::os::fd::AsRawFd::as_raw_fd(&socket),
        &SockaddrIn::from(SocketAddrV4::new(from, 0)),
    )?;
    connect(
        std::os::fd::AsRawFd::as_raw_fd(&socket),
        &SockaddrIn::from(SERVER),
    )?;
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// Whether the server still holds it; reads the server's bytes.
fn is_held(stream: &mut TcpStream) -> bool {
    let mut said = [0; 256];
    loop {
        match stream.read(&mut said) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}

/// Holds [`HELD`] connections until `ended`, and replaces closed ones at once. `rounds` counts the
/// rounds over all of them.
fn crowd(conduct: Conduct, ended: &AtomicBool, rounds: &AtomicUsize) -> Result<()> {
    let mut held = Vec::new();
    for number in 0..HELD {
        held.push(open(number)?);
    }
    let mut byte = b"SSH-2.0-lab ".iter().cycle();
    while !ended.load(Ordering::Relaxed) {
        for (number, stream) in held.iter_mut().enumerate() {
            if conduct == Conduct::Churn || !is_held(stream) {
                *stream = open(number)?;
            }
            if conduct == Conduct::Trickle {
                // The next round notices one that was closed just now.
                let _ = stream.write(std::slice::from_ref(byte.next().unwrap_or(&b' ')));
            }
            if ended.load(Ordering::Relaxed) {
                break;
            }
        }
        rounds.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// The memory of the server's process, in KiB.
fn resident(server: &Server<'_>) -> Result<u64> {
    let status = std::fs::read_to_string(server.proc().join("status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("no VmRSS")?.parse()?)
}

/// Logs in by stock ssh, then by sshvpn; returns both times.
fn log_in(server: &Server<'_>, phone: &Host, number: usize) -> Result<[Duration; 2]> {
    let before = server.audit()?.len();
    let user = format!("user{number}");
    let destination = format!("{user}@bastion");
    let by_ssh = Tunnel {
        client: Client::Ssh,
        units: "any:any",
        destination: &destination,
        ..Tunnel::default()
    };
    let begin = Instant::now();
    let client = phone.spawn(&by_ssh.command()?)?;
    server.wait_for_record(before, "tunnel-up", |record| record["user"] == user)?;
    let first = begin.elapsed();
    client.end_with(Signal::SIGINT)?;
    let begin = Instant::now();
    let up = vpn::up(phone, &["bastion"])?;
    let second = begin.elapsed();
    until("one device", PATIENCE, || Device::only(server.host()).ok())?;
    for address in Device::only(server.host())?.addresses {
        traffic::ping(phone, &address.to_string())?;
    }
    up.end_with(Signal::SIGINT)?;
    Ok([first, second])
}

/// Checks that the median login takes at most [`LOGIN`] (on a slow machine, three times an
/// undisturbed one), and each at most [`SLOWEST`].
fn are_prompt(mut logins: Vec<Duration>, calm: Duration) -> Result<()> {
    logins.sort_unstable();
    let middle = logins.get(logins.len() / 2).context("no login")?;
    let limit = LOGIN.max(calm * 3);
    ensure!(
        *middle < limit && logins.iter().all(|took| *took < SLOWEST),
        "logins took {logins:?}, an undisturbed one {calm:?}"
    );
    Ok(())
}

fn others_log_in_beside(conduct: Conduct) -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let last = 9 + ADDRESSES;
    lab.laptop.sh(&format!(
        "for last in $(seq 10 {last}); do ip address add 192.0.2.$last/24 dev wan; done"
    ))?;
    let server = Serve::default().start(&lab.bastion)?;
    let calm_login = log_in(&server, &lab.phone, 9)?.into_iter().max();
    let calm_login = calm_login.unwrap_or_default();
    let calm = resident(&server)?;
    let (ended, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let crowded = scope.spawn(|| lab.laptop.in_network(|| crowd(conduct, &ended, &rounds)));
        let logged_in = (|| {
            until("a crowd", PATIENCE, || {
                let come = rounds.load(Ordering::Relaxed) > 0 || crowded.is_finished();
                come.then_some(())
            })?;
            ensure!(!crowded.is_finished(), "the crowd has ended");
            let mut logins = Vec::new();
            for number in 0..5 {
                logins.extend(log_in(&server, &lab.phone, number)?);
            }
            println!("{conduct:?}: {logins:?}, calm {calm_login:?}");
            are_prompt(logins, calm_login)?;
            let grown = resident(&server)?.saturating_sub(calm);
            println!("{conduct:?}: {grown} KiB more");
            ensure!(grown < 64 * 1024, "{grown} KiB more than before");
            Ok(())
        })();
        ended.store(true, Ordering::Relaxed);
        let crowded = crowded.join();
        logged_in?;
        crowded.map_err(|_| anyhow::anyhow!("the crowd panicked"))?
    })?;
    let refused = server.status()?["totals"]["refused"].clone();
    ensure!(
        refused.as_object().is_some_and(|by| !by.is_empty()),
        "{refused}"
    );
    Ok(())
}

#[test]
fn silent_connections() -> Result<()> {
    others_log_in_beside(Conduct::Silent)
}

#[test]
fn connections_that_trickle() -> Result<()> {
    others_log_in_beside(Conduct::Trickle)
}

#[test]
fn connections_that_come_and_go() -> Result<()> {
    others_log_in_beside(Conduct::Churn)
}

/// With as few startups as sshd permits, all held by one host: a login from elsewhere replaces a
/// silent connection.
#[test]
fn a_small_table() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let config = "[login]\nmax-startups = \"10:30:100\"\nper-source-max-startups = \"none\"\n";
    let server = Serve::default().config(config).start(&lab.bastion)?;
    let held = lab.laptop.in_network(|| {
        let address: SocketAddr = SERVER.into();
        let open = |_| Ok(TcpStream::connect(address)?);
        (0..120).map(open).collect::<Result<Vec<_>>>()
    })?;
    let logins = log_in(&server, &lab.phone, 0)?;
    ensure!(
        logins.iter().all(|took| *took < SLOWEST),
        "logins took {logins:?}"
    );
    drop(held);
    Ok(())
}
