//! Limits the refusals that a client can cause: each refusal takes memory until it is sent.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::process::token_bucket::Allowance;

/// Refusals in a row. A browser behind -D may well ask for hundreds of hosts that
/// it may not reach.
const MOST: u32 = 1000;

/// One more refusal is allowed after this time.
const RECOVERY: Duration = Duration::from_millis(20);

/// The refusals left for one client; everything that refuses has a clone.
#[derive(Debug, Clone)]
pub(super) struct RefusalLimit(Arc<Mutex<Allowance>>);

impl RefusalLimit {
    /// All of it.
    pub(super) fn new() -> Self {
        RefusalLimit(Arc::new(Mutex::new(Allowance::new(MOST, RECOVERY))))
    }

    /// Counts one refusal; false if none is left.
    pub(super) fn try_refuse(&self, now: Instant) -> bool {
        self.left().take(now).is_some()
    }

    /// Counts a refusal that has been sent already.
    pub(super) fn refused(&self, now: Instant) {
        self.try_refuse(now);
    }

    /// Whether no refusal is left.
    pub(super) fn is_exhausted(&self, now: Instant) -> bool {
        self.left().is_exhausted(now)
    }

    fn left(&self) -> MutexGuard<'_, Allowance> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_run_out_and_come_back() {
        let start = Instant::now();
        let refusals_left = RefusalLimit::new();
        let refused = (0..5000)
            .filter(|_| refusals_left.try_refuse(start))
            .count();
        assert_eq!(refused, MOST as usize);
        let later = start + RECOVERY * 3;
        let refused = (0..10).filter(|_| refusals_left.try_refuse(later)).count();
        assert_eq!(refused, 3);
        let much_later = later + Duration::from_secs(86400);
        let refused = (0..5000)
            .filter(|_| refusals_left.try_refuse(much_later))
            .count();
        assert_eq!(refused, MOST as usize);
    }

    #[test]
    fn refusals_elsewhere_exhaust_it_too() {
        let start = Instant::now();
        let refusals_left = RefusalLimit::new();
        let elsewhere = refusals_left.clone();
        for _ in 0..MOST {
            assert!(!refusals_left.is_exhausted(start));
            elsewhere.refused(start);
        }
        assert!(refusals_left.is_exhausted(start));
        assert!(!refusals_left.is_exhausted(start + RECOVERY));
    }

    #[test]
    fn a_slow_client_never_runs_out() {
        let mut now = Instant::now();
        let refusals_left = RefusalLimit::new();
        for _ in 0..5000 {
            now += RECOVERY;
            assert!(refusals_left.try_refuse(now));
        }
    }
}
