//! The error that ends a run: its message and the exit code.

use std::fmt;

/// An error that ends the program.
#[derive(Debug)]
pub struct Failure {
    error: anyhow::Error,
    code: u8,
}

impl Failure {
    /// The exit code of ssh for its own errors (ssh(1), EXIT STATUS).
    pub const SSH: u8 = 255;
    /// The exit code for errors of this host or of the request.
    pub const LOCAL: u8 = 1;

    /// An error of the connection or the server, or the server's refusal.
    pub fn ssh(error: impl Into<anyhow::Error>) -> Self {
        Failure {
            error: error.into(),
            code: Self::SSH,
        }
    }

    /// An error of this host or of the request.
    pub fn local(error: impl Into<anyhow::Error>) -> Self {
        Failure {
            error: error.into(),
            code: Self::LOCAL,
        }
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.error.to_string();
        for cause in self.error.chain().skip(1) {
            let cause = cause.to_string();
            // The text of an error often contains its cause's.
            if !text.contains(&cause) {
                text = format!("{text}: {cause}");
            }
        }
        f.write_str(&without_numbers(&text))
    }
}

/// Removes Rust's "(os error N)", which adds nothing to the words.
fn without_numbers(text: &str) -> String {
    let mut pieces = text.split(" (os error ");
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        plain.push_str(piece.split_once(')').map_or("", |(_, rest)| rest));
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn each_cause_is_told_once() {
        let refused = || std::io::Error::from_raw_os_error(nix::libc::ECONNREFUSED);
        let told = format!("cannot bind: {}; try another", refused());
        let failure = Failure::ssh(anyhow::Error::from(refused()).context(told));
        let text = failure.to_string();
        assert_eq!(text, "cannot bind: Connection refused; try another");
        let cause: Result<(), _> = Err(refused());
        let failure = Failure::local(cause.context("cannot ask").unwrap_err());
        assert_eq!(failure.to_string(), "cannot ask: Connection refused");
    }
}
