//! A running agent stream, the same at both ends: packets both ways between the
//! stream and a device, control messages between them, and a watch on whether the
//! other end is still there.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::carrier::{LinkCounters, Restrictions};
use super::conversation::{Conversation, ConversationError};
use crate::frame::control::{ControlError, Message};
use crate::frame::stream;
use crate::packet::virtio::Offload;
use crate::pump::{self, End, FrameSink, FrameSource, Framing, Limited};
use crate::tun::Device;

/// How often each end asks whether the other is there.
const PING_INTERVAL: Duration = Duration::from_secs(15);
/// Intervals without a word after which the other end is taken for gone.
const SILENT_INTERVALS: u32 = 3;
/// Control messages that wait in either direction; the stream waits then.
const CONTROL_QUEUE: usize = 16;

/// What happens on a link besides packets.
#[derive(Debug)]
pub enum LinkEvent {
    /// The other end said something; pings are answered here.
    Said(Message),
    /// The other end said what cannot be understood.
    Nonsense(ControlError),
    /// Nothing was heard of the other end for this long.
    Silent(Duration),
    /// A direction ended.
    Ended(End),
}

/// A running link. Dropping it stops it and closes the device.
pub struct StreamLink {
    directions: JoinSet<()>,
    /// Why directions ended.
    ends: mpsc::Receiver<End>,
    counters: Arc<LinkCounters>,
    said: mpsc::Receiver<Bytes>,
    saying: mpsc::Sender<Bytes>,
    /// The same, once the device yields no more packets.
    saying_after: mpsc::Sender<Bytes>,
    clock: Interval,
    heard: Heard,
}

/// What was heard by when.
#[derive(Debug, Default)]
struct Heard {
    messages: u64,
    before: (u64, u64),
    silent: u32,
}

impl StreamLink {
    /// Starts both directions, once both ends are ready, to an end that takes
    /// `peer`.
    pub fn start<R, W>(device: Device, conversation: Conversation<R, W>, peer: Offload) -> Self
    where
        R: FrameSource + Send + 'static,
        W: FrameSink + Send + 'static,
    {
        let (held, counters) = (Restrictions::default(), Arc::default());
        Self::start_restricted(device, conversation, peer, held, counters)
    }

    /// The same, with the other end held to `restrictions`, and counted in `counters`.
    pub fn start_restricted<R, W>(
        device: Device,
        conversation: Conversation<R, W>,
        peer: Offload,
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
        let (guard, strangers) = (restrictions.guard, restrictions.strangers);
        let device = Arc::new(device);
        let (saying, to_say) = mpsc::channel(CONTROL_QUEUE);
        let (saying_after, mut to_say_after) = mpsc::channel::<Bytes>(CONTROL_QUEUE);
        let (hearing, said) = mpsc::channel(CONTROL_QUEUE);
        let (ended, ends) = mpsc::channel(2);
        let mut directions = JoinSet::new();
        directions.spawn({
            let (device, counters) = (Arc::clone(&device), Arc::clone(&counters));
            let ended = ended.clone();
            async move {
                let (framing, counters) = (Framing::Stream(peer), &counters.outbound);
                let heard = strangers.without(&*device, counters);
                let end = pump::outbound(mode, framing, &heard, &output, to_say, counters).await;
                drop(device);
                // There is room for both, and without a receiver nobody to tell.
                let _ = ended.send(end).await;
                drop(ended);
                // The other end is still to be told why.
                while let Some(frame) = to_say_after.recv().await {
                    if output.send(frame).await.is_err() {
                        break;
                    }
                }
            }
        });
        directions.spawn({
            let counters = Arc::clone(&counters);
            async move {
                let (device, counters) = (&*device, &counters.inbound);
                let (input, control) = (&mut input, &hearing);
                let end =
                    pump::inbound_stream(mode, reader, input, device, control, guard, counters)
                        .await;
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
            heard: Heard::default(),
        }
    }

    /// Waits for the next event; nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> LinkEvent {
        loop {
            tokio::select! {
                biased;
                Some(json) = self.said.recv() => {
                    self.heard.messages += 1;
                    match Message::from_json(&json) {
                        Ok(Message::Ping { token }) => self.mention(&Message::Pong { token }),
                        Ok(Message::Pong { .. }) => {}
                        Ok(message) => return LinkEvent::Said(message),
                        Err(error) => return LinkEvent::Nonsense(error),
                    }
                }
                Some(Err(failure)) = self.directions.join_next() => {
                    return LinkEvent::Ended(End::Device(std::io::Error::other(failure)));
                }
                end = self.ends.recv() => return LinkEvent::Ended(end.unwrap_or(End::Channel)),
                _ = self.clock.tick() => {
                    let packets = self.counters.inbound.snapshot().packets;
                    if self.heard.is_silent(packets) {
                        return LinkEvent::Silent(PING_INTERVAL * SILENT_INTERVALS);
                    }
                    self.mention(&Message::Ping { token: packets });
                }
            }
        }
    }

    /// Says something, behind the packets that were sent already.
    pub async fn say(&self, message: &Message) -> Result<(), ConversationError> {
        let frame = stream::encode_control(&message.to_json()?)?;
        if self.saying.send(frame.clone()).await.is_ok() {
            return Ok(());
        }
        let sent = self.saying_after.send(frame).await;
        sent.map_err(|_| ConversationError::Ended)
    }

    /// Says what is not worth waiting for.
    fn mention(&self, message: &Message) {
        let frame = message.to_json().ok();
        if let Some(frame) = frame.and_then(|json| stream::encode_control(&json).ok()) {
            // With as many messages waiting, the other end hears enough.
            let _ = self.saying.try_send(frame);
        }
    }

    /// Stops both directions and closes the stream and the device; yields what
    /// went through.
    pub async fn stop(mut self) -> Arc<LinkCounters> {
        self.directions.shutdown().await;
        self.counters
    }
}

impl Heard {
    /// Whether nothing came in the last intervals, this one included.
    fn is_silent(&mut self, packets: u64) -> bool {
        let now = (self.messages, packets);
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
        assert!(!heard.is_silent(5));
        assert!(!heard.is_silent(5));
        heard.messages += 1;
        assert!(!heard.is_silent(5));
        assert!(!heard.is_silent(5));
        assert!(!heard.is_silent(5));
        assert!(heard.is_silent(5));
        assert!(!heard.is_silent(6));
    }
}
