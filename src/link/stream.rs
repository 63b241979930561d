//! Runs an agent stream, at both ends: packets in both directions between the stream and
//! a device, control messages between them, and pings that detect a silent peer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::control::{Conversation, ConversationError};
use super::datagram::{LinkCounters, Restrictions};
use super::device::LinkDevice;
use crate::frame::control::{ControlError, Message};
use crate::frame::stream;
use crate::packet::offload::virtio::Offload;
use crate::pump::{
    self, Deframer, End, Filtered, FrameSink, FrameSource, Framer, Framing, Limited, Pings, Pong,
};

/// The interval between pings that check the other end.
const PING_INTERVAL: Duration = Duration::from_secs(15);
/// Intervals without a message after which the other end counts as gone.
const SILENT_INTERVALS: u32 = 3;
/// Control messages queued in each direction at most; the stream waits when the queue is
/// full.
const CONTROL_QUEUE: usize = 16;
/// Pongs queued at most while packets are being sent.
const MOST_PONGS: usize = 64;
/// The token of a ping that only checks the other end; the token of other pings is a
/// number of bytes sent.
const ONLY_THERE: u64 = 0;

/// An event on a link besides packets.
#[derive(Debug)]
pub enum LinkEvent {
    /// The other end sent a message; pings are answered here.
    Said(Message),
    /// The other end sent an invalid message.
    Nonsense(ControlError),
    /// Nothing was received from the other end for this long.
    Silent(Duration),
    /// A direction ended.
    Ended(End),
}

/// A running link. Dropping it stops it and closes the device.
pub struct StreamLink {
    directions: JoinSet<()>,
    /// The reasons why directions ended.
    ends: mpsc::Receiver<End>,
    counters: Arc<LinkCounters>,
    said: mpsc::Receiver<LinkEvent>,
    saying: mpsc::Sender<Bytes>,
    /// The same, once the device yields no more packets.
    saying_after: mpsc::Sender<Bytes>,
    clock: Interval,
    /// Control messages that were received.
    messages: Arc<AtomicU64>,
    heard: Heard,
}

/// What was received at which time.
#[derive(Debug, Default)]
struct Heard {
    before: (u64, u64),
    silent: u32,
}

impl StreamLink {
    /// Starts both directions, once both ends are ready, to a peer that takes the offload
    /// packets `takes` and is subject to `restrictions`; counts in `counters`.
    pub fn start<R, W>(
        device: impl LinkDevice,
        conversation: Conversation<R, W>,
        takes: Offload,
        restrictions: Restrictions,
        counters: Arc<LinkCounters>,
    ) -> Self
    where
        R: FrameSource + Send + 'static,
        W: FrameSink + Send + 'static,
    {
        let mode = device.mode();
        let (reader, input, output) = conversation.into_parts(mode);
        let mut input = Limited::new(input, restrictions.upload);
        let output = Limited::new(output, restrictions.download);
        let (guard, egress_filter) = (restrictions.guard, restrictions.egress_filter);
        let device = Arc::new(device);
        let (saying, to_say) = mpsc::channel(CONTROL_QUEUE);
        let (saying_after, mut to_say_after) = mpsc::channel::<Bytes>(CONTROL_QUEUE);
        let (hearing, heard) = mpsc::channel(CONTROL_QUEUE);
        let (telling, said) = mpsc::channel(CONTROL_QUEUE);
        let (answering, pongs) = mpsc::channel(MOST_PONGS);
        let (ended, ends) = mpsc::channel(2);
        let mut directions = JoinSet::new();
        directions.spawn({
            let (device, counters) = (Arc::clone(&device), Arc::clone(&counters));
            let ended = ended.clone();
            async move {
                let (output, counters) = (&output, &counters.outbound);
                let heard = Filtered::new(egress_filter, &*device, counters);
                let framer = Framer::new(mode, Framing::Stream(takes));
                let pings = Pings::InStream(pongs);
                let end =
                    pump::outbound(mode, framer, &heard, output, to_say, pings, counters).await;
                drop(device);
                // The queue has room for both; without a receiver the message is not
                // needed.
                let _ = ended.send(end).await;
                drop(ended);
                // The reason still has to be sent to the other end.
                while let Some(frame) = to_say_after.recv().await {
                    if output.send(frame).await.is_err() {
                        break;
                    }
                }
            }
        });
        let messages = Arc::new(AtomicU64::new(0));
        let listener = Listener {
            heard,
            messages: Arc::clone(&messages),
            saying: saying.clone(),
            pongs: answering,
            telling,
        };
        directions.spawn({
            let counters = Arc::clone(&counters);
            async move {
                let inbound = async {
                    let (device, counters) = (&*device, &counters.inbound);
                    // Dropped at the end of the stream, which ends the listener.
                    let hearing = hearing;
                    let guarded = Filtered::new(guard, Deframer::Stream(reader), counters);
                    pump::inbound(mode, guarded, &mut input, device, &hearing, counters).await
                };
                // The end comes after all messages received before it.
                let (end, ()) = tokio::join!(inbound, listener.listen());
                let _ = ended.send(end).await;
            }
        });
        let mut clock = interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        StreamLink {
            directions,
            ends,
            counters,
            said,
            saying,
            saying_after,
            clock,
            messages,
            heard: Heard::default(),
        }
    }

