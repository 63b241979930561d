//! SSH on the wire, for tests that send what a conforming peer does not send: messages as
//! bytes, packets, and the keys of one exchange (curve25519-sha256, ssh-ed25519,
//! aes256-gcm@openssh.com). The two sides are in [`wire_client`](client) and in
//! `wire_server`.

#[cfg(test)]
pub(crate) mod client;

use std::cell::Cell;
use std::io;
use std::os::fd::AsFd;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::digest::{SHA256, digest};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

pub(super) const IDENTIFICATION: &str = "SSH-2.0-hostile";
pub(super) const ALGORITHMS: [&str; 10] = [
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
    pub(crate) const IGNORE: u8 = 2;
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
    #[allow(dead_code, reason = "the fuzz target and a scenario read it")]
    pub(crate) const REQUEST_SUCCESS: u8 = 81;
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

/// The bytes of one message, built field by field (RFC 4251, section 5).
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

/// Confirms the client's channel `channel`; the test's side uses the same number.
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

/// A message whose only field is the channel.
pub(crate) fn about(number: u8, channel: u32) -> Message {
    Message::new(number).word(channel)
}

pub(crate) fn adjust(channel: u32, bytes: u32) -> Message {
    about(number::CHANNEL_WINDOW_ADJUST, channel).word(bytes)
}

/// Reads a message of the client field by field.
pub(crate) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    /// Starts after the message number.
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

pub(super) struct Cipher {
    key: LessSafeKey,
    nonce: [u8; 12],
}

impl Cipher {
    /// From the keys `iv` and `key` of a session's first key exchange.
    pub(super) fn derived(secret: &[u8], hash: &[u8], iv: u8, key: u8) -> Self {
        Self::derived_in(hash, secret, hash, iv, key)
    }

    /// From the keys `iv` and `key` (RFC 4253, section 7.2; RFC 5647, section 7.1).
    pub(super) fn derived_in(session: &[u8], secret: &[u8], hash: &[u8], iv: u8, key: u8) -> Self {
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

/// A packet with this payload, encrypted if `sealing` has a cipher.
fn sealed(sealing: &mut Option<Cipher>, payload: &[u8]) -> Vec<u8> {
    let (block, outside) = if sealing.is_some() { (16, 0) } else { (8, 4) };
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
    if let Some(cipher) = sealing {
        let nonce = cipher.next_nonce();
        cipher
            .key
            .seal_in_place_append_tag(nonce, Aad::from(length), &mut body)
            .unwrap();
    }
    [&length[..], &body].concat()
}

/// The payload of the next packet.
async fn received(
    input: &mut BufReader<OwnedReadHalf>,
    opening: &mut Option<Cipher>,
) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    input.read_exact(&mut length).await?;
    let tag = if opening.is_some() { TAG } else { 0 };
    let mut body = vec![0; u32::from_be_bytes(length) as usize + tag];
    input.read_exact(&mut body).await?;
    if let Some(cipher) = opening {
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

/// One connection.
pub(crate) struct Wire {
    input: BufReader<OwnedReadHalf>,
    pub(super) output: BufWriter<OwnedWriteHalf>,
    pub(super) opening: Option<Cipher>,
    pub(super) sealing: Option<Cipher>,
    pub(super) identification: &'static str,
    /// The client's identification string, once it has arrived.
    pub(super) client: Vec<u8>,
    /// The session identifier: the first exchange's hash (RFC 4253, section 7.2).
    pub(super) session: Option<Vec<u8>>,
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

    /// Sets a small send buffer, so that the kernel holds little unsent data.
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
        sealed(&mut self.sealing, payload)
    }

    /// The peer's next message.
    pub(crate) async fn receive(&mut self) -> io::Result<Vec<u8>> {
        received(&mut self.input, &mut self.opening).await
    }

    /// Sends messages and then an unknown global request, and reads the replies meanwhile
    /// until the reply to that request: the peer has then handled all messages.
    #[allow(dead_code, reason = "the fuzz target and a scenario call it")]
    pub(crate) async fn settle(
        &mut self,
        messages: impl Iterator<Item = Message>,
    ) -> io::Result<()> {
        let request = Message::new(number::GLOBAL_REQUEST).string("unknown");
        let messages = messages.chain([request.byte(1)]);
        let (asked, all_sent) = (Cell::new(0), Cell::new(false));
        let write = async {
            for message in messages {
                asked.set(
                    asked.get() + u64::from(message.0.first() == Some(&number::GLOBAL_REQUEST)),
                );
                let packet = sealed(&mut self.sealing, &message.0);
                self.output.write_all(&packet).await?;
            }
            all_sent.set(true);
            self.output.flush().await
        };
        let read = async {
            let mut answered = 0;
            while !all_sent.get() || answered < asked.get() {
                let packet = received(&mut self.input, &mut self.opening).await?;
                let answers = [number::REQUEST_SUCCESS, number::REQUEST_FAILURE];
                answered += u64::from(packet.first().is_some_and(|first| answers.contains(first)));
            }
            Ok(())
        };
        tokio::try_join!(write, read).map(|((), ())| ())
    }

    /// The client's next message with this number; skips others.
    pub(crate) async fn wait_for(&mut self, number: u8) -> io::Result<Vec<u8>> {
        loop {
            let packet = self.receive().await?;
            if packet.first() == Some(&number) {
                return Ok(packet);
            }
        }
    }

    /// A second handle of the socket, to discard replies without decrypting them.
    pub(crate) fn socket(&self) -> TcpStream {
        let stream: &TcpStream = self.output.get_ref().as_ref();
        let copy = stream.as_fd().try_clone_to_owned().unwrap();
        TcpStream::from_std(copy.into()).unwrap()
    }

    /// Sends messages and discards what comes back, until all are sent or the peer has hung
    /// up; false if it has hung up.
    pub(crate) async fn flood(&mut self, messages: impl Iterator<Item = Message>) -> bool {
        let mut answers = self.socket();
        let write = async {
            for message in messages {
                self.put(&message).await?;
            }
            self.flush().await
        };
        let read = async {
            let mut buffer = vec![0; 1 << 16];
            while matches!(answers.read(&mut buffer).await, Ok(1..)) {}
        };
        tokio::select! {
            written = write => written.is_ok(),
            () = read => false,
        }
    }

    /// Reads and discards the client's messages until the connection ends.
    pub(crate) async fn drain(mut self) {
        while self.receive().await.is_ok() {}
    }

    /// Exchanges identification strings (RFC 4253, section 4.2); yields the client's.
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
    pub(super) fn kexinit_with(host_key: &str) -> Message {
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
}
