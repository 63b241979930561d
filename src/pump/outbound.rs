//! From the device to the channel.
//!
//! While the channel is full, the device is still read, into a bounded fair queue: the
//! next packet is chosen only when there is room for it, so a bulk transfer does not
//! delay other flows. If the peer answers pings, there is room only while few bytes are
//! on the way to it.

use std::io;
use std::pin::pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::errno::Errno;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval_at};

use super::flight::bounded::{Bounded, Pings};
use super::{
    Counters, Dropped, End, FairQueue, FrameSink, Framer, PacketSource, QueueSettings,
    SEND_AT_ONCE, SendFailure,
};
use crate::frame;
use crate::frame::stream::MAX_PACKET;
use crate::frame::waiting::Waiting;
use crate::packet::flow::FlowClassifier;
use crate::process::memory;
use crate::types::Mode;

/// Packets read from the device at most before something is sent.
const READ_AT_ONCE: usize = 256;
/// After this time without a packet, at most twice this time, memory is freed.
const QUIET: Duration = Duration::from_secs(2);

/// Reads packets, queues them, and sends them as `framer` frames them, until the channel
/// or the device ends. Sends the frames of `extra` between them.
pub async fn outbound<S, C>(
    mode: Mode,
    mut framer: Framer,
    device: &S,
    channel: &C,
    mut extra: mpsc::Receiver<Bytes>,
    pings: Pings,
    counters: &Counters,
) -> End
where
    S: PacketSource + Sync,
    C: FrameSink + Sync,
{
    let mut bounded = Bounded::new(pings);
    let mut intake = Intake::new(mode, counters);
    let mut frames: Vec<Bytes> = Vec::new();
    let mut quiet = interval_at(tokio::time::Instant::now() + QUIET, QUIET);
    quiet.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        intake.read_waiting(device);
        while let Ok(frame) = extra.try_recv() {
            frames.push(frame);
        }
        let (queue, spare) = (&mut intake.queue, &mut intake.buffer);
        let room = match &mut bounded {
            Some(bounded) => bounded.room(queue.is_empty(), &mut frames),
            None => usize::MAX,
        };
        let (at_once, control) = (channel.at_once(), frames.len());
        let most = room.min(at_once);
        let large = framer.fill(mode, queue, spare, &mut frames, counters, most);
        // If only little may be sent at once, to limit the delay, packets must not be
        // large.
        if large || at_once < SEND_AT_ONCE && intake.declines() {
            device.decline_offload();
        }
        if let Some(bounded) = &mut bounded {
            bounded.sent(frames.get(control..).unwrap_or_default());
            intake.longest = bounded.longest();
        }
        intake.count_drops();
        let asks = bounded.as_ref().is_some_and(Bounded::asks);
        if asks || !frames.is_empty() {
            match send(device, channel, &mut intake, &mut bounded, &mut frames).await {
                Ok(()) => continue,
                Err(Closed) => return End::Channel,
            }
        }
        let held_back = !intake.queue.is_empty();
        if held_back && room > 0 {
            continue;
        }
        let reads = intake.ended.is_none();
        match intake.ended.take_if(|_| !held_back) {
            Some(error) => return End::Device(error),
            None => tokio::select! {
                biased;
                () = changed(&mut bounded), if held_back => {}
                Some(frame) = extra.recv() => frames.push(frame),
                read = intake.read(device), if reads => intake.take(read, Instant::now()),
                _ = quiet.tick(), if !held_back && !intake.given_back => {
                    if intake.is_quiet() {
                        intake.rest();
                        frames = Vec::new();
                    }
                }
            },
        }
    }
}

/// Waits until there may be more room.
async fn changed(bounded: &mut Option<Bounded>) {
    if let Some(bounded) = bounded {
        bounded.changed().await;
    }
}

/// The channel is closed.
struct Closed;