    /// Waits for the next event. No event is lost if the future is dropped.
    pub async fn next(&mut self) -> LinkEvent {
        loop {
            tokio::select! {
                biased;
                Some(event) = self.said.recv() => return event,
                Some(Err(failure)) = self.directions.join_next() => {
                    return LinkEvent::Ended(End::Device(std::io::Error::other(failure)));
                }
                end = self.ends.recv() => return LinkEvent::Ended(end.unwrap_or(End::Channel)),
                _ = self.clock.tick() => {
                    let packets = self.counters.inbound.snapshot().packets;
                    let messages = self.messages.load(Ordering::Relaxed);
                    if self.heard.is_silent(messages, packets) {
                        return LinkEvent::Silent(PING_INTERVAL * SILENT_INTERVALS);
                    }
                    mention(&self.saying, &Message::Ping { token: ONLY_THERE });
                }
            }
        }
    }

    /// Sends a message behind the packets that were already sent.
    pub async fn say(&self, message: &Message) -> Result<(), ConversationError> {
        let frame = stream::encode_control(&message.to_json()?)?;
        if self.saying.send(frame.clone()).await.is_ok() {
            return Ok(());
        }
        let sent = self.saying_after.send(frame).await;
        sent.map_err(|_| ConversationError::Ended)
    }

    /// Stops both directions and closes the stream and the device; yields the counters.
    pub async fn stop(mut self) -> Arc<LinkCounters> {
        self.directions.shutdown().await;
        self.counters
    }
}

/// Sends a message if that is possible without waiting.
fn mention(saying: &mpsc::Sender<Bytes>, message: &Message) {
    let frame = message.to_json().ok();
    if let Some(frame) = frame.and_then(|json| stream::encode_control(&json).ok()) {
        // With a full queue the other end gets enough messages.
        let _ = saying.try_send(frame);
    }
}

/// Answers pings and forwards pongs at once, independently of the session; forwards other
/// messages to the session.
struct Listener {
    heard: mpsc::Receiver<Bytes>,
    messages: Arc<AtomicU64>,
    saying: mpsc::Sender<Bytes>,
    pongs: mpsc::Sender<Pong>,
    telling: mpsc::Sender<LinkEvent>,
}

impl Listener {
    async fn listen(mut self) {
        while let Some(json) = self.heard.recv().await {
            self.messages.fetch_add(1, Ordering::Relaxed);
            let event = match Message::from_json(&json) {
                Ok(Message::Ping { token }) => {
                    mention(&self.saying, &Message::Pong { token });
                    continue;
                }
                Ok(Message::Pong { token }) => {
                    let at = std::time::Instant::now();
                    // If the queue is full, a later pong acknowledges these bytes too.
                    let _ = self.pongs.try_send(Pong { token, at });
                    continue;
                }
                Ok(message) => LinkEvent::Said(message),
                Err(error) => LinkEvent::Nonsense(error),
            };
            if self.telling.send(event).await.is_err() {
                return;
            }
        }
    }
}

impl Heard {
    /// Whether nothing was received in the last intervals, including this one.
    fn is_silent(&mut self, messages: u64, packets: u64) -> bool {
        let now = (messages, packets);
        self.silent = if now == self.before {
            self.silent + 1
        } else {
            0
        };
        self.before = now;
        self.silent >= SILENT_INTERVALS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_intervals_without_a_word() {
        let mut heard = Heard::default();
        assert!(!heard.is_silent(0, 5));
        assert!(!heard.is_silent(0, 5));
        assert!(!heard.is_silent(1, 5));
        assert!(!heard.is_silent(1, 5));
        assert!(!heard.is_silent(1, 5));
        assert!(heard.is_silent(1, 5));
        assert!(!heard.is_silent(1, 6));
    }
}
