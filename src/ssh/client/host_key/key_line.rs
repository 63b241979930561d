//! Public keys as text, one per line (sshd(8), AUTHORIZED_KEYS FILE FORMAT), as in
//! known_hosts and `.pub` files, and ssh's names and fingerprints of keys.

use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, HashAlg, PublicKey, PublicKeyBase64, parse_public_key_base64};

use crate::config::ssh::options::FingerprintHash;

/// The suffix of every certificate algorithm's name.
pub(in crate::ssh) const CERTIFICATE_SUFFIX: &str = "-cert-v01@openssh.com";

/// Parses `TYPE BASE64 [COMMENT]`, separated by spaces or tabs; `None` if the key's type is
/// unknown or differs from `TYPE`.
pub(in crate::ssh) fn parse(text: &str) -> Option<PublicKey> {
    let mut fields = text.split([' ', '\t']).filter(|field| !field.is_empty());
    let name = fields.next()?;
    let mut key = parse_public_key_base64(fields.next()?).ok()?;
    if !is_named(key.key_data(), name) || matches!(key.key_data(), KeyData::Other(_)) {
        return None;
    }
    key.set_comment(fields.collect::<Vec<_>>().join(" "));
    Some(key)
}

/// `TYPE BASE64`, as OpenSSH writes it.
pub(in crate::ssh) fn format(key: &KeyData) -> String {
    let public = PublicKey::new(key.clone(), "");
    format!("{} {}", key.algorithm(), public.public_key_base64())
}

/// Whether `name` names keys of this type in a file. RSA keys also have the names of their
/// signature algorithms.
fn is_named(key: &KeyData, name: &str) -> bool {
    let named = match key.is_certificate() {
        true => Algorithm::new_certificate(name).ok(),
        false => Algorithm::new(name).ok(),
    };
    named.is_some_and(|named| same_kind(&named, &key.algorithm()))
}

/// Whether two algorithms use the same type of key: for RSA, with any hash of the
/// signature.
pub(in crate::ssh) fn same_kind(one: &Algorithm, other: &Algorithm) -> bool {
    match (one, other) {
        (Algorithm::Rsa { .. }, Algorithm::Rsa { .. }) => true,
        _ => one == other,
    }
}

/// ssh's name for the type of key in messages (`sshkey_type`).
pub(in crate::ssh) fn kind(key: &KeyData) -> &'static str {
    let certificate = key.is_certificate();
    match (key.algorithm(), certificate) {
        (Algorithm::Dsa, false) => "DSA",
        (Algorithm::Dsa, true) => "DSA-CERT",
        (Algorithm::Ecdsa { .. }, false) => "ECDSA",
        (Algorithm::Ecdsa { .. }, true) => "ECDSA-CERT",
        (Algorithm::Ed25519, false) => "ED25519",
        (Algorithm::Ed25519, true) => "ED25519-CERT",
        (Algorithm::Rsa { .. }, false) => "RSA",
        (Algorithm::Rsa { .. }, true) => "RSA-CERT",
        (Algorithm::SkEcdsaSha2NistP256, false) => "ECDSA-SK",
        (Algorithm::SkEcdsaSha2NistP256, true) => "ECDSA-SK-CERT",
        (Algorithm::SkEd25519, false) => "ED25519-SK",
        (Algorithm::SkEd25519, true) => "ED25519-SK-CERT",
        _ => "unknown",
    }
}

/// The fingerprint in ssh's format; for a certificate, that of the key in it.
pub(in crate::ssh) fn fingerprint(key: &KeyData, hash: FingerprintHash) -> String {
    let plain = key.certificate().map_or(key, |found| found.public_key());
    match hash {
        FingerprintHash::Sha256 => plain.fingerprint(HashAlg::Sha256).to_string(),
        FingerprintHash::Md5 => {
            let public = PublicKey::new(plain.clone(), "");
            let digest = md5::compute(public.public_key_bytes());
            let bytes: Vec<String> = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("MD5:{}", bytes.join(":"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

    #[test]
    fn a_line_is_a_type_a_blob_and_a_comment() {
        let key = parse(&format!("ssh-ed25519\t {ED25519}  alice at home")).unwrap();
        assert_eq!(key.comment().to_string(), "alice at home");
        assert_eq!(kind(key.key_data()), "ED25519");
        assert_eq!(format(key.key_data()), format!("ssh-ed25519 {ED25519}"));
        assert_eq!(
            fingerprint(key.key_data(), FingerprintHash::Sha256),
            "SHA256:T7SvZ2cslqpPj6nKzitCBHHlpVF3r3MvLwmFL0fk0IE"
        );
        assert_eq!(
            fingerprint(key.key_data(), FingerprintHash::Md5),
            "MD5:46:5d:0f:4b:7b:74:b6:5f:ce:80:b0:33:70:9e:33:96"
        );
    }

    #[test]
    fn a_type_that_is_not_the_blobs_is_refused() {
        for wrong in [
            format!("ssh-rsa {ED25519}"),
            format!("ecdsa-sha2-nistp256 {ED25519}"),
            format!("ssh-ed25519-cert-v01@openssh.com {ED25519}"),
            format!("ssh-ed25519 {}", &ED25519[..40]),
            "ssh-ed25519".to_owned(),
            format!("{ED25519} ssh-ed25519"),
            String::new(),
        ] {
            assert!(parse(&wrong).is_none(), "{wrong}");
        }
    }
}
