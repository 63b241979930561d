//! An SSH server for tests that sends exactly what a test tells it to, also
//! what no server may send: messages are bytes, and it keeps no state of
//! channels. Just enough of RFC 4253 for one key exchange
//! (curve25519-sha256, ssh-ed25519, aes256-gcm@openssh.com), and RFC 4252's
//! "none".

use std::io;
use std::net::Ipv4Addr;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use nix::sys::socket::{setsockopt, sockopt};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use super::connect::Connection;
use super::error::ConnectError;
use super::test_settings;
use crate::config::ssh_options::{LogLevel, SshOptions, StrictHostKeyChecking};

pub(super) const IDENTIFICATION: &str = "SSH-2.0-hostile";
const ALGORITHMS: [&str; 10] = [
    "curve25519-sha256",
    "ssh-ed25519",
    "aes256-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "hmac-sha2-256-etm@openssh.com",
    "hmac-sha2-256-etm@openssh.com",
    "none",
    "none",
    "",
    "",
];
const TAG: usize = 16;

/// Message numbers (RFC 4250, section 4.1.2).
pub(crate) mod number {
    pub(crate) const DISCONNECT: u8 = 1;
    pub(crate) const DEBUG: u8 = 4;
    pub(crate) const SERVICE_REQUEST: u8 = 5;
    pub(crate) const SERVICE_ACCEPT: u8 = 6;
    pub(crate) const KEXINIT: u8 = 20;
    pub(crate) const NEWKEYS: u8 = 21;
    pub(crate) const KEX_ECDH_INIT: u8 = 30;
    pub(crate) const KEX_ECDH_REPLY: u8 = 31;
    pub(crate) const USERAUTH_REQUEST: u8 = 50;
    pub(crate) const USERAUTH_FAILURE: u8 = 51;
    pub(crate) const USERAUTH_SUCCESS: u8 = 52;
    pub(crate) const GLOBAL_REQUEST: u8 = 80;
    pub(crate) const REQUEST_FAILURE: u8 = 82;
    pub(crate) const CHANNEL_OPEN: u8 = 90;
    pub(crate) const CHANNEL_OPEN_CONFIRMATION: u8 = 91;
    pub(crate) const CHANNEL_OPEN_FAILURE: u8 = 92;
    pub(crate) const CHANNEL_WINDOW_ADJUST: u8 = 93;
    pub(crate) const CHANNEL_DATA: u8 = 94;
    pub(crate) const CHANNEL_EXTENDED_DATA: u8 = 95;
    pub(crate) const CHANNEL_EOF: u8 = 96;
    pub(crate) const CHANNEL_CLOSE: u8 = 97;
    pub(crate) const CHANNEL_REQUEST: u8 = 98;
    pub(crate) const CHANNEL_SUCCESS: u8 = 99;
    pub(crate) const CHANNEL_FAILURE: u8 = 100;
}

/// The bytes of one message, put together field by field (RFC 4251, section 5).
#[derive(Clone)]
pub(crate) struct Message(pub(crate) Vec<u8>);

impl Message {
    pub(crate) fn new(number: u8) -> Self {
        Message(vec![number])
    }

    pub(crate) fn byte(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub(crate) fn word(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(crate) fn string(mut self, bytes: impl AsRef<[u8]>) -> Self {
        put_string(&mut self.0, bytes.as_ref());
        self
    }
}

/// Confirms the client's channel 'channel'; ours has the same number.
pub(crate) fn confirmation(channel: u32, window: u32, max_packet: u32) -> Message {
    Message::new(number::CHANNEL_OPEN_CONFIRMATION)
        .word(channel)
        .word(channel)
        .word(window)
        .word(max_packet)
}

pub(crate) fn data(channel: u32, bytes: impl AsRef<[u8]>) -> Message {
    Message::new(number::CHANNEL_DATA)
        .word(channel)
        .string(bytes)
}

/// A message about a channel that has no other field.
pub(crate) fn about(number: u8, channel: u32) -> Message {
    Message::new(number).word(channel)
}

pub(crate) fn adjust(channel: u32, bytes: u32) -> Message {
    about(number::CHANNEL_WINDOW_ADJUST, channel).word(bytes)
}

/// A message of the client's, read field by field.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Behind the message number.
    pub(crate) fn new(packet: &'a [u8]) -> Self {
        Reader(&packet[1..])
    }

    pub(crate) fn word(&mut self) -> u32 {
        let (word, rest) = self.0.split_first_chunk().unwrap();
        self.0 = rest;
        u32::from_be_bytes(*word)
    }

    pub(crate) fn string(&mut self) -> &'a [u8] {
        let length = self.word() as usize;
        let (string, rest) = self.0.split_at(length);
        self.0 = rest;
        string
    }
}

pub(super) fn put_string(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend_from_slice(&u32::try_from(bytes.len()).unwrap().to_be_bytes());
    to.extend_from_slice(bytes);
}

