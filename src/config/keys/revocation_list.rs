//! Revoked keys and certificates: `RevokedKeys` of sshd_config(5) and `RevokedHostKeys` of
//! ssh_config(5), as a text list of keys or as a KRL (OpenSSH PROTOCOL.krl), which `ssh-keygen -k`
//! makes.
//!
//! A list that cannot be parsed completely is an error, since a revoked key could be accepted
//! otherwise.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use aws_lc_rs::digest::{SHA256, digest};
use sha1::{Digest, Sha1};
use thiserror::Error;

use super::key_blob::{KeyBlob, KeyError};
use super::wire_reader::WireReader;

/// The magic bytes of a KRL.
const MAGIC: &[u8] = b"SSHKRL\n\0";
/// The only supported version.
const FORMAT_VERSION: u32 = 1;

// Types of sections, and of subsections about an authority's certificates.
const CERTIFICATES: u8 = 1;
const EXPLICIT_KEY: u8 = 2;
const FINGERPRINT_SHA1: u8 = 3;
const FINGERPRINT_SHA256: u8 = 5;
const EXTENSION: u8 = 255;
const SERIAL_LIST: u8 = 0x20;
const SERIAL_RANGE: u8 = 0x21;
const SERIAL_BITMAP: u8 = 0x22;
const KEY_ID: u8 = 0x23;
const CERTIFICATE_EXTENSION: u8 = 0x39;

/// The reason why a list cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RevocationError {
    /// A line of a text list is not a key.
    #[error("line {line}: {problem}")]
    Line {
        /// The line's number, from 1.
        line: usize,
        /// The reason.
        problem: KeyError,
    },
    /// A KRL that is truncated, or contains invalid data.
    #[error("the KRL is damaged in {0}: make it again with ssh-keygen -k")]
    Damaged(&'static str),
    /// A KRL of an unknown version.
    #[error("the KRL has format {0}; only format 1 is supported")]
    Version(u32),
    /// A KRL with data that has to be understood, but is unknown.
    #[error("the KRL contains {0}, which is not supported")]
    Unknown(String),
}

/// Revoked keys and certificates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RevocationList {
    keys: HashSet<KeyBlob>,
    sha1: HashSet<[u8; 20]>,
    sha256: HashSet<[u8; 32]>,
    certificates: Vec<Certificates>,
}

/// The fields of a certificate that a list can revoke.
#[derive(Debug, Clone, Copy)]
pub struct CertificateName<'a> {
    /// The key that signed it.
    pub authority: &'a KeyBlob,
    /// Its serial number; 0 if the authority does not number its certificates.
    pub serial: u64,
    /// Its key id.
    pub key_id: &'a str,
}

/// The revoked certificates of one authority, or of all authorities.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Certificates {
    authority: Option<KeyBlob>,
    serials: Vec<RangeInclusive<u64>>,
    bitmaps: Vec<Bitmap>,
    key_ids: HashSet<Vec<u8>>,
}

/// A bitmap of serial numbers: bit 0 of a big-endian number stands for `offset`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bitmap {
    offset: u64,
    bits: Vec<u8>,
}

impl RevocationList {
    /// Parses a text list or a KRL.
    pub fn parse(content: &[u8]) -> Result<Self, RevocationError> {
        match content.strip_prefix(MAGIC) {
            Some(rest) => Self::parse_krl(WireReader::new(rest)),
            None => Self::parse_text(content),
        }
    }

    /// Whether the list contains a key; check a certificate's key and its authority's key too.
    pub fn revokes_key(&self, key: &KeyBlob) -> bool {
        // Computes the hash only if the list has hashes.
        let by_sha1 = || self.sha1.contains(&<[u8; 20]>::from(Sha1::digest(&key.0)));
        let by_sha256 = || {
            let hash = digest(&SHA256, &key.0);
            self.sha256.iter().any(|listed| listed == hash.as_ref())
        };
        self.keys.contains(key)
            || (!self.sha1.is_empty() && by_sha1())
            || (!self.sha256.is_empty() && by_sha256())
    }

    /// Whether the list contains a certificate's serial number or key id.
    pub fn revokes_certificate(&self, certificate: CertificateName<'_>) -> bool {
        self.certificates.iter().any(|section| {
            let concerned = section
                .authority
                .as_ref()
                .is_none_or(|authority| authority == certificate.authority);
            concerned && section.lists(certificate)
        })
    }

    fn parse_text(content: &[u8]) -> Result<Self, RevocationError> {
        let mut list = Self::default();
        for (line, bytes) in (1..).zip(content.split(|&byte| byte == b'\n')) {
            let text = String::from_utf8_lossy(bytes);
            let mut fields = text.split_whitespace();
            let kind = match fields.next() {
                None => continue,
                Some(word) if word.starts_with('#') => continue,
                Some(kind) => kind,
            };
            let key = KeyBlob::parse_revoked(kind, fields.next().unwrap_or_default());
            match key {
                Ok(key) => list.keys.insert(key),
                Err(problem) => return Err(RevocationError::Line { line, problem }),
            };
        }
        Ok(list)
    }

    fn parse_krl(mut reader: WireReader<'_>) -> Result<Self, RevocationError> {
        let header = RevocationError::Damaged("its header");
        let version = reader.u32().ok_or(header.clone())?;
        if version != FORMAT_VERSION {
            return Err(RevocationError::Version(version));
        }
        // Version, date, flags, and two strings.
        let read = reader.bytes(24).and(reader.string()).and(reader.string());
        read.ok_or(header)?;
        let mut list = Self::default();
        while !reader.is_empty() {
            let section = reader.u8().zip(reader.string());
            let (kind, content) = section.ok_or(RevocationError::Damaged("a section"))?;
            list.take_section(kind, WireReader::new(content))?;
        }
        Ok(list)
    }

