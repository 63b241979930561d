//! The name of a congestion control of the kernel's TCP, such as `bbr`.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use thiserror::Error;

/// The longest name (TCP_CA_NAME_MAX of the kernel, with its NUL).
const MAX_NAME: usize = 15;

/// A congestion control by its name; the kernel may not have it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct CongestionControl(String);

/// A text that cannot be such a name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("'{0}' is not a congestion control: give a name such as bbr or cubic")]
pub struct CongestionNameError(String);

impl CongestionControl {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CongestionControl {
    type Err = CongestionNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = (1..=MAX_NAME).contains(&text.len());
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        match fits && text.bytes().all(plain) {
            true => Ok(Self(text.to_owned())),
            false => Err(CongestionNameError(text.to_owned())),
        }
    }
}

impl TryFrom<String> for CongestionControl {
    type Error = CongestionNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl fmt::Display for CongestionControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_the_kernel_can_have() {
        for name in ["bbr", "cubic", "reno", "dctcp", "x_y-1", "fifteen-letters"] {
            assert_eq!(name.parse::<CongestionControl>().unwrap().as_str(), name);
        }
        for text in ["", "sixteen-letters-", "a b", "a/b", "bbr\0", "ü"] {
            assert!(text.parse::<CongestionControl>().is_err(), "{text:?}");
        }
    }
}
