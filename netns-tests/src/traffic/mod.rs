//! Checks whether packets pass: pings, datagrams of every size, a counted flow. The test process
//! makes the sockets itself, in a host's network namespace.

pub mod capture;
pub mod datagrams;
pub mod iperf3;
pub mod transfer;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{setsockopt, sockopt};

use crate::lab::host::Host;
use crate::wait::{PATIENCE, until};

/// Waits until `address` answers a ping of `host`.
pub fn ping(host: &Host, address: &str) -> Result<()> {
    until(
        &format!("{}: ping {address}", host.name()),
        PATIENCE,
        || {
            let output = host.run(&["ping", "-n", "-c1", "-W1", address]).ok()?;
            output.status.success().then_some(())
        },
    )
}

/// Checks that `address` answers no ping of `host` within a second.
pub fn no_ping(host: &Host, address: &str) -> Result<()> {
    let output = host.run(&["ping", "-n", "-c1", "-W1", address])?;
    ensure!(
        !output.status.success(),
        "{}: {address} answered: {}",
        host.name(),
        output.stdout
    );
    Ok(())
}

/// The time after which a connection counts as dropped.
const DROPPED_AFTER: Duration = Duration::from_millis(1500);

/// Whether `from` can open a TCP connection to `address` of `to`, where a service listens on every
/// address.
pub fn opens(from: &Host, to: &Host, address: IpAddr) -> Result<bool> {
    let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0);
    let listener = to.in_network(|| Ok(TcpListener::bind(any)?))?;
    let target = SocketAddr::new(address, listener.local_addr()?.port());
    match from.in_network(|| Ok(TcpStream::connect_timeout(&target, DROPPED_AFTER)?)) {
        Ok(_) => Ok(true),
        Err(error) => match error.downcast_ref::<std::io::Error>().map(|it| it.kind()) {
            Some(
                ErrorKind::TimedOut
                | ErrorKind::HostUnreachable
                | ErrorKind::NetworkUnreachable
                | ErrorKind::PermissionDenied,
            ) => Ok(false),
            _ => Err(error).with_context(|| format!("connecting to {target}")),
        },
    }
}

/// The mean round-trip time from `host` to `address`.
pub fn round_trip(host: &Host, address: &str) -> Result<Duration> {
    let text = host
        .run(&["ping", "-n", "-q", "-c20", "-i0.02", address])?
        .ok()?;
    let figures = text
        .lines()
        .find_map(|line| line.strip_prefix("rtt min/avg/max/mdev = "));
    let mean = figures
        .and_then(|figures| figures.split('/').nth(1))
        .context("ping gave no times")?;
    Ok(Duration::from_secs_f64(mean.parse::<f64>()? / 1000.0))
}

/// The socket's receive buffer, in bytes.
const SOCKET_BUFFER: usize = 16 << 20;
/// The time after which a datagram counts as lost.
const LOST_AFTER: Duration = Duration::from_secs(3);

/// Datagrams in flight at once: few enough for any queue.
const IN_FLIGHT: usize = 8;

/// Sends a UDP datagram of each payload length in `sizes` to the remote host, which sends it back;
/// each has to come back, byte for byte.
pub fn echo_every_size(
    (local, local_address): (&Host, &str),
    (remote, remote_address): (&Host, &str),
    sizes: RangeInclusive<usize>,
) -> Result<()> {
    let local = udp(local, local_address)?;
    let remote = udp(remote, remote_address)?;
    local.connect(remote.local_addr()?)?;
    let mut missing: BTreeSet<usize> = sizes.clone().collect();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| send_back(&remote, &done));
        let result = exchange(&local, sizes, &mut missing);
        done.store(true, Ordering::Relaxed);
        result
    })?;
    ensure!(missing.is_empty(), "no echo of the sizes {missing:?}");
    Ok(())
}

fn exchange(
    local: &UdpSocket,
    sizes: RangeInclusive<usize>,
    missing: &mut BTreeSet<usize>,
) -> Result<()> {
    let mut buffer = vec![0; 65536];
    let mut in_flight = 0;
    for size in sizes {
        local
            .send(&pattern(size))
            .with_context(|| format!("a payload of {size} bytes"))?;
        in_flight += 1;
        if in_flight == IN_FLIGHT {
            in_flight -= usize::from(receive(local, &mut buffer, missing)?);
        }
    }
    while !missing.is_empty() && receive(local, &mut buffer, missing)? {}
    Ok(())
}