    fn take_section(
        &mut self,
        kind: u8,
        mut reader: WireReader<'_>,
    ) -> Result<(), RevocationError> {
        match kind {
            CERTIFICATES => self.certificates.push(Certificates::parse(reader)?),
            EXPLICIT_KEY => each_string(&mut reader, "its keys", |key| {
                Some(self.keys.insert(KeyBlob(key.to_vec())))
            })?,
            FINGERPRINT_SHA1 => each_string(&mut reader, "its SHA-1 fingerprints", |hash| {
                Some(self.sha1.insert(hash.try_into().ok()?))
            })?,
            FINGERPRINT_SHA256 => each_string(&mut reader, "its SHA-256 fingerprints", |hash| {
                Some(self.sha256.insert(hash.try_into().ok()?))
            })?,
            EXTENSION => skip_extension(&mut reader)?,
            other => return Err(RevocationError::Unknown(format!("a section {other}"))),
        }
        Ok(())
    }
}

impl Certificates {
    fn parse(mut reader: WireReader<'_>) -> Result<Self, RevocationError> {
        let damaged = || RevocationError::Damaged("a section about certificates");
        let authority = reader.string().ok_or_else(damaged)?;
        reader.string().ok_or_else(damaged)?;
        let mut section = Self {
            authority: (!authority.is_empty()).then(|| KeyBlob(authority.to_vec())),
            serials: Vec::new(),
            bitmaps: Vec::new(),
            key_ids: HashSet::new(),
        };
        while !reader.is_empty() {
            let (kind, content) = reader.u8().zip(reader.string()).ok_or_else(damaged)?;
            section.take_subsection(kind, WireReader::new(content))?;
        }
        Ok(section)
    }

    fn take_subsection(
        &mut self,
        kind: u8,
        mut reader: WireReader<'_>,
    ) -> Result<(), RevocationError> {
        let damaged = || RevocationError::Damaged("its serial numbers");
        match kind {
            SERIAL_LIST => {
                while !reader.is_empty() {
                    let serial = reader.u64().ok_or_else(damaged)?;
                    self.serials.push(serial..=serial);
                }
            }
            SERIAL_RANGE => {
                let (first, last) = reader.u64().zip(reader.u64()).ok_or_else(damaged)?;
                if first > last {
                    return Err(damaged());
                }
                self.serials.push(first..=last);
            }
            SERIAL_BITMAP => {
                let offset = reader.u64();
                let (offset, bits) = offset.zip(reader.positive()).ok_or_else(damaged)?;
                let bitmap = Bitmap {
                    offset,
                    bits: bits.to_vec(),
                };
                bitmap.last().ok_or_else(damaged)?;
                self.bitmaps.push(bitmap);
            }
            KEY_ID => each_string(&mut reader, "its key ids", |id| {
                Some(self.key_ids.insert(id.to_vec()))
            })?,
            CERTIFICATE_EXTENSION => skip_extension(&mut reader)?,
            other => {
                let what = format!("a section {other:#04x} about certificates");
                return Err(RevocationError::Unknown(what));
            }
        }
        match reader.is_empty() {
            true => Ok(()),
            false => Err(damaged()),
        }
    }

    fn lists(&self, certificate: CertificateName<'_>) -> bool {
        if self.key_ids.contains(certificate.key_id.as_bytes()) {
            return true;
        }
        let serial = certificate.serial;
        // Serial number 0 means that the authority does not number its certificates.
        serial != 0
            && (self.serials.iter().any(|range| range.contains(&serial))
                || self.bitmaps.iter().any(|bitmap| bitmap.has(serial)))
    }
}

impl Bitmap {
    /// The highest serial number of the bitmap; `None` if it exceeds 64 bits.
    fn last(&self) -> Option<u64> {
        let bits = u64::try_from(self.bits.len()).ok()?.checked_mul(8)?;
        let unused = u64::from(self.bits.first()?.leading_zeros());
        self.offset.checked_add(bits - unused - 1)
    }

    fn has(&self, serial: u64) -> bool {
        let Some(bit) = serial.checked_sub(self.offset) else {
            return false;
        };
        let byte = usize::try_from(bit / 8).ok();
        let byte = byte.and_then(|byte| self.bits.iter().rev().nth(byte));
        byte.is_some_and(|byte| byte >> (bit % 8) & 1 == 1)
    }
}

/// Calls `take` for each string of a section; `None` from it means invalid data.
fn each_string(
    reader: &mut WireReader<'_>,
    what: &'static str,
    mut take: impl FnMut(&[u8]) -> Option<bool>,
) -> Result<(), RevocationError> {
    while !reader.is_empty() {
        let taken = reader.string().and_then(&mut take);
        taken.ok_or(RevocationError::Damaged(what))?;
    }
    Ok(())
}

/// Skips an extension; an error if it is critical.
fn skip_extension(reader: &mut WireReader<'_>) -> Result<(), RevocationError> {
    let damaged = RevocationError::Damaged("an extension");
    let (name, critical) = reader.string().zip(reader.u8()).ok_or(damaged.clone())?;
    reader.string().ok_or(damaged.clone())?;
    if critical != 0 {
        let name = String::from_utf8_lossy(name);
        return Err(RevocationError::Unknown(format!("an extension '{name}'")));
    }
    match reader.is_empty() {
        true => Ok(()),
        false => Err(damaged),
    }
}

#[cfg(test)]
mod tests;
