//! The holder of a lease, derived from its login.

use std::fmt::Write;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::server::login::grant::Identity;

/// Longer key ids of certificates, in bytes, are replaced by their hash.
const LONGEST_KEY_ID: usize = 200;

/// The holder of a lease: a key by its fingerprint, a certificate by its authority and
/// key id, so that a renewed certificate is the same holder.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct LeaseKey(Arc<str>);

impl LeaseKey {
    /// The holder for a login.
    pub fn of(identity: &Identity) -> Self {
        match &identity.certificate {
            // A fingerprint has no spaces, so the two parts cannot be confused.
            Some(certificate) => {
                let id = bounded(&certificate.key_id);
                Self(format!("{} {id}", certificate.authority).into())
            }
            None => Self(identity.fingerprint.as_str().into()),
        }
    }

    #[cfg(test)]
    pub(in crate::server) fn from_text(text: &str) -> Self {
        Self(text.into())
    }

    /// A number that distributes the holders over a pool; constant for one holder.
    pub(in crate::server) fn spread(&self) -> u128 {
        let hash = digest(&SHA256, self.0.as_bytes());
        let first = hash.as_ref().iter().take(16);
        first.fold(0, |number, byte| number << 8 | u128::from(*byte))
    }
}

fn bounded(key_id: &str) -> String {
    if key_id.len() <= LONGEST_KEY_ID {
        return key_id.to_owned();
    }
    let mut text = "sha256 ".to_owned();
    for byte in digest(&SHA256, key_id.as_bytes()).as_ref() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

impl From<String> for LeaseKey {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<LeaseKey> for String {
    fn from(key: LeaseKey) -> String {
        key.0.as_ref().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::login::grant::CertificateIdentity;

    fn identity(key_id: Option<&str>) -> Identity {
        Identity {
            user: "someone".to_owned(),
            fingerprint: "SHA256:key".to_owned(),
            certificate: key_id.map(|key_id| CertificateIdentity {
                key_id: key_id.to_owned(),
                serial: 1,
                authority: "SHA256:authority".to_owned(),
            }),
        }
    }

    #[test]
    fn a_renewed_certificate_is_the_same_holder_and_a_bare_key_another() {
        let with = LeaseKey::of(&identity(Some("laptop")));
        let renewed = Identity {
            fingerprint: "SHA256:other".to_owned(),
            user: "else".to_owned(),
            ..identity(Some("laptop"))
        };
        assert_eq!(LeaseKey::of(&renewed), with);
        assert_ne!(LeaseKey::of(&identity(Some("desk"))), with);
        assert_ne!(LeaseKey::of(&identity(None)), with);
        let long = "x".repeat(100_000);
        let of_long = LeaseKey::of(&identity(Some(&long)));
        assert!(String::from(of_long.clone()).len() < 300);
        assert_ne!(of_long, LeaseKey::of(&identity(Some(&format!("{long}y")))));
    }
}
