//! Edits /etc/resolv.conf on a host where no program maintains it: adds the name servers of tunnels
//! between marks, and removes them again.
//!
//! The file itself records which tunnel has name servers in it; every writer holds the lock of the
//! journals' directory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown, symlink};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use thiserror::Error;

use super::name_servers::NameServers;
use super::text::{self, Before, Holder, Marked};
use crate::host::change::kind::Outcome;
use crate::host::journal::owner::Owner;

/// The size limit of the file, in bytes; no resolver's settings are larger.
const SIZE_LIMIT: u64 = 64 * 1024;
/// The permissions of a new file: readable for all users.
const MODE: u32 = 0o644;

/// The reason why the file was not changed.
#[derive(Debug, Error)]
pub enum ResolverFileError {
    /// The file cannot be read or written.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// The attempted action.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The file is not a resolver file.
    #[error("{path} is not a file of resolver settings: {reason}")]
    Odd {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: &'static str,
    },
}

/// The present file.
struct Found {
    text: Vec<u8>,
    /// The target, if the file is a symbolic link.
    target: Option<PathBuf>,
    /// Permissions and owner, if the file exists.
    access: Option<Access>,
}

#[derive(Clone, Copy)]
struct Access {
    mode: u32,
    user: u32,
    group: u32,
}

/// Adds the name servers of the tunnel on `interface`. The caller holds the lock of the journals'
/// directory.
pub(in crate::host) fn put_in(
    path: &Path,
    interface: &str,
    owner: &Owner,
    name_servers: &NameServers,
) -> Result<(), ResolverFileError> {
    let found = read(path)?;
    let mut marked = match text::parse(&found.text) {
        Some(marked) if found.target.is_none() => marked,
        _ => Marked {
            before: found.before(),
            holders: Vec::new(),
            rest: found.text.clone(),
        },
    };
    marked.holders.retain(|holder| !holder.is(interface, owner));
    marked.holders.push(Holder {
        interface: interface.to_owned(),
        namespace: owner.network_namespace,
        boot: owner.boot_id.clone(),
        name_servers: name_servers.clone(),
    });
    replace(path, &render(path, &marked)?, found.access)
}

/// Removes the name servers of the tunnel on `interface`. Removing the last tunnel's restores the
/// file, except for other programs' changes.
pub(in crate::host) fn take_out(
    path: &Path,
    interface: &str,
    owner: &Owner,
) -> Result<Outcome, ResolverFileError> {
    take_out_all(path, |holder| holder.is(interface, owner))
}

/// Removes entries that survived a reboot; the journals do not survive one.
pub(in crate::host) fn take_out_earlier_boots(
    path: &Path,
    here: &Owner,
) -> Result<Outcome, ResolverFileError> {
    take_out_all(path, |holder| holder.boot != here.boot_id)
}

fn take_out_all(path: &Path, gone: impl Fn(&Holder) -> bool) -> Result<Outcome, ResolverFileError> {
    let found = read(path)?;
    let marked = text::parse(&found.text).filter(|_| found.target.is_none());
    let Some(mut marked) = marked else {
        return Ok(Outcome::Gone);
    };
    let before = marked.holders.len();
    marked.holders.retain(|holder| !gone(holder));
    if !marked.holders.is_empty() {
        if marked.holders.len() < before {
            replace(path, &render(path, &marked)?, found.access)?;
            return Ok(Outcome::Shared);
        }
        return Ok(Outcome::Gone);
    }
    put_back(path, &marked, found.access)
}

/// Restores the file without any tunnel's name servers.
fn put_back(
    path: &Path,
    marked: &Marked,
    access: Option<Access>,
) -> Result<Outcome, ResolverFileError> {
    match &marked.before {
        Before::Link { target, digest } if *digest == digest_of(&marked.rest) => {
            relink(path, target).map_err(|source| failed("restore", path, source))?;
            Ok(Outcome::Undone)
        }
        Before::Link { target, .. } => {
            replace(path, &marked.rest, access)?;
            Ok(Outcome::Left(format!(
                "a file with later edits instead of the link to {}",
                target.display()
            )))
        }
        Before::Absent if marked.rest.is_empty() => {
            fs::remove_file(path).map_err(|source| failed("remove", path, source))?;
            Ok(Outcome::Undone)
        }
        Before::Absent | Before::File => {
            replace(path, &marked.rest, access)?;
            Ok(Outcome::Undone)
        }
    }
}

