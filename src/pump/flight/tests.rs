//! The limit over simulated paths: a server with a rate and a queue, and a delay in both
//! directions without one.

use super::*;

const MBIT: f64 = 1e6 / 8.0;
const MS: Duration = Duration::from_millis(1);

/// A simulated path and its clock.
struct Path {
    now: Instant,
    /// Bytes per second.
    rate: f64,
    /// The round trip without a queue.
    round_trip: Duration,
    /// When the server's queue will be empty.
    free_at: Instant,
    /// Pongs on the way, in order.
    pongs: VecDeque<Pong>,
    delivered: u64,
    /// The longest wait since it was last read.
    longest_wait: Duration,
    /// Bytes that the sender itself lets wait in the queue at most.
    window: f64,
    /// Bytes left to send.
    left: f64,
    /// One of this many pongs is lost.
    lost: Option<u32>,
    answered: u32,
}

impl Path {
    fn new(rate: f64, round_trip: Duration) -> Self {
        let now = Instant::now();
        Path {
            now,
            rate,
            round_trip,
            free_at: now,
            pongs: VecDeque::new(),
            delivered: 0,
            longest_wait: Duration::ZERO,
            window: f64::INFINITY,
            left: f64::INFINITY,
            lost: None,
            answered: 0,
        }
    }

    /// Bytes that the server has served.
    fn served(&self) -> f64 {
        let waits = self.free_at.saturating_duration_since(self.now);
        self.delivered as f64 - waits.as_secs_f64() * self.rate
    }

    fn carry(&mut self, bytes: usize) {
        let free = self.free_at.max(self.now);
        self.longest_wait = self.longest_wait.max(free - self.now);
        self.free_at = free + Duration::from_secs_f64(bytes as f64 / self.rate);
        self.delivered += bytes as u64;
    }

    fn answer(&mut self, token: u64) {
        self.answered += 1;
        if self
            .lost
            .is_some_and(|every| self.answered.is_multiple_of(every))
        {
            return;
        }
        let at = self.free_at.max(self.now) + self.round_trip;
        self.pongs.push_back(Pong { token, at });
    }

    /// Stops the server for this time.
    fn stall(&mut self, time: Duration) {
        self.free_at = self.free_at.max(self.now) + time;
    }
}

/// Sends packets of `packet` bytes as fast as the limit allows for `time`; yields the
/// used part of the path's capacity.
fn fill(flight: &mut Flight, path: &mut Path, packet: usize, time: Duration) -> f64 {
    let (begin, end, before) = (path.now, path.now + time, path.served());
    path.longest_wait = Duration::ZERO;
    while path.now < end {
        while path.pongs.front().is_some_and(|pong| pong.at <= path.now) {
            flight.pong(path.pongs.pop_front().unwrap());
        }
        let mut room = flight.room();
        if path.delivered as f64 - path.served() >= path.window || path.left <= 0.0 {
            flight.idle();
            path.now += MS / 10;
            continue;
        }
        if let Some(token) = flight.ping(path.now) {
            path.answer(token);
            room = flight.room();
        }
        // As outbound does: sends up to 64 KiB at once, in no time.
        if room > 0 {
            let mut filled = 0;
            while filled < room.min(64 * 1024) && path.left > 0.0 {
                path.carry(packet);
                filled += packet;
                path.left -= packet as f64;
            }
            flight.sent(filled);
            // The sender is faster than the path, but not infinitely fast.
            path.now += Duration::from_secs_f64(filled as f64 / path.rate / 8.0);
            continue;
        }
        let pong = path.pongs.front().map(|pong| pong.at);
        let next = pong.into_iter().chain(flight.retry_at()).min();
        path.now = next
            .expect("held back for ever")
            .max(path.now + Duration::from_micros(1));
    }
    let took = path.now - begin;
    (path.served() - before) / (path.rate * took.as_secs_f64())
}

#[test]
fn a_slow_path_is_filled_and_little_waits_in_it() {
    for (rate, round_trip, most) in [
        (10.0, MS / 2, 20 * MS),
        (100.0, MS / 2, 3 * MS),
        (1000.0, MS / 2, 6 * MS),
        (100.0, 10 * MS, 20 * MS),
        (300.0, 40 * MS, 90 * MS),
    ] {
        let mut path = Path::new(rate * MBIT, round_trip);
        let mut flight = Flight::new(path.now);
        fill(&mut flight, &mut path, 1500, 5 * round_trip + 1000 * MS);
        let part = fill(&mut flight, &mut path, 1500, 4000 * MS);
        assert!(part > 0.97, "{rate} Mbit/s, {round_trip:?}: {part}");
        let wait = path.longest_wait;
        assert!(wait < most, "{rate} Mbit/s, {round_trip:?}: {wait:?}");
    }
}

#[test]
fn the_start_is_fast() {
    for (rate, round_trip) in [(5000.0, MS / 2), (300.0, 40 * MS)] {
        let mut path = Path::new(rate * MBIT, round_trip);
        let mut flight = Flight::new(path.now);
        let part = fill(&mut flight, &mut path, 1500, 10 * round_trip);
        assert!(part > 0.75, "{rate} Mbit/s, {round_trip:?}: {part}");
    }
}

