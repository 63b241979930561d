//! The highest of the rates that were measured lately, for [`Flight`](super::flight).

use std::time::{Duration, Instant};

/// The highest rate of the last one to two windows, in bytes a second.
#[derive(Debug, Default)]
pub(super) struct HighestRate {
    before: Option<f64>,
    current: Option<f64>,
    since: Option<Instant>,
    /// A whole window has passed.
    pub settled: bool,
    /// The one that was measured last. On a path that has become slower it is
    /// right while the highest is not.
    pub latest: f64,
}

impl HighestRate {
    /// If there is one.
    pub fn highest(&self) -> Option<f64> {
        match (self.before, self.current) {
            (Some(before), Some(current)) => Some(before.max(current)),
            (before, current) => before.or(current),
        }
    }

    /// A rate that was measured; one that is low because nothing was to be sent
    /// (`!busy`) counts only if it is higher than the others.
    pub fn add(&mut self, rate: f64, busy: bool, now: Instant, window: Duration) {
        self.latest = rate;
        let since = *self.since.get_or_insert(now);
        let passed = now.saturating_duration_since(since) >= window;
        self.settled |= passed;
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
