//! Converts the client's credentials from russh's types to plain data, and rejects those
//! that are never acceptable.

use std::time::Duration;

use russh::keys::ssh_key::certificate::{CertType, OptionsMap};
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Certificate, PublicKey};
use russh::server::{PublicKeyFailure, PublicKeyOffer};

use super::credential::{Credential, KeyBlob, UserCertificate};
use super::key_strength;

/// Why a credential is never acceptable.
type Unfit = &'static str;

/// The offered key or certificate; also checks the algorithm that it would sign with.
pub(in crate::ssh::server) fn offered(offer: &PublicKeyOffer<'_>) -> Result<Credential, Unfit> {
    key_strength::check_signature(offer.algorithm)?;
    match offer.certificate {
        Some(certificate) => self::certificate(certificate),
        None => key(offer.public_key),
    }
}

/// What is wrong with a key or certificate by itself, for the log.
pub(in crate::ssh::server) fn failure(why: PublicKeyFailure) -> &'static str {
    match why {
        PublicKeyFailure::Signature => "bad signature",
        PublicKeyFailure::Algorithm => "bad signature: its algorithm is not the announced one",
        PublicKeyFailure::CertificateTime => "the certificate has expired or is not yet valid",
        PublicKeyFailure::CertificateSignature => {
            "bad certificate: it is not signed by the authority that it names"
        }
        _ => "not proven",
    }
}

/// A plain key.
pub(in crate::ssh::server) fn key(key: &PublicKey) -> Result<Credential, Unfit> {
    blob(key.key_data()).map(Credential::Key)
}

/// A certificate. russh has verified the authority's signature, unless the certificate
/// failed because of it.
pub(in crate::ssh::server) fn certificate(certificate: &Certificate) -> Result<Credential, Unfit> {
    if certificate.cert_type() != CertType::User {
        return Err("a certificate that is not for users");
    }
    key_strength::check_signature(&certificate.signature().algorithm())?;
    Ok(Credential::Certificate(Box::new(UserCertificate {
        key: blob(certificate.public_key())?,
        authority: blob(certificate.signature_key())?,
        key_id: certificate.key_id().to_owned(),
        serial: certificate.serial(),
        principals: certificate.valid_principals().to_vec(),
        valid_after: Duration::from_secs(certificate.valid_after()),
        valid_before: Duration::from_secs(certificate.valid_before()),
        critical_options: options(certificate.critical_options()),
        extensions: options(certificate.extensions()),
    })))
}

fn options(options: &OptionsMap) -> Vec<(String, String)> {
    options
        .iter()
        .map(|(name, data)| (name.clone(), data.clone()))
        .collect()
}

/// The bytes of an acceptable key.
fn blob(key: &KeyData) -> Result<KeyBlob, Unfit> {
    if key.is_certificate() {
        return Err("a certificate in place of a key");
    }
    key_strength::check(key)?;
    let bytes = PublicKey::new(key.clone(), "").to_bytes();
    bytes
        .map(KeyBlob)
        .map_err(|_| "a key that cannot be encoded")
}

#[cfg(test)]
mod tests {
    use russh::keys::ssh_key::certificate::Builder;
    use russh::keys::{Algorithm, HashAlg, PrivateKey};

    use super::*;
    use crate::ssh::test_settings::RSA_KEY;

    fn private() -> PrivateKey {
        PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).unwrap()
    }

    fn certificate_of(kind: CertType, subject: &PublicKey, authority: &PrivateKey) -> Certificate {
        let mut builder = Builder::new(vec![7; 16], subject, 1000, 2000).unwrap();
        builder.cert_type(kind).unwrap();
        builder.serial(42).unwrap();
        builder.key_id("alice's").unwrap();
        builder.valid_principal("alice").unwrap();
        builder
            .critical_option("source-address", "10.0.0.0/8")
            .unwrap();
        builder.extension("permit-pty", "").unwrap();
        builder.sign(authority).unwrap()
    }

    #[test]
    fn the_fields_of_a_certificate_are_handed_on() {
        let (subject, authority) = (private(), private());
        let shown = certificate_of(CertType::User, subject.public_key(), &authority);
        let Credential::Certificate(shown) = certificate(&shown).unwrap() else {
            panic!("a plain key");
        };
        let bytes = |key: &PrivateKey| KeyBlob(key.public_key().to_bytes().unwrap());
        assert_eq!(shown.key, bytes(&subject));
        assert_eq!(shown.authority, bytes(&authority));
        assert_eq!((shown.key_id.as_str(), shown.serial), ("alice's", 42));
        assert_eq!(shown.principals, ["alice"]);
        assert_eq!(shown.valid_after, Duration::from_secs(1000));
        assert_eq!(shown.valid_before, Duration::from_secs(2000));
        let option = |name: &str, data: &str| vec![(name.to_owned(), data.to_owned())];
        assert_eq!(
            shown.critical_options,
            option("source-address", "10.0.0.0/8")
        );
        assert_eq!(shown.extensions, option("permit-pty", ""));
    }

    #[test]
    fn what_is_not_for_users_or_too_weak_is_unfit() {
        let (subject, authority) = (private(), private());
        let host = certificate_of(CertType::Host, subject.public_key(), &authority);
        assert!(certificate(&host).unwrap_err().contains("not for users"));
        let short = PublicKey::from_openssh(RSA_KEY).unwrap();
        assert!(key(&short).unwrap_err().contains("2048"));
        let weak = certificate_of(CertType::User, &short, &authority);
        assert!(certificate(&weak).unwrap_err().contains("2048"));
        let sha2 = Algorithm::Rsa {
            hash: Some(HashAlg::Sha512),
        };
        assert_eq!(key_strength::check_signature(&sha2), Ok(()));
    }
}
