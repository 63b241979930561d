//! Joins what is on its way ([`Flight`]) to the loop that sends: pings go between
//! the packets, pongs come by a queue, and somebody can wait for them.

use std::time::Instant;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::sleep_until;

use super::flight::{Flight, Pong};
use crate::frame::control::Message;
use crate::frame::stream;

/// A bound on what is on its way to a peer that answers pings.
pub(super) struct Bounded {
    flight: Flight,
    pongs: mpsc::Receiver<Pong>,
}

impl Bounded {
    /// For a stream on which nothing was sent yet.
    pub fn new(pongs: mpsc::Receiver<Pong>) -> Self {
        Bounded {
            flight: Flight::new(Instant::now()),
            pongs,
        }
    }

    /// How many bytes may be sent now, behind a ping that may be added to
    /// `frames`; `idle` says that there are none.
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
        if let Some(token) = self.flight.ping(Instant::now()) {
            let json = Message::Ping { token }.to_json().ok();
            frames.extend(json.and_then(|json| stream::encode_control(&json).ok()));
        }
        self.flight.room()
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
