//! RSA keys in every role, with the distribution's ssh-keygen, sshd and ssh; aws-lc signs
//! and verifies all of them.

use std::fs;
use std::path::Path;
use std::process::Command;

use russh::keys::ssh_key::private::{KeypairData, RsaKeypair, RsaPrivateKey};
use russh::keys::ssh_key::{Mpint, Signature};
use russh::keys::{Algorithm, Certificate, HashAlg, PrivateKey, signing};

use super::client::auth::AuthError;
use super::client::host_key::certificate::{self, CertificateError};
use super::client::prompt::Prompter;
use super::client::prompt::script::Script;
use super::client::test_server::{Server, nobody, run, with_keys};

const PASSPHRASE: &str = "correct horse";
const HASHES: [HashAlg; 2] = [HashAlg::Sha256, HashAlg::Sha512];

/// Creates the key `name` in `directory` with these arguments of ssh-keygen.
fn keygen(directory: &Path, name: &str, arguments: &[&str]) {
    let make = ["-q", "-N", "", "-C", name, "-f"];
    run(Command::new("ssh-keygen")
        .args(make)
        .arg(directory.join(name))
        .args(arguments));
}

fn rsa_key(bits: &str) -> PrivateKey {
    let directory = tempfile::tempdir().unwrap();
    keygen(directory.path(), "id", &["-t", "rsa", "-b", bits]);
    let text = fs::read_to_string(directory.path().join("id")).unwrap();
    PrivateKey::from_openssh(text).unwrap()
}

#[tokio::test]
async fn user_keys_of_every_length_format_and_hash_log_in() {
    for (arguments, passphrase) in [
        (&["-b", "2048"][..], ""),
        (&["-b", "2048", "-m", "PEM"], ""),
        (&["-b", "2048", "-m", "PKCS8"], ""),
        (&["-b", "2048"], PASSPHRASE),
        (&["-b", "2048", "-m", "PEM"], PASSPHRASE),
        (&["-b", "2048", "-m", "PKCS8"], PASSPHRASE),
        // Not a multiple of 64 bits.
        (&["-b", "2056"], ""),
        (&["-b", "3072"], ""),
        (&["-b", "4096"], ""),
    ] {
        let server = Server::new("");
        let kind = ["-t", "rsa", "-N", passphrase];
        server.key("id", &[&kind, arguments].concat());
        server.authorize("id");
        for hash in HASHES {
            let mut options = with_keys(&server, &["id"]);
            let name = Algorithm::Rsa { hash: Some(hash) }.to_string();
            options.pubkey_accepted_algorithms = vec![name];
            let prompter = Prompter::scripted(Script::new(&[PASSPHRASE]));
            let outcome = server.log_in(&options, &prompter).await;
            let log = server.log();
            assert!(outcome.is_ok(), "{arguments:?}: {outcome:?}\n{log}");
        }
    }
}

#[tokio::test]
async fn a_short_user_key_is_named_as_such() {
    let server = Server::new("");
    server.key("id", &["-t", "rsa", "-b", "1024", "-N", ""]);
    server.authorize("id");
    let script = Script::new(&[]);
    let prompter = Prompter::scripted(script.clone());
    let refused = server.log_in(&with_keys(&server, &["id"]), &prompter).await;
    assert!(matches!(refused, Err(AuthError::Denied { .. })));
    let said = script.seen().concat();
    assert!(
        said.contains("the RSA key has 1024 bits; 2048 to 8192 are supported"),
        "{said}"
    );
}

#[tokio::test]
async fn sha1_is_not_used_even_where_ssh_rsa_is_configured() {
    // A server that accepts only SHA-1.
    let server = Server::new("PubkeyAcceptedAlgorithms ssh-rsa\nLogLevel DEBUG1");
    server.key("id", &["-t", "rsa", "-b", "2048", "-N", ""]);
    server.authorize("id");
    let mut options = with_keys(&server, &["id"]);
    options.pubkey_accepted_algorithms = vec!["ssh-rsa".into(), "rsa-sha2-512".into()];
    let refused = server.log_in(&options, &nobody()).await;
    assert!(matches!(refused, Err(AuthError::Denied { .. })));
    let log = server.log();
    assert!(
        !log.contains("Accepted publickey") && !log.contains("pkalg ssh-rsa"),
        "{log}"
    );
}

