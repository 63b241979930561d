//! An SSH client for tests that sends exactly what a test tells it to, also messages that a
//! client must not send; the mirror of `wire_server`. Like old clients, it does not offer
//! strict key exchange.

use std::io;
use std::net::SocketAddr;

use aws_lc_rs::agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use tokio::net::TcpStream;

use super::{Cipher, IDENTIFICATION, Message, Reader, Wire, mpint, number, put_string};

/// A client's key.
pub(crate) struct WireKey(Ed25519KeyPair);

impl WireKey {
    /// The same seed gives the same key.
    pub(crate) fn new(seed: u8) -> Self {
        WireKey(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap())
    }

    /// The public key (RFC 8709, section 4).
    pub(crate) fn blob(&self) -> Vec<u8> {
        let mut blob = Vec::new();
        put_string(&mut blob, b"ssh-ed25519");
        put_string(&mut blob, self.0.public_key().as_ref());
        blob
    }
}

/// A security key (OpenSSH PROTOCOL.u2f); the test says whether a user touches it.
pub(crate) struct WireSecurityKey(Ed25519KeyPair);

impl WireSecurityKey {
    const ALGORITHM: &str = "sk-ssh-ed25519@openssh.com";
    const APPLICATION: &str = "ssh:";

    /// The same seed gives the same key.
    pub(crate) fn new(seed: u8) -> Self {
        WireSecurityKey(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap())
    }

    /// The public key.
    pub(crate) fn blob(&self) -> Vec<u8> {
        Message(Vec::new())
            .string(Self::ALGORITHM)
            .string(self.0.public_key().as_ref())
            .string(Self::APPLICATION)
            .0
    }

    fn sign(&self, message: &[u8], touched: bool) -> Vec<u8> {
        let tail = Message(Vec::new()).byte(u8::from(touched)).word(7).0;
        let hash = |bytes: &[u8]| digest(&SHA256, bytes);
        let (application, message) = (hash(Self::APPLICATION.as_bytes()), hash(message));
        let signed = [application.as_ref(), &tail, message.as_ref()].concat();
        let mut signature = Message(Vec::new())
            .string(Self::ALGORITHM)
            .string(self.0.sign(&signed).as_ref())
            .0;
        signature.extend_from_slice(&tail);
        signature
    }
}

/// A request to log in by `method` (RFC 4252, section 5), without the method's own fields.
pub(crate) fn login_request(user: &str, method: &str) -> Message {
    Message::new(number::USERAUTH_REQUEST)
        .string(user)
        .string("ssh-connection")
        .string(method)
}

/// A request to log in with a key, without the signature.
fn signed_request(user: &str, algorithm: &str, blob: &[u8]) -> Message {
    let request = login_request(user, "publickey").byte(1);
    request.string(algorithm).string(blob)
}

/// The bytes of a request that the client signs.
fn signed(session: &[u8], request: &Message) -> Vec<u8> {
    let mut signed = Vec::new();
    put_string(&mut signed, session);
    signed.extend_from_slice(&request.0);
    signed
}

/// A request to open a channel of this type (RFC 4254, section 5.1), without the type's own
/// fields.
pub(crate) fn open(kind: &str, channel: u32, window: u32) -> Message {
    Message::new(number::CHANNEL_OPEN)
        .string(kind)
        .word(channel)
        .word(window)
        .word(32768)
}

impl Wire {
    /// A connection on which neither side has sent anything.
    pub(crate) async fn dial(address: SocketAddr) -> Self {
        Wire::new(TcpStream::connect(address).await.unwrap(), IDENTIFICATION)
    }

