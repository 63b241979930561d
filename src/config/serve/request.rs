//! What the command line asks of a server. The settings are read anew each time
//! that they are asked for, so that a running server can take up a changed file.

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

/// No configuration file is larger, in bytes.
const MAX_CONFIG: u64 = 4 << 20;

/// What the command line says; it wins over the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServeRequest {
    /// The file; without it the usual one is read, if it is there.
    pub config: Option<PathBuf>,
    /// Where to listen, in place of the file's; so with all lists here that are
    /// not empty.
    pub listen: Vec<SocketAddr>,
    /// Files with keys that may come in.
    pub authorized_keys: Vec<PathBuf>,
    /// Host keys.
    pub host_keys: Vec<PathBuf>,
    /// The bridge that ethernet tunnels join.
    pub bridge: Option<InterfaceName>,
    /// Networks that addresses are taken from.
    pub pools: Vec<IpNetwork>,
    /// Networks that clients may reach.
    pub routes: Vec<IpNetwork>,
    /// Clients keep their own addresses there.
    pub no_nat: bool,
    /// The audit log's file.
    pub audit_log: Option<PathBuf>,
    /// Where Prometheus asks.
    pub metrics: Option<SocketAddr>,
    /// The user that the server becomes.
    pub user: Option<String>,
    /// How many log lines: `-v`, up to three times.
    pub verbosity: u8,
}

/// Reads a file that decides over others: it belongs to root or to whoever runs
/// the server, and nobody else can write it. `None` where there is none.
pub fn read_trusted(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, TrustedFileError> {
    TrustedOwners(&[Uid::from_raw(0), Uid::effective()]).read(path, limit)
}

/// The same, opened.
pub fn open_trusted(path: &Path) -> Result<Option<File>, TrustedFileError> {
    TrustedOwners(&[Uid::from_raw(0), Uid::effective()]).open(path)
}

/// A file that is appended to, and that nobody else can have put there.
pub fn append_trusted(path: &Path) -> io::Result<File> {
    TrustedOwners(&[Uid::from_raw(0), Uid::effective()]).append(path)
}

impl ServeRequest {
    /// The file that is read, given or usual.
    pub fn config_path(&self) -> &Path {
        self.config
            .as_deref()
            .unwrap_or(Path::new(defaults::CONFIG))
    }

    /// Reads the file, puts in what the command line says, and checks all of it.
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

    /// Where to look for what is wrong.
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