#[tokio::test]
async fn host_keys_of_a_stock_sshd_are_verified() {
    for bits in ["1024", "2048", "3072", "4096"] {
        let server = Server::new("");
        for half in ["host", "host.pub"] {
            fs::remove_file(server.path(half)).unwrap();
        }
        server.key("host", &["-t", "rsa", "-b", bits, "-N", ""]);
        for hash in HASHES {
            let mut options = server.options();
            let name = Algorithm::Rsa { hash: Some(hash) }.to_string();
            options.host_key_algorithms = vec![name];
            let connected = server.connect(&options, &nobody()).await;
            let error = connected.err().map(|error| error.to_string());
            assert_eq!(error, None, "{bits}: {}", server.log());
        }
    }
}

#[test]
fn certificates_of_an_rsa_authority_are_verified() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    keygen(directory.path(), "authority", &["-t", "rsa", "-b", "2048"]);
    keygen(directory.path(), "host", &["-t", "rsa", "-b", "2048"]);
    for (algorithm, expected) in [
        ("rsa-sha2-256", Ok(())),
        ("rsa-sha2-512", Ok(())),
        // SHA-1, also if it is configured.
        ("ssh-rsa", Err(CertificateError::Algorithm)),
    ] {
        run(Command::new("ssh-keygen")
            .args([
                "-q", "-h", "-I", "host", "-n", "alpha", "-t", algorithm, "-s",
            ])
            .arg(path("authority"))
            .arg(path("host.pub")));
        let certificate = Certificate::read_file(&path("host-cert.pub")).unwrap();
        let accepted = [algorithm.to_owned()];
        let checked = certificate::check(&certificate, "alpha", 1 << 31, &accepted);
        assert_eq!(checked, expected, "{algorithm}");
        // One changed bit.
        let mut bytes = certificate.to_bytes().unwrap();
        let at = bytes.windows(5).position(|part| part == b"alpha").unwrap();
        bytes[at] ^= 1;
        let forged = Certificate::from_bytes(&bytes).unwrap();
        assert!(signing::verify_certificate(&forged).is_err());
    }
}

#[test]
fn a_signature_without_its_leading_zeros_is_accepted_as_openssh_does() {
    let key = rsa_key("2048");
    let public = key.public_key().key_data();
    let algorithm = Algorithm::Rsa {
        hash: Some(HashAlg::Sha256),
    };
    let shortened = (0_u32..).find_map(|number| {
        let message = number.to_be_bytes();
        let signature = signing::sign(key.key_data(), Some(HashAlg::Sha256), &message).unwrap();
        assert_eq!(signature.as_bytes().len(), 256);
        let rest = signature.as_bytes().strip_prefix(&[0])?;
        let short = Signature::new(algorithm.clone(), rest).unwrap();
        Some((message, short))
    });
    let (message, signature) = shortened.unwrap();
    signing::verify(public, &message, &signature).unwrap();
    assert!(signing::verify(public, b"other", &signature).is_err());
    // A signature longer than the modulus, and an empty one.
    for bytes in [[signature.as_bytes(), &[0, 0]].concat(), Vec::new()] {
        let wrong = Signature::new(algorithm.clone(), bytes).unwrap();
        assert!(signing::verify(public, &message, &wrong).is_err());
    }
}

#[test]
fn a_key_whose_numbers_do_not_fit_together_does_not_sign() {
    let key = rsa_key("2048");
    let KeypairData::Rsa(good) = key.key_data() else {
        panic!("an rsa key");
    };
    let off_by_two = |number: &Mpint| {
        let mut bytes = number.as_positive_bytes().unwrap().to_vec();
        *bytes.last_mut().unwrap() ^= 2;
        Mpint::from_positive_bytes(&bytes)
    };
    let private = good.private();
    for which in 0..4 {
        let numbers = [private.d(), private.iqmp(), private.p(), private.q()];
        let mut numbers = numbers.map(Mpint::clone);
        numbers[which] = off_by_two(&numbers[which]);
        let [d, iqmp, p, q] = numbers;
        let broken = RsaPrivateKey::new(d, iqmp, p, q).unwrap();
        let broken = RsaKeypair::new(good.public().clone(), broken).unwrap();
        let broken = KeypairData::Rsa(broken);
        // Such a signature would reveal a factor of the modulus.
        assert!(signing::sign(&broken, Some(HashAlg::Sha512), b"x").is_err());
    }
    assert!(signing::sign(key.key_data(), Some(HashAlg::Sha512), b"x").is_ok());
    assert!(signing::sign(key.key_data(), None, b"x").is_err());
}
