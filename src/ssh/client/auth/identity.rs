//! The user's key files: their public keys, certificates and private keys; prompts for a
//! passphrase when needed.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Certificate, PrivateKey};
use zeroize::Zeroizing;

use super::private_key::{self, Decoded, KeyFormatError};
use crate::config::invoker::Invoker;
use crate::config::ssh::options::SshOptions;
use crate::ssh::client::host_key::key_line;
use crate::ssh::client::prompt::{PromptError, Prompter};

/// At most this many bytes of a key file are read.
const MAX_FILE: u64 = 1 << 20;

/// One file of `IdentityFile` or `CertificateFile`, and its public key as far as it is
/// readable without a passphrase.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The private key, or the certificate of `CertificateFile`.
    pub path: PathBuf,
    /// The public key or certificate that it offers to a server.
    pub public: Public,
}

/// The public part of an identity.
#[derive(Debug, Clone)]
pub enum Public {
    /// A plain key.
    Key(KeyData),
    /// A certificate for a key.
    Certificate(Box<Certificate>),
    /// Unknown until the private key is decrypted.
    Unknown,
}

impl Public {
    /// The plain key, also that of a certificate.
    pub fn key(&self) -> Option<&KeyData> {
        match self {
            Public::Key(key) => Some(key),
            Public::Certificate(certificate) => Some(certificate.public_key()),
            Public::Unknown => None,
        }
    }
}

/// Why a private key is not available.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file is missing or cannot be read.
    #[error("cannot read the key {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Others can read the file. The user has been shown the warning.
    #[error("Load key \"{}\": bad permissions", .0.display())]
    Permissions(PathBuf),
    /// The file has no private key of a supported type.
    #[error("Load key \"{}\": {source}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: KeyFormatError,
    },
    /// The passphrase was not given, or was wrong too often.
    #[error("no passphrase for the key {}", .0.display())]
    NoPassphrase(PathBuf),
    /// The passphrase prompt was interrupted.
    #[error("interrupted")]
    Interrupted,
}

/// The identities of `options` in ssh's order, and separately the certificates of
/// `CertificateFile`. A missing file is an identity with an unknown public key; the error
/// appears when the key is needed.
pub fn load(options: &SshOptions, invoker: &Invoker) -> (Vec<Identity>, Vec<Identity>) {
    let mut identities = Vec::new();
    for path in &options.identity_files {
        identities.push(Identity {
            path: path.clone(),
            public: public_of(path, invoker),
        });
        // KEY-cert.pub applies unless certificates are configured.
        if options.certificate_files.is_empty()
            && let Some(certificate) = certificate_in(&with_suffix(path, "-cert.pub"), invoker)
        {
            identities.push(Identity {
                path: path.clone(),
                public: Public::Certificate(certificate),
            });
        }
    }
    let certificates = options.certificate_files.iter().filter_map(|path| {
        let certificate = certificate_in(path, invoker);
        if certificate.is_none() {
            tracing::debug!("no certificate in {}", path.display());
        }
        Some(Identity {
            path: path.clone(),
            public: Public::Certificate(certificate?),
        })
    });
    (identities, certificates.collect())
}

/// The public key or certificate of `path`: the file itself may be a public key whose
/// private key is in the agent; otherwise it is read from `path.pub` or from the private
/// key.
fn public_of(path: &Path, invoker: &Invoker) -> Public {
    let listed = [path.to_owned(), with_suffix(path, ".pub")]
        .iter()
        .find_map(|file| public_in(file, invoker));
    if let Some(public) = listed {
        return public;
    }
    let content = read(path, invoker).ok();
    let key = content.and_then(|content| private_key::public_half(&content));
    key.map_or(Public::Unknown, Public::Key)
}

/// The first public key or certificate in a file that has one per line.
fn public_in(path: &Path, invoker: &Invoker) -> Option<Public> {
    let content = read(path, invoker).ok()?;
    let lines = content.lines().map(str::trim_start);
    let mut lines = lines.take_while(|line| !line.starts_with("-----BEGIN"));
    let key = lines.find_map(key_line::parse)?;
    Some(match key.key_data() {
        KeyData::Certificate(certificate) => Public::Certificate(certificate.clone()),
        key => Public::Key(key.clone()),
    })
}

