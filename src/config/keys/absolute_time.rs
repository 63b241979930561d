//! Parses sshd's absolute times: `YYYYMMDD` or `YYYYMMDDHHMM[SS]`, in UTC with a final `Z`, else in
//! the host's time zone (sshd(8), `expiry-time`).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// Parses an absolute time; `None` for any other text, including nonexistent days, and for times up
/// to 1970.
pub fn parse_absolute_time(text: &str) -> Option<SystemTime> {
    let lower = text.to_ascii_lowercase();
    let utc = lower.strip_suffix("utc").or(lower.strip_suffix('z'));
    let digits = utc.unwrap_or(&lower);
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let zone = match utc {
        Some(_) => TimeZone::UTC,
        None => TimeZone::system(),
    };
    let part = |from: usize, to: usize| digits.get(from..to)?.parse::<i16>().ok();
    let small = |from: usize| part(from, from + 2).and_then(|part| i8::try_from(part).ok());
    let (hour, minute, second) = match digits.len() {
        8 => (0, 0, 0),
        12 => (small(8)?, small(10)?, 0),
        14 => (small(8)?, small(10)?, small(12)?),
        _ => return None,
    };
    let time = DateTime::new(part(0, 4)?, small(4)?, small(6)?, hour, minute, second, 0).ok()?;
    let seconds = time.to_zoned(zone).ok()?.timestamp().as_second();
    let seconds = u64::try_from(seconds).ok().filter(|&seconds| seconds > 0)?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(text: &str) -> Option<u64> {
        let time = parse_absolute_time(text)?;
        Some(time.duration_since(UNIX_EPOCH).unwrap().as_secs())
    }

    #[test]
    fn times_in_utc() {
        assert_eq!(seconds("20300102Z"), Some(1_893_542_400));
        assert_eq!(seconds("203001020304z"), Some(1_893_553_440));
        assert_eq!(seconds("20300102030405UTC"), Some(1_893_553_445));
        assert_eq!(seconds("20240229Z"), Some(1_709_164_800));
    }

    #[test]
    fn times_without_a_zone_are_those_of_the_host() {
        let date = |arguments: &[&str]| {
            let output = std::process::Command::new("date").args(arguments).output();
            let text = String::from_utf8(output.unwrap().stdout).unwrap();
            text.trim().parse::<u64>().ok()
        };
        let expected = date(&["-d", "2030-07-02 03:04:05", "+%s"]);
        assert_eq!(seconds("20300702030405"), expected);
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for wrong in [
            "",
            "Z",
            "UTC",
            "2030",
            "20301301Z",
            "20300230",
            "2030010224",
            "203001022400",
            "20300102030460Z",
            "+2030102",
            "2030 102",
            "203001021Z",
            "19691231Z",
            "19700101Z",
            "20300102T",
            "２０３０",
        ] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }
}