/// Receives one datagram and removes it from `missing`; false if none came in time.
fn receive(local: &UdpSocket, buffer: &mut [u8], missing: &mut BTreeSet<usize>) -> Result<bool> {
    let length = match local.recv(buffer) {
        Ok(length) => length,
        Err(error) if is_timeout(&error) => return Ok(false),
        Err(error) => return Err(error).context("receiving echoes"),
    };
    ensure!(
        buffer[..length] == pattern(length),
        "{length} bytes came back changed"
    );
    ensure!(missing.remove(&length), "{length} bytes came back twice");
    Ok(true)
}

/// Content that depends on the length and the position.
fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|position| (position.wrapping_mul(7) ^ length) as u8)
        .collect()
}

/// The result of a flow of one numbered datagram per millisecond, each sent back.
pub struct Counted {
    /// Datagrams sent.
    pub sent: u64,
    /// The numbers that did not come back.
    pub lost: Vec<u64>,
    /// Datagrams that came back after a later one.
    pub reordered: u64,
}

impl Counted {
    const INTERVAL: Duration = Duration::from_millis(1);

    /// Runs the flow to the remote host and back while `work` runs.
    pub fn during<T>(
        (local, local_address): (&Host, &str),
        (remote, remote_address): (&Host, &str),
        work: impl FnOnce() -> Result<T>,
    ) -> Result<(Self, T)> {
        let local = udp(local, local_address)?;
        let remote = udp(remote, remote_address)?;
        local.connect(remote.local_addr()?)?;
        let (work_done, all_done) = (AtomicBool::new(false), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| send_back(&remote, &all_done));
            let sender = scope.spawn(|| send_numbers(&local, &work_done));
            let receiver = scope.spawn(|| count(&local, &work_done));
            let result = work();
            work_done.store(true, Ordering::Relaxed);
            let sent = sender.join().expect("the sender panicked");
            let received = receiver.join().expect("the receiver panicked");
            all_done.store(true, Ordering::Relaxed);
            Ok((Self::judge(sent?, &received), result?))
        })
    }

    fn judge(sent: u64, received: &[u64]) -> Self {
        let came: BTreeSet<u64> = received.iter().copied().collect();
        let lost = (0..sent).filter(|number| !came.contains(number)).collect();
        let reordered = received.windows(2).filter(|pair| pair[1] < pair[0]).count() as u64;
        Self {
            sent,
            lost,
            reordered,
        }
    }
}

fn send_numbers(local: &UdpSocket, done: &AtomicBool) -> Result<u64> {
    let mut number = 0_u64;
    while !done.load(Ordering::Relaxed) {
        local.send(&number.to_be_bytes())?;
        number += 1;
        thread::sleep(Counted::INTERVAL); // the pace, not a wait for something
    }
    Ok(number)
}

fn count(local: &UdpSocket, done: &AtomicBool) -> Vec<u64> {
    let mut received = Vec::new();
    let mut number = [0; 8];
    loop {
        match local.recv(&mut number) {
            Ok(_) => received.push(u64::from_be_bytes(number)),
            // Silence ends the count only after the sender is done.
            Err(_) if done.load(Ordering::Relaxed) => return received,
            Err(_) => {}
        }
    }
}

/// Sends each datagram back to its sender.
fn send_back(remote: &UdpSocket, done: &AtomicBool) {
    // The timeout only serves to notice the end.
    let _ = remote.set_read_timeout(Some(Duration::from_millis(50)));
    let mut buffer = vec![0; 65536];
    while !done.load(Ordering::Relaxed) {
        if let Ok((length, from)) = remote.recv_from(&mut buffer) {
            let _ = remote.send_to(&buffer[..length], from);
        }
    }
}

/// A UDP socket of `host`, bound to `address`.
fn udp(host: &Host, address: &str) -> Result<UdpSocket> {
    let address: IpAddr = address.parse()?;
    let socket = host.in_network(|| Ok(UdpSocket::bind(SocketAddr::new(address, 0))?))?;
    socket.set_read_timeout(Some(LOST_AFTER))?;
    // A busy machine may leave a socket unread until the default buffer
    // overflows; the tunnel must not be blamed for that loss.
    setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BUFFER)?;
    Ok(socket)
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
