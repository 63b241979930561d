//! The one token bucket of the program: bytes a second, records a second, requests
//! a second. It has no clock; each call is told the time.
//!
//! It counts in time (GCRA, ITU-T I.371): taking tokens moves the time of the next
//! one, and an idle bucket lags behind the clock by at most its burst.

use std::time::{Duration, Instant};

/// A bucket from which any cost may be taken at once, and is paid for afterwards.
#[derive(Debug)]
pub struct TokenBucket {
    /// The burst, in time.
    burst: Duration,
    /// When the next may be taken; `None` before the first.
    due: Option<Instant>,
}

impl TokenBucket {
    /// A full one; after a pause it takes costs of `burst` in all, and one more.
    pub const fn new(burst: Duration) -> Self {
        TokenBucket { burst, due: None }
    }

    /// When the next may be taken; nothing where that is since ever.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether something may be taken.
    pub fn is_open(&self, now: Instant) -> bool {
        self.due.is_none_or(|due| due <= now)
    }

    /// Takes what costs that much time, open or not.
    pub fn take(&mut self, cost: Duration, now: Instant) {
        let full = now.checked_sub(self.burst).unwrap_or(now);
        let from = self.due.unwrap_or(full).max(full);
        // Where time ends nothing more is taken.
        self.due = from.checked_add(cost).or(self.due);
    }

    /// Forgets what was taken.
    pub fn clear(&mut self) {
        self.due = None;
    }
}

/// Limits events of one kind, so that a flood of them fills neither disk nor memory.
/// Counts the events that were left out.
#[derive(Debug)]
pub struct Allowance {
    bucket: TokenBucket,
    each: Duration,
    suppressed: u64,
}

impl Allowance {
    /// `burst` at once, at least one, and one more after each such time.
    pub const fn new(burst: u32, each: Duration) -> Self {
        Allowance {
            bucket: TokenBucket::new(each.saturating_mul(burst.saturating_sub(1))),
            each,
            suppressed: 0,
        }
    }

    /// Whether none is left.
    pub fn is_exhausted(&self, now: Instant) -> bool {
        !self.bucket.is_open(now)
    }

    /// Takes one; returns how many were left out before it, or `None` if this one has
    /// to be left out.
    pub fn take(&mut self, now: Instant) -> Option<u64> {
        if self.is_exhausted(now) {
            self.suppressed += 1;
            return None;
        }
        self.bucket.take(self.each, now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_left_out() {
        let (start, each) = (Instant::now(), Duration::from_millis(100));
        let mut allowance = Allowance::new(50, each);
        let written = (0..1000).filter_map(|_| allowance.take(start));
        assert_eq!(written.collect::<Vec<_>>(), [0; 50]);
        let later = start + each * 3 / 2;
        assert_eq!(allowance.take(later), Some(950));
        assert_eq!(allowance.take(later), None);
        // The half that was left over counts.
        assert_eq!(allowance.take(start + 2 * each), Some(1));
        // A long time earns no more than a burst.
        let days = start + Duration::from_secs(1_000_000);
        let written = (0..1000).filter_map(|_| allowance.take(days));
        assert_eq!(written.count(), 50);
    }

    #[test]
    fn one_at_a_time_keeps_its_distance_after_a_pause_too() {
        let (start, each) = (Instant::now(), Duration::from_secs(5));
        let mut allowance = Allowance::new(1, each);
        let pause = start + each * 3 / 2;
        for first in [start, pause] {
            assert_eq!(allowance.take(first), Some(0));
            assert!(allowance.is_exhausted(first + each - Duration::from_nanos(1)));
            assert!(!allowance.is_exhausted(first + each));
        }
    }

    #[test]
    fn a_cost_without_end_is_not_taken() {
        let now = Instant::now();
        let mut bucket = TokenBucket::new(Duration::ZERO);
        bucket.take(Duration::MAX, now);
        assert!(bucket.is_open(now) && bucket.due().is_none());
        bucket.take(Duration::from_secs(1), now);
        bucket.take(Duration::MAX, now);
        assert_eq!(bucket.due(), Some(now + Duration::from_secs(1)));
        bucket.clear();
        assert!(bucket.is_open(now));
    }
}
