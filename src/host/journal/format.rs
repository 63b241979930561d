//! The format of an undo journal (JSON with a version), and the errors of reading and writing one.

use std::fs::File;
use std::io::{self, Read};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::owner::Owner;
use super::runtime_dir::RuntimeDirError;
use crate::host::change::Entry;
use crate::host::plan::facts::InterfaceIndex;

/// The version that this program writes, and the newest that it reads.
///
/// Version 2 added changes beyond the interface; version 3 name servers, changes of a server
/// (without an interface), bridges and groups; version 4 guarded bridge ports and iptables rules.
pub(in crate::host) const VERSION: u32 = 4;
/// The size limit of a journal, in bytes; real ones are far smaller.
pub(in crate::host) const SIZE_LIMIT: u64 = 1 << 20;

/// The reason why a journal cannot be written, or was not undone.
#[derive(Debug, Error)]
pub enum JournalError {
    /// An error of the directory or a file in it.
    #[error("the undo journal: {0}")]
    Directory(#[from] RuntimeDirError),
    /// /proc does not show this process's identity.
    #[error(
        "cannot write the undo journal: this process's identity cannot be read from /proc: {0}"
    )]
    Owner(#[source] io::Error),
    /// A running process uses this interface.
    #[error(
        "the tunnel {name} is already up, held by {holder}; stop that first or choose another interface"
    )]
    Busy {
        /// The interface.
        name: String,
        /// The process that holds the journal.
        holder: String,
    },
    /// The changes exceed the size limit of a journal.
    #[error("{path} would be larger than {SIZE_LIMIT} bytes; ask for fewer routes")]
    Full {
        /// The file.
        path: String,
    },
    /// A stale journal is in the way.
    #[error("an earlier run left {path} behind; run 'sshvpn cleanup' first")]
    Stale {
        /// The file.
        path: String,
    },
    /// The file is not a journal, or it is damaged.
    #[error(
        "{path} is not a journal that this program wrote ({reason}); nothing in it was undone; read it, undo by hand the changes that it lists, and remove it"
    )]
    Corrupt {
        /// The file.
        path: String,
        /// The reason.
        reason: String,
    },
    /// The file is not a journal, or it is damaged; it has another name now.
    #[error(
        "{path} is not a journal that this program wrote ({reason}); it is kept as {aside}, and nothing in it was undone: read it, undo by hand the changes that it lists, and remove it"
    )]
    SetAside {
        /// The file.
        path: String,
        /// Its new path.
        aside: String,
        /// The reason.
        reason: String,
    },
    /// A newer program wrote the journal.
    #[error(
        "{path} has format version {version}, this program reads at most {VERSION}; nothing in it was undone; run 'cleanup' of the newer sshvpn"
    )]
    Version {
        /// The file.
        path: String,
        /// Its version.
        version: u32,
    },
}

/// The content of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::host) struct Document {
    pub(in crate::host) version: u32,
    pub(in crate::host) interface: String,
    /// `None` if the changes do not belong to a device.
    pub(in crate::host) index: Option<InterfaceIndex>,
    pub(in crate::host) owner: Owner,
    pub(in crate::host) changes: Vec<Entry>,
}

/// The version alone, which has to be read first.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// Reads a journal; unknown fields are an error.
pub(in crate::host) fn parse(file: &File, path: &str) -> Result<Document, JournalError> {
    let corrupt = |reason: String| JournalError::Corrupt {
        path: path.to_owned(),
        reason,
    };
    let mut text = String::new();
    let length = file
        .take(SIZE_LIMIT + 1)
        .read_to_string(&mut text)
        .map_err(|error| corrupt(error.to_string()))?;
    if length as u64 > SIZE_LIMIT {
        return Err(corrupt(format!("larger than {SIZE_LIMIT} bytes")));
    }
    let Versioned { version } =
        serde_json::from_str(&text).map_err(|error| corrupt(error.to_string()))?;
    if !(1..=VERSION).contains(&version) {
        return Err(JournalError::Version {
            path: path.to_owned(),
            version,
        });
    }
    serde_json::from_str(&text).map_err(|error| corrupt(error.to_string()))
}
