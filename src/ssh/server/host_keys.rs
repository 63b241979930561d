//! A server's host keys: files of private keys, created on the first start.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::unistd::{Gid, Uid};
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, HashAlg, PrivateKey, signing};
use thiserror::Error;
use zeroize::Zeroizing;

use super::login::key_strength;
use crate::config::keys::trusted_file::TrustedFileError;
use crate::config::serve::request::open_trusted;
use crate::ssh::client::auth::private_key::{self, Decoded};

/// The most that is read of a key file, in bytes.
const MAX_FILE: u64 = 64 * 1024;

/// The mode bits of group and others.
const OTHERS: u32 = 0o077;

/// A server's keys, at least one.
#[derive(Debug, Clone)]
pub struct HostKeys {
    keys: Arc<[PrivateKey]>,
}

/// A host key file cannot be used.
#[derive(Debug, Error)]
#[error("host key {path}: {problem}")]
pub struct HostKeyFileError {
    /// The file.
    pub path: PathBuf,
    /// The reason.
    pub problem: HostKeyProblem,
}

/// Why a host key cannot be used.
#[derive(Debug, Error)]
pub enum HostKeyProblem {
    /// No file is configured.
    #[error("no file is configured")]
    None,
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Read(io::Error),
    /// Others may have written the file.
    #[error(transparent)]
    Untrusted(#[from] TrustedFileError),
    /// The file is missing and could not be created.
    #[error("cannot be created: {0}")]
    Make(io::Error),
    /// Others may read the file.
    #[error("permissions {mode:04o} are too open: others must not read it (chmod 600)")]
    Open {
        /// The file's mode.
        mode: u32,
    },
    /// The file has no private key of a supported type.
    #[error("{0}")]
    Format(String),
    /// The key has a passphrase, and a server cannot prompt for it.
    #[error("it has a passphrase, which a server cannot ask for; remove it with ssh-keygen -p")]
    Passphrase,
    /// The key's type or size is not sound, or a server cannot use it.
    #[error("{0}; use ed25519, ecdsa, or rsa of 2048 to 8192 bits")]
    Kind(String),
    /// The key cannot sign, for example because an RSA key's numbers do not match.
    #[error("the key cannot sign: {0}")]
    Broken(String),
}

impl HostKeys {
    /// Reads the keys in `paths`. Creates a missing one: ed25519, readable only by its
    /// owner, with its public key beside it.
    pub fn load_or_make(paths: &[PathBuf]) -> Result<Self, HostKeyFileError> {
        if paths.is_empty() {
            return Err(HostKeyFileError {
                path: PathBuf::new(),
                problem: HostKeyProblem::None,
            });
        }
        let keys: Result<Arc<[PrivateKey]>, _> = paths
            .iter()
            .map(|path| {
                let key = load_or_make(path);
                key.map_err(|problem| HostKeyFileError {
                    path: path.clone(),
                    problem,
                })
            })
            .collect();
        keys.map(|keys| HostKeys { keys })
    }

    /// The fingerprints in the format of `ssh-keygen -l`: `SHA256:…`.
    pub fn fingerprints(&self) -> Vec<String> {
        self.keys
            .iter()
            .map(|key| key.fingerprint(HashAlg::Sha256).to_string())
            .collect()
    }

    /// The keys for russh's configuration.
    pub(super) fn to_vec(&self) -> Vec<PrivateKey> {
        self.keys.to_vec()
    }
}

/// Fails if the key in `path` cannot be used; a missing one is created at a start.
pub fn check(path: &Path) -> Result<(), HostKeyFileError> {
    let parsed = read(path).and_then(|text| text.map(|text| parse(&text)).transpose());
    parsed.map(drop).map_err(|problem| HostKeyFileError {
        path: path.to_owned(),
        problem,
    })
}

/// Creates the key in `path` for `owner`; does nothing if the file exists.
pub fn make_for(path: &Path, owner: (Uid, Gid)) -> Result<(), HostKeyFileError> {
    let made = match path.symlink_metadata() {
        Ok(_) => return Ok(()),
        Err(_) => make(path, Some(owner)),
    };
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(HostKeyFileError {
            path: path.to_owned(),
            problem: HostKeyProblem::Make(error),
        }),
        _ => Ok(()),
    }
}

