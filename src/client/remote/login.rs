//! What the login may not do on the remote host, in that host's own words.

use std::fmt;

use thiserror::Error;

use crate::ssh::client::prompt::terminal_text;

/// The login's shell did not run what it was given: it is no shell, or a command is forced.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{host}: the login runs no commands as given: {said}; use a login with a POSIX shell, and \
     without a ForceCommand or command="
)]
pub struct NoCommands {
    /// The remote end.
    pub host: String,
    /// The output, and how it ended.
    pub said: String,
}

/// Characters of sudo's words that are shown, at most.
const SHOWN: usize = 200;

/// Why `sudo -n` does not work there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SudoRefusal {
    /// It is not installed.
    Missing,
    /// It would have to ask for a password. It asks also those who have no right at all.
    Password(String),
    /// sudoers has `requiretty`.
    Terminal(String),
    /// It refuses for another reason.
    Refused(String),
}

impl SudoRefusal {
    /// Reads what `sudo -n` printed in the C locale; nothing if there is no sudo.
    pub fn of(said: &str) -> Self {
        let said: String = terminal_text::line(said.trim())
            .chars()
            .take(SHOWN)
            .collect();
        if said.is_empty() {
            SudoRefusal::Missing
        } else if said.contains("a password is required") {
            SudoRefusal::Password(said)
        } else if said.contains("must have a tty") {
            SudoRefusal::Terminal(said)
        } else {
            SudoRefusal::Refused(said)
        }
    }
}

impl fmt::Display for SudoRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SudoRefusal::Missing => f.write_str("there is no sudo there"),
            SudoRefusal::Password(said) => write!(f, "sudo asks for a password there (\"{said}\")"),
            SudoRefusal::Terminal(said) => write!(
                f,
                "sudo wants a terminal there (\"{said}\"; '!requiretty' in sudoers lifts that)"
            ),
            SudoRefusal::Refused(said) => write!(f, "sudo refuses there (\"{said}\")"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_a_sentence_with_the_words() {
        let text = |said| SudoRefusal::of(said).to_string();
        assert_eq!(text(" \n"), "there is no sudo there");
        for (said, expected) in [
            ("sudo: a password is required", "asks for a password"),
            (
                "sudo: sorry, you must have a tty to run sudo\n",
                "!requiretty",
            ),
            ("alice is not in the sudoers file.", "sudo refuses there"),
        ] {
            let text = text(said);
            assert!(
                text.contains(expected) && text.contains(said.trim()),
                "{text}"
            );
        }
        assert!(!text("\x1b[2J").contains('\x1b'));
    }
}