/// Sends a due ping and `frames`, and reads the device while that waits.
async fn send<S, C>(
    device: &S,
    channel: &C,
    intake: &mut Intake<'_>,
    bounded: &mut Option<Bounded>,
    frames: &mut Vec<Bytes>,
) -> Result<(), Closed>
where
    S: PacketSource + Sync,
    C: FrameSink + Sync,
{
    loop {
        let mut sending = pin!(async {
            if let Some(bounded) = bounded {
                bounded.ask(channel).await;
            }
            channel.send_all(frames).await
        });
        let sent = loop {
            tokio::select! {
                biased;
                sent = &mut sending => break sent,
                read = intake.read(device), if intake.ended.is_none() => {
                    intake.take(read, Instant::now());
                    intake.read_waiting(device);
                }
            }
        };
        match sent {
            Ok(()) => return Ok(()),
            Err(SendFailure::TooLarge(length)) => {
                let packet = length.saturating_sub(frame::headroom(intake.mode));
                intake.counters.taken_back(packet, Dropped::TooLong);
            }
            Err(SendFailure::Closed) => return Err(Closed),
        }
    }
}

/// Reads the device and queues its packets.
struct Intake<'a> {
    mode: Mode,
    buffer: Waiting,
    flows: FlowClassifier,
    queue: FairQueue<Waiting>,
    /// Longer super-packets are cut to this length.
    longest: usize,
    /// Why the device yields no more; the queued packets are sent first.
    ended: Option<io::Error>,
    /// Whether there is no buffer, since no packet has come for a while.
    resting: bool,
    /// Whether the freed memory went back to the kernel.
    given_back: bool,
    /// Whether a packet has come since the last check.
    busy: bool,
    /// Whether super-packets were declined, since little may be sent at once.
    declined: bool,
    counters: &'a Counters,
}

impl<'a> Intake<'a> {
    fn new(mode: Mode, counters: &'a Counters) -> Self {
        Intake {
            mode,
            buffer: Waiting::default(),
            flows: FlowClassifier::new(),
            queue: FairQueue::new(QueueSettings::default()),
            longest: usize::MAX,
            ended: None,
            resting: true,
            given_back: true,
            busy: false,
            declined: false,
            counters,
        }
    }

    /// Waits for the next packet and reads it into the buffer.
    async fn read<S: PacketSource + Sync>(&mut self, device: &S) -> io::Result<()> {
        if self.resting {
            device.readable().await?;
            self.resting = false;
        }
        device.read(&mut self.buffer).await
    }

    /// Whether no packet has come since the last call.
    fn is_quiet(&mut self) -> bool {
        !std::mem::take(&mut self.busy)
    }

    /// Frees memory until the next packet comes.
    fn rest(&mut self) {
        self.buffer = Waiting::default();
        self.queue.rest();
        self.resting = true;
        self.given_back = memory::give_back();
    }

    /// Whether super-packets have not been declined yet; sets that they are.
    fn declines(&mut self) -> bool {
        !std::mem::replace(&mut self.declined, true)
    }

    /// Reads the packets that the device has, until enough are queued to send.
    fn read_waiting<S: PacketSource>(&mut self, device: &S) {
        // One time for all: reading them takes far less time than the waits that matter.
        let now = Instant::now();
        for _ in 0..READ_AT_ONCE {
            if self.queue.bytes() >= SEND_AT_ONCE || self.ended.is_some() || self.resting {
                break;
            }
            match device.try_read(&mut self.buffer) {
                Ok(true) => self.take(Ok(()), now),
                Ok(false) => break,
                Err(error) => self.take(Err(error), now),
            }
        }
    }

    /// Queues the packet that was read at `now`. EIO, EINTR and EFAULT cost a packet;
    /// another error ends the direction (EBADFD: the interface was deleted).
    fn take(&mut self, read: io::Result<()>, now: Instant) {
        (self.busy, self.given_back) = (true, false);
        if let Err(error) = read {
            match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EIO | Errno::EINTR | Errno::EFAULT) => {
                    self.counters.dropped(Dropped::Refused);
                }
                _ => self.ended = Some(error),
            }
            return;
        }
        let length = self.buffer.length();
        if length > MAX_PACKET {
            self.counters.dropped(Dropped::TooLong);
            return;
        }
        let flow = self.flows.classify(self.mode, self.buffer.packet());
        if length > self.longest {
            let pieces = self.buffer.cut(self.mode, self.longest);
            if !pieces.is_empty() {
                for piece in pieces {
                    self.queue.push(flow, piece, now);
                }
                return;
            }
        }
        self.queue.push(flow, self.buffer.take(), now);
    }

    fn count_drops(&mut self) {
        let drops = self.queue.take_drops();
        self.counters
            .dropped_many(Dropped::QueueFull, drops.overflow);
        self.counters.dropped_many(Dropped::Delayed, drops.delayed);
    }
}

#[cfg(test)]
mod tests;
