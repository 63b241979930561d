//! Connections that were refused: all are counted, and so many are written down
//! that a flood of them fills no disk.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::server::admission::Refused;

/// Records that may come at once.
const BURST: u32 = 100;
/// One more may come after each such time.
const EACH: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Refusals {
    by_reason: BTreeMap<&'static str, u64>,
    /// Records that may be written at once.
    allowed: u32,
    /// When one was last added to them.
    added: Instant,
    suppressed: u64,
}

impl Refusals {
    pub fn new(now: Instant) -> Self {
        Self {
            by_reason: BTreeMap::new(),
            allowed: BURST,
            added: now,
            suppressed: 0,
        }
    }

    /// Counts one; yields how many were not written down before it, where it is
    /// to be written down itself.
    pub fn count(&mut self, why: Refused, now: Instant) -> Option<u64> {
        *self.by_reason.entry(why.name()).or_default() += 1;
        let passed = now.saturating_duration_since(self.added);
        let earned = u32::try_from(passed.as_millis() / EACH.as_millis()).unwrap_or(u32::MAX);
        if earned > 0 {
            self.allowed = self.allowed.saturating_add(earned).min(BURST);
            // What is short of one more is kept for the next.
            self.added = now - (passed - passed.min(EACH.saturating_mul(earned)));
        }
        if self.allowed == 0 {
            self.suppressed += 1;
            return None;
        }
        self.allowed -= 1;
        Some(std::mem::take(&mut self.suppressed))
    }

    pub fn by_reason(&self) -> &BTreeMap<&'static str, u64> {
        &self.by_reason
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_not_written_down() {
        let start = Instant::now();
        let mut refusals = Refusals::new(start);
        let written = (0..1000).filter_map(|_| refusals.count(Refused::Startups, start));
        assert_eq!(written.collect::<Vec<_>>(), [0; BURST as usize]);
        let later = start + EACH * 3 / 2;
        assert_eq!(refusals.count(Refused::SourceStartups, later), Some(900));
        assert_eq!(refusals.count(Refused::Startups, later), None);
        // The half that was left over counts.
        assert_eq!(refusals.count(Refused::Startups, start + 2 * EACH), Some(1));
        let by_reason = refusals.by_reason();
        assert_eq!(by_reason[Refused::Startups.name()], 1002);
        assert_eq!(by_reason[Refused::SourceStartups.name()], 1);
    }
}
