//! A domain name that is safe in a resolver's settings and on a command line.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The limit of a name, in bytes as text without the final dot (RFC 1035, section 2.3.4).
const LONGEST: usize = 253;
/// The limit of one label, in bytes.
const LONGEST_LABEL: usize = 63;

/// The text is not a domain name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "'{}' is not a domain name: letters, digits, '-' and '_' in labels of at most 63, separated by dots",
    .0.escape_debug()
)]
pub struct DomainNameError(String);

/// A domain name of at least one label, in lower case, without a final dot. Internationalized names
/// must be in their ASCII form (RFC 5890).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DomainName(String);

impl DomainName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DomainName {
    type Err = DomainNameError;

    fn from_str(text: &str) -> Result<Self, DomainNameError> {
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.len() <= LONGEST && name.split('.').all(is_label) {
            return Ok(DomainName(name.to_ascii_lowercase()));
        }
        Err(DomainNameError(text.chars().take(LONGEST_LABEL).collect()))
    }
}

/// Whether the text is a valid label. No label begins with a hyphen, so that no name is taken for
/// an option.
fn is_label(label: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=LONGEST_LABEL).contains(&label.len())
        && label.bytes().all(plain)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

impl TryFrom<String> for DomainName {
    type Error = DomainNameError;

    fn try_from(text: String) -> Result<Self, DomainNameError> {
        text.parse()
    }
}

impl From<DomainName> for String {
    fn from(name: DomainName) -> String {
        name.0
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_what_could_be_anything_else_is_not() {
        for (text, name) in [
            ("Corp.Example.", "corp.example"),
            ("lan", "lan"),
            ("_tcp.a-b.x1", "_tcp.a-b.x1"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ] {
            assert_eq!(text.parse::<DomainName>().unwrap().as_str(), name);
        }
        let long = format!("{}a", "a.".repeat(127));
        for wrong in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "-a",
            "a-",
            "--help",
            "~.",
            "a b",
            "a\nnameserver 1.1.1.1",
            "a#",
            "bücher.example",
            "a/b",
            &"a".repeat(64),
            &long,
        ] {
            let error = wrong.parse::<DomainName>().unwrap_err().to_string();
            assert!(!error.contains('\n'), "{error}");
        }
        assert!(long[2..].parse::<DomainName>().is_ok());
    }
}