pub(super) fn mpint(magnitude: &[u8]) -> Vec<u8> {
    let zeros = magnitude.iter().take_while(|byte| **byte == 0).count();
    let mut number = magnitude[zeros..].to_vec();
    if number.first().is_some_and(|byte| byte & 0x80 != 0) {
        number.insert(0, 0);
    }
    let mut encoded = Vec::new();
    put_string(&mut encoded, &number);
    encoded
}

/// Where a client connects to.
pub(crate) struct WireServer {
    listener: TcpListener,
    directory: TempDir,
    identification: &'static str,
}

impl WireServer {
    pub(crate) async fn bind() -> Self {
        Self::bind_as(IDENTIFICATION).await
    }

    /// One that calls itself so.
    pub(crate) async fn bind_as(identification: &'static str) -> Self {
        WireServer {
            listener: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap(),
            directory: tempfile::tempdir().unwrap(),
            identification,
        }
    }

    /// Settings for a client that takes this server's key as the known one.
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

    /// The next client, nothing said yet.
    pub(crate) async fn accept(&self) -> Wire {
        let (stream, _) = self.listener.accept().await.unwrap();
        Wire::new(stream, self.identification)
    }

    /// The product's client, with these settings.
    pub(crate) async fn client(options: &SshOptions) -> Result<Connection, ConnectError> {
        let invoker = test_settings::invoker();
        Connection::open(options, &Default::default(), &invoker).await
    }

    /// A client and this server, logged in.
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

pub(super) struct Cipher {
    key: LessSafeKey,
    nonce: [u8; 12],
}

impl Cipher {
    /// Of the keys `iv` and `key` in a session's first key exchange.
    pub(super) fn derived(secret: &[u8], hash: &[u8], iv: u8, key: u8) -> Self {
        Self::derived_in(hash, secret, hash, iv, key)
    }

    /// Of the keys `iv` and `key` (RFC 4253, section 7.2; RFC 5647, section 7.1).
    fn derived_in(session: &[u8], secret: &[u8], hash: &[u8], iv: u8, key: u8) -> Self {
        let derive = |letter: u8| digest(&SHA256, &[secret, hash, &[letter], session].concat());
        let key = UnboundKey::new(&AES_256_GCM, derive(key).as_ref()).unwrap();
        Cipher {
            key: LessSafeKey::new(key),
            nonce: derive(iv).as_ref()[..12].try_into().unwrap(),
        }
    }

    fn next_nonce(&mut self) -> Nonce {
        let nonce = self.nonce;
        let counter = u64::from_be_bytes(nonce[4..].try_into().unwrap()).wrapping_add(1);
        self.nonce[4..].copy_from_slice(&counter.to_be_bytes());
        Nonce::assume_unique_for_key(nonce)
    }
}

/// How a server proves who it is in a key exchange. What it negotiates, shows and
/// signs with need not fit together.
pub(super) trait HostProof {
    /// The one host key algorithm that its KEXINIT names.
    fn negotiated(&self) -> &str;
    /// The key, or certificate, that it shows.
    fn shown(&self) -> Vec<u8>;
    /// Its signature of the exchange hash, the algorithm's name included.
    async fn sign(&self, hash: &[u8]) -> Vec<u8>;
}

/// The key of a server that does as it says.
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

/// One connection.
pub(crate) struct Wire {
    input: BufReader<OwnedReadHalf>,
    pub(super) output: BufWriter<OwnedWriteHalf>,
    pub(super) opening: Option<Cipher>,
    pub(super) sealing: Option<Cipher>,
    identification: &'static str,
    /// What the client called itself, once it has.
    client: Vec<u8>,
    /// The session identifier: the first exchange's hash (RFC 4253, section 7.2).
    session: Option<Vec<u8>>,
}

impl Wire {
    pub(super) fn new(stream: TcpStream, identification: &'static str) -> Self {
        let (input, output) = stream.into_split();
        Wire {
            input: BufReader::new(input),
            output: BufWriter::with_capacity(1 << 16, output),
            opening: None,
            sealing: None,
            identification,
            client: Vec::new(),
            session: None,
        }
    }

    /// Has the kernel keep as little as it can of what is sent and not taken.
    pub(crate) fn keep_little(&self) {
        let stream: &TcpStream = self.output.get_ref().as_ref();
        setsockopt(stream, sockopt::SndBuf, &65536).unwrap();
    }

    /// Sends bytes as they are.
    pub(crate) async fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.output.write_all(bytes).await?;
        self.output.flush().await
    }

    pub(crate) async fn send(&mut self, message: &Message) -> io::Result<()> {
        self.put(message).await?;
        self.output.flush().await
    }

