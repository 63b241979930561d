//! What can go wrong between the command line and a set of settings.

use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::Uid;
use thiserror::Error;

use crate::types::ParseError;

/// Why the settings for a destination could not be had.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The passwd database does not know the person who runs the program.
    #[error("no user with id {0} in the passwd database")]
    NoSuchUser(Uid),
    /// `~name` of someone the passwd database does not know.
    #[error("{path}: no user '{user}' in the passwd database")]
    NoSuchHome {
        /// The path as written.
        path: String,
        /// The name after the tilde.
        user: String,
    },
    /// sudo's variables contradict each other or the passwd database.
    #[error(
        "SUDO_USER={name}, SUDO_UID={uid} and SUDO_GID={gid} do not describe one user of this host: run through sudo itself, or unset them"
    )]
    Sudo {
        /// `SUDO_USER`.
        name: String,
        /// `SUDO_UID`.
        uid: String,
        /// `SUDO_GID`.
        gid: String,
    },
    /// doas or pkexec names a caller whom the passwd database does not know.
    #[error(
        "{variable}={value} is no user of this host: unset it, or run through doas or pkexec itself"
    )]
    Caller {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
    },
    /// sudo, doas and pkexec name two callers.
    #[error(
        "{variable}={value} is not {other}, whom another such variable names as the caller: unset those of SUDO_UID, DOAS_USER and PKEXEC_UID that are not true"
    )]
    Callers {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// The user that the other variable names.
        other: String,
    },
    /// A system call failed; `what` was being done.
    #[error("{what}: {source}")]
    System {
        /// What was being done.
        what: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// Not a destination.
    #[error(
        "'{0}' is not a destination: give [user@]host or ssh://[user@]host[:port], without shell characters"
    )]
    Destination(String),
    /// Not a list of jump hosts.
    #[error("'{0}' is not a list of jump hosts: give [user@]host[:port], separated by commas")]
    JumpHosts(String),
    /// Jump hosts whose own jump hosts never come to an end.
    #[error("the jump hosts of {0} lead through each other without end")]
    JumpLoop(String),
    /// A setting with a value that cannot be used.
    #[error("{key} {value}: {problem}")]
    Value {
        /// The keyword, as ssh_config(5) spells it or in lower case.
        key: String,
        /// What was given.
        value: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A line of a configuration file, or of `-o`, that cannot be used.
    #[error("{place}: {problem}")]
    Line {
        /// File and line number, or "command line".
        place: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A configuration file that cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A configuration file that others can change, which ssh refuses too.
    #[error(
        "{} has to belong to you or root, and nobody else may write to it: chmod go-w, chown",
        path.display()
    )]
    Permissions {
        /// The file.
        path: PathBuf,
    },
    /// The ssh program would not take the settings.
    #[error("ssh does not accept the settings for {host}: {message}")]
    SshRefused {
        /// The destination.
        host: String,
        /// What ssh said.
        message: String,
    },
}

impl ConfigError {
    /// A value of `key` that cannot be used because of `problem`.
    pub(crate) fn value(key: &str, value: &str, problem: impl Into<String>) -> Self {
        ConfigError::Value {
            key: key.to_owned(),
            value: value.to_owned(),
            problem: problem.into(),
        }
    }

    /// The failure of a type's own parser on the value of `key`.
    pub(crate) fn parse(key: &str, value: &str, error: &ParseError) -> Self {
        Self::value(key, value, error.to_string())
    }

    /// A file that could not be read.
    pub(crate) fn read(path: &Path, source: io::Error) -> Self {
        ConfigError::Read {
            path: path.to_owned(),
            source,
        }
    }
}
