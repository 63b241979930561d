//! How much may be on its way in one direction of a tunnel, so that what
//! is more waits in the fair queue, where a packet in a hurry overtakes it, and
//! not in sshd, pipes and sockets, where nothing does.
//!
//! Between the packets go pings whose token is the number of bytes sent so far.
//! A pong says that these have come through, and from that follow how fast the
//! path is and how long it takes when nothing waits in it. On its way may be what
//! the path carries in a little more than that time; about as BBR has it, but
//! above any number of TCP connections, pipes and processes. The time is measured
//! while less is on its way than fills the path, which is brought about every
//! [`DRAIN_EVERY`].
//!
//! No clock: times come from the caller.

pub(super) mod bounded;
pub(super) mod delivery_rate;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use delivery_rate::{Delivered, DeliveryRate, at_least};

/// Round trips that what is on its way may take besides the first, for what exceeds
/// [`SHORT`]: where something is lost on a long path, sending it again takes round
/// trips, and what is behind it waits for it.
const MORE_ROUND_TRIPS: f64 = 1.5;
/// A round trip that is not long.
const SHORT: Duration = Duration::from_millis(5);
/// What may wait in the path besides at [`SLACK_RATE`], in proportion to the rate
/// from a part to some times as much: so the path shows if it has become faster. The
/// faster it is, the more are the processes on it the limit, which work best if they
/// find much each time that they are given a processor; at such rates, that is still
/// little time.
const SLACK: Duration = Duration::from_millis(1);
const SLACK_RATE: f64 = 2.5e7;
const SLACKS: (f64, f64) = (0.5, 8.0);
/// A round trip that is longer by this factor and the slack is no chance.
const LONGER: f64 = 2.0;
/// The least that may be on its way in bytes, however slow the path.
const FLOOR: u64 = 16 * 1024;
/// By so much may more be on its way than what came through without waiting, as long
/// as the path was never the limit: a TCP connection that begins doubles what it sends
/// in each round trip, and a rate of the last ones would follow too late.
const GROWTH: f64 = 2.5;
/// The rate that is assumed until the path is known, in bytes a second.
const START: f64 = 5e7;
/// So often, or once in so many round trips, the path is emptied to measure it.
const DRAIN_EVERY: (Duration, u32) = (Duration::from_millis(1000), 100);
/// The same, where it seems to have changed; twice as long each time that it does so
/// again, up to so many times, since then it is but unsteady.
const DRAIN_SOON: (Duration, u32) = (Duration::from_millis(50), 10);
const MOST_SURPRISES: u32 = 5;
/// Of what fills the path is on its way when it is measured: below one, or a path
/// that has become shorter would not be noticed.
const DRAINED: f64 = 0.5;
/// Of the [`SLACK`] may be on its way besides.
const DRAINED_SLACK: f64 = 0.125;
/// The least that counts as drained in bytes.
const DRAINED_FLOOR: u64 = 4096;
/// Pings in what may be on its way.
const PINGS_IN_FLIGHT: u64 = 8;
/// Bytes between pings, at least and at most.
const PING_SPACING: (u64, u64) = (4096, 1024 * 1024);
/// Pings that are remembered; a peer that answers none costs no more.
const MOST_PINGS: usize = 64;
/// How long, or how many round trips, a pong is waited for before another ping is sent.
const ANSWER_WAIT: (Duration, u32) = (Duration::from_millis(50), 4);

/// A pong, and when it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pong {
    /// That of its ping.
    pub token: u64,
    /// When.
    pub at: Instant,
}

/// What is on its way.
#[derive(Debug)]
pub(super) struct Flight {
    /// Bytes that were sent, in all.
    sent: u64,
    /// Bytes of which a pong said that they came through.
    delivered: u64,
    /// Without an answer so far, in order.
    pings: VecDeque<Ping>,
    /// `sent` when there was nothing left to send, until that has come through:
    /// what is measured before says nothing about the path.
    idle_at: Option<u64>,
    rate: DeliveryRate,
    /// What may be on its way in bytes as long as the path was never the limit.
    grown: u64,
    /// The round trip of a path that is not filled.
    round_trip: Option<Duration>,
    /// Less is sent, until the path is drained.
    draining: bool,
    next_drain: Instant,
    /// Round trips in a row that were unlike those before.
    surprises: u32,
}

