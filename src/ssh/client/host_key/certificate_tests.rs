//! Host certificates, and the algorithms that the client offers.

use russh::keys::ssh_key::certificate::{Builder, CertType};
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, Certificate, EcdsaCurve, PrivateKey, PublicKey};

use super::HostTrust;
use super::case::{Case, KEY};
use super::key_line;
use crate::config::ssh::options::StrictHostKeyChecking::{AcceptNew, Ask, Yes};

/// An authority, and a certificate that it signed for `name`.
fn certified(name: &str, kind: CertType) -> (PublicKey, Certificate) {
    let key = || PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).unwrap();
    let (authority, host) = (key(), key());
    let mut builder = Builder::new(vec![1; 16], host.public_key(), 0, u64::MAX >> 1).unwrap();
    builder.cert_type(kind).unwrap();
    builder.valid_principal(name).unwrap();
    let certificate = builder.sign(&authority).unwrap();
    (authority.public_key().clone(), certificate)
}

fn line_of(key: &KeyData) -> String {
    key_line::format(key)
}

#[tokio::test]
async fn a_certificate_of_a_known_authority_passes() {
    let (authority, certificate) = certified("server", CertType::Host);
    let line = line_of(authority.key_data());
    for (port, pattern) in [(22, "serv*"), (2222, "[serv*]:2222"), (2222, "server")] {
        let lines = format!("@cert-authority {pattern} {line}\n");
        let mut case = Case::new(&lines, Yes, &[]);
        case.options.port = port;
        let outcome = case.check().check(&certificate.clone().into()).await;
        assert_eq!(outcome.unwrap(), HostTrust::Verified, "{pattern}");
        assert!(case.seen().is_empty());
    }
}

#[tokio::test]
async fn a_certificate_that_does_not_do_falls_back_to_its_key() {
    let (authority, certificate) = certified("other", CertType::Host);
    let ca = line_of(authority.key_data());
    let own = line_of(certificate.public_key());
    let lines = format!("@cert-authority * {ca}\n");
    let case = Case::new(&lines, Yes, &[]);
    assert!(
        case.check()
            .check(&certificate.clone().into())
            .await
            .is_err()
    );
    assert_eq!(
        case.seen(),
        [
            "Certificate invalid: name is not a listed principal",
            "No ED25519 host key is known for server and you have requested strict checking.",
        ]
    );
    let case = Case::new(&format!("{lines}server {own}\n"), Yes, &[]);
    let outcome = case.check().check(&certificate.clone().into()).await;
    assert_eq!(outcome.unwrap(), HostTrust::Verified);
    // Without an authority, the user is prompted for the plain key, and it is recorded.
    let case = Case::new("", Ask, &["yes"]);
    case.check().check(&certificate.into()).await.unwrap();
    assert_eq!(case.file(), format!("server {own}\n"));
}

#[tokio::test]
async fn a_certificate_of_a_revoked_authority_is_refused() {
    let (authority, certificate) = certified("server", CertType::Host);
    let ca = line_of(authority.key_data());
    let lines = format!("@cert-authority server {ca}\n@revoked * {ca}\n");
    let case = Case::new(&lines, AcceptNew, &[]);
    assert!(case.check().check(&certificate.into()).await.is_err());
    assert!(case.seen()[0].contains("The ED25519-CERT host key for server is marked as revoked."));
}

#[test]
fn algorithms_of_known_keys_come_first() {
    let plain = |case: &Case| case.check().algorithms().plain;
    let case = Case::new("", Ask, &[]);
    let default = plain(&case);
    assert_eq!(default[0], Algorithm::Ed25519);
    assert_eq!(default.len(), 6, "without sk keys: {default:?}");
    assert!(case.check().algorithms().certificates.is_empty());

    let rng = &mut russh::keys::key::safe_rng();
    let curve = EcdsaCurve::NistP384;
    let key = PrivateKey::random(rng, Algorithm::Ecdsa { curve }).unwrap();
    let line = line_of(key.public_key().key_data());
    let mut case = Case::new(&format!("server {line}\n"), Ask, &[]);
    let ordered = plain(&case);
    assert_eq!(ordered[0], Algorithm::Ecdsa { curve });
    assert_eq!(ordered[1], Algorithm::Ed25519);
    case.options.host_key_algorithms_explicit = true;
    assert_eq!(plain(&case), default);
    // If a key of the best type is known as well, the order stays.
    let case = Case::new(&format!("server {line}\nserver {KEY}\n"), Ask, &[]);
    assert_eq!(plain(&case), default);
}

#[test]
fn certificates_are_offered_for_where_an_authority_is_known() {
    let case = Case::new(&format!("@cert-authority *.lab {KEY}\n"), Ask, &[]);
    assert!(case.check().algorithms().certificates.is_empty());
    let mut case = Case::new(&format!("@cert-authority serv* {KEY}\n"), Ask, &[]);
    case.options.port = 2222;
    let certificates = case.check().algorithms().certificates;
    assert_eq!(certificates[0], Algorithm::Ed25519);
    assert_eq!(certificates.len(), 4);
}
