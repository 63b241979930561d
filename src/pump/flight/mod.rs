//! Limits the bytes on the way in one direction of a tunnel, so that all others wait in
//! the fair queue, where an urgent packet can overtake them, and not in sshd, pipes and
//! sockets, where none can.
//!
//! Pings between the packets have the number of bytes sent so far as their token. A pong
//! says that these have arrived; from pongs follow the path's rate and its round trip
//! without queues. The limit is what the path carries in a little more than that time,
//! similar to BBR, but across any number of TCP connections, pipes and processes. The
//! round trip is measured while the path is not full, which is arranged every
//! [`DRAIN_EVERY`].
//!
//! It has no clock: the caller passes times.

pub(super) mod bounded;
pub(super) mod delivery_rate;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use delivery_rate::{Delivered, DeliveryRate, at_least};

/// Further round trips that the limit allows, for the part of a round trip beyond
/// [`SHORT`]: after a loss on a long path, retransmission takes round trips, and later
/// bytes wait for it.
const MORE_ROUND_TRIPS: f64 = 1.5;
/// The longest short round trip.
const SHORT: Duration = Duration::from_millis(5);
/// Bytes that may wait in the path besides, at [`SLACK_RATE`]; in proportion to the rate
/// within limits, so that a faster path becomes visible. At high rates the processes on
/// the path are the limit, which work best with much data each time that they run; at
/// such rates that is still little time.
const SLACK: Duration = Duration::from_millis(1);
const SLACK_RATE: f64 = 2.5e7;
const SLACKS: (f64, f64) = (0.5, 8.0);
/// A round trip that is longer than this factor and the slack is not by chance.
const LONGER: f64 = 2.0;
/// The smallest limit in bytes, however slow the path.
const FLOOR: u64 = 16 * 1024;
/// The factor by which the limit exceeds the bytes that arrived without waiting, as long
/// as the path was never the limit: a new TCP connection doubles its rate in each round
/// trip, and the rate of the last ones would follow too late.
const GROWTH: f64 = 2.5;
/// The assumed rate until the path is known, in bytes per second.
const START: f64 = 5e7;
/// How often the path is drained to measure it, in time and in round trips.
const DRAIN_EVERY: (Duration, u32) = (Duration::from_millis(1000), 100);
/// How often if the path seems to have changed; the interval doubles with each further
/// change, up to this many times, since such a path is only unsteady.
const DRAIN_SOON: (Duration, u32) = (Duration::from_millis(50), 10);
const MOST_SURPRISES: u32 = 5;
/// The part of the full path that is on the way during a measurement: below one, or a
/// shorter path would not be noticed.
const DRAINED: f64 = 0.5;
/// The part of the [`SLACK`] that may be on the way besides.
const DRAINED_SLACK: f64 = 0.125;
/// Bytes that always count as drained.
const DRAINED_FLOOR: u64 = 4096;
/// Pings within the limit.
const PINGS_IN_FLIGHT: u64 = 8;
/// Bytes between pings, at least and at most.
const PING_SPACING: (u64, u64) = (4096, 1024 * 1024);
/// Pings remembered at most; a peer that does not answer costs no more.
const MOST_PINGS: usize = 64;
/// How long to wait for a pong before the next ping, in time and in round trips.
const ANSWER_WAIT: (Duration, u32) = (Duration::from_millis(50), 4);

/// A pong, and its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pong {
    /// The token of its ping.
    pub token: u64,
    /// When it came.
    pub at: Instant,
}

/// The bytes on the way, and the measured path.
#[derive(Debug)]
pub(super) struct Flight {
    /// All bytes sent.
    sent: u64,
    /// Bytes that a pong acknowledged.
    delivered: u64,
    /// Pings without an answer, in order.
    pings: VecDeque<Ping>,
    /// `sent` when there was nothing left to send, until that is acknowledged: earlier
    /// measurements do not show the path's rate.
    idle_at: Option<u64>,
    rate: DeliveryRate,
    /// The limit in bytes as long as the path was never the limit.
    grown: u64,
    /// The round trip of the path without queues.
    round_trip: Option<Duration>,
    /// Sending less until the path is drained.
    draining: bool,
    next_drain: Instant,
    /// Round trips in a row that differ from those before.
    surprises: u32,
}

