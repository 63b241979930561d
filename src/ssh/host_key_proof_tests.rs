//! Servers whose host key or signature is not of the negotiated algorithm (RFC 4253,
//! section 8; RFC 8332), at the first key exchange and at later ones. A stock ssh-agent
//! signs for them.

use std::process::Command;
use std::time::Duration;

use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::{Certificate, HashAlg, PublicKey, load_public_key};
use tempfile::TempDir;
use tokio::time::timeout;

use super::client::connect::Connection;
use super::client::test_server::{Running, add_to_agent, run, start_agent};
use super::client::wire_server::{HostProof, Message, WireServer, number};

/// A wait that takes this long hangs: it is far longer than any test needs.
const HANGS: Duration = Duration::from_secs(20);

/// Host keys of each type, their certificates, and an agent that holds them.
struct Keys {
    directory: TempDir,
    _agent: Running,
}

impl Keys {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let agent = start_agent(&path("agent")).await;
        for (name, kind) in [
            ("authority", &["-t", "ed25519"][..]),
            ("ed25519", &["-t", "ed25519"]),
            ("p256", &["-t", "ecdsa", "-b", "256"]),
            ("p384", &["-t", "ecdsa", "-b", "384"]),
            ("rsa", &["-t", "rsa", "-b", "2048"]),
        ] {
            let make = ["-q", "-N", "", "-C", name, "-f"];
            run(Command::new("ssh-keygen")
                .args(make)
                .arg(path(name))
                .args(kind));
            if name != "authority" {
                let certify = ["-q", "-h", "-I", name, "-n", "127.0.0.1", "-s"];
                run(Command::new("ssh-keygen")
                    .args(certify)
                    .arg(path("authority"))
                    .arg(path(&format!("{name}.pub"))));
                add_to_agent(&path("agent"), &path(name));
            }
        }
        Keys {
            directory,
            _agent: agent,
        }
    }

    fn public(&self, name: &str) -> PublicKey {
        load_public_key(self.directory.path().join(format!("{name}.pub"))).unwrap()
    }

    fn certificate(&self, name: &str) -> Certificate {
        let path = self.directory.path().join(format!("{name}-cert.pub"));
        let certificate = Certificate::read_file(&path).unwrap();
        assert_eq!(certificate.cert_type(), CertType::Host);
        certificate
    }

    /// A server that negotiates `negotiated`, presents the key or certificate `shown`, and
    /// signs with the key `signer`; for RSA with `hash`, without one with SHA-1.
    fn proof(&self, negotiated: &str, shown: Shown, signer: &str, hash: Option<HashAlg>) -> Proof {
        let shown = match shown {
            Shown::Key(name) => self.public(name).to_bytes().unwrap(),
            Shown::Certificate(name) => self.certificate(name).to_bytes().unwrap(),
        };
        Proof {
            negotiated: negotiated.to_owned(),
            shown,
            signer: self.public(signer),
            hash,
            agent: self.directory.path().join("agent"),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Shown {
    Key(&'static str),
    Certificate(&'static str),
}

/// The algorithm, the key and the signer of a server of these tests.
struct Proof {
    negotiated: String,
    shown: Vec<u8>,
    signer: PublicKey,
    hash: Option<HashAlg>,
    agent: std::path::PathBuf,
}

impl HostProof for Proof {
    fn negotiated(&self) -> &str {
        &self.negotiated
    }

    fn shown(&self) -> Vec<u8> {
        self.shown.clone()
    }

    async fn sign(&self, hash: &[u8]) -> Vec<u8> {
        let mut agent = AgentClient::connect_uds(&self.agent).await.unwrap();
        let identity = AgentIdentity::PublicKey {
            key: self.signer.clone(),
            comment: String::new(),
        };
        let signed = agent.sign_request(&identity, self.hash, hash.to_vec());
        // Skip the hash; the signature follows as a string.
        signed.await.unwrap()[hash.len() + 4..].to_vec()
    }
}

/// The result of connecting to a server that does `proof`, with options that accept any of
/// these algorithms.
async fn connecting(server: &WireServer, keys: &Keys, proof: &Proof) -> Result<Connection, String> {
    let mut options = server.options();
    options.host_key_algorithms.push("ssh-rsa".to_owned());
    options.host_key_algorithms_explicit = true;
    let authority = keys.public("authority").to_openssh().unwrap();
    let known = format!("@cert-authority * {authority}\n");
    std::fs::write(&options.user_known_hosts[0], known).unwrap();
    let serve = async {
        let mut wire = server.accept().await;
        // A client that refuses the proof sends nothing more.
        if wire.begin_by(proof).await.is_ok() {
            let _ = wire.authenticate().await;
        }
    };
    let both = async { tokio::join!(WireServer::client(&options), serve) };
    let (client, ()) = timeout(HANGS, both).await.expect("the client hangs");
    client.map_err(|error| error.to_string())
}

const SHA256: Option<HashAlg> = Some(HashAlg::Sha256);
const SHA512: Option<HashAlg> = Some(HashAlg::Sha512);

#[tokio::test]
async fn a_proof_of_the_agreed_algorithm_is_accepted() {
    use Shown::{Certificate, Key};
    let keys = Keys::new().await;
    for (negotiated, shown, signer, hash) in [
        ("ssh-ed25519", Key("ed25519"), "ed25519", None),
        ("ecdsa-sha2-nistp256", Key("p256"), "p256", None),
        ("ecdsa-sha2-nistp384", Key("p384"), "p384", None),
        ("rsa-sha2-512", Key("rsa"), "rsa", SHA512),
        ("rsa-sha2-256", Key("rsa"), "rsa", SHA256),
        (
            "ssh-ed25519-cert-v01@openssh.com",
            Certificate("ed25519"),
            "ed25519",
            None,
        ),
        (
            "rsa-sha2-512-cert-v01@openssh.com",
            Certificate("rsa"),
            "rsa",
            SHA512,
        ),
        (
            "rsa-sha2-256-cert-v01@openssh.com",
            Certificate("rsa"),
            "rsa",
            SHA256,
        ),
    ] {
        let server = WireServer::bind().await;
        let proof = keys.proof(negotiated, shown, signer, hash);
        let connected = connecting(&server, &keys, &proof).await;
        assert!(connected.is_ok(), "{negotiated}: {:?}", connected.err());
    }
}

#[tokio::test]
async fn a_key_or_signature_of_another_algorithm_than_agreed_is_refused() {
    use Shown::{Certificate, Key};
    let keys = Keys::new().await;
    for (negotiated, shown, signer, hash) in [
        // The right key with a signature that uses a weaker or another hash.
        ("rsa-sha2-512", Key("rsa"), "rsa", SHA256),
        ("rsa-sha2-512", Key("rsa"), "rsa", None),
        ("rsa-sha2-256", Key("rsa"), "rsa", SHA512),
        ("rsa-sha2-256", Key("rsa"), "rsa", None),
        (
            "rsa-sha2-512-cert-v01@openssh.com",
            Certificate("rsa"),
            "rsa",
            SHA256,
        ),
        (
            "rsa-sha2-256-cert-v01@openssh.com",
            Certificate("rsa"),
            "rsa",
            None,
        ),
        // Another key with a correct signature by that key.
        ("ssh-ed25519", Key("p256"), "p256", None),
        ("ssh-ed25519", Key("rsa"), "rsa", SHA512),
        ("ecdsa-sha2-nistp256", Key("p384"), "p384", None),
        ("ecdsa-sha2-nistp256", Key("ed25519"), "ed25519", None),
        ("rsa-sha2-512", Key("ed25519"), "ed25519", None),
        // A certificate for a key, a key for a certificate, and another certificate.
        ("ssh-ed25519", Certificate("ed25519"), "ed25519", None),
        ("rsa-sha2-512", Certificate("rsa"), "rsa", SHA512),
        (
            "ssh-ed25519-cert-v01@openssh.com",
            Key("ed25519"),
            "ed25519",
            None,
        ),
        (
            "ssh-ed25519-cert-v01@openssh.com",
            Certificate("p256"),
            "p256",
            None,
        ),
        (
            "rsa-sha2-512-cert-v01@openssh.com",
            Certificate("ed25519"),
            "ed25519",
            None,
        ),
    ] {
        let server = WireServer::bind().await;
        let proof = keys.proof(negotiated, shown, signer, hash);
        let refused = connecting(&server, &keys, &proof).await.err();
        assert!(
            refused.is_some(),
            "{negotiated}: {shown:?}, {signer} {hash:?}"
        );
    }
}

#[tokio::test]
async fn a_signature_over_sha1_is_refused_even_where_ssh_rsa_is_configured() {
    let keys = Keys::new().await;
    for (negotiated, shown) in [
        ("ssh-rsa", Shown::Key("rsa")),
        ("ssh-rsa-cert-v01@openssh.com", Shown::Certificate("rsa")),
    ] {
        let server = WireServer::bind().await;
        let proof = keys.proof(negotiated, shown, "rsa", None);
        let refused = connecting(&server, &keys, &proof).await.err().unwrap();
        assert!(refused.contains("no common Key algorithm"), "{refused}");
    }
}

#[tokio::test]
async fn a_later_key_exchange_is_held_to_the_same() {
    let keys = Keys::new().await;
    for (negotiated, name, hash) in [
        // A signature of another algorithm; another key; an unknown key.
        ("rsa-sha2-512", "rsa", SHA256),
        ("ssh-ed25519", "p256", None),
        ("ssh-ed25519", "ed25519", None),
        ("ecdsa-sha2-nistp256", "p256", None),
    ] {
        let server = WireServer::bind().await;
        let (connection, mut wire) = server.connect().await;
        let proof = keys.proof(negotiated, Shown::Key(name), name, hash);
        // The client reports the changed key after its own part of the exchange.
        let rekeyed = timeout(HANGS, wire.exchange_keys_by(&proof)).await;
        let _ = rekeyed.expect("it hangs");
        let ended = timeout(HANGS, connection.ended()).await;
        let reason = ended.expect("the connection goes on");
        assert!(
            reason.contains("host key"),
            "{negotiated}, {name}: {reason}"
        );
    }
}

#[tokio::test]
async fn a_later_key_exchange_by_the_same_key_goes_on() {
    let server = WireServer::bind().await;
    let (_connection, mut wire) = server.connect().await;
    for _ in 0..2 {
        let rekeyed = timeout(HANGS, wire.exchange_keys_again()).await;
        rekeyed.expect("it hangs").unwrap();
        let question = Message::new(number::GLOBAL_REQUEST);
        let question = question.string("anything@example.com").byte(1);
        wire.send(&question).await.unwrap();
        let answer = timeout(HANGS, wire.wait_for(number::REQUEST_FAILURE)).await;
        answer.expect("no answer").unwrap();
    }
}
