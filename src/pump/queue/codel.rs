//! CoDel (RFC 8289): when to drop from a queue whose packets wait too long, by
//! the time that the packet at its head has waited. No clock: times come from
//! the caller.

use std::time::{Duration, Instant};

/// How long packets may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodelSettings {
    /// A wait that is fine for good (RFC 8289, section 4.2).
    pub target: Duration,
    /// How long waits may exceed the target before a drop: about the longest
    /// round trip to be expected (RFC 8289, section 4.3).
    pub interval: Duration,
}

impl Default for CodelSettings {
    /// The target is four times that of the RFC: what drains this queue is the
    /// window of an SSH channel and a TCP connection, which open in bursts.
    fn default() -> Self {
        CodelSettings {
            target: Duration::from_millis(20),
            interval: Duration::from_millis(100),
        }
    }
}

/// What to do with the packet at the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::pump) enum Verdict {
    Deliver,
    /// Drop it, and ask again about the next.
    Drop,
}

/// The state of one queue (RFC 8289, section 5.3).
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::pump) struct Codel {
    /// When waits will have been above the target for an interval.
    first_above: Option<Instant>,
    /// When the next drop is due; after a phase of dropping, when it would have been.
    drop_next: Option<Instant>,
    /// Drops in this phase of dropping.
    count: u32,
    /// The count that this phase, or the last one, started with.
    last_count: u32,
    dropping: bool,
}

impl Codel {
    /// Judges the packet at the head, which has waited for `sojourn`. `spare`
    /// says that so much stands behind it that it may be missed: what is asked
    /// of a queue that is nearly empty is never too much.
    pub(in crate::pump) fn judge(
        &mut self,
        settings: &CodelSettings,
        now: Instant,
        sojourn: Duration,
        spare: bool,
    ) -> Verdict {
        if !self.above_for_an_interval(settings, now, sojourn, spare) {
            self.dropping = false;
            return Verdict::Deliver;
        }
        if !self.dropping {
            self.start(settings, now);
            return Verdict::Drop;
        }
        match self.drop_next {
            Some(due) if now >= due => {
                self.count = self.count.saturating_add(1);
                self.drop_next = due.checked_add(self.spacing(settings));
                Verdict::Drop
            }
            _ => Verdict::Deliver,
        }
    }

    /// The queue is empty.
    pub(in crate::pump) fn emptied(&mut self) {
        self.first_above = None;
        self.dropping = false;
    }

    fn above_for_an_interval(
        &mut self,
        settings: &CodelSettings,
        now: Instant,
        sojourn: Duration,
        spare: bool,
    ) -> bool {
        if sojourn < settings.target || !spare {
            self.first_above = None;
            return false;
        }
        match self.first_above {
            Some(end) => now >= end,
            None => {
                self.first_above = now.checked_add(settings.interval);
                false
            }
        }
    }

    /// Starts to drop: at the rate that was found last time if that is not
    /// long ago, else at the slowest.
    fn start(&mut self, settings: &CodelSettings, now: Instant) {
        let recent = self
            .drop_next
            .is_some_and(|due| now.saturating_duration_since(due) < settings.interval * 16);
        let found = self.count.saturating_sub(self.last_count);
        self.count = if recent && found > 1 { found } else { 1 };
        self.last_count = self.count;
        self.drop_next = now.checked_add(self.spacing(settings));
        self.dropping = true;
    }

    /// The control law: drops come closer with the square root of their count.
    fn spacing(&self, settings: &CodelSettings) -> Duration {
        settings
            .interval
            .div_f64(f64::from(self.count.max(1)).sqrt())
    }
}

#[cfg(test)]
mod tests;