/// A ping that was sent, and the state at that time.
#[derive(Debug, Clone, Copy)]
struct Ping {
    token: u64,
    at: Instant,
    /// It measures the round trip: few bytes were on the way.
    measures: bool,
    /// There was always more to send.
    busy: bool,
    /// Bytes on the way with it.
    on_its_way: u64,
}

impl Flight {
    /// A path to which nothing was sent.
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

    /// The number of bytes that may be sent now, up to the next ping. The last packet may
    /// exceed it.
    pub fn room(&self) -> usize {
        let free = self.bound().saturating_sub(self.on_its_way());
        let room = free.min(self.spacing().saturating_sub(self.since_ping()).max(1));
        usize::try_from(room).unwrap_or(usize::MAX)
    }

    /// The longest packet, in bytes, that does not delay others for long.
    pub fn longest(&self) -> usize {
        usize::try_from(self.full_bound() / 4).unwrap_or(usize::MAX)
    }

    /// Counts `bytes` as sent.
    pub fn sent(&mut self, bytes: usize) {
        self.sent = self.sent.saturating_add(bytes as u64);
    }

    /// Records that nothing is left to send.
    pub fn idle(&mut self) {
        self.idle_at = Some(self.sent);
    }

    /// The token of a ping, if one is due behind all bytes sent.
    pub fn ping(&mut self, now: Instant) -> Option<u64> {
        let drains = !self.draining && now >= self.next_drain && self.round_trip.is_some();
        self.draining |= drains;
        if self.draining && self.on_its_way() <= self.drained_bound() {
            // Bytes behind this ping do not delay it.
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
            // So that the last bytes are acknowledged.
            None => self.round_trip.is_none() || (self.room() == 0 && self.on_its_way() > 0),
        }
    }

    /// When a ping is due in any case, since an answer did not come.
    pub fn retry_at(&self) -> Option<Instant> {
        let wait = at_least(ANSWER_WAIT, self.round_trip);
        self.pings.back()?.at.checked_add(wait)
    }

    /// Takes a pong. Ignores one without a ping.
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
        // The smallest limit does not fill the path.
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
            // A few bytes have to open the limit for more.
            self.on_its_way()
        } else {
            self.full_bound()
        };
        (filled / PINGS_IN_FLIGHT).clamp(least, most)
    }

    /// Bytes sent behind the last ping.
    fn since_ping(&self) -> u64 {
        let last = self.pings.back().map_or(self.delivered, |last| last.token);
        self.sent - last
    }

    fn on_its_way(&self) -> u64 {
        self.sent - self.delivered
    }

    /// The current limit.
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
        // The token is unique: a ping counts as one byte.
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
        // A change below the slack hardly changes the limit.
        let chance = slack(self.rate.highest().unwrap_or(0.0));
        let longer = took > before.mul_f64(LONGER) + chance;
        let shorter = before > took.mul_f64(LONGER) + chance;
        // The first may have waited for the peer to become ready.
        if longer || shorter || self.round_trip.is_none() {
            let soon = at_least(DRAIN_SOON, Some(took.min(before)));
            let soon = now + soon.saturating_mul(1 << self.surprises.min(MOST_SURPRISES));
            self.next_drain = self.next_drain.min(soon);
            self.surprises = self.surprises.saturating_add(1);
        } else {
            self.surprises = 0;
        }
        // One late answer proves nothing.
        self.round_trip = Some(took.min(before + took.saturating_sub(before) / 2));
    }
}

/// The [`SLACK`] at a rate.
fn slack(rate: f64) -> Duration {
    let (least, most) = SLACKS;
    SLACK.mul_f64((rate / SLACK_RATE).clamp(least, most))
}