    /// Exchanges identification strings and keys; yields the session identifier.
    pub(crate) async fn exchange_keys_as_client(&mut self) -> io::Result<Vec<u8>> {
        let server = self.identify().await?;
        let ours = Self::kexinit();
        self.send(&ours).await?;
        let theirs = self.wait_for(number::KEXINIT).await?;
        let random = SystemRandom::new();
        let private = EphemeralPrivateKey::generate(&X25519, &random).unwrap();
        let public = private.compute_public_key().unwrap();
        let init = Message::new(number::KEX_ECDH_INIT).string(public.as_ref());
        self.send(&init).await?;
        let reply = self.wait_for(number::KEX_ECDH_REPLY).await?;
        let mut reader = Reader::new(&reply);
        let (host_key, server_key) = (reader.string(), reader.string());
        let peer = UnparsedPublicKey::new(&X25519, server_key);
        let secret = agree_ephemeral(private, peer, (), |secret| Ok(mpint(secret))).unwrap();
        let mut exchange = Vec::new();
        for part in [
            IDENTIFICATION.as_bytes(),
            &server[..],
            &ours.0,
            &theirs,
            host_key,
            public.as_ref(),
            server_key,
        ] {
            put_string(&mut exchange, part);
        }
        exchange.extend_from_slice(&secret);
        let hash = digest(&SHA256, &exchange);
        self.send(&Message::new(number::NEWKEYS)).await?;
        self.wait_for(number::NEWKEYS).await?;
        self.sealing = Some(Cipher::derived(&secret, hash.as_ref(), b'A', b'C'));
        self.opening = Some(Cipher::derived(&secret, hash.as_ref(), b'B', b'D'));
        Ok(hash.as_ref().to_vec())
    }

    /// Everything before the first login request; yields the session identifier.
    pub(crate) async fn ask_for_login(&mut self) -> io::Result<Vec<u8>> {
        let session = self.exchange_keys_as_client().await?;
        let request = Message::new(number::SERVICE_REQUEST).string("ssh-userauth");
        self.send(&request).await?;
        self.wait_for(number::SERVICE_ACCEPT).await?;
        Ok(session)
    }

    /// Tries to log in with a key whose signature covers `session` (RFC 4252, section 7).
    pub(crate) async fn show(
        &mut self,
        session: &[u8],
        user: &str,
        key: &WireKey,
    ) -> io::Result<()> {
        let request = signed_request(user, "ssh-ed25519", &key.blob());
        let signature = Message(Vec::new())
            .string("ssh-ed25519")
            .string(key.0.sign(&signed(session, &request)).as_ref());
        self.send(&request.string(signature.0)).await
    }

    /// The same with a security key.
    pub(crate) async fn show_security_key(
        &mut self,
        session: &[u8],
        user: &str,
        key: &WireSecurityKey,
        touched: bool,
    ) -> io::Result<()> {
        let request = signed_request(user, WireSecurityKey::ALGORITHM, &key.blob());
        let signature = key.sign(&signed(session, &request), touched);
        self.send(&request.string(signature)).await
    }

    /// The same with `name` as the algorithm of both request and signature: only the key
    /// itself shows the signature's real type.
    pub(crate) async fn show_security_key_as(
        &mut self,
        session: &[u8],
        key: &WireSecurityKey,
        name: &str,
    ) -> io::Result<()> {
        let request = signed_request("mallory", name, &key.blob());
        let signature = key.sign(&signed(session, &request), false);
        let signature = &signature[4 + WireSecurityKey::ALGORITHM.len()..];
        // The flags and the counter are inside of the string, as in other algorithms'
        // signatures.
        let (bare, tail) = signature[4..].split_at(64);
        let signature = Message(Vec::new())
            .string(name)
            .string([bare, tail].concat());
        self.send(&request.string(signature.0)).await
    }

    /// Everything up to a successful login.
    pub(crate) async fn log_in_as_client(&mut self, key: &WireKey) -> io::Result<()> {
        let session = self.ask_for_login().await?;
        self.show(&session, "mallory", key).await?;
        self.wait_for(number::USERAUTH_SUCCESS).await?;
        Ok(())
    }
}
