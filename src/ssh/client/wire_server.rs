//! An SSH server for tests that sends exactly what a test tells it to, also messages that a
//! server must not send. It keeps no channel state, and implements only one key exchange of
//! RFC 4253 and the method "none" of RFC 4252.

use std::io;
use std::net::Ipv4Addr;

use aws_lc_rs::agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::attempts::Attempts;
use super::connect::Connection;
use crate::config::ssh::options::{LogLevel, SshOptions, StrictHostKeyChecking};
use crate::ssh::error::ConnectError;
use crate::ssh::test_settings;
use crate::ssh::wire::{ALGORITHMS, Cipher, IDENTIFICATION, mpint, put_string};
pub(crate) use crate::ssh::wire::{
    Message, Reader, Wire, about, adjust, confirmation, data, number,
};

/// The address that a client connects to.
pub(crate) struct WireServer {
    listener: TcpListener,
    directory: TempDir,
    identification: &'static str,
}

impl WireServer {
    pub(crate) async fn bind() -> Self {
        Self::bind_as(IDENTIFICATION).await
    }

    /// A server with this identification string.
    pub(crate) async fn bind_as(identification: &'static str) -> Self {
        WireServer {
            listener: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap(),
            directory: tempfile::tempdir().unwrap(),
            identification,
        }
    }

    /// Settings for a client that knows this server's key.
    pub(crate) fn options(&self) -> SshOptions {
        let mut options = test_settings::options();
        options.host = Ipv4Addr::LOCALHOST.to_string();
        options.port = self.listener.local_addr().unwrap().port();
        options.strict_host_key_checking = StrictHostKeyChecking::AcceptNew;
        options.user_known_hosts = vec![self.directory.path().join("known_hosts")];
        options.log_level = LogLevel::Quiet;
        let names = |name: &str| vec![name.to_owned()];
        options.kex_algorithms = names(ALGORITHMS[0]);
        options.ciphers = names(ALGORITHMS[2]);
        options.macs = names(ALGORITHMS[4]);
        options
    }

    /// The next client's connection; neither side has sent anything.
    pub(crate) async fn accept(&self) -> Wire {
        let (stream, _) = self.listener.accept().await.unwrap();
        Wire::new(stream, self.identification)
    }

    /// sshvpn's client with these settings.
    pub(crate) async fn client(options: &SshOptions) -> Result<Connection, ConnectError> {
        let invoker = test_settings::invoker();
        Connection::open(options, &Default::default(), &invoker, Attempts::one()).await
    }

    /// A client that is logged in, and the server's side of the connection.
    pub(crate) async fn connect(&self) -> (Connection, Wire) {
        self.connect_with(&self.options()).await
    }

    pub(crate) async fn connect_with(&self, options: &SshOptions) -> (Connection, Wire) {
        let server = async {
            let mut wire = self.accept().await;
            wire.log_in().await.unwrap();
            wire
        };
        let client = async { Self::client(options).await.unwrap() };
        tokio::join!(client, server)
    }
}

/// How a server proves its identity in a key exchange. The algorithm it negotiates, the key
/// it presents and the signature need not match.
pub(in crate::ssh) trait HostProof {
    /// The only host key algorithm in its KEXINIT.
    fn negotiated(&self) -> &str;
    /// The key or certificate that it presents.
    fn shown(&self) -> Vec<u8>;
    /// Its signature of the exchange hash, with the algorithm's name.
    async fn sign(&self, hash: &[u8]) -> Vec<u8>;
}

/// The key of a server whose proof is correct.
struct Honest(Ed25519KeyPair);

impl Honest {
    fn new() -> Self {
        Honest(Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap())
    }
}

impl HostProof for Honest {
    fn negotiated(&self) -> &str {
        ALGORITHMS[1]
    }

    fn shown(&self) -> Vec<u8> {
        let mut key = Vec::new();
        put_string(&mut key, b"ssh-ed25519");
        put_string(&mut key, self.0.public_key().as_ref());
        key
    }

    async fn sign(&self, hash: &[u8]) -> Vec<u8> {
        let mut signature = Vec::new();
        put_string(&mut signature, b"ssh-ed25519");
        put_string(&mut signature, self.0.sign(hash).as_ref());
        signature
    }
}

impl Wire {
    /// Exchanges identification strings and keys (RFC 4253, sections 7 and 8; RFC 8731).
    pub(crate) async fn exchange_keys(&mut self) -> io::Result<()> {
        self.client = self.identify().await?;
        self.exchange_keys_by(&Honest::new()).await
    }

