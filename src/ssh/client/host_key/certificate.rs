//! Host certificates (OpenSSH PROTOCOL.certkeys): whether one that a known
//! authority signed is good for a host.

use std::time::{SystemTime, UNIX_EPOCH};

use russh::keys::ssh_key::certificate::CertType;
use russh::keys::{Algorithm, Certificate, signing};
use thiserror::Error;

/// Why a certificate is not good; the texts are ssh's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CertificateError {
    /// It is for a user.
    #[error("Certificate invalid: not a host certificate")]
    NotForHosts,
    /// Its time has not come.
    #[error("Certificate invalid: not yet valid")]
    NotYetValid,
    /// Its time is over.
    #[error("Certificate invalid: expired")]
    Expired,
    /// It is for other hosts.
    #[error("Certificate invalid: name is not a listed principal")]
    OtherName,
    /// It is bound to a condition, and none is defined for hosts.
    #[error("Certificate contains unsupported critical options")]
    CriticalOptions,
    /// The authority used an algorithm outside `CASignatureAlgorithms`.
    #[error("Certificate signed with disallowed algorithm")]
    Algorithm,
    /// The authority did not sign this.
    #[error("Certificate invalid: the signature of its authority is wrong")]
    Signature,
}

/// Seconds since 1970; 0 when the clock is before that.
pub(in crate::ssh) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |duration| duration.as_secs())
}

/// Checks a certificate whose authority is known, for the host `name` at the
/// time `now`. One without principals is for every host, as with ssh.
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
    // SHA-1 not even where it is configured.
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

    /// A host certificate from 1000 to 2000, changed by `change`.
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
