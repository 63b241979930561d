//! Emulates a long cable, for kernels without netem: joins two devices of a host and delays each
//! frame by a fixed time.
//!
//! ```text
//!   laptop wan ── left  one thread per direction right ── wan bastion
//!                 └──────── DelayQueue ──────────►┘
//! ```
//!
//! Frames keep their `virtio_net_hdr`, so a super-frame that a kernel has not segmented passes as
//! one.

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
/// Bytes on the cable in each direction: as many as the hosts of `bench::network` allow one
/// connection in flight, so that a single connection loses nothing here.
const ROOM: usize = 64 << 20;
/// Socket buffer in bytes, for frames that wait for their thread.
const SOCKET_BUFFER: usize = ROOM;
/// How often an idle thread checks whether it has to end.
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
    /// Joins the devices `left` and `right` of `host` by a cable with `delay` in each direction.
    /// They must not be joined otherwise.
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

    /// Frames delivered, in both directions together. A frame that the receiving firewall drops
    /// counts as dropped.
    pub fn carried(&self) -> u64 {
        self.counters.carried.load(Ordering::Relaxed)
    }

    /// Frames dropped since the cable or the receiving device was full.
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

/// Carries one direction until the emulator ends or a device disappears.
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

/// Sends a batch of due frames.
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
        // The first frame was refused: a full device, or a firewall.
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

/// Whether the socket still works after `error`: the kernel may refuse one frame (too long, or an
/// invalid header).
fn is_passing(error: &io::Error) -> bool {
    let passing = [libc::ENOBUFS, libc::EMSGSIZE, libc::EINVAL, libc::EPERM];
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
        || error
            .raw_os_error()
            .is_some_and(|code| passing.contains(&code))
}
