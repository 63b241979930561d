//! Errors on the way from the command line to the settings.

use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::Uid;
use thiserror::Error;

use crate::types::ParseError;

/// The reason why the settings for a destination are not available.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The passwd database does not contain the user of this process.
    #[error("no user with id {0} in the passwd database")]
    NoSuchUser(Uid),
    /// `~name` of a user who is not in the passwd database.
    #[error("{path}: no user '{user}' in the passwd database")]
    NoSuchHome {
        /// The path as written.
        path: String,
        /// The name after the tilde.
        user: String,
    },
    /// sudo's variables contradict each other or the passwd database.
    #[error(
        "SUDO_USER={name}, SUDO_UID={uid} and SUDO_GID={gid} do not describe one user of this host: run sshvpn by sudo itself, or unset them"
    )]
    Sudo {
        /// `SUDO_USER`.
        name: String,
        /// `SUDO_UID`.
        uid: String,
        /// `SUDO_GID`.
        gid: String,
    },
    /// doas or pkexec names a caller who is not in the passwd database.
    #[error(
        "{variable}={value} is not a user of this host: unset it, or run sshvpn by doas or pkexec itself"
    )]
    Caller {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
    },
    /// sudo, doas and pkexec name different callers.
    #[error(
        "{variable}={value} contradicts another variable, which names {other} as the caller: unset the wrong one of SUDO_UID, DOAS_USER and PKEXEC_UID"
    )]
    Callers {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// The user that the other variable names.
        other: String,
    },
    /// A system call failed; `what` follows "cannot".
    #[error("cannot {what}: {source}")]
    System {
        /// The attempted action.
        what: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The text is not a destination.
    #[error(
        "'{0}' is not a destination: give [user@]host or ssh://[user@]host[:port], without shell characters"
    )]
    Destination(String),
    /// The text is not a list of jump hosts.
    #[error("'{0}' is not a list of jump hosts: give [user@]host[:port], separated by commas")]
    JumpHosts(String),
    /// The jump hosts form a loop.
    #[error(
        "ProxyJump loop: the way to {0} leads through the same jump hosts again; correct ProxyJump in ssh_config"
    )]
    JumpLoop(String),
    /// The jump hosts are more than the limit.
    #[error(
        "the way to {host} has more than {most} jump hosts; shorten ProxyJump in ssh_config or -J"
    )]
    TooManyJumpHosts {
        /// The destination.
        host: String,
        /// The limit.
        most: usize,
    },
    /// A setting has an invalid value.
    #[error("{key} {value}: {problem}")]
    Value {
        /// The keyword, as ssh_config(5) spells it or in lower case.
        key: String,
        /// The given value.
        value: String,
        /// The reason.
        problem: String,
    },
    /// A line of a configuration file, or an argument of `-o`, is invalid.
    #[error("{place}: {problem}")]
    Line {
        /// File and line number, or "command line".
        place: String,
        /// The reason.
        problem: String,
    },
    /// A configuration file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Other users can change a configuration file; ssh refuses it too.
    #[error(
        "{} must belong to you or root, and no other user may write to it: chmod go-w, chown",
        path.display()
    )]
    Permissions {
        /// The file.
        path: PathBuf,
    },
    /// The ssh program refused the settings.
    #[error("ssh does not accept the settings for {host}: {message}")]
    SshRefused {
        /// The destination.
        host: String,
        /// The message of ssh.
        message: String,
    },
}

impl ConfigError {
    /// An invalid value of `key`, because of `problem`.
    pub(crate) fn value(key: &str, value: &str, problem: impl Into<String>) -> Self {
        ConfigError::Value {
            key: key.to_owned(),
            value: value.to_owned(),
            problem: problem.into(),
        }
    }

    /// The error of a type's own parser on the value of `key`.
    pub(crate) fn parse(key: &str, value: &str, error: &ParseError) -> Self {
        Self::value(key, value, error.to_string())
    }

    /// The error of reading a file.
    pub(crate) fn read(path: &Path, source: io::Error) -> Self {
        ConfigError::Read {
            path: path.to_owned(),
            source,
        }
    }
}