fn certificate_in(path: &Path, invoker: &Invoker) -> Option<Box<Certificate>> {
    match public_in(path, invoker)? {
        Public::Certificate(certificate) => Some(certificate),
        _ => None,
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Loads the private key in `path` with the invoker's rights. Prompts for the passphrase of
/// an encrypted key at most `NumberOfPasswordPrompts` times.
pub async fn load_private(
    path: &Path,
    invoker: &Invoker,
    options: &SshOptions,
    prompter: &Prompter,
) -> Result<Box<PrivateKey>, IdentityError> {
    let content = read_private(path, invoker, prompter)?;
    let format = |source| IdentityError::Format {
        path: path.to_owned(),
        source,
    };
    match private_key::decode(&content).map_err(format)? {
        Decoded::Key(key) => Ok(key),
        Decoded::Encrypted => {
            let content = Zeroizing::new(content.to_string());
            decrypt(path, content, options.number_of_password_prompts, prompter).await
        }
    }
}

async fn decrypt(
    path: &Path,
    content: Zeroizing<String>,
    tries: u32,
    prompter: &Prompter,
) -> Result<Box<PrivateKey>, IdentityError> {
    let prompt = format!("Enter passphrase for key '{}': ", path.display());
    let content = std::sync::Arc::new(content);
    for _ in 0..tries {
        let passphrase = match prompter.secret(&prompt).await {
            Ok(passphrase) if !passphrase.is_empty() => passphrase,
            Err(PromptError::Interrupted) => return Err(IdentityError::Interrupted),
            Ok(_) | Err(_) => break,
        };
        let content = content.clone();
        // The key derivation is slow by design.
        let decrypting =
            tokio::task::spawn_blocking(move || private_key::decrypt(&content, &passphrase));
        match decrypting.await {
            Ok(Ok(key)) => return Ok(key),
            Ok(Err(error)) => tracing::debug!("key {}: {error}", path.display()),
            Err(error) => tracing::debug!("decrypting {}: {error}", path.display()),
        }
    }
    Err(IdentityError::NoPassphrase(path.to_owned()))
}

/// Reads a private key, unless it belongs to the user and others can read it.
fn read_private(
    path: &Path,
    invoker: &Invoker,
    prompter: &Prompter,
) -> Result<Zeroizing<String>, IdentityError> {
    let failed = |source| IdentityError::Read {
        path: path.to_owned(),
        source,
    };
    let file = invoker.open(path).map_err(failed)?;
    let about = file.metadata().map_err(failed)?;
    if about.uid() == invoker.uid.as_raw() && about.mode() & 0o077 != 0 {
        prompter.error(&unprotected(path, about.mode()));
        return Err(IdentityError::Permissions(path.to_owned()));
    }
    read_text(file).map_err(failed)
}

fn read(path: &Path, invoker: &Invoker) -> io::Result<Zeroizing<String>> {
    read_text(invoker.open(path)?)
}

fn read_text(file: File) -> io::Result<Zeroizing<String>> {
    let length = file.metadata()?.len().min(MAX_FILE);
    // Room for the whole file: growing would leave copies of the key in memory.
    let mut content = Zeroizing::new(String::with_capacity(length as usize + 1));
    file.take(MAX_FILE).read_to_string(&mut content)?;
    Ok(content)
}

/// ssh's warning about a private key that others can read.
fn unprotected(path: &Path, mode: u32) -> String {
    const RULER: &str = "@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@";
    format!(
        "{RULER}\n\
         @         WARNING: UNPROTECTED PRIVATE KEY FILE!          @\n\
         {RULER}\n\
         Permissions 0{:03o} for '{}' are too open.\n\
         It is required that your private key files are NOT accessible by others.\n\
         This private key will be ignored.",
        mode & 0o777,
        path.display()
    )
}

#[cfg(test)]
mod tests;
