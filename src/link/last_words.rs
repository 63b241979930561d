//! Keeps the end of a process's standard error, and its exit, for the error message that
//! may follow.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::ssh::channel::process::Exit;
use crate::ssh::client::prompt::terminal_text;

/// Bytes kept at most.
const KEPT: usize = 2048;
/// Lines in an error, at most.
const SHOWN_LINES: usize = 3;
/// Characters in an error, at most.
const SHOWN: usize = 300;

/// The last words of one process, shared by clones.
#[derive(Debug, Clone, Default)]
pub struct LastWords(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    errors: Vec<u8>,
    exit: Option<Exit>,
}

impl LastWords {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends output of its standard error.
    pub fn heard(&self, data: &[u8]) {
        let mut kept = self.kept();
        let new = data.get(data.len().saturating_sub(KEPT)..);
        kept.errors.extend_from_slice(new.unwrap_or_default());
        let surplus = kept.errors.len().saturating_sub(KEPT);
        kept.errors.drain(..surplus);
    }

    /// Records how it ended.
    pub fn ended(&self, exit: Exit) {
        self.kept().exit = Some(exit);
    }

    /// Whether its end is recorded.
    pub fn has_ended(&self) -> bool {
        self.kept().exit.is_some()
    }
}

impl fmt::Display for LastWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self.kept();
        let said = last_lines(&kept.errors);
        let exit = match &kept.exit {
            Some(Exit::Code(code)) => format!("it ended with code {code}"),
            Some(Exit::Signal(name)) => format!("it was killed by SIG{name}"),
            None => "it ended".to_owned(),
        };
        match said.is_empty() {
            true => f.write_str(&exit),
            false => write!(f, "{said} ({exit})"),
        }
    }
}

/// The last lines of a process's output, as one line of printable text.
pub fn last_lines(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let lines: Vec<String> = text
        .lines()
        .map(|line| terminal_text::line(line.trim()))
        .filter(|line| !line.is_empty())
        .collect();
    let first = lines.len().saturating_sub(SHOWN_LINES);
    let joined = lines.get(first..).unwrap_or_default().join("; ");
    let surplus = joined.chars().count().saturating_sub(SHOWN);
    let shown: String = joined.chars().skip(surplus).collect();
    if surplus > 0 {
        return format!("…{shown}");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_shown_and_no_more_is_kept() {
        let words = LastWords::default();
        assert_eq!(words.to_string(), "it ended");
        for _ in 0..1000 {
            words.heard(&[b'x'; 3000]);
        }
        assert!(words.kept().errors.len() <= KEPT);
        words.heard(b"\none\n\ntwo\x1b[2J\r\nthree\nfo");
        words.heard(b"ur\n");
        words.ended(Exit::Code(127));
        assert_eq!(
            words.to_string(),
            "two[2J; three; four (it ended with code 127)"
        );
    }

    #[test]
    fn a_long_line_is_cut_at_its_front() {
        let shown = last_lines("ä".repeat(5000).as_bytes());
        assert_eq!(shown.chars().count(), SHOWN + 1);
    }
}
