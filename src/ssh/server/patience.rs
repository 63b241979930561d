//! How much refusing a client may cause: each refusal is memory until it is sent.

use std::time::{Duration, Instant};

/// Refusals in a row. A browser behind -D may well ask for hundreds of hosts that
/// it may not reach.
const MOST: u32 = 1000;

/// One more is allowed after each of these.
const RECOVERY: Duration = Duration::from_millis(20);

/// The patience with one client.
#[derive(Debug)]
pub(super) struct Patience {
    left: u32,
    counted_at: Instant,
}

impl Patience {
    /// All of it.
    pub(super) fn new(now: Instant) -> Self {
        Patience {
            left: MOST,
            counted_at: now,
        }
    }

    /// Takes from it for one refusal; false once there is none left.
    pub(super) fn try_refuse(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.counted_at);
        let recovered = passed.as_millis() / RECOVERY.as_millis();
        if let Ok(recovered @ 1..) = u32::try_from(recovered.min(u128::from(MOST))) {
            self.left = self.left.saturating_add(recovered).min(MOST);
            self.counted_at = now;
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends_and_comes_back() {
        let start = Instant::now();
        let mut patience = Patience::new(start);
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
    fn a_slow_client_never_runs_out() {
        let mut now = Instant::now();
        let mut patience = Patience::new(now);
        for _ in 0..5000 {
            now += RECOVERY;
            assert!(patience.try_refuse(now));
        }
    }
}
