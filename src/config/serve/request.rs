//! The server's command line, applied to the settings. Each load reads the file again, so
//! that a running server can reload it.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;
use nix::unistd::Uid;

use super::checks::{Subject, check};
use super::defaults;
use super::error::ServeConfigError;
use super::file::{self, FileSettings, Lines};
use super::settings::ServeSettings;
use crate::config::keys::trusted_file::{TrustedFileError, TrustedOwners};
use crate::types::InterfaceName;

/// Size limit of the configuration file, in bytes.
const MAX_CONFIG: u64 = 4 << 20;

/// The options of the command line; they override the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServeRequest {
    /// The file; without it the default file is read, if it exists.
    pub config: Option<PathBuf>,
    /// Addresses to listen at, which replace the file's. The same holds for each list here
    /// that is not empty.
    pub listen: Vec<SocketAddr>,
    /// Files of keys that can log in.
    pub authorized_keys: Vec<PathBuf>,
    /// Host keys.
    pub host_keys: Vec<PathBuf>,
    /// The bridge that ethernet tunnels join.
    pub bridge: Option<InterfaceName>,
    /// Networks for clients' addresses.
    pub pools: Vec<IpNetwork>,
    /// Networks that clients may reach.
    pub routes: Vec<IpNetwork>,
    /// Do not translate clients' addresses there.
    pub no_nat: bool,
    /// The file of the audit log.
    pub audit_log: Option<PathBuf>,
    /// The address of the metrics listener.
    pub metrics: Option<SocketAddr>,
    /// The user that the server becomes.
    pub user: Option<String>,
    /// The verbosity of the log: the number of `-v`, up to 3.
    pub verbosity: u8,
}

/// Reads a file that grants rights: it must belong to root or to the server's user, and
/// no other user may be able to write it. `None` if it does not exist.
pub fn read_trusted(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, TrustedFileError> {
    TrustedOwners(&[Uid::from_raw(0), Uid::effective()]).read(path, limit)
}

/// Opens such a file.
pub fn open_trusted(path: &Path) -> Result<Option<File>, TrustedFileError> {
    TrustedOwners(&[Uid::from_raw(0), Uid::effective()]).open(path)
}

/// Opens a file to append to it, which no other user may have put there.
pub fn append_trusted(path: &Path) -> io::Result<File> {
    TrustedOwners(&[Uid::from_raw(0), Uid::effective()]).append(path)
}

/// Fails if [`append_trusted`] would; creates nothing.
pub fn check_append_trusted(path: &Path) -> io::Result<()> {
    TrustedOwners(&[Uid::from_raw(0), Uid::effective()]).check_append(path)
}

impl ServeRequest {
    /// The file to read, given or default.
    pub fn config_path(&self) -> &Path {
        self.config
            .as_deref()
            .unwrap_or(Path::new(defaults::CONFIG))
    }

    /// Reads the file, applies the command line, and checks the result.
    pub fn load(&self) -> Result<ServeSettings, ServeConfigError> {
        let FileSettings {
            mut settings,
            lines,
        } = self.read_file()?;
        self.override_settings(&mut settings);
        check(&settings).map_err(|(subject, problem)| ServeConfigError::Check {
            place: self.place(subject, &lines),
            problem,
        })?;
        Ok(settings)
    }

    fn read_file(&self) -> Result<FileSettings, ServeConfigError> {
        let path = self.config_path();
        let Some(content) = read_trusted(path, MAX_CONFIG)? else {
            return match &self.config {
                Some(path) => Err(ServeConfigError::Missing { path: path.clone() }),
                None => Ok(FileSettings::default()),
            };
        };
        file::parse(&content).map_err(|reason| ServeConfigError::Syntax {
            path: path.to_owned(),
            reason,
        })
    }

    fn override_settings(&self, settings: &mut ServeSettings) {
        replace(&mut settings.listen, &self.listen);
        replace(&mut settings.authorized_keys, &self.authorized_keys);
        replace(&mut settings.host_keys, &self.host_keys);
        let network = &mut settings.network;
        if !self.pools.is_empty() {
            network.assign = true;
        }
        replace(&mut network.pools, &self.pools);
        replace(&mut network.routes, &self.routes);
        network.nat &= !self.no_nat;
        network.bridge = self.bridge.clone().or(network.bridge.take());
        settings.audit.file = self.audit_log.clone().or(settings.audit.file.take());
        settings.metrics = self.metrics.or(settings.metrics);
    }

    /// The place of an error, for its message.
    fn place(&self, subject: Subject, lines: &Lines) -> String {
        let line = match subject {
            Subject::Client(index) => lines.clients.get(index).copied(),
            Subject::Pool if self.pools.is_empty() => lines.pool,
            Subject::Pool => return "command line".to_owned(),
            Subject::Settings => None,
        };
        let path = self.config_path().display();
        match line {
            Some(line) => format!("{path}: line {line}"),
            None => format!("{path}"),
        }
    }
}

fn replace<T: Clone>(setting: &mut Vec<T>, given: &[T]) {
    if !given.is_empty() {
        *setting = given.to_vec();
    }
}

#[cfg(test)]
mod tests;
