//! Values of the configuration file that are not plain numbers or words. The error for a
//! wrong value names what is accepted.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};

use super::settings::{MaxStartups, Overflow, Penalties};
use crate::config::ssh::syntax::parse_time;

/// A time as sshd_config(5) has it (TIME FORMATS): `30`, `2m`, `1h30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Time(pub(super) Duration);

/// The same, or `none`; zero counts as none, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OptionalTime(pub(super) Option<Duration>);

/// A rate in bytes per second: `100mbit`, `10MB`, `512KiB`, or a number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate(pub(super) u64);

/// A number from 1 on, or `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OptionalCount(pub(super) Option<usize>);

/// A number from 1 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count(pub(super) usize);

/// `PerSourceNetBlockSize`: prefix lengths for IPv4 and IPv6, `32:128`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SourceBlock(pub(super) u8, pub(super) u8);

/// `PerSourcePenalties`: `false`, or a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OptionalPenalties(pub(super) Option<Penalties>);

/// The fingerprint of a key, as `ssh-keygen -l` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fingerprint(pub(super) String);

/// A type above, which is parsed from a word or a number.
trait FromWord: Sized {
    /// The accepted values, for errors.
    const EXPECTED: &'static str;

    fn from_word(word: &str) -> Option<Self>;
}

/// Parses a word, or a number as the word that it is written as.
struct WordVisitor<T>(std::marker::PhantomData<T>);

impl<T: FromWord> Visitor<'_> for WordVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<T, E> {
        let wrong = || E::custom(format_args!("'{word}' is not {}", T::EXPECTED));
        T::from_word(word).ok_or_else(wrong)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

macro_rules! read_from_a_word {
    ($($name:ty),*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from.deserialize_any(WordVisitor(std::marker::PhantomData))
            }
        }
    )*};
}

read_from_a_word!(
    Time,
    OptionalTime,
    Rate,
    OptionalCount,
    Count,
    SourceBlock,
    MaxStartups,
    Overflow,
    Fingerprint
);

impl FromWord for Time {
    const EXPECTED: &'static str = "a time such as 30, \"2m\" or \"1h30m\"";

    fn from_word(word: &str) -> Option<Self> {
        parse_time(word).map(Time)
    }
}

impl FromWord for OptionalTime {
    const EXPECTED: &'static str = "a time such as 30, \"2m\" or \"1h30m\", or \"none\"";

    fn from_word(word: &str) -> Option<Self> {
        if word == "none" {
            return Some(OptionalTime(None));
        }
        let time = parse_time(word)?;
        Some(OptionalTime((!time.is_zero()).then_some(time)))
    }
}

impl FromWord for Rate {
    const EXPECTED: &'static str = "a rate above 0 such as \"100mbit\" (millions of bits per second), \
                                    \"10MB\" or \"10MiB\" (bytes per second)";

    fn from_word(word: &str) -> Option<Self> {
        let digits = word.find(|c: char| !c.is_ascii_digit());
        let (number, unit) = word.split_at_checked(digits.unwrap_or(word.len()))?;
        let number: u64 = number.parse().ok()?;
        let (bits, scale): (bool, u64) = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => (false, 1),
            "kb" => (false, 1000),
            "mb" => (false, 1_000_000),
            "gb" => (false, 1_000_000_000),
            "kib" => (false, 1 << 10),
            "mib" => (false, 1 << 20),
            "gib" => (false, 1 << 30),
            "bit" => (true, 1),
            "kbit" => (true, 1000),
            "mbit" => (true, 1_000_000),
            "gbit" => (true, 1_000_000_000),
            _ => return None,
        };
        let scaled = number.checked_mul(scale)?;
        let bytes = if bits { scaled / 8 } else { scaled };
        (bytes > 0).then_some(Rate(bytes))
    }
}

impl FromWord for Count {
    const EXPECTED: &'static str = "a number from 1 on";

    fn from_word(word: &str) -> Option<Self> {
        word.parse().ok().filter(|&count| count > 0).map(Count)
    }
}

impl FromWord for OptionalCount {
    const EXPECTED: &'static str = "a number from 1 on, or \"none\"";

    fn from_word(word: &str) -> Option<Self> {
        match word {
            "none" => Some(OptionalCount(None)),
            word => Count::from_word(word).map(|Count(count)| OptionalCount(Some(count))),
        }
    }
}

impl FromWord for SourceBlock {
    const EXPECTED: &'static str = "a prefix length for IPv4 (0 to 32) and, after a colon, one for IPv6 (0 to 128): \"32:128\"";

    fn from_word(word: &str) -> Option<Self> {
        let (v4, v6) = word.split_once(':').unwrap_or((word, "128"));
        let within = |text: &str, max: u8| text.parse().ok().filter(|&prefix: &u8| prefix <= max);
        Some(SourceBlock(within(v4, 32)?, within(v6, 128)?))
    }
}

impl FromWord for MaxStartups {
    const EXPECTED: &'static str =
        "START:RATE:FULL, the rate in percent and FULL no less than START: \"10:30:100\"";

    fn from_word(word: &str) -> Option<Self> {
        let mut fields = word.split(':');
        let start = fields.next()?.parse().ok().filter(|&start| start > 0)?;
        let (rate, full) = match fields.next() {
            // A single number is the limit at which all are refused, as with sshd.
            None => (100, start),
            Some(rate) => (rate.parse().ok()?, fields.next()?.parse().ok()?),
        };
        let sound = (1..=100).contains(&rate) && full >= start && fields.next().is_none();
        sound.then_some(MaxStartups { start, rate, full })
    }
}

