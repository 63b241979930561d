//! The server side of SOCKS 4, 4a and 5 (RFC 1928) and of HTTP CONNECT (RFC 9110, section 9.3.6),
//! up to the place that a connection asks for. Pure: bytes in, bytes out.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::config::ssh::forward::Target;

/// The most bytes of a greeting: an HTTP header with cookies and credentials.
const MAX_GREETING: usize = 16 * 1024;

const SOCKS5: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const NO_ACCEPTABLE_METHOD: u8 = 0xff;
const CONNECT: u8 = 1;

/// The protocol that a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// SOCKS 4 and 4a.
    Socks4,
    /// SOCKS 5.
    Socks5,
    /// HTTP CONNECT.
    Http,
}

/// Why a place was not connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The server, or a rule, does not permit it.
    Prohibited,
    /// The connection failed there.
    Failed,
}

/// The result of bytes that arrived.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The greeting is not complete.
    More,
    /// Send this, and go on reading.
    Reply(Vec<u8>),
    /// The connection asks for this place.
    Request(Protocol, Target),
    /// Send this, if anything, and close.
    Refuse {
        /// The protocol's own refusal.
        reply: Vec<u8>,
        /// The reason, for the log.
        reason: &'static str,
    },
}

/// The greeting of one connection.
#[derive(Debug, Default)]
pub struct Greeting {
    unread: Vec<u8>,
    /// Whether the SOCKS 5 method has been agreed on.
    agreed: bool,
}

impl Greeting {
    /// Takes bytes that arrived. After [`Step::Reply`] and [`Step::Request`], call
    /// [`again`](Self::again) or [`rest`](Self::rest).
    pub fn take(&mut self, data: &[u8]) -> Step {
        self.unread.extend_from_slice(data);
        self.again()
    }

    /// The step for the bytes that are there already.
    pub fn again(&mut self) -> Step {
        let read = match self.unread.first() {
            None => return Step::More,
            Some(4) => socks4(&self.unread),
            Some(&SOCKS5) if self.agreed => socks5_request(&self.unread),
            Some(&SOCKS5) => socks5_methods(&self.unread),
            Some(first) if first.is_ascii_uppercase() => http(&self.unread),
            Some(_) => return refuse(Vec::new(), "neither SOCKS nor HTTP CONNECT"),
        };
        match read {
            Some((length, step)) => {
                self.agreed |= matches!(step, Step::Reply(_));
                self.unread.drain(..length.min(self.unread.len()));
                step
            }
            None if self.unread.len() > MAX_GREETING => {
                refuse(Vec::new(), "the greeting is too long")
            }
            None => Step::More,
        }
    }

    /// The bytes after the greeting, which belong to the connection.
    pub fn rest(self) -> Vec<u8> {
        self.unread
    }
}

impl Protocol {
    /// The reply to a request.
    pub fn reply(self, result: Result<(), Refusal>) -> Vec<u8> {
        match self {
            Protocol::Socks4 => {
                let code = if result.is_ok() { 90 } else { 91 };
                vec![0, code, 0, 0, 0, 0, 0, 0]
            }
            Protocol::Socks5 => socks5_reply(match result {
                Ok(()) => 0,
                Err(Refusal::Prohibited) => 2,
                Err(Refusal::Failed) => 5,
            }),
            Protocol::Http => http_reply(match result {
                Ok(()) => "200 Connection established",
                Err(Refusal::Prohibited) => "403 Forbidden",
                Err(Refusal::Failed) => "502 Bad Gateway",
            }),
        }
    }
}

fn refuse(reply: Vec<u8>, reason: &'static str) -> Step {
    Step::Refuse { reply, reason }
}

/// A reply with the address 0.0.0.0:0: the address at the remote host is unknown here.
fn socks5_reply(code: u8) -> Vec<u8> {
    vec![SOCKS5, code, 0, 1, 0, 0, 0, 0, 0, 0]
}

fn http_reply(status: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n\r\n").into_bytes()
}

/// Reads fields from the front; nothing where they have not all arrived.
struct Fields<'a> {
    left: &'a [u8],
    all: usize,
}

impl<'a> Fields<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        Fields {
            left: bytes,
            all: bytes.len(),
        }
    }

    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, left) = self.left.split_first_chunk()?;
        self.left = left;
        Some(*first)
    }

    fn byte(&mut self) -> Option<u8> {
        self.bytes().map(|[byte]| byte)
    }

    fn counted(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(self.byte()?);
        let (text, left) = self.left.split_at_checked(length)?;
        self.left = left;
        Some(text)
    }

    fn terminated(&mut self) -> Option<&'a [u8]> {
        let end = self.left.iter().position(|&byte| byte == 0)?;
        let text = self.left.get(..end)?;
        self.left = self.left.get(end + 1..)?;
        Some(text)
    }

    fn read(&self) -> usize {
        self.all - self.left.len()
    }
}