    /// Exchanges identification strings and keys with this proof.
    pub(in crate::ssh) async fn begin_by(&mut self, proof: &impl HostProof) -> io::Result<()> {
        self.client = self.identify().await?;
        self.exchange_keys_by(proof).await
    }

    /// Another key exchange (RFC 4253, section 9) with the same host key.
    pub(in crate::ssh) async fn exchange_keys_again(&mut self) -> io::Result<()> {
        self.exchange_keys_by(&Honest::new()).await
    }

    /// The session's first key exchange or a later one.
    pub(in crate::ssh) async fn exchange_keys_by(
        &mut self,
        proof: &impl HostProof,
    ) -> io::Result<()> {
        let ours = Self::kexinit_with(proof.negotiated());
        self.send(&ours).await?;
        let theirs = self.wait_for(number::KEXINIT).await?;
        let init = self.wait_for(number::KEX_ECDH_INIT).await?;
        let client_key = Reader::new(&init).string();

        let random = SystemRandom::new();
        let private = EphemeralPrivateKey::generate(&X25519, &random).unwrap();
        let public = private.compute_public_key().unwrap();
        let peer = UnparsedPublicKey::new(&X25519, client_key);
        let secret = agree_ephemeral(private, peer, (), |secret| Ok(mpint(secret))).unwrap();
        let host_key = proof.shown();

        let mut exchange = Vec::new();
        for part in [
            &self.client[..],
            self.identification.as_bytes(),
            &theirs,
            &ours.0,
            &host_key,
            client_key,
            public.as_ref(),
        ] {
            put_string(&mut exchange, part);
        }
        exchange.extend_from_slice(&secret);
        let hash = digest(&SHA256, &exchange);
        let hash = hash.as_ref();

        let reply = Message::new(number::KEX_ECDH_REPLY)
            .string(&host_key)
            .string(public.as_ref())
            .string(proof.sign(hash).await);
        self.send(&reply).await?;
        self.send(&Message::new(number::NEWKEYS)).await?;
        self.wait_for(number::NEWKEYS).await?;
        let session = self.session.get_or_insert_with(|| hash.to_vec());
        self.opening = Some(Cipher::derived_in(session, &secret, hash, b'A', b'C'));
        self.sealing = Some(Cipher::derived_in(session, &secret, hash, b'B', b'D'));
        Ok(())
    }

    /// Everything up to a client's successful login.
    pub(crate) async fn log_in(&mut self) -> io::Result<()> {
        self.exchange_keys().await?;
        self.authenticate().await
    }

    /// The messages after the key exchange, up to a client's successful login.
    pub(in crate::ssh) async fn authenticate(&mut self) -> io::Result<()> {
        self.wait_for(number::SERVICE_REQUEST).await?;
        let accept = Message::new(number::SERVICE_ACCEPT).string("ssh-userauth");
        self.send(&accept).await?;
        self.wait_for(number::USERAUTH_REQUEST).await?;
        self.send(&Message::new(number::USERAUTH_SUCCESS)).await
    }

    /// The next channel that the client requests: its number and type.
    pub(crate) async fn open_request(&mut self) -> io::Result<(u32, String)> {
        let packet = self.wait_for(number::CHANNEL_OPEN).await?;
        let mut reader = Reader::new(&packet);
        let kind = String::from_utf8(reader.string().to_vec()).unwrap();
        Ok((reader.word(), kind))
    }

    /// Confirms the next channel that the client requests, with a large window.
    pub(crate) async fn confirm_next(&mut self) -> io::Result<u32> {
        let (channel, _) = self.open_request().await?;
        self.send(&confirmation(channel, 1 << 21, 32768)).await?;
        Ok(channel)
    }

    /// Confirms the next channel and starts its command; yields both.
    pub(crate) async fn start_next(&mut self) -> io::Result<(u32, String)> {
        let channel = self.confirm_next().await?;
        let packet = self.wait_for(number::CHANNEL_REQUEST).await?;
        let mut reader = Reader::new(&packet);
        assert_eq!(reader.word(), channel);
        let kind = reader.string();
        assert!([&b"exec"[..], b"shell", b"subsystem"].contains(&kind));
        let command = reader.0.get(1..).unwrap_or_default().to_vec();
        self.send(&about(number::CHANNEL_SUCCESS, channel)).await?;
        Ok((channel, String::from_utf8_lossy(&command).into_owned()))
    }
}