#[test]
fn a_connection_that_begins_after_little_was_sent_is_not_held_back() {
    let round_trip = 40 * MS;
    let mut path = Path::new(1000.0 * MBIT, round_trip);
    let mut flight = Flight::new(path.now);
    for _ in 0..120 {
        path.left = 500.0;
        fill(&mut flight, &mut path, 100, round_trip);
    }
    // TCP's slow start: twice as much in each round trip.
    let mut window = 14_000.0;
    path.left = 0.0;
    for _ in 0..9 {
        path.left += window;
        fill(&mut flight, &mut path, 1500, round_trip);
        assert!(path.left < window / 4.0, "{} of {window}", path.left);
        window *= 2.0;
    }
}

#[test]
fn a_path_that_changes_is_followed() {
    let mut path = Path::new(100.0 * MBIT, MS / 2);
    let mut flight = Flight::new(path.now);
    fill(&mut flight, &mut path, 1500, 3000 * MS);
    for (rate, round_trip) in [
        (10.0, MS / 2),
        (1000.0, MS / 2),
        (1000.0, 15 * MS),
        (1000.0, MS / 2),
        (20.0, 80 * MS),
        (5000.0, MS / 5),
    ] {
        (path.rate, path.round_trip) = (rate * MBIT, round_trip);
        let first = fill(&mut flight, &mut path, 1500, 2000 * MS);
        let part = fill(&mut flight, &mut path, 1500, 2000 * MS);
        let parts = [first, part];
        assert!(
            first > 0.8 && part > 0.9,
            "{rate} Mbit/s, {round_trip:?}: {parts:?}"
        );
        let bound = Duration::from_secs_f64(flight.full_bound() as f64 / path.rate);
        assert!(
            bound < 3 * round_trip + 15 * MS,
            "{rate} Mbit/s, {round_trip:?}: {bound:?}"
        );
    }
}

#[test]
fn a_first_answer_that_was_late_is_forgotten() {
    let mut path = Path::new(100.0 * MBIT, 50 * MS);
    // A TCP connection that does not use the whole limit.
    path.window = 100_000.0;
    let mut flight = Flight::new(path.now);
    fill(&mut flight, &mut path, 1500, 50 * MS);
    path.round_trip = MS / 2;
    fill(&mut flight, &mut path, 1500, 3000 * MS);
    let part = fill(&mut flight, &mut path, 1500, 3000 * MS);
    assert!(part > 0.97, "{part}");
    assert!(path.longest_wait < 6 * MS, "{:?}", path.longest_wait);
}

#[test]
fn stalls_cost_little() {
    // A machine with more processes than processors.
    let mut path = Path::new(5000.0 * MBIT, MS / 2);
    let mut flight = Flight::new(path.now);
    let mut random = 1_u32;
    let (mut stalled, begin) = (Duration::ZERO, path.now);
    for _ in 0..2000 {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let stall = MS * (random >> 24) / 100;
        path.stall(stall);
        stalled += stall;
        fill(&mut flight, &mut path, 1500, 2 * MS);
    }
    let served = path.now - begin - stalled;
    let part = path.served() / (path.rate * served.as_secs_f64());
    assert!(part > 0.97, "{part}");
}

#[test]
fn lost_pongs_cost_little_and_none_at_all_is_waited_out() {
    let mut path = Path::new(100.0 * MBIT, MS);
    let mut flight = Flight::new(path.now);
    path.lost = Some(2);
    let part = fill(&mut flight, &mut path, 1500, 2000 * MS);
    assert!(part > 0.85, "{part}");
    path.lost = Some(1);
    fill(&mut flight, &mut path, 1500, 1000 * MS);
    path.lost = None;
    let part = fill(&mut flight, &mut path, 1500, 2000 * MS);
    assert!(part > 0.8, "{part}");
}

#[test]
fn a_peer_that_answers_what_was_not_asked_changes_nothing() {
    let mut path = Path::new(100.0 * MBIT, MS);
    let mut flight = Flight::new(path.now);
    fill(&mut flight, &mut path, 1500, 500 * MS);
    let (room, delivered) = (flight.room(), flight.delivered);
    for token in [0, 1, flight.sent + 1, u64::MAX, flight.delivered] {
        flight.pong(Pong {
            token,
            at: path.now,
        });
    }
    assert_eq!((flight.room(), flight.delivered), (room, delivered));
}

#[test]
fn a_peer_that_answers_nothing_is_not_held_back_and_costs_no_memory() {
    let mut flight = Flight::new(Instant::now());
    let now = Instant::now();
    for turn in 0..10_000_u32 {
        flight.sent(64 * 1024);
        flight.ping(now + MS * turn);
        assert!(flight.room() > 0);
    }
    assert!(flight.pings.len() <= MOST_PINGS);
}
