//! Text that a peer may have written: limited in length when it is received, and escaped
//! when it is shown on a terminal.

use std::fmt::{self, Write};

use serde::{Deserialize, Serialize};

use crate::ssh::client::prompt::terminal_text::is_shown;

/// Limit of the kept text, in bytes.
const LONGEST: usize = 256;

/// A length-limited text from a peer.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String")]
pub struct Text(String);

impl Text {
    /// The text as received, up to its limit.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        if text.len() <= LONGEST {
            return Self(text.to_owned());
        }
        let end = text.floor_char_boundary(LONGEST);
        Self(format!("{}…", text.get(..end).unwrap_or_default()))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

/// For people: characters that move the cursor or change the writing direction are shown
/// as their numbers.
impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = String::with_capacity(self.0.len());
        for character in self.0.chars() {
            if !is_shown(character) {
                write!(shown, "{}", character.escape_unicode())?;
            } else {
                shown.push(character);
            }
        }
        f.pad(&shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_is_cut_between_characters() {
        let text = Text::from("ä".repeat(1000));
        assert_eq!(text.as_str().chars().filter(|c| *c == 'ä').count(), 128);
        assert!(text.as_str().ends_with('…'));
        let odd = Text::from(format!("x{}", "ä".repeat(1000)));
        assert_eq!(odd.as_str().len(), 255 + '…'.len_utf8());
        assert_eq!(Text::from("alice").as_str(), "alice");
        let read: Text = serde_json::from_str(&format!("\"{}\"", "a".repeat(999))).unwrap();
        assert!(read.as_str().len() < 300);
    }

    #[test]
    fn a_terminal_obeys_none_of_it() {
        let text = Text::from("a\x1b[2J\u{9b}1m\r\n\u{202e}b\u{200b}");
        assert_eq!(
            text.to_string(),
            "a\\u{1b}[2J\\u{9b}1m\\u{d}\\u{a}\\u{202e}b\\u{200b}"
        );
        assert_eq!(
            serde_json::to_string(&Text::from("\"\n\x1b")).unwrap(),
            r#""\"\n\u001b""#
        );
    }
}
