//! Checks whether a public key is strong enough, for clients, certificates and host keys.

use russh::keys::Algorithm;
use russh::keys::ssh_key::public::KeyData;

/// The sizes of accepted RSA keys, in bits: none shorter (RFC 9142 and NIST SP 800-131A;
/// sshd's `RequiredRSASize` is 1024 by default), none longer than aws-lc verifies.
const RSA_BITS: std::ops::RangeInclusive<u32> = 2048..=8192;

/// Fails with the reason for a key that is too weak or of an unsupported type.
pub(in crate::ssh::server) fn check(key: &KeyData) -> Result<(), &'static str> {
    match key.algorithm() {
        Algorithm::Rsa { .. } => match key.rsa() {
            Some(rsa) if RSA_BITS.contains(&rsa.key_size()) => Ok(()),
            _ => Err("an rsa key of less than 2048 or more than 8192 bits"),
        },
        Algorithm::Ed25519
        | Algorithm::Ecdsa { .. }
        | Algorithm::SkEd25519
        | Algorithm::SkEcdsaSha2NistP256 => Ok(()),
        _ => Err("a key of a type that is not supported"),
    }
}

/// Fails with the reason for a signature with SHA-1 or of an unsupported type.
pub(in crate::ssh::server) fn check_signature(algorithm: &Algorithm) -> Result<(), &'static str> {
    match algorithm {
        Algorithm::Rsa { hash: None } => Err("a signature with SHA-1"),
        Algorithm::Rsa { .. }
        | Algorithm::Ed25519
        | Algorithm::Ecdsa { .. }
        | Algorithm::SkEd25519
        | Algorithm::SkEcdsaSha2NistP256 => Ok(()),
        _ => Err("a signature of a type that is not supported"),
    }
}

#[cfg(test)]
mod tests {
    use russh::keys::{HashAlg, PublicKey};

    use super::*;
    use crate::ssh::test_settings::RSA_KEY;

    #[test]
    fn short_rsa_keys_and_sha1_are_not_taken() {
        let short = PublicKey::from_openssh(RSA_KEY).unwrap();
        assert!(check(short.key_data()).unwrap_err().contains("2048"));
        let sha1 = Algorithm::Rsa { hash: None };
        assert!(check_signature(&sha1).unwrap_err().contains("SHA-1"));
        let sha2 = Algorithm::Rsa {
            hash: Some(HashAlg::Sha256),
        };
        assert_eq!(check_signature(&sha2), Ok(()));
        assert!(check_signature(&Algorithm::Dsa).is_err());
    }
}
