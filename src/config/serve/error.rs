//! Why the settings of a server cannot be used.

use std::path::PathBuf;

use thiserror::Error;

use super::checks::CheckError;
use crate::config::keys::trusted_file::TrustedFileError;

/// Why the settings of a server cannot be read.
#[derive(Debug, Error)]
pub enum ServeConfigError {
    /// The file cannot be read, or another user can write it.
    #[error(transparent)]
    File(#[from] TrustedFileError),
    /// The file of `--config` does not exist.
    #[error("{}: there is no such file (--config)", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file has a syntax error or an unknown key.
    #[error("{}: {reason}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The error and its line.
        reason: String,
    },
    /// The settings contradict each other.
    #[error("{place}: {problem}")]
    Check {
        /// The file and the line, or "command line".
        place: String,
        /// The contradiction.
        problem: CheckError,
    },
}
