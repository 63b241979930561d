//! Reads the files of authorized keys, of trusted authorities and of revoked keys, all
//! or none.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use crate::config::keys::authorized_keys::{self, KeyOptions, Line, LineProblem};
use crate::config::keys::key_blob::KeyBlob;
use crate::config::keys::revocation_list::{RevocationError, RevocationList};
use crate::config::keys::trusted_file::TrustedFileError;
use crate::config::serve::request::read_trusted;
use crate::config::serve::settings::ServeSettings;
use crate::types::{Unit, UnitRequest};

/// Size limit for a file of keys, in bytes.
const MAX_KEYS: u64 = 64 << 20;

/// Why no login can be judged.
#[derive(Debug, Error)]
pub enum PolicyError {
    /// A file cannot be read, or another user can write it.
    #[error(transparent)]
    File(#[from] TrustedFileError),
    /// A file that the settings require does not exist.
    #[error("{}: there is no such file, but {setting} names it", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The setting that names it.
        setting: &'static str,
    },
    /// A line of a file of trusted authorities cannot be read.
    #[error("{}: line {line}: {problem}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// The line number.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// The list of revoked keys cannot be read, so it cannot be enforced.
    #[error("{}: {source}", path.display())]
    Revocation {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: RevocationError,
    },
}

/// A problem that the administrator should know of and that affects no other login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The file.
    pub path: PathBuf,
    /// The line number, if the problem is on one line.
    pub line: Option<usize>,
    /// The problem.
    pub text: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.text)
    }
}

/// The file and line of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server) struct Place {
    path: Arc<PathBuf>,
    line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)
    }
}

/// A line about one key.
#[derive(Debug, Clone)]
pub(in crate::server) struct Entry {
    pub(in crate::server) place: Place,
    pub(in crate::server) read: Result<KeyOptions, LineProblem>,
}

/// The contents of all files.
#[derive(Debug, Default)]
pub(in crate::server) struct KeyFiles {
    /// The lines about each key, in order.
    lines: HashMap<KeyBlob, Vec<Entry>>,
    user_authorities: HashSet<KeyBlob>,
    pub(in crate::server) revoked: RevocationList,
}

impl KeyFiles {
    /// Reads the files that the settings name.
    pub(in crate::server) fn load(
        settings: &ServeSettings,
    ) -> Result<(Self, Vec<Warning>), PolicyError> {
        let mut files = Self::default();
        let mut warnings = Vec::new();
        for path in &settings.authorized_keys {
            files.add_authorized_keys(path, &mut warnings)?;
        }
        for path in &settings.user_authorities {
            files.add_user_authorities(path)?;
        }
        if let Some(path) = &settings.revoked_keys {
            let content = required(path, "revoked-keys")?;
            files.revoked = RevocationList::parse(&content).map_err(|source| {
                let path = path.clone();
                PolicyError::Revocation { path, source }
            })?;
        }
        Ok((files, warnings))
    }

    /// The lines about a key.
    pub(in crate::server) fn lines_of(&self, key: &KeyBlob) -> &[Entry] {
        self.lines.get(key).map_or(&[], Vec::as_slice)
    }

    /// The units that lines name.
    pub(in crate::server) fn units(&self) -> impl Iterator<Item = Unit> + '_ {
        let entries = self.lines.values().flatten();
        let options = entries.filter_map(|entry| entry.read.as_ref().ok());
        options.filter_map(|options| match options.tunnel {
            Some(UnitRequest::Unit(unit)) => Some(unit),
            _ => None,
        })
    }

    pub(in crate::server) fn is_user_authority(&self, key: &KeyBlob) -> bool {
        self.user_authorities.contains(key)
    }

    /// The fingerprints of all authorities whose certificates are accepted.
    pub(in crate::server) fn authorities(&self) -> HashSet<String> {
        let by_line = self.lines.iter().filter(|(_, entries)| {
            let is_authority = |options: &KeyOptions| options.cert_authority;
            entries
                .iter()
                .any(|entry| entry.read.as_ref().is_ok_and(is_authority))
        });
        let by_line = by_line.map(|(key, _)| key);
        let all = self.user_authorities.iter().chain(by_line);
        all.map(KeyBlob::fingerprint).collect()
    }

    /// The number of keys and authorities that admit a login.
    pub(in crate::server) fn count(&self) -> usize {
        let good = |entries: &&Vec<Entry>| entries.iter().any(|entry| entry.read.is_ok());
        self.lines.values().filter(good).count() + self.user_authorities.len()
    }

    fn add_authorized_keys(
        &mut self,
        path: &Path,
        warnings: &mut Vec<Warning>,
    ) -> Result<(), PolicyError> {
        let Some(content) = read_trusted(path, MAX_KEYS)? else {
            warnings.push(Warning {
                path: path.to_owned(),
                line: None,
                text: "there is no such file, so none of its keys can log in".to_owned(),
            });
            return Ok(());
        };
        let shared = Arc::new(path.to_owned());
        for Line { number, read } in authorized_keys::parse(&content) {
            let mut warn = |text: String| {
                warnings.push(Warning {
                    path: path.to_owned(),
                    line: Some(number),
                    text,
                });
            };
            let (key, read) = match read {
                Ok(read) => {
                    for name in read.options.from.iter().flat_map(|from| from.names()) {
                        warn(format!(
                            "'{name}' in from= never matches: names are not looked up, use addresses"
                        ));
                    }
                    (Some(read.key), Ok(read.options))
                }
                Err(refused) => {
                    warn(format!("{}; this line permits no login", refused.problem));
                    (refused.key, Err(refused.problem))
                }
            };
            let place = Place {
                path: shared.clone(),
                line: number,
            };
            if let Some(key) = key {
                self.lines
                    .entry(key)
                    .or_default()
                    .push(Entry { place, read });
            }
        }
        Ok(())
    }

    /// Reads a file of `TrustedUserCAKeys`, whose keys have no options.
    fn add_user_authorities(&mut self, path: &Path) -> Result<(), PolicyError> {
        let content = required(path, "trusted-user-ca-keys")?;
        for Line { number, read } in authorized_keys::parse(&content) {
            let wrong = |problem: String| PolicyError::Authority {
                path: path.to_owned(),
                line: number,
                problem,
            };
            let read = read.map_err(|refused| wrong(refused.problem.to_string()))?;
            if read.options != KeyOptions::default() {
                let text = "options have no effect here: write the authority with cert-authority \
                            and its options into an authorized_keys file instead";
                return Err(wrong(text.to_owned()));
            }
            self.user_authorities.insert(read.key);
        }
        Ok(())
    }
}

fn required(path: &Path, setting: &'static str) -> Result<Vec<u8>, PolicyError> {
    read_trusted(path, MAX_KEYS)?.ok_or_else(|| PolicyError::Missing {
        path: path.to_owned(),
        setting,
    })
}
