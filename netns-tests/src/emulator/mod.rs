//! A long cable, for kernels without netem: joins two devices of a host and
//! delivers each frame a fixed time later.
//!
//! ```text
//!   laptop wan ── left  one thread for each way  right ── wan bastion
//!                 └──────── DelayQueue ──────────►┘
//! ```
//!
//! Frames travel with their `virtio_net_hdr`, so a super-frame that a kernel
//! has not cut into segments passes as one, uncut.

pub mod queue;

use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{setsockopt, sockopt};

use crate::emulator::queue::DelayQueue;
use crate::lab::host::Host;
use crate::traffic::datagrams::{BATCH, Idle, Received, VIRTIO_HEADER, packet_socket, send};

/// The largest frame: a super-frame with an Ethernet header and two tags.
const FRAME: usize = VIRTIO_HEADER + 22 + 65535;
/// Bytes on the cable each way: as much as the hosts of `bench::network` let a
/// connection have on its way, so that one alone loses nothing here.
const ROOM: usize = 64 << 20;
/// Room of a socket in bytes, for frames that wait for their thread; as much.
const SOCKET_BUFFER: usize = ROOM;
/// How often a thread without frames looks whether it is still wanted.
const IDLE: Duration = Duration::from_millis(100);

/// A running emulator. Dropping it ends it.
pub struct Emulator {
    counters: Arc<Counters>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Counters {
    ended: AtomicBool,
    carried: AtomicU64,
    dropped: AtomicU64,
}

impl Emulator {
    /// Joins the devices `left` and `right` of `host` by a cable that is
    /// `delay` long, each way. They must not be joined otherwise.
    pub fn join(host: &Host, left: &str, right: &str, delay: Duration) -> Result<Self> {
        let (left, right) = (socket(host, left)?, socket(host, right)?);
        let counters = Arc::new(Counters::default());
        let ways = [(Arc::clone(&left), Arc::clone(&right)), (right, left)];
        let start = |(from, to): (Arc<OwnedFd>, Arc<OwnedFd>)| {
            let counters = Arc::clone(&counters);
            thread::spawn(move || carry(from.as_fd(), to.as_fd(), delay, &counters))
        };
        let threads = ways.into_iter().map(start).collect();
        Ok(Self { counters, threads })
    }

    /// Frames that came out at the other end, both ways together. A frame that
    /// the firewall takes away there counts as dropped.
    pub fn carried(&self) -> u64 {
        self.counters.carried.load(Ordering::Relaxed)
    }

    /// Frames that found no room on the cable or at the device behind it.
    pub fn dropped(&self) -> u64 {
        self.counters.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.counters.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn socket(host: &Host, device: &str) -> Result<Arc<OwnedFd>> {
    let index = host.read(&format!("/sys/class/net/{device}/ifindex"))?;
    let index = index.trim().parse().context("an ifindex")?;
    let make = || Ok(packet_socket(index)?);
    let socket = host
        .in_network(make)
        .with_context(|| format!("a packet socket on {device} of {}", host.name()))?;
    setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BUFFER)?;
    setsockopt(&socket, sockopt::SndBufForce, &SOCKET_BUFFER)?;
    Ok(Arc::new(socket))
}

/// One way of the cable, until it is to end or its device is gone.
fn carry(from: BorrowedFd<'_>, to: BorrowedFd<'_>, delay: Duration, counters: &Counters) {
    let mut queue = DelayQueue::new(delay, ROOM);
    let mut received = Received::with_size(FRAME);
    while !counters.ended.load(Ordering::Relaxed) {
        let now = Instant::now();
        let left = queue
            .next()
            .map_or(IDLE, |due| due.saturating_duration_since(now));
        if !left.is_zero() && wait_for_frame(from, left.min(IDLE)).is_err() {
            return;
        }
        match received.receive(from, Idle::Return) {
            Ok(_) => {}
            Err(error) if is_passing(&error) => {}
            Err(_) => return,
        }
        let now = Instant::now();
        for frame in received.datagrams() {
            if !queue.push(now, frame) {
                counters.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        if deliver(&mut queue, to, counters).is_err() {
            return;
        }
    }
}

/// Sends a batch of the frames that are due.
fn deliver(queue: &mut DelayQueue, to: BorrowedFd<'_>, counters: &Counters) -> io::Result<()> {
    let frames: Vec<IoSlice<'_>> = queue
        .due(Instant::now())
        .take(BATCH)
        .map(IoSlice::new)
        .collect();
    if frames.is_empty() {
        return Ok(());
    }
    let sent = match send(to, &frames) {
        Ok(sent) => {
            counters.carried.fetch_add(sent as u64, Ordering::Relaxed);
            sent
        }
        // The first one did not pass: a full device, or a firewall.
        Err(error) if is_passing(&error) => {
            counters.dropped.fetch_add(1, Ordering::Relaxed);
            1
        }
        Err(error) => return Err(error),
    };
    queue.remove(sent);
    Ok(())
}

fn wait_for_frame(socket: BorrowedFd<'_>, limit: Duration) -> nix::Result<()> {
    let mut sockets = [PollFd::new(socket, PollFlags::POLLIN)];
    match ppoll(&mut sockets, Some(limit.into()), None) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether the socket is good for further frames after `error`. One frame may
/// be refused (too long, a header that the kernel does not like).
fn is_passing(error: &io::Error) -> bool {
    let passing = [libc::ENOBUFS, libc::EMSGSIZE, libc::EINVAL, libc::EPERM];
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
        || error
            .raw_os_error()
            .is_some_and(|code| passing.contains(&code))
}
