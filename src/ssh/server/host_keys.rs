//! The keys by which a server shows who it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use russh::keys::PrivateKey;
use thiserror::Error;

/// A server's keys, at least one.
#[derive(Debug, Clone)]
pub struct HostKeys {
    keys: Arc<[PrivateKey]>,
}

/// A file with a host key cannot be used.
#[derive(Debug, Error)]
#[error("host key {path}: {reason}")]
pub struct HostKeyFileError {
    /// Which.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

impl HostKeys {
    /// Reads the keys in `paths`; makes those that are missing.
    pub fn load_or_make(paths: &[PathBuf]) -> Result<Self, HostKeyFileError> {
        let unusable = |path: &Path| HostKeyFileError {
            path: path.to_owned(),
            reason: "not read yet".to_owned(),
        };
        Err(unusable(
            paths.first().map_or(Path::new(""), PathBuf::as_path),
        ))
    }

    /// The fingerprints, as `ssh-keygen -l` shows them: `SHA256:…`.
    pub fn fingerprints(&self) -> Vec<String> {
        self.keys
            .iter()
            .map(|key| key.fingerprint(russh::keys::HashAlg::Sha256).to_string())
            .collect()
    }
}
