//! CoDel (RFC 8289): decides when to drop from a queue whose packets wait too long, by
//! the waiting time of the packet at its head. It has no clock: the caller passes times.

use std::time::{Duration, Instant};

/// How long packets may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodelSettings {
    /// An acceptable permanent wait (RFC 8289, section 4.2).
    pub target: Duration,
    /// How long waits may exceed the target before a drop: about the longest expected
    /// round trip (RFC 8289, section 4.3).
    pub interval: Duration,
}

impl Default for CodelSettings {
    /// The target is four times that of the RFC: an SSH channel's window and a TCP
    /// connection drain this queue, and both open in bursts.
    fn default() -> Self {
        CodelSettings {
            target: Duration::from_millis(20),
            interval: Duration::from_millis(100),
        }
    }
}

/// The verdict on the packet at the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::pump) enum Verdict {
    Deliver,
    /// Drop it, and judge the next one.
    Drop,
}

/// The state of one queue (RFC 8289, section 5.3).
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::pump) struct Codel {
    /// When waits will have exceeded the target for an interval.
    first_above: Option<Instant>,
    /// When the next drop is due; after a dropping phase, when it would have been due.
    drop_next: Option<Instant>,
    /// Drops in this dropping phase.
    count: u32,
    /// The count at the start of this phase, or of the last one.
    last_count: u32,
    dropping: bool,
}

impl Codel {
    /// Judges the packet at the head, which has waited for `sojourn`. `spare` says that
    /// more than a quantum waits behind it: a queue that is nearly empty drops nothing.
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

    /// Starts to drop: at the last phase's rate if that was recent, else at the slowest.
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

    /// The control law: the interval between drops shrinks with the square root of their
    /// count.
    fn spacing(&self, settings: &CodelSettings) -> Duration {
        settings
            .interval
            .div_f64(f64::from(self.count.max(1)).sqrt())
    }
}

#[cfg(test)]
mod tests;
