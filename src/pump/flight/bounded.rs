//! Connects [`Flight`] to the sending loop: sends pings between the packets, takes pongs
//! from a queue, and waits for them.

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::{Flight, Pong};
use crate::frame::control::Message;
use crate::frame::stream;
use crate::pump::FrameSink;

/// Pings of a channel without an answer, at most; a peer that does not answer gets no
/// more.
const MOST_UNANSWERED: usize = 64;

/// How to ask the peer which bytes have arrived.
#[derive(Debug)]
pub enum Pings {
    /// No pings: the bytes on the way are not limited.
    None,
    /// Control messages of the stream; the answers come from this queue.
    InStream(mpsc::Receiver<Pong>),
    /// Pings of the channel ([`FrameSink::ping`]).
    OfChannel,
}

/// Limits the bytes on the way to a peer that answers pings.
pub(in crate::pump) struct Bounded {
    flight: Flight,
    pongs: mpsc::Receiver<Pong>,
    /// If pings are the channel's.
    channel: Option<ChannelPings>,
}

/// Pings of a channel.
struct ChannelPings {
    /// The token of the next ping, if one is due.
    due: Option<u64>,
    /// The pings that were sent, with the receivers of their answers.
    asked: mpsc::Sender<(u64, oneshot::Receiver<()>)>,
    /// Notes when answers come.
    _notes: JoinSet<()>,
}

impl Bounded {
    /// The limit for a peer to which nothing was sent yet.
    pub fn new(pings: Pings) -> Option<Self> {
        let (pongs, channel) = match pings {
            Pings::None => return None,
            Pings::InStream(pongs) => (pongs, None),
            Pings::OfChannel => {
                let (noting, pongs) = mpsc::channel(MOST_UNANSWERED);
                let (asked, answers) = mpsc::channel(MOST_UNANSWERED);
                let mut notes = JoinSet::new();
                notes.spawn(note(answers, noting));
                let (due, _notes) = (None, notes);
                (pongs, Some(ChannelPings { due, asked, _notes }))
            }
        };
        Some(Bounded {
            flight: Flight::new(Instant::now().into_std()),
            pongs,
            channel,
        })
    }

    /// The number of bytes that may be sent now, behind a ping if one is due: appends one
    /// of the stream to `frames`; the caller [sends](Self::ask) one of the channel.
    /// `idle` says that no packets wait.
    pub fn room(&mut self, idle: bool, frames: &mut Vec<Bytes>) -> usize {
        while let Ok(pong) = self.pongs.try_recv() {
            self.flight.pong(pong);
        }
        let room = self.flight.room();
        if idle {
            if room > 0 {
                self.flight.idle();
            }
            return room;
        }
        if let Some(token) = self.flight.ping(Instant::now().into_std()) {
            if let Some(channel) = &mut self.channel {
                channel.due = Some(token);
            } else {
                let json = Message::Ping { token }.to_json().ok();
                frames.extend(json.and_then(|json| stream::encode_control(&json).ok()));
            }
        }
        self.flight.room()
    }

    /// Whether a ping of the channel is due.
    pub fn asks(&self) -> bool {
        (self.channel.as_ref()).is_some_and(|channel| channel.due.is_some())
    }

    /// Sends the ping of the channel, if one is due.
    pub async fn ask<C: FrameSink>(&mut self, sink: &C) {
        let Some(channel) = &mut self.channel else {
            return;
        };
        let Some(token) = channel.due.take() else {
            return;
        };
        if let Ok(place) = channel.asked.try_reserve()
            && let Some(answer) = sink.ping().await
        {
            place.send((token, answer));
        }
    }

    /// The longest packet, in bytes, that does not delay others for long.
    pub fn longest(&self) -> usize {
        self.flight.longest()
    }

    /// Counts `frames`, which are about to be sent.
    pub fn sent(&mut self, frames: &[Bytes]) {
        self.flight.sent(frames.iter().map(Bytes::len).sum());
    }

    /// Waits until there may be more room, or a ping is due again.
    pub async fn changed(&mut self) {
        let retry = self.flight.retry_at();
        let retry = async {
            match retry {
                Some(at) => sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(pong) = self.pongs.recv() => self.flight.pong(pong),
            () = retry => {}
        }
    }
}

/// Forwards the answers with their times, in the order of the pings.
async fn note(mut asked: mpsc::Receiver<(u64, oneshot::Receiver<()>)>, noting: mpsc::Sender<Pong>) {
    while let Some((token, answer)) = asked.recv().await {
        if answer.await.is_err() {
            return;
        }
        let at = Instant::now().into_std();
        // If the queue is full, a later pong acknowledges these bytes too.
        let _ = noting.try_send(Pong { token, at });
    }
}