impl FromWord for Overflow {
    const EXPECTED: &'static str = "\"permissive\" or \"deny-all\"";

    fn from_word(word: &str) -> Option<Self> {
        match word {
            "permissive" => Some(Overflow::Permissive),
            "deny-all" => Some(Overflow::DenyAll),
            _ => None,
        }
    }
}

impl FromWord for Fingerprint {
    const EXPECTED: &'static str = "a fingerprint as 'ssh-keygen -l -f KEY.pub' shows it: \
                                    SHA256: and 43 letters";

    fn from_word(word: &str) -> Option<Self> {
        let hash = word.strip_prefix("SHA256:")?.trim_end_matches('=');
        let bytes = crate::config::keys::base64::decode_unpadded(hash)?;
        (bytes.len() == 32).then(|| Fingerprint(format!("SHA256:{hash}")))
    }
}

/// The table of penalties; absent keys have the defaults of sshd_config(5).
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct PenaltiesTable {
    authfail: Time,
    noauth: Time,
    grace_exceeded: Time,
    crash: Time,
    min: Time,
    max: Time,
    max_sources4: Count,
    max_sources6: Count,
    overflow: Overflow,
    /// The same as for IPv4 if absent.
    overflow6: Option<Overflow>,
}

impl Default for PenaltiesTable {
    fn default() -> Self {
        let usual = Penalties::default();
        Self {
            authfail: Time(usual.authfail),
            noauth: Time(usual.noauth),
            grace_exceeded: Time(usual.grace_exceeded),
            crash: Time(usual.crash),
            min: Time(usual.min),
            max: Time(usual.max),
            max_sources4: Count(usual.max_sources4),
            max_sources6: Count(usual.max_sources6),
            overflow: usual.overflow,
            overflow6: None,
        }
    }
}

struct PenaltiesVisitor;

impl<'de> Visitor<'de> for PenaltiesVisitor {
    type Value = OptionalPenalties;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("false, or a table of penalties such as { authfail = \"5s\" }")
    }

    fn visit_bool<E: de::Error>(self, on: bool) -> Result<OptionalPenalties, E> {
        Ok(OptionalPenalties(on.then(Penalties::default)))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<OptionalPenalties, A::Error> {
        let table = PenaltiesTable::deserialize(de::value::MapAccessDeserializer::new(map))?;
        if table.min.0 > table.max.0 {
            return Err(de::Error::custom("min is larger than max"));
        }
        Ok(OptionalPenalties(Some(Penalties {
            authfail: table.authfail.0,
            noauth: table.noauth.0,
            grace_exceeded: table.grace_exceeded.0,
            crash: table.crash.0,
            min: table.min.0,
            max: table.max.0,
            max_sources4: table.max_sources4.0,
            max_sources6: table.max_sources6.0,
            overflow: table.overflow,
            overflow6: table.overflow6.unwrap_or(table.overflow),
        })))
    }
}

impl<'de> Deserialize<'de> for OptionalPenalties {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(PenaltiesVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: FromWord>(word: &str) -> Option<T> {
        T::from_word(word)
    }

    #[test]
    fn rates_are_bytes_a_second() {
        for (word, expected) in [
            ("100mbit", Some(12_500_000)),
            ("1Gbit", Some(125_000_000)),
            ("64kbit", Some(8000)),
            ("10MB", Some(10_000_000)),
            ("10MiB", Some(10 << 20)),
            ("512", Some(512)),
            ("0", None),
            ("7bit", None),
            ("-1", None),
            ("1.5MB", None),
            ("10 MB", None),
            ("10mbps", None),
            ("99999999999999GB", None),
        ] {
            assert_eq!(read(word).map(|Rate(bytes)| bytes), expected, "{word}");
        }
    }

    #[test]
    fn startups_are_as_sshds() {
        let startups = |start, rate, full| Some(MaxStartups { start, rate, full });
        assert_eq!(read("10:30:100"), startups(10, 30, 100));
        assert_eq!(read("10"), startups(10, 100, 10));
        for wrong in [
            "",
            "0",
            "10:30",
            "10:0:100",
            "10:101:100",
            "10:30:9",
            "1:1:1:1",
            "a:b:c",
        ] {
            assert_eq!(read::<MaxStartups>(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_other_words() {
        assert_eq!(read("24:64"), Some(SourceBlock(24, 64)));
        assert_eq!(read("24"), Some(SourceBlock(24, 128)));
        assert_eq!(read::<SourceBlock>("33:64"), None);
        assert_eq!(read("0"), Some(OptionalTime(None)));
        assert_eq!(read("none"), Some(OptionalTime(None)));
        assert_eq!(
            read("2m"),
            Some(OptionalTime(Some(Duration::from_secs(120))))
        );
        assert_eq!(read("none"), Some(OptionalCount(None)));
        assert_eq!(read::<OptionalCount>("0"), None);
        let print = "SHA256:T7SvZ2cslqpPj6nKzitCBHHlpVF3r3MvLwmFL0fk0IE";
        assert_eq!(read(print), Some(Fingerprint(print.to_owned())));
        assert_eq!(
            read(&format!("{print}=")),
            Some(Fingerprint(print.to_owned()))
        );
        for wrong in ["MD5:46:5d", "SHA256:", &print[7..], &print[..40]] {
            assert_eq!(read::<Fingerprint>(wrong), None, "{wrong}");
        }
    }
}