    /// Puts a message into the buffer, which is sent when it is full.
    pub(crate) async fn put(&mut self, message: &Message) -> io::Result<()> {
        let packet = self.seal(&message.0);
        self.output.write_all(&packet).await
    }

    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        self.output.flush().await
    }

    /// A packet (RFC 4253, section 6), encrypted once there are keys.
    pub(crate) fn seal(&mut self, payload: &[u8]) -> Vec<u8> {
        let (block, outside) = if self.sealing.is_some() {
            (16, 0)
        } else {
            (8, 4)
        };
        let mut padding = block - (outside + 1 + payload.len()) % block;
        if padding < 4 {
            padding += block;
        }
        let length = u32::try_from(1 + payload.len() + padding)
            .unwrap()
            .to_be_bytes();
        let mut body = vec![u8::try_from(padding).unwrap()];
        body.extend_from_slice(payload);
        body.resize(body.len() + padding, 0);
        if let Some(cipher) = &mut self.sealing {
            let nonce = cipher.next_nonce();
            cipher
                .key
                .seal_in_place_append_tag(nonce, Aad::from(length), &mut body)
                .unwrap();
        }
        [&length[..], &body].concat()
    }

    /// The client's next message.
    pub(crate) async fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.input.read_exact(&mut length).await?;
        let tag = if self.opening.is_some() { TAG } else { 0 };
        let mut body = vec![0; u32::from_be_bytes(length) as usize + tag];
        self.input.read_exact(&mut body).await?;
        if let Some(cipher) = &mut self.opening {
            let nonce = cipher.next_nonce();
            cipher
                .key
                .open_in_place(nonce, Aad::from(length), &mut body)
                .unwrap();
            body.truncate(body.len() - TAG);
        }
        let padding = usize::from(body[0]);
        Ok(body[1..body.len() - padding].to_vec())
    }

    /// The client's next message of this kind; others are passed over.
    pub(crate) async fn wait_for(&mut self, number: u8) -> io::Result<Vec<u8>> {
        loop {
            let packet = self.receive().await?;
            if packet.first() == Some(&number) {
                return Ok(packet);
            }
        }
    }

    /// Reads whatever the client sends, to the end.
    pub(crate) async fn drain(mut self) {
        while self.receive().await.is_ok() {}
    }

    /// Identification strings (RFC 4253, section 4.2); yields the client's.
    pub(crate) async fn identify(&mut self) -> io::Result<Vec<u8>> {
        let line = format!("{}\r\n", self.identification);
        self.raw(line.as_bytes()).await?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(self.input.read_u8().await?);
        }
        line.truncate(line.len() - 2);
        Ok(line)
    }

    /// A KEXINIT (RFC 4253, section 7.1).
    pub(crate) fn kexinit() -> Message {
        Self::kexinit_with(ALGORITHMS[1])
    }

    /// A KEXINIT with this host key algorithm.
    fn kexinit_with(host_key: &str) -> Message {
        let mut message = Message::new(number::KEXINIT);
        message.0.extend_from_slice(&[7; 16]);
        let mut algorithms = ALGORITHMS;
        algorithms[1] = host_key;
        algorithms
            .iter()
            .fold(message, |message, names| message.string(names))
            .byte(0)
            .word(0)
    }

    /// Identification and key exchange (RFC 4253, sections 7 and 8; RFC 8731).
    pub(crate) async fn exchange_keys(&mut self) -> io::Result<()> {
        self.client = self.identify().await?;
        self.exchange_keys_by(&Honest::new()).await
    }

    /// Identification and key exchange with this proof.
    pub(super) async fn begin_by(&mut self, proof: &impl HostProof) -> io::Result<()> {
        self.client = self.identify().await?;
        self.exchange_keys_by(proof).await
    }

    /// A key exchange once more (RFC 4253, section 9), by the same key as the first.
    pub(super) async fn exchange_keys_again(&mut self) -> io::Result<()> {
        self.exchange_keys_by(&Honest::new()).await
    }

    /// The session's first key exchange or a later one.
    pub(super) async fn exchange_keys_by(&mut self, proof: &impl HostProof) -> io::Result<()> {
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

    /// Everything up to a client that is logged in.
    pub(crate) async fn log_in(&mut self) -> io::Result<()> {
        self.exchange_keys().await?;
        self.authenticate().await
    }

    /// What follows the key exchange, up to a client that is logged in.
    pub(super) async fn authenticate(&mut self) -> io::Result<()> {
        self.wait_for(number::SERVICE_REQUEST).await?;
        let accept = Message::new(number::SERVICE_ACCEPT).string("ssh-userauth");
        self.send(&accept).await?;
        self.wait_for(number::USERAUTH_REQUEST).await?;
        self.send(&Message::new(number::USERAUTH_SUCCESS)).await
    }

    /// The channel that the client wants to open next: its number and type.
    pub(crate) async fn open_request(&mut self) -> io::Result<(u32, String)> {
        let packet = self.wait_for(number::CHANNEL_OPEN).await?;
        let mut reader = Reader::new(&packet);
        let kind = String::from_utf8(reader.string().to_vec()).unwrap();
        Ok((reader.word(), kind))
    }

    /// Opens the channel that the client wants next, with a large window.
    pub(crate) async fn confirm_next(&mut self) -> io::Result<u32> {
        let (channel, _) = self.open_request().await?;
        self.send(&confirmation(channel, 1 << 21, 32768)).await?;
        Ok(channel)
    }

    /// Opens the next channel and lets its command start; yields both.
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
