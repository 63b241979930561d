//! Checks whether a host certificate (OpenSSH PROTOCOL.certkeys) that a known authority
//! signed is valid for a host.

use std::time::{SystemTime, UNIX_EPOCH};

use russh::keys::ssh_key::certificate::CertType;
use russh::keys::{Algorithm, Certificate, signing};
use thiserror::Error;

/// Why a certificate is invalid; the texts are ssh's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CertificateError {
    /// It is a user certificate.
    #[error("Certificate invalid: not a host certificate")]
    NotForHosts,
    /// It is not yet valid.
    #[error("Certificate invalid: not yet valid")]
    NotYetValid,
    /// It has expired.
    #[error("Certificate invalid: expired")]
    Expired,
    /// It lists other host names.
    #[error("Certificate invalid: name is not a listed principal")]
    OtherName,
    /// It has critical options; none are defined for hosts.
    #[error("Certificate contains unsupported critical options")]
    CriticalOptions,
    /// The authority's signature uses an algorithm outside of `CASignatureAlgorithms`.
    #[error("Certificate signed with disallowed algorithm")]
    Algorithm,
    /// The authority's signature is wrong.
    #[error("Certificate invalid: the authority's signature is wrong")]
    Signature,
}

/// Seconds since 1970; 0 if the clock is before that.
pub(in crate::ssh) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |duration| duration.as_secs())
}

/// Checks a certificate of a known authority for the host `name` at the time `now`. Like in
/// ssh, a certificate without principals is valid for every host.
pub(in crate::ssh) fn check(
    certificate: &Certificate,
    name: &str,
    now: u64,
    signature_algorithms: &[String],
) -> Result<(), CertificateError> {
    if certificate.cert_type() != CertType::Host {
        return Err(CertificateError::NotForHosts);
    }
    if now < certificate.valid_after() {
        return Err(CertificateError::NotYetValid);
    }
    if now >= certificate.valid_before() {
        return Err(CertificateError::Expired);
    }
    let principals = certificate.valid_principals();
    if !principals.is_empty() && !principals.iter().any(|principal| principal == name) {
        return Err(CertificateError::OtherName);
    }
    if !certificate.critical_options().is_empty() {
        return Err(CertificateError::CriticalOptions);
    }
    let algorithm = certificate.signature().algorithm();
    // SHA-1 is refused even if it is configured.
    if algorithm == (Algorithm::Rsa { hash: None })
        || !signature_algorithms
            .iter()
            .any(|name| name == algorithm.as_str())
    {
        return Err(CertificateError::Algorithm);
    }
    signing::verify_certificate(certificate).map_err(|_| CertificateError::Signature)
}

#[cfg(test)]
mod tests {
    use russh::keys::PrivateKey;
    use russh::keys::ssh_key::certificate::Builder;

    use super::*;

    fn key() -> PrivateKey {
        PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).unwrap()
    }

    /// A host certificate that is valid from 1000 to 2000, changed by `change`.
    fn certificate(change: impl FnOnce(&mut Builder)) -> Certificate {
        certificate_for(CertType::Host, change)
    }

    fn certificate_for(kind: CertType, change: impl FnOnce(&mut Builder)) -> Certificate {
        let subject = key();
        let nonce = vec![7; 16];
        let mut builder = Builder::new(nonce, subject.public_key(), 1000, 2000).unwrap();
        builder.cert_type(kind).unwrap();
        change(&mut builder);
        builder.sign(&key()).unwrap()
    }

    fn for_alpha(builder: &mut Builder) {
        builder.valid_principal("alpha").unwrap();
    }

    fn checked(certificate: &Certificate, name: &str, now: u64) -> Result<(), CertificateError> {
        check(certificate, name, now, &["ssh-ed25519".to_owned()])
    }

    #[test]
    fn validity_is_from_inclusive_to_exclusive() {
        let certificate = certificate(for_alpha);
        assert_eq!(
            checked(&certificate, "alpha", 999),
            Err(CertificateError::NotYetValid)
        );
        assert_eq!(checked(&certificate, "alpha", 1000), Ok(()));
        assert_eq!(checked(&certificate, "alpha", 1999), Ok(()));
        assert_eq!(
            checked(&certificate, "alpha", 2000),
            Err(CertificateError::Expired)
        );
    }

    #[test]
    fn principals_are_names_and_not_patterns() {
        let certificate = certificate(|builder| {
            builder.valid_principal("*.lab").unwrap();
        });
        assert_eq!(
            checked(&certificate, "a.lab", 1500),
            Err(CertificateError::OtherName)
        );
        assert_eq!(checked(&certificate, "*.lab", 1500), Ok(()));
    }

    #[test]
    fn user_certificates_and_critical_options_are_refused() {
        let user = certificate_for(CertType::User, for_alpha);
        assert_eq!(
            checked(&user, "alpha", 1500),
            Err(CertificateError::NotForHosts)
        );
        let bound = certificate(|builder| {
            for_alpha(builder);
            builder.critical_option("force-command", "true").unwrap();
        });
        assert_eq!(
            checked(&bound, "alpha", 1500),
            Err(CertificateError::CriticalOptions)
        );
    }

    #[test]
    fn the_authoritys_signature_has_to_be_right_and_of_an_allowed_kind() {
        let certificate = certificate(for_alpha);
        let only_rsa = ["rsa-sha2-512".to_owned()];
        assert_eq!(
            check(&certificate, "alpha", 1500, &only_rsa),
            Err(CertificateError::Algorithm)
        );
        let mut bytes = certificate.to_bytes().unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        let forged = Certificate::from_bytes(&bytes).unwrap();
        assert_eq!(
            checked(&forged, "alpha", 1500),
            Err(CertificateError::Signature)
        );
    }
}