/// Reads a request of SOCKS 4, or of 4a, which has a name behind the address 0.0.0.x.
fn socks4(bytes: &[u8]) -> Option<(usize, Step)> {
    let mut fields = Fields::of(bytes);
    let [_, command] = fields.bytes()?;
    let port = u16::from_be_bytes(fields.bytes()?);
    let address: [u8; 4] = fields.bytes()?;
    fields.terminated()?;
    let host = match address {
        [0, 0, 0, last] if last != 0 => name(fields.terminated()?),
        address => Some(Ipv4Addr::from(address).to_string()),
    };
    let rejected = |reason| refuse(Protocol::Socks4.reply(Err(Refusal::Failed)), reason);
    let step = match (command, host) {
        (CONNECT, Some(host)) => request(Protocol::Socks4, host, port),
        (CONNECT, None) => rejected("the name is not one of a host"),
        _ => rejected("SOCKS 4 other than CONNECT is not supported"),
    };
    Some((fields.read(), step))
}

fn socks5_methods(bytes: &[u8]) -> Option<(usize, Step)> {
    let mut fields = Fields::of(bytes);
    fields.byte()?;
    let methods = fields.counted()?;
    let step = match methods.contains(&NO_AUTHENTICATION) {
        true => Step::Reply(vec![SOCKS5, NO_AUTHENTICATION]),
        false => refuse(
            vec![SOCKS5, NO_ACCEPTABLE_METHOD],
            "SOCKS 5 with authentication alone is not supported",
        ),
    };
    Some((fields.read(), step))
}

fn socks5_request(bytes: &[u8]) -> Option<(usize, Step)> {
    let mut fields = Fields::of(bytes);
    let [_, command, _, kind] = fields.bytes()?;
    let host = match kind {
        1 => Some(Ipv4Addr::from(fields.bytes::<4>()?).to_string()),
        3 => name(fields.counted()?),
        4 => Some(Ipv6Addr::from(fields.bytes::<16>()?).to_string()),
        _ => {
            let step = refuse(socks5_reply(8), "an unknown type of address");
            return Some((fields.read(), step));
        }
    };
    let port = u16::from_be_bytes(fields.bytes()?);
    let step = match (command, host) {
        (CONNECT, Some(host)) => request(Protocol::Socks5, host, port),
        (CONNECT, None) => refuse(socks5_reply(1), "the name is not one of a host"),
        (3, _) => refuse(socks5_reply(7), "UDP ASSOCIATE is not supported"),
        _ => refuse(
            socks5_reply(7),
            "SOCKS 5 other than CONNECT is not supported",
        ),
    };
    Some((fields.read(), step))
}

/// Reads the header of a request; only CONNECT is served.
fn http(bytes: &[u8]) -> Option<(usize, Step)> {
    const END: &[u8] = b"\r\n\r\n";
    let length = bytes.windows(END.len()).position(|window| window == END)? + END.len();
    let header = bytes.get(..length)?;
    let line = header.split(|&byte| byte == b'\r').next()?;
    let mut words = line.split(|&byte| byte == b' ');
    let method = words.next()?;
    let target = words.next().and_then(|word| str::from_utf8(word).ok());
    let target: Option<Target> = target.and_then(|word| word.parse().ok());
    let version = words.next().unwrap_or_default();
    let step = match (method, target) {
        (b"CONNECT", Some(target @ Target::Host { .. })) if version.starts_with(b"HTTP/1.") => {
            Step::Request(Protocol::Http, target)
        }
        (b"CONNECT", _) => refuse(http_reply("400 Bad Request"), "CONNECT without HOST:PORT"),
        _ => refuse(
            http_reply("405 Method Not Allowed\r\nAllow: CONNECT"),
            "HTTP other than CONNECT is not supported",
        ),
    };
    Some((length, step))
}

fn request(protocol: Protocol, host: String, port: u16) -> Step {
    Step::Request(protocol, Target::Host { host, port })
}

/// The name of a host: graphic ASCII.
fn name(bytes: &[u8]) -> Option<String> {
    let sound = !bytes.is_empty() && bytes.len() <= 255 && bytes.iter().all(u8::is_ascii_graphic);
    let text = str::from_utf8(bytes).ok()?;
    sound.then(|| text.to_owned())
}

#[cfg(test)]
mod tests;
