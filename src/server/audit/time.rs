//! Points in time as the log writes them (RFC 3339, in UTC).

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

const DAY: u64 = 24 * 3600;
/// Days of 400 years, after which the calendar begins again.
const CYCLE: u64 = 146_097;
const MONTHS: [u64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/// A point in time, in milliseconds; what was before 1970 counts as its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(Duration);

impl Timestamp {
    /// Since 1970, without leap seconds.
    pub fn since_epoch(self) -> Duration {
        self.0
    }

    /// What passed since `earlier`; nothing, where the clock was set back.
    pub fn since(self, earlier: Timestamp) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        Self(time.duration_since(UNIX_EPOCH).unwrap_or_default())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, milliseconds) = (self.0.as_secs(), self.0.subsec_millis());
        let (year, month, day) = date(seconds / DAY);
        let (hour, minute, second) = (seconds % DAY / 3600, seconds / 60 % 60, seconds % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milliseconds:03}Z"
        )
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The Gregorian year, month and day that is `days` after 1970-01-01.
fn date(days: u64) -> (u64, usize, u64) {
    let mut year = 1970 + days / CYCLE * 400;
    let mut left = days % CYCLE;
    while left >= 365 + u64::from(is_leap(year)) {
        left -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    for (index, length) in MONTHS.into_iter().enumerate() {
        let length = length + u64::from(index == 1 && is_leap(year));
        if left < length {
            return (year, index + 1, left + 1);
        }
        left -= length;
    }
    // The months of a year have all its days.
    (year, 12, 31)
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn at(seconds: u64) -> String {
        Timestamp(Duration::from_secs(seconds)).to_string()
    }

    #[test]
    fn agrees_with_date() {
        // Ends of months and years, leap days, and the 28th century.
        for seconds in [
            0,
            951_782_399,
            951_782_400,
            951_868_800,
            1_704_067_199,
            1_709_164_800,
            4_107_542_400,
            13_569_465_600,
            25_000_000_000,
        ] {
            let output = Command::new("date")
                .args(["-u", "-d", &format!("@{seconds}"), "+%Y-%m-%dT%H:%M:%S"])
                .output()
                .unwrap();
            let expected = String::from_utf8(output.stdout).unwrap();
            assert_eq!(at(seconds), format!("{}.000Z", expected.trim()));
        }
    }

    #[test]
    fn no_time_is_too_far_away() {
        assert!(at(u64::MAX).ends_with('Z'));
        let before = UNIX_EPOCH - Duration::from_secs(5);
        assert_eq!(Timestamp::from(before).to_string(), at(0));
    }
}
