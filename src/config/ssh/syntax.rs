//! Parses values of ssh_config(5) that are not words: times, sizes, flags, escape characters.

use std::time::Duration;

/// Parses a time ("TIME FORMATS" in sshd_config(5)): `90`, `1h30m`. `None` if it is invalid or more
/// than 2^31-1 seconds.
pub(crate) fn parse_time(text: &str) -> Option<Duration> {
    let mut total: u64 = 0;
    let mut rest = text;
    let mut seen_seconds = false;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit());
        let (number, after) = rest.split_at_checked(digits.unwrap_or(rest.len()))?;
        let unit = after.chars().next().map(|unit| unit.to_ascii_lowercase());
        let seconds = match unit {
            None | Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            Some('d') => 24 * 3600,
            Some('w') => 7 * 24 * 3600,
            Some(_) => return None,
        };
        if seconds == 1 && std::mem::replace(&mut seen_seconds, true) {
            return None;
        }
        let number: u32 = number.parse().ok()?;
        total = total.checked_add(u64::from(number) * seconds)?;
        rest = after.get(1..).unwrap_or("");
    }
    (!text.is_empty() && total <= i32::MAX as u64).then(|| Duration::from_secs(total))
}

/// Parses a size of RekeyLimit: `4096`, `16M`, `1G`, `1.5G`; in bytes.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale: u64 = match text.get(number.len()..)?.to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        "T" => 1 << 40,
        "P" => 1 << 50,
        "E" => 1 << 60,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.len() <= 18 && text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let part = match fraction {
        "" => 0,
        digits => {
            let numerator = u128::from(digits.parse::<u64>().ok()?) * u128::from(scale);
            let denominator = 10u128.pow(u32::try_from(digits.len()).ok()?);
            u64::try_from(numerator / denominator).ok()?
        }
    };
    let bytes = whole.checked_mul(scale)?.checked_add(part)?;
    (bytes <= i64::MAX as u64).then_some(bytes)
}

/// Parses `yes`, `true`, `no` or `false`, ignoring case.
pub(crate) fn parse_flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" => Some(true),
        "no" | "false" => Some(false),
        _ => None,
    }
}

/// Parses EscapeChar: a character, `^X`, or `none`; also in the output format of `ssh -G`, which is
/// vis(3)'s: `\^X`, `\\`, `\040`. The outer `None` means an invalid value.
pub(crate) fn parse_escape_char(text: &str) -> Option<Option<u8>> {
    match *text.as_bytes() {
        [single] => Some(Some(single)),
        [b'^', control @ 64..128] | [b'\\', b'^', control @ 64..128] => Some(Some(control & 31)),
        [b'\\', b'\\'] => Some(Some(b'\\')),
        [b'\\', _, _, _] => u8::from_str_radix(text.get(1..)?, 8).ok().map(Some),
        _ if text == "none" => Some(None),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times() {
        let seconds = |text| parse_time(text).map(|time| time.as_secs());
        assert_eq!(seconds("0"), Some(0));
        assert_eq!(seconds("90"), Some(90));
        assert_eq!(seconds("1h30m"), Some(5400));
        assert_eq!(seconds("1W2D3h4M5s"), Some(788_645));
        assert_eq!(seconds("10m10"), Some(610));
        assert_eq!(seconds("2147483647"), Some(2_147_483_647));
        for wrong in [
            "",
            "s",
            "-1",
            "1x",
            "1s1",
            "1 m",
            "2147483648",
            "99999999999w",
            "1é",
        ] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("0"), Some(0));
        assert_eq!(parse_size("1G"), Some(1 << 30));
        assert_eq!(parse_size("1.5k"), Some(1536));
        assert_eq!(parse_size("7E"), Some(7 << 60));
        for wrong in [
            "",
            "G",
            "-1",
            "1Z",
            "1GB",
            "8E",
            "1.",
            ".5G",
            "1..2",
            "99999999999999999999",
        ] {
            let expected = (wrong == "1.").then_some(1);
            assert_eq!(parse_size(wrong), expected, "{wrong}");
        }
    }

    #[test]
    fn escape_characters() {
        assert_eq!(parse_escape_char("~"), Some(Some(b'~')));
        assert_eq!(parse_escape_char("none"), Some(None));
        assert_eq!(parse_escape_char("^]"), Some(Some(29)));
        assert_eq!(parse_escape_char("\\^]"), Some(Some(29)));
        assert_eq!(parse_escape_char("\\\\"), Some(Some(b'\\')));
        assert_eq!(parse_escape_char("\\040"), Some(Some(b' ')));
        assert_eq!(parse_escape_char("ab"), None);
        assert_eq!(parse_escape_char("\\777"), None);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,12}|[0-9.kKmMgGsSwWé]{0,24}") {
            let _ = parse_time(&text);
            let _ = parse_size(&text);
            let _ = parse_escape_char(&text);
        }
    }
}
