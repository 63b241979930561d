//! Why a server has no settings to run with.

use std::path::PathBuf;

use thiserror::Error;

use super::checks::CheckError;
use crate::config::keys::trusted_file::TrustedFileError;

/// Why the settings of a server could not be had.
#[derive(Debug, Error)]
pub enum ServeConfigError {
    /// The file cannot be read, or others can write it.
    #[error(transparent)]
    File(#[from] TrustedFileError),
    /// There is no such file.
    #[error("{}: there is no such file (--config)", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// Not what it should be.
    #[error("{}: {reason}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong, and on which line.
        reason: String,
    },
    /// What is set contradicts itself.
    #[error("{place}: {problem}")]
    Check {
        /// The file and the line, or "command line".
        place: String,
        /// What is wrong.
        problem: CheckError,
    },
}
