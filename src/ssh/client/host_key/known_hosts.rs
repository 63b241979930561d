//! Reads known_hosts files (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT) and looks up hosts in
//! them.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use russh::keys::ssh_key::known_hosts::HostPatterns;
use russh::keys::ssh_key::public::KeyData;

use super::key_line;
use crate::config::invoker::Invoker;
use crate::config::ssh::pattern::matches_list;

/// At most this many bytes of a file are read.
pub(in crate::ssh) const MAX_FILE: u64 = 64 << 20;

/// The length of a hashed name's salt: that of a SHA-1 digest.
pub(in crate::ssh) const SALT_LENGTH: usize = 20;

/// The meaning of a line's key for the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marker {
    /// The host's own key.
    HostKey,
    /// `@cert-authority`: signs the host's certificates.
    CertAuthority,
    /// `@revoked`: never accepted.
    Revoked,
}

/// One line with a key.
#[derive(Debug, Clone)]
pub struct KnownHost {
    /// The meaning of the key for the hosts.
    pub marker: Marker,
    /// The host names as written, or one hashed name.
    pub names: Names,
    /// The key.
    pub key: KeyData,
    /// The file.
    pub file: PathBuf,
    /// The line number, from 1.
    pub line: usize,
}

/// The host names of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Names {
    /// Patterns separated by commas.
    Patterns(String),
    /// HMAC-SHA1 of one name with the salt as the key.
    Hashed {
        /// The salt.
        salt: [u8; SALT_LENGTH],
        /// The digest.
        digest: [u8; 20],
    },
}

impl Names {
    /// `None` for a malformed hashed name.
    fn parse(text: &str) -> Option<Self> {
        if !text.starts_with('|') {
            return Some(Names::Patterns(text.to_owned()));
        }
        match text.parse() {
            Ok(HostPatterns::HashedName { salt, hash }) => Some(Names::Hashed {
                salt: salt.try_into().ok()?,
                digest: hash,
            }),
            _ => None,
        }
    }

    /// Whether the line applies to `host`, which is in lower case.
    fn matches(&self, host: &str) -> bool {
        match self {
            Names::Patterns(patterns) => matches_list(host, &patterns.to_ascii_lowercase()),
            Names::Hashed { salt, digest } => hash(salt, host) == *digest,
        }
    }
}

impl std::fmt::Display for Names {
    /// The names as ssh shows them.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Names::Patterns(patterns) => f.write_str(patterns),
            Names::Hashed { .. } => f.write_str("[hashed name]"),
        }
    }
}

/// The hash of `host` as in a file.
pub(in crate::ssh) fn hash(salt: &[u8; SALT_LENGTH], host: &str) -> [u8; 20] {
    use aws_lc_rs::hmac;
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, salt);
    let tag = hmac::sign(&key, host.as_bytes());
    let mut digest = [0; 20];
    for (to, from) in digest.iter_mut().zip(tag.as_ref()) {
        *to = *from;
    }
    digest
}

/// The lines of one or more files, in order.
#[derive(Debug, Clone, Default)]
pub struct KnownHosts {
    lines: Vec<KnownHost>,
}

