//! How many records of one kind are written down, so that a flood of what causes
//! them fills no disk: so many at once, and then one after each piece of time.

use std::time::{Duration, Instant};

/// A bucket of records that may be written.
#[derive(Debug)]
pub struct Allowance {
    burst: u32,
    each: Duration,
    /// Records that may be written at once.
    left: u32,
    /// When one was last added to them.
    added: Instant,
    suppressed: u64,
}

impl Allowance {
    /// `burst` records at once, and one more after each such time.
    pub fn new(burst: u32, each: Duration, now: Instant) -> Self {
        Self {
            burst,
            each,
            left: burst,
            added: now,
            suppressed: 0,
        }
    }

    /// Takes one; yields how many had to be left out before it, or nothing where
    /// it has to be left out itself.
    pub fn take(&mut self, now: Instant) -> Option<u64> {
        let passed = now.saturating_duration_since(self.added);
        let earned = passed.as_nanos() / self.each.as_nanos().max(1);
        let earned = u32::try_from(earned).unwrap_or(u32::MAX);
        if earned > 0 {
            self.left = self.left.saturating_add(earned).min(self.burst);
            // What is short of one more is kept for the next.
            let used = self.each.saturating_mul(earned).min(passed);
            self.added += used;
        }
        if self.left == 0 {
            self.suppressed += 1;
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_left_out() {
        let (start, each) = (Instant::now(), Duration::from_millis(100));
        let mut allowance = Allowance::new(50, each, start);
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
}