impl Found {
    fn before(&self) -> Before {
        match (&self.target, self.access) {
            (Some(target), _) => Before::Link {
                target: target.clone(),
                digest: digest_of(&self.text),
            },
            (None, Some(_)) => Before::File,
            (None, None) => Before::Absent,
        }
    }
}

fn render(path: &Path, marked: &Marked) -> Result<Vec<u8>, ResolverFileError> {
    let text = marked.render();
    text.map_err(|error| failed("write", path, error.into()))
}

fn digest_of(text: &[u8]) -> String {
    let digest = digest(&SHA256, text);
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Reads the file, following a link as resolvers do.
fn read(path: &Path) -> Result<Found, ResolverFileError> {
    let odd = |reason| ResolverFileError::Odd {
        path: path.to_owned(),
        reason,
    };
    let target = match fs::read_link(path) {
        Ok(target) => Some(target),
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::NotFound) => None,
        Err(error) => return Err(failed("read", path, error)),
    };
    // O_NONBLOCK: opening a FIFO must not block.
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(path);
    let mut file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Ok(Found {
                text: Vec::new(),
                target,
                access: None,
            });
        }
        Err(error) => return Err(failed("read", path, error)),
    };
    let mut text = Vec::new();
    let metadata = file
        .metadata()
        .map_err(|source| failed("read", path, source))?;
    if !metadata.is_file() {
        return Err(odd("it is not a regular file"));
    }
    (&mut file)
        .take(SIZE_LIMIT + 1)
        .read_to_end(&mut text)
        .map_err(|source| failed("read", path, source))?;
    if text.len() as u64 > SIZE_LIMIT {
        return Err(odd("it is larger than 64 KiB"));
    }
    Ok(Found {
        text,
        target,
        access: Some(Access {
            mode: metadata.permissions().mode() & 0o7777,
            user: metadata.uid(),
            group: metadata.gid(),
        }),
    })
}

/// Replaces the file by one with this text, atomically; a file that is a mount of its own, as in
/// containers, is written in place.
fn replace(path: &Path, text: &[u8], access: Option<Access>) -> Result<(), ResolverFileError> {
    let aside = aside(path);
    let written = write_aside(&aside, text, access).and_then(|()| fs::rename(&aside, path));
    let written = match written {
        Err(error) if error.kind() == ErrorKind::ResourceBusy => write_in_place(path, text),
        other => other,
    };
    if written.is_err() || aside.exists() {
        // Report the first error, not this one.
        let _ = fs::remove_file(&aside);
    }
    written.map_err(|source| failed("write", path, source))
}

fn write_aside(aside: &Path, text: &[u8], access: Option<Access>) -> io::Result<()> {
    // Left behind by a killed process.
    match fs::remove_file(aside) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(aside)?;
    file.write_all(text)?;
    if let Some(access) = access {
        fchown(&file, Some(access.user), Some(access.group))?;
    }
    let mode = access.map_or(MODE, |access| access.mode);
    // After the owner, whose change may clear mode bits; and independent of the umask.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()
}

/// The file is never shorter than either text meanwhile: a concurrent reader finds all of one or
/// the other at the front.
fn write_in_place(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file: File = OpenOptions::new().write(true).open(path)?;
    file.write_all(text)?;
    file.set_len(text.len() as u64)?;
    file.sync_all()
}

fn relink(path: &Path, target: &Path) -> io::Result<()> {
    let aside = aside(path);
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(target, &aside)?;
    fs::rename(&aside, path)
}

/// The path of a temporary file beside the file.
fn aside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default();
    path.with_file_name(format!(".{}.sshvpn", name.to_string_lossy()))
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> ResolverFileError {
    ResolverFileError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;
