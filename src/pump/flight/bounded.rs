//! Joins what is on its way ([`Flight`]) to the loop that sends: pings go between
//! the packets, pongs come by a queue, and somebody can wait for them.

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::{Flight, Pong};
use crate::frame::control::Message;
use crate::frame::stream;
use crate::pump::FrameSink;

/// Pings of a channel that may be without an answer; a peer that gives none is
/// asked no more.
const MOST_UNANSWERED: usize = 64;

/// How the peer is asked what has come through.
#[derive(Debug)]
pub enum Pings {
    /// Not at all: nothing bounds what is on its way.
    None,
    /// By control messages of the stream; their answers come by this queue.
    InStream(mpsc::Receiver<Pong>),
    /// By the channel ([`FrameSink::ping`]).
    OfChannel,
}

/// A bound on what is on its way to a peer that answers pings.
pub(in crate::pump) struct Bounded {
    flight: Flight,
    pongs: mpsc::Receiver<Pong>,
    /// Where pings are the channel's.
    channel: Option<ChannelPings>,
}

/// Pings of a channel.
struct ChannelPings {
    /// The token of one that is to be sent.
    due: Option<u64>,
    /// Those that were sent, with what tells of their answers.
    asked: mpsc::Sender<(u64, oneshot::Receiver<()>)>,
    /// Notes when answers come.
    _notes: JoinSet<()>,
}

impl Bounded {
    /// For a peer to which nothing was sent yet.
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

    /// How many bytes may be sent now, behind a ping: one of the stream is added
    /// to `frames`, one of the channel is to be [sent](Self::ask). `idle` says
    /// that there are none.
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

    /// Whether a ping of the channel is to be sent.
    pub fn asks(&self) -> bool {
        (self.channel.as_ref()).is_some_and(|channel| channel.due.is_some())
    }

    /// Sends the ping of the channel that is due, if there is one.
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

    /// The longest packet in bytes that does not hold up others for long.
    pub fn longest(&self) -> usize {
        self.flight.longest()
    }

    /// `frames` are about to be sent.
    pub fn sent(&mut self, frames: &[Bytes]) {
        self.flight.sent(frames.iter().map(Bytes::len).sum());
    }

    /// Waits until there may be more room, or a ping is to be sent again.
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

/// Notes when the answers come, in the order of their pings.
async fn note(mut asked: mpsc::Receiver<(u64, oneshot::Receiver<()>)>, noting: mpsc::Sender<Pong>) {
    while let Some((token, answer)) = asked.recv().await {
        if answer.await.is_err() {
            return;
        }
        let at = Instant::now().into_std();
        // Where it is full, a later one says the same and more.
        let _ = noting.try_send(Pong { token, at });
    }
}
