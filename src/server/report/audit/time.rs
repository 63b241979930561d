//! Timestamps of the log (RFC 3339, in UTC).

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

/// A time in milliseconds; a time before 1970 counts as 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(Duration);

impl Timestamp {
    /// The time since 1970, without leap seconds.
    pub fn since_epoch(self) -> Duration {
        self.0
    }

    /// The time since `earlier`; zero if the clock was set back.
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
        let milliseconds = i64::try_from(self.0.as_millis()).unwrap_or(i64::MAX);
        let time = jiff::Timestamp::from_millisecond(milliseconds);
        // jiff's calendar ends with the year 9999.
        write!(f, "{:.3}", time.unwrap_or(jiff::Timestamp::MAX))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
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