fn load_or_make(path: &Path) -> Result<PrivateKey, HostKeyProblem> {
    let text = match read(path)? {
        Some(text) => text,
        None => match make(path, None) {
            // Another server created it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let missing = || HostKeyProblem::Read(io::ErrorKind::NotFound.into());
                read(path)?.ok_or_else(missing)?
            }
            made => return made.map_err(HostKeyProblem::Make),
        },
    };
    parse(&text)
}

fn parse(text: &str) -> Result<PrivateKey, HostKeyProblem> {
    let key = match private_key::decode(text) {
        Ok(Decoded::Key(key)) => *key,
        Ok(Decoded::Encrypted) => return Err(HostKeyProblem::Passphrase),
        Err(error) => return Err(HostKeyProblem::Format(error.to_string())),
    };
    // A security key signs only when a user touches it.
    let algorithm = key.algorithm();
    if matches!(
        algorithm,
        Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256
    ) {
        return Err(HostKeyProblem::Kind(format!("a key of type {algorithm}")));
    }
    key_strength::check(key.public_key().key_data())
        .map_err(|weakness| HostKeyProblem::Kind(weakness.to_owned()))?;
    // Otherwise the error would appear only with the first client.
    signing::sign(key.key_data(), Some(HashAlg::Sha512), b"sshvpn")
        .map_err(|error| HostKeyProblem::Broken(error.to_string()))?;
    Ok(key)
}

/// The text of a key file that others can neither write nor read (authfile.c,
/// `sshkey_perm_ok`: a file of another owner, such as root, is not checked for being
/// readable by others). `None` if the file does not exist.
fn read(path: &Path) -> Result<Option<Zeroizing<String>>, HostKeyProblem> {
    let Some(file) = open_trusted(path)? else {
        return Ok(None);
    };
    let metadata = file.metadata().map_err(HostKeyProblem::Read)?;
    let mode = metadata.mode() & 0o7777;
    if metadata.uid() == Uid::effective().as_raw() && mode & OTHERS != 0 {
        return Err(HostKeyProblem::Open { mode });
    }
    // Room for the whole file: growing would leave copies of the key in memory.
    let length = metadata.len().min(MAX_FILE) as usize;
    let mut text = Zeroizing::new(String::with_capacity(length + 1));
    file.take(MAX_FILE)
        .read_to_string(&mut text)
        .map_err(HostKeyProblem::Read)?;
    Ok(Some(text))
}

/// Creates a key, owned by `owner` or else by this user; fails with `AlreadyExists` if the
/// file exists by now.
fn make(path: &Path, owner: Option<(Uid, Gid)>) -> io::Result<PrivateKey> {
    let mut key = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519)
        .map_err(io::Error::other)?;
    key.set_comment("sshvpn");
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let private = key.to_openssh(LineEnding::LF).map_err(io::Error::other)?;
    link_new(path, private.as_bytes(), owner)?;
    let public = key.public_key().to_openssh().map_err(io::Error::other)?;
    // The public key of an earlier key is of no use.
    let draft = draft_of(path)?;
    let renamed = write_new(&draft, format!("{public}\n").as_bytes(), 0o644)
        .and_then(|_| fs::rename(&draft, beside(path, ".pub")));
    if renamed.is_err() {
        let _ = fs::remove_file(&draft);
    }
    renamed?;
    Ok(key)
}

/// A new name beside `path`: a draft that a crash left, or that another server is writing, has
/// another one.
fn draft_of(path: &Path) -> io::Result<PathBuf> {
    let mut random = [0; 8];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| io::Error::other("no random numbers"))?;
    Ok(beside(
        path,
        &format!(".{:016x}.new", u64::from_ne_bytes(random)),
    ))
}

/// Gives a complete file its name; fails with `AlreadyExists` rather than replace another.
fn link_new(path: &Path, content: &[u8], owner: Option<(Uid, Gid)>) -> io::Result<()> {
    let draft = draft_of(path)?;
    let linked = write_new(&draft, content, 0o600)
        .and_then(|file| match owner {
            Some((uid, gid)) => fchown(&file, Some(uid.as_raw()), Some(gid.as_raw())),
            None => Ok(()),
        })
        .and_then(|()| fs::hard_link(&draft, path));
    let removed = fs::remove_file(&draft);
    linked.and(removed)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> io::Result<File> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    // Independent of the umask.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(content)?;
    file.sync_all()?;
    Ok(file)
}

#[cfg(test)]
mod tests;