/// A ping that was sent, and what was known then.
#[derive(Debug, Clone, Copy)]
struct Ping {
    token: u64,
    at: Instant,
    /// It measures the round trip: little was on its way.
    measures: bool,
    /// There was more to send all the time.
    busy: bool,
    /// Bytes that were on their way with it.
    on_its_way: u64,
}

impl Flight {
    /// Nothing has been sent and nothing is known.
    pub fn new(now: Instant) -> Self {
        Flight {
            sent: 0,
            delivered: 0,
            pings: VecDeque::new(),
            idle_at: None,
            rate: DeliveryRate::default(),
            grown: 0,
            round_trip: None,
            draining: false,
            next_drain: now,
            surprises: 0,
        }
    }

    /// How many bytes may be sent now, up to the next ping. The last packet may
    /// be longer.
    pub fn room(&self) -> usize {
        let free = self.bound().saturating_sub(self.on_its_way());
        let room = free.min(self.spacing().saturating_sub(self.since_ping()).max(1));
        usize::try_from(room).unwrap_or(usize::MAX)
    }

    /// The longest packet in bytes that does not hold up others for long.
    pub fn longest(&self) -> usize {
        usize::try_from(self.full_bound() / 4).unwrap_or(usize::MAX)
    }

    /// `bytes` are handed on.
    pub fn sent(&mut self, bytes: usize) {
        self.sent = self.sent.saturating_add(bytes as u64);
    }

    /// Nothing is left to send.
    pub fn idle(&mut self) {
        self.idle_at = Some(self.sent);
    }

    /// The token of a ping, if one is to be sent now, behind all that was sent.
    pub fn ping(&mut self, now: Instant) -> Option<u64> {
        let drains = !self.draining && now >= self.next_drain && self.round_trip.is_some();
        self.draining |= drains;
        if self.draining && self.on_its_way() <= self.drained_bound() {
            // What is sent behind this ping does not delay it.
            self.draining = false;
            self.next_drain = now + at_least(DRAIN_EVERY, self.round_trip);
            return Some(self.remember(now, true));
        }
        (drains || self.is_due(now)).then(|| self.remember(now, false))
    }

    fn is_due(&self, now: Instant) -> bool {
        if self.since_ping() >= self.spacing() {
            return true;
        }
        match self.retry_at() {
            Some(at) => now >= at,
            // So that the end of what is on its way becomes known.
            None => self.round_trip.is_none() || (self.room() == 0 && self.on_its_way() > 0),
        }
    }

    /// When a ping is to be sent in any case: its answer did not come.
    pub fn retry_at(&self) -> Option<Instant> {
        let wait = at_least(ANSWER_WAIT, self.round_trip);
        self.pings.back()?.at.checked_add(wait)
    }

    /// A pong came. One to no ping of ours is passed over.
    pub fn pong(&mut self, pong: Pong) {
        let Some(place) = self.pings.iter().position(|ping| ping.token == pong.token) else {
            return;
        };
        let Some(ping) = self.pings.drain(..=place).next_back() else {
            return;
        };
        self.delivered = ping.token;
        if self.idle_at.is_some_and(|at| self.delivered >= at) {
            self.idle_at = None;
        }
        let took = pong.at.saturating_duration_since(ping.at);
        let late = took > self.round_trip.unwrap_or_default().mul_f64(LONGER);
        // As little as may always be on its way does not fill the path.
        let waited = late && ping.on_its_way > FLOOR;
        if !late {
            let grown = (ping.on_its_way as f64 * GROWTH) as u64;
            self.grown = self.grown.max(grown);
        }
        let delivered = Delivered {
            bytes: self.delivered,
            at: pong.at,
            sent_at: ping.at,
            busy: ping.busy || waited,
        };
        self.rate.measure(delivered, self.round_trip);
        if ping.measures || self.round_trip.is_none_or(|shortest| took < shortest) {
            self.measure_round_trip(took, pong.at);
        }
    }

