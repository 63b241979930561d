//! Measures the delivery rate of a path, from the bytes that have arrived by certain
//! times; for `flight`.

use std::time::{Duration, Instant};

/// The shortest measurement, in time and in round trips: a shorter one would measure a
/// process that was just scheduled.
const RATE_TIME: (Duration, u32) = (Duration::from_millis(20), 2);
/// How long the highest rate is remembered while lower ones are measured, in time and in
/// round trips; for as long the path counts as unknown.
const RATE_WINDOW: (Duration, u32) = (Duration::from_millis(500), 5);

/// The bytes that have arrived by some time.
#[derive(Debug, Clone, Copy)]
pub(in crate::pump) struct Delivered {
    /// All bytes so far.
    pub bytes: u64,
    /// When the pong came.
    pub at: Instant,
    /// When its ping was sent.
    pub sent_at: Instant,
    /// The path was the limit, not the amount to send.
    pub busy: bool,
}

/// The rate of a path in bytes per second.
#[derive(Debug, Default)]
pub(in crate::pump) struct DeliveryRate {
    /// The start of the measurement.
    since: Option<Delivered>,
    rates: HighestRate,
}

impl DeliveryRate {
    /// The highest recent rate.
    pub fn highest(&self) -> Option<f64> {
        self.rates.highest()
    }

    /// The last measured rate. It is right on a path that has become slower, while the
    /// highest is not.
    pub fn latest(&self) -> f64 {
        self.rates.latest
    }

    /// Whether it was measured for long enough.
    pub fn is_settled(&self) -> bool {
        self.rates.settled
    }

    /// Whether the path was the limit for long enough: the rate is the path's, not the
    /// sender's.
    pub fn is_of_path(&self) -> bool {
        self.rates.of_path
    }

    /// Takes a measurement, once it is long enough.
    pub fn measure(&mut self, now: Delivered, round_trip: Option<Duration>) {
        let mut since = Delivered { busy: true, ..now };
        if let Some(last) = self.since {
            // The longer of the two times: neither a burst of sending nor a burst of
            // acknowledgments is a rate of the path.
            let sending = now.sent_at.saturating_duration_since(last.sent_at);
            let time = sending.max(now.at.saturating_duration_since(last.at));
            let busy = last.busy && now.busy;
            if time < at_least(RATE_TIME, round_trip) {
                since = Delivered { busy, ..last };
            } else {
                let rate = now.bytes.saturating_sub(last.bytes) as f64 / time.as_secs_f64();
                let window = at_least(RATE_WINDOW, round_trip);
                self.rates.add(rate, busy, now.at, window);
            }
        }
        self.since = Some(since);
    }
}

/// The longer of a time and a number of round trips.
pub(in crate::pump) fn at_least(
    (time, round_trips): (Duration, u32),
    round_trip: Option<Duration>,
) -> Duration {
    time.max(round_trip.unwrap_or_default().saturating_mul(round_trips))
}

/// The highest rate of the last one to two windows, in bytes per second.
#[derive(Debug, Default)]
struct HighestRate {
    before: Option<f64>,
    current: Option<f64>,
    since: Option<Instant>,
    /// A whole window has passed.
    settled: bool,
    /// Since when and until when the path was the limit, at least once in each window.
    busy: Option<(Instant, Instant)>,
    /// Whether that has lasted a whole window once.
    of_path: bool,
    /// The last measured rate.
    latest: f64,
}

impl HighestRate {
    fn highest(&self) -> Option<f64> {
        match (self.before, self.current) {
            (Some(before), Some(current)) => Some(before.max(current)),
            (before, current) => before.or(current),
        }
    }

    /// Adds a measured rate; one without enough to send (`!busy`) counts only if it is
    /// higher than the others.
    fn add(&mut self, rate: f64, busy: bool, now: Instant, window: Duration) {
        self.latest = rate;
        let since = *self.since.get_or_insert(now);
        let passed = now.saturating_duration_since(since) >= window;
        self.settled |= passed;
        if busy {
            let lately = |until| now.saturating_duration_since(until) <= window;
            let since = match self.busy {
                Some((since, until)) if lately(until) => since,
                _ => now,
            };
            self.busy = Some((since, now));
            self.of_path |= now.saturating_duration_since(since) >= window;
        }
        if !busy && self.highest().is_some_and(|highest| rate <= highest) {
            return;
        }
        if passed {
            self.before = self.current.take();
            self.since = Some(now);
        }
        self.current = Some(self.current.map_or(rate, |current| current.max(rate)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(1);

    #[test]
    fn the_highest_is_remembered_for_one_to_two_windows() {
        let (mut rate, start) = (HighestRate::default(), Instant::now());
        let mut highest_at = Vec::new();
        for tenths in 0..40 {
            let measured = if tenths == 5 { 100.0 } else { 10.0 };
            rate.add(measured, true, start + WINDOW * tenths / 10, WINDOW);
            highest_at.push(rate.highest());
            assert_eq!(rate.settled, tenths >= 10);
        }
        assert_eq!(highest_at[4], Some(10.0));
        assert!(
            highest_at[5..15]
                .iter()
                .all(|highest| *highest == Some(100.0))
        );
        assert!(
            highest_at[25..]
                .iter()
                .all(|highest| *highest == Some(10.0))
        );
    }

    #[test]
    fn a_path_that_was_the_limit_for_moments_is_not_known() {
        let (mut rate, start) = (HighestRate::default(), Instant::now());
        for seconds in [0, 2, 10, 11] {
            assert!(!rate.of_path);
            rate.add(1.0, true, start + WINDOW * seconds, WINDOW);
            rate.add(2.0, false, start + WINDOW * seconds, WINDOW);
        }
        assert!(rate.of_path);
    }

    #[test]
    fn a_low_rate_without_anything_to_send_says_nothing() {
        let (mut rate, start) = (HighestRate::default(), Instant::now());
        rate.add(100.0, true, start, WINDOW);
        for seconds in 1..10 {
            rate.add(1.0, false, start + WINDOW * seconds, WINDOW);
        }
        assert_eq!((rate.highest(), rate.latest), (Some(100.0), 1.0));
        rate.add(200.0, false, start + WINDOW * 10, WINDOW);
        assert_eq!(rate.highest(), Some(200.0));
    }
}