impl KnownHosts {
    /// Reads `files` as the invoker. Like in ssh, an unreadable file counts as empty.
    pub fn load<'a>(files: impl IntoIterator<Item = &'a PathBuf>, invoker: &Invoker) -> Self {
        let mut known = Self::default();
        for file in files {
            match read(file, invoker) {
                Ok(content) => known.add(file, &content),
                Err(error) => tracing::debug!("known hosts in {}: {error}", file.display()),
            }
        }
        known
    }

    fn add(&mut self, file: &Path, content: &[u8]) {
        for (index, bytes) in content.split(|byte| *byte == b'\n').enumerate() {
            let number = index + 1;
            let line = std::str::from_utf8(bytes).ok();
            match line.map(|line| parse_line(line, file, number)) {
                Some(Ok(Some(known))) => self.lines.push(known),
                Some(Ok(None)) => {}
                Some(Err(Broken)) | None => {
                    tracing::debug!("{}:{number}: not a known_hosts line", file.display());
                }
            }
        }
    }

    /// The keys in the files for `host`, which is a name or `[name]:port`.
    pub fn about(&self, host: &str) -> HostKeys<'_> {
        let host = host.to_ascii_lowercase();
        let matching = self.lines.iter().filter(|line| line.names.matches(&host));
        let mut found = HostKeys::default();
        for line in matching {
            match line.marker {
                Marker::HostKey => found.keys.push(line),
                Marker::CertAuthority => found.authorities.push(line),
                Marker::Revoked => found.revoked.push(line),
            }
        }
        found
    }

    /// Lines with `key` whose names do not include `host`.
    pub fn other_hosts_with<'a>(
        &'a self,
        key: &'a KeyData,
        host: &'a str,
    ) -> impl Iterator<Item = &'a KnownHost> {
        let host = host.to_ascii_lowercase();
        self.lines.iter().filter(move |line| {
            line.marker == Marker::HostKey && line.key == *key && !line.names.matches(&host)
        })
    }
}

/// The known keys of one host.
#[derive(Debug, Clone, Default)]
pub struct HostKeys<'a> {
    /// The host's own keys.
    pub keys: Vec<&'a KnownHost>,
    /// Keys that sign the host's certificates.
    pub authorities: Vec<&'a KnownHost>,
    /// Revoked keys, refused as a host key and as an authority.
    pub revoked: Vec<&'a KnownHost>,
}

/// The status of a host's key in the files.
#[derive(Debug, Clone)]
pub enum KeyStatus<'a> {
    /// The key is known, in this line.
    Known(&'a KnownHost),
    /// The host is unknown.
    New,
    /// Only other keys of the host are known; this line has the last of them.
    Changed(&'a KnownHost),
    /// The key is revoked.
    Revoked,
}

impl<'a> HostKeys<'a> {
    /// Whether `key` is revoked for the host.
    pub fn is_revoked(&self, key: &KeyData) -> bool {
        self.revoked.iter().any(|line| line.key == *key)
    }

    /// The status of `key`. Like in ssh, a key of another type than the known ones counts
    /// as changed.
    pub fn status_of(&self, key: &KeyData) -> KeyStatus<'a> {
        if self.is_revoked(key) {
            return KeyStatus::Revoked;
        }
        let same = self.keys.iter().find(|line| line.key == *key);
        match (same, self.keys.last()) {
            (Some(line), _) => KeyStatus::Known(line),
            (None, Some(line)) => KeyStatus::Changed(line),
            (None, None) => KeyStatus::New,
        }
    }
}

/// A line that is neither a key, nor blank, nor a comment.
struct Broken;

fn parse_line(line: &str, file: &Path, number: usize) -> Result<Option<KnownHost>, Broken> {
    let blank = [' ', '\t'];
    let line = line.strip_suffix('\r').unwrap_or(line);
    let mut rest = line.trim_start_matches(blank);
    if rest.is_empty() || rest.starts_with('#') {
        return Ok(None);
    }
    let mut marker = Marker::HostKey;
    if rest.starts_with('@') {
        let (word, after) = rest.split_once(blank).ok_or(Broken)?;
        marker = match word {
            "@cert-authority" => Marker::CertAuthority,
            "@revoked" => Marker::Revoked,
            _ => return Err(Broken),
        };
        rest = after.trim_start_matches(blank);
    }
    let (names, key) = rest.split_once(blank).ok_or(Broken)?;
    // A second marker, or a name that looks like one.
    if names.is_empty() || names.starts_with('@') {
        return Err(Broken);
    }
    let key = key_line::parse(key).ok_or(Broken)?;
    if key.key_data().is_certificate() {
        return Err(Broken);
    }
    Ok(Some(KnownHost {
        marker,
        names: Names::parse(names).ok_or(Broken)?,
        key: key.key_data().clone(),
        file: file.to_owned(),
        line: number,
    }))
}

/// Reads a file of keys as the invoker.
pub(in crate::ssh) fn read(file: &Path, invoker: &Invoker) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    invoker
        .open(file)?
        .take(MAX_FILE)
        .read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests;