    /// Bytes from one ping to the next.
    fn spacing(&self) -> u64 {
        let (least, most) = PING_SPACING;
        let long = self.round_trip.is_some_and(|time| time > SHORT);
        let filled = if long && !self.rate.is_of_path() {
            // What little there is is to show that more may follow.
            self.on_its_way()
        } else {
            self.full_bound()
        };
        (filled / PINGS_IN_FLIGHT).clamp(least, most)
    }

    /// Bytes that were sent behind the last ping.
    fn since_ping(&self) -> u64 {
        let last = self.pings.back().map_or(self.delivered, |last| last.token);
        self.sent - last
    }

    fn on_its_way(&self) -> u64 {
        self.sent - self.delivered
    }

    /// What may be on its way now.
    fn bound(&self) -> u64 {
        if self.draining {
            self.drained_bound()
        } else {
            self.full_bound()
        }
    }

    fn full_bound(&self) -> u64 {
        let Some(round_trip) = self.round_trip else {
            return u64::MAX;
        };
        let least = if self.rate.is_settled() { 0.0 } else { START };
        let rate = self.rate.highest().unwrap_or(0.0).max(least);
        let more = round_trip.saturating_sub(SHORT).mul_f64(MORE_ROUND_TRIPS);
        let time = round_trip + more + slack(rate);
        let grown = if self.rate.is_of_path() {
            0
        } else {
            self.grown
        };
        ((rate * time.as_secs_f64()) as u64).max(grown).max(FLOOR)
    }

    fn drained_bound(&self) -> u64 {
        let time = self.round_trip.unwrap_or_default().mul_f64(DRAINED)
            + slack(self.rate.latest()).mul_f64(DRAINED_SLACK);
        ((self.rate.latest() * time.as_secs_f64()) as u64).max(DRAINED_FLOOR)
    }

    fn remember(&mut self, now: Instant, measures: bool) -> u64 {
        if self.pings.len() == MOST_PINGS {
            self.pings.pop_front();
        }
        // The token is unique: a ping in front of no new bytes counts as one.
        let last = self.pings.back().map_or(self.delivered, |last| last.token);
        self.sent = self.sent.max(last + 1);
        self.pings.push_back(Ping {
            token: self.sent,
            at: now,
            measures,
            busy: self.idle_at.is_none(),
            on_its_way: self.on_its_way(),
        });
        self.sent
    }

    fn measure_round_trip(&mut self, took: Duration, now: Instant) {
        let before = self.round_trip.unwrap_or(took);
        // What is less than the slack changes the bound by little.
        let chance = slack(self.rate.highest().unwrap_or(0.0));
        let longer = took > before.mul_f64(LONGER) + chance;
        let shorter = before > took.mul_f64(LONGER) + chance;
        // The first may have waited for the other end to be ready.
        if longer || shorter || self.round_trip.is_none() {
            let soon = at_least(DRAIN_SOON, Some(took.min(before)));
            let soon = now + soon.saturating_mul(1 << self.surprises.min(MOST_SURPRISES));
            self.next_drain = self.next_drain.min(soon);
            self.surprises = self.surprises.saturating_add(1);
        } else {
            self.surprises = 0;
        }
        // One late answer is no proof.
        self.round_trip = Some(took.min(before + took.saturating_sub(before) / 2));
    }
}

/// The [`SLACK`] at a rate.
fn slack(rate: f64) -> Duration {
    let (least, most) = SLACKS;
    SLACK.mul_f64((rate / SLACK_RATE).clamp(least, most))
}
