//! The order of keys, and the signer for a certificate.

use russh::keys::ssh_key::certificate::Builder;
use russh::keys::{PrivateKey, PublicKey};

use super::*;
use crate::ssh::test_settings;

fn key() -> PrivateKey {
    PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).unwrap()
}

fn certificate(key: &PrivateKey, kind: CertType) -> Certificate {
    let mut builder = Builder::new(vec![1; 16], key.public_key(), 0, 1000).unwrap();
    builder.cert_type(kind).unwrap();
    builder.valid_principal("alice").unwrap();
    builder.sign(&key_of_authority()).unwrap()
}

fn key_of_authority() -> PrivateKey {
    key()
}

fn file(path: &str, public: Public) -> Identity {
    Identity {
        path: path.into(),
        public,
    }
}

fn plain(key: &PrivateKey) -> Public {
    Public::Key(key.public_key().key_data().clone())
}

fn in_agent(key: &PrivateKey, comment: &str) -> AgentIdentity {
    AgentIdentity::PublicKey {
        key: PublicKey::new(key.public_key().key_data().clone(), ""),
        comment: comment.to_owned(),
    }
}

fn labels(queue: &VecDeque<Candidate>) -> Vec<&str> {
    let labels = queue.iter().map(|candidate| candidate.label.as_str());
    labels.collect()
}

#[test]
fn certificates_then_the_agents_configured_keys_then_its_others_then_files() {
    let [a, b, c, d] = [key(), key(), key(), key()];
    let named = certificate(&d, CertType::User);
    let identities = vec![
        file("a", plain(&a)),
        file("b", plain(&b)),
        file("unknown", Public::Unknown),
    ];
    let certificates = vec![file("named", Public::Certificate(Box::new(named)))];
    let agent = vec![in_agent(&c, "other"), in_agent(&b, "b in the agent")];
    let mut options = test_settings::options();
    let queue = arrange(
        identities.clone(),
        certificates.clone(),
        agent.clone(),
        &options,
    );
    assert_eq!(labels(&queue), ["named", "b", "other", "a", "unknown"]);
    options.identities_only = true;
    let queue = arrange(identities, certificates, agent, &options);
    assert_eq!(labels(&queue), ["named", "b", "a", "unknown"]);
    assert!(queue[1].in_agent.is_some());
}

#[test]
fn each_key_once_and_only_accepted_kinds() {
    let [a, b] = [key(), key()];
    let host = certificate(&b, CertType::Host);
    let identities = vec![
        file("a", plain(&a)),
        file("copy of a", plain(&a)),
        file("x", Public::Unknown),
        file("x", Public::Unknown),
        file("host", Public::Certificate(Box::new(host))),
    ];
    let mut options = test_settings::options();
    let queue = arrange(identities.clone(), Vec::new(), Vec::new(), &options);
    assert_eq!(labels(&queue), ["a", "x"]);
    options.pubkey_accepted_algorithms = vec!["rsa-sha2-*".into()];
    let queue = arrange(identities, Vec::new(), Vec::new(), &options);
    assert_eq!(labels(&queue), ["x"]);
}

/// The signer for the certificate `named`, whose key is `key`.
fn signer_for(key: &PrivateKey, identities: Vec<Identity>, agent: Vec<AgentIdentity>) -> SignedBy {
    let certificate = certificate(key, CertType::User);
    let named = file("id-cert.pub", Public::Certificate(Box::new(certificate)));
    let options = test_settings::options();
    let queue = arrange(identities, vec![named], agent, &options);
    assert_eq!(queue[0].label, "id-cert.pub");
    signer(&queue[0], &queue).unwrap()
}

#[test]
fn a_certificate_is_signed_for_by_whoever_has_its_key() {
    let key = key();
    let by_agent = signer_for(&key, Vec::new(), vec![in_agent(&key, "held")]);
    assert!(matches!(by_agent, SignedBy::Agent(_)));
    let by_file = signer_for(&key, vec![file("elsewhere", plain(&key))], Vec::new());
    assert!(matches!(by_file, SignedBy::File(path) if path == Path::new("elsewhere")));
    let by_name = signer_for(&key, vec![file("id", Public::Unknown)], Vec::new());
    assert!(matches!(by_name, SignedBy::File(path) if path == Path::new("id")));
    let by_itself = signer_for(&key, Vec::new(), Vec::new());
    assert!(matches!(by_itself, SignedBy::File(path) if path == Path::new("id-cert.pub")));
}
