//! Limits the refusals that a client can cause: each refusal takes memory until it is sent.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The number of refusals in a row. A browser that uses -D may request hundreds of hosts
/// that are not permitted.
const MOST: u32 = 1000;

/// One more refusal is allowed after this time.
const RECOVERY: Duration = Duration::from_millis(20);

/// The refusals left for one client; every place that refuses has a clone.
#[derive(Debug, Clone)]
pub(super) struct Patience(Arc<Mutex<Left>>);

#[derive(Debug)]
struct Left {
    refusals: u32,
    counted_at: Instant,
}

impl Patience {
    /// With all refusals left.
    pub(super) fn new(now: Instant) -> Self {
        Patience(Arc::new(Mutex::new(Left {
            refusals: MOST,
            counted_at: now,
        })))
    }

    /// Counts one refusal; false if none is left.
    pub(super) fn try_refuse(&self, now: Instant) -> bool {
        let mut left = self.left(now);
        match left.refusals.checked_sub(1) {
            Some(refusals) => {
                left.refusals = refusals;
                true
            }
            None => false,
        }
    }

    /// Counts a refusal that has been sent already.
    pub(super) fn refused(&self, now: Instant) {
        self.try_refuse(now);
    }

    /// Whether no refusal is left.
    pub(super) fn is_exhausted(&self, now: Instant) -> bool {
        self.left(now).refusals == 0
    }

    fn left(&self, now: Instant) -> MutexGuard<'_, Left> {
        let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_duration_since(left.counted_at);
        let recovered = passed.as_millis() / RECOVERY.as_millis();
        if let Ok(recovered @ 1..) = u32::try_from(recovered.min(u128::from(MOST))) {
            left.refusals = left.refusals.saturating_add(recovered).min(MOST);
            left.counted_at = now;
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends_and_comes_back() {
        let start = Instant::now();
        let patience = Patience::new(start);
        let refused = (0..5000).filter(|_| patience.try_refuse(start)).count();
        assert_eq!(refused, MOST as usize);
        let later = start + RECOVERY * 3;
        let refused = (0..10).filter(|_| patience.try_refuse(later)).count();
        assert_eq!(refused, 3);
        let much_later = later + Duration::from_secs(86400);
        let refused = (0..5000)
            .filter(|_| patience.try_refuse(much_later))
            .count();
        assert_eq!(refused, MOST as usize);
    }

    #[test]
    fn refusals_elsewhere_exhaust_it_too() {
        let start = Instant::now();
        let patience = Patience::new(start);
        let elsewhere = patience.clone();
        for _ in 0..MOST {
            assert!(!patience.is_exhausted(start));
            elsewhere.refused(start);
        }
        assert!(patience.is_exhausted(start));
        assert!(!patience.is_exhausted(start + RECOVERY));
    }

    #[test]
    fn a_slow_client_never_runs_out() {
        let mut now = Instant::now();
        let patience = Patience::new(now);
        for _ in 0..5000 {
            now += RECOVERY;
            assert!(patience.try_refuse(now));
        }
    }
}
