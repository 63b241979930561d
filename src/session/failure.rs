//! How a run ends badly: what to print, and the exit code.

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
    /// For errors of this host or of what was asked.
    pub const LOCAL: u8 = 1;

    /// The connection, the far end or its refusal.
    pub fn ssh(error: impl Into<anyhow::Error>) -> Self {
        Failure {
            error: error.into(),
            code: Self::SSH,
        }
    }

    /// This host, or what was asked of it.
    pub fn local(error: impl Into<anyhow::Error>) -> Self {
        Failure {
            error: error.into(),
            code: Self::LOCAL,
        }
    }

    /// What the program exits with.
    pub fn code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.error)
    }
}
