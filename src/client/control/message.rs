//! Messages of the control socket (OpenSSH PROTOCOL.mux): a length, a type, and fields as in SSH.
//! Pure.

use thiserror::Error;

use crate::config::ssh::forward::{Forward, Kind, Listen, Target};

/// The protocol's version.
const VERSION: u32 = 4;
/// The largest message, in bytes without its length.
pub(super) const MAX_MESSAGE: u32 = 64 * 1024;
/// The port that marks a path in the place of a host.
const SOCKET_PORT: u32 = u32::MAX - 1;

const HELLO: u32 = 0x0000_0001;
const NEW_SESSION: u32 = 0x1000_0002;
const ALIVE_CHECK: u32 = 0x1000_0004;
const TERMINATE: u32 = 0x1000_0005;
const OPEN_FORWARD: u32 = 0x1000_0006;
const CLOSE_FORWARD: u32 = 0x1000_0007;
const STOP_LISTENING: u32 = 0x1000_0009;
const OK: u32 = 0x8000_0001;
const PERMISSION_DENIED: u32 = 0x8000_0002;
const FAILURE: u32 = 0x8000_0003;
const ALIVE: u32 = 0x8000_0005;
const REMOTE_PORT: u32 = 0x8000_0007;

/// The message is not one of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum MessageError {
    /// A field is missing or wrong.
    #[error("a malformed message")]
    Malformed,
    /// The other side speaks another version.
    #[error("version {0} of the control protocol is not supported")]
    Version(u32),
}

/// A request, with the number that its reply repeats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    /// The process id is asked for.
    Check,
    /// The connection is to end.
    Exit,
    /// The control socket is to be closed.
    Stop,
    /// A forward is to be added.
    Add(Kind, Forward),
    /// A forward is to be removed.
    Remove(Kind, Forward),
    /// A session, or anything else that is not supported.
    Other(u32),
}

/// A reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// Done.
    Ok,
    /// The process id.
    Alive(u32),
    /// Done; the port that was allocated.
    Port(u32),
    /// Not done, with the reason.
    Failure(String),
}

/// The greeting of either side, with its length.
pub(super) fn hello() -> Vec<u8> {
    framed(&[HELLO, VERSION], |_| ())
}

/// Checks the greeting of the other side.
pub(super) fn read_hello(message: &[u8]) -> Result<(), MessageError> {
    let mut fields = Fields(message);
    match (fields.number()?, fields.number()?) {
        (HELLO, VERSION) => Ok(()),
        (HELLO, other) => Err(MessageError::Version(other)),
        _ => Err(MessageError::Malformed),
    }
}

impl Request {
    /// The message with its length.
    pub(super) fn encode(&self, id: u32) -> Vec<u8> {
        match self {
            Request::Check => framed(&[ALIVE_CHECK, id], |_| ()),
            Request::Exit => framed(&[TERMINATE, id], |_| ()),
            Request::Stop => framed(&[STOP_LISTENING, id], |_| ()),
            Request::Add(kind, forward) => encode_forward(OPEN_FORWARD, id, *kind, forward),
            Request::Remove(kind, forward) => encode_forward(CLOSE_FORWARD, id, *kind, forward),
            Request::Other(_) => framed(&[NEW_SESSION, id], |_| ()),
        }
    }

    /// Reads a message without its length; returns the request's number too.
    pub(super) fn decode(message: &[u8]) -> Result<(u32, Self), MessageError> {
        let mut fields = Fields(message);
        let (kind, id) = (fields.number()?, fields.number()?);
        let request = match kind {
            ALIVE_CHECK => Request::Check,
            TERMINATE => Request::Exit,
            STOP_LISTENING => Request::Stop,
            OPEN_FORWARD => {
                let (kind, forward) = decode_forward(&mut fields)?;
                Request::Add(kind, forward)
            }
            CLOSE_FORWARD => {
                let (kind, forward) = decode_forward(&mut fields)?;
                Request::Remove(kind, forward)
            }
            other => Request::Other(other),
        };
        Ok((id, request))
    }
}

impl Reply {
    /// The message with its length, for the request `id`.
    pub(super) fn encode(&self, id: u32) -> Vec<u8> {
        match self {
            Reply::Ok => framed(&[OK, id], |_| ()),
            Reply::Alive(process) => framed(&[ALIVE, id, *process], |_| ()),
            Reply::Port(port) => framed(&[REMOTE_PORT, id, *port], |_| ()),
            Reply::Failure(reason) => framed(&[FAILURE, id], |bytes| put_text(bytes, reason)),
        }
    }

    /// Reads a message without its length.
    pub(super) fn decode(message: &[u8]) -> Result<Self, MessageError> {
        let mut fields = Fields(message);
        let (kind, _) = (fields.number()?, fields.number()?);
        Ok(match kind {
            OK => Reply::Ok,
            ALIVE => Reply::Alive(fields.number()?),
            REMOTE_PORT => Reply::Port(fields.number()?),
            PERMISSION_DENIED | FAILURE => Reply::Failure(fields.text()?.to_owned()),
            _ => return Err(MessageError::Malformed),
        })
    }
}

fn framed(numbers: &[u32], rest: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    for number in numbers {
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    rest(&mut bytes);
    let length = u32::try_from(bytes.len() - 4).unwrap_or(u32::MAX);
    if let Some(first) = bytes.first_chunk_mut() {
        *first = length.to_be_bytes();
    }
    bytes
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

fn encode_forward(request: u32, id: u32, kind: Kind, forward: &Forward) -> Vec<u8> {
    let kind = match kind {
        Kind::Local => 1,
        Kind::Remote => 2,
        Kind::Dynamic => 3,
    };
    let listen = match &forward.listen {
        Listen::Port { bind, port } => {
            let bind = match bind.as_deref() {
                None => "",
                Some("") => "*",
                Some(bind) => bind,
            };
            (bind.to_owned(), u32::from(*port))
        }
        Listen::Socket(path) => (path.to_string_lossy().into_owned(), SOCKET_PORT),
    };
    let connect = match &forward.target {
        Some(Target::Host { host, port }) => (host.clone(), u32::from(*port)),
        Some(Target::Socket(path)) => (path.to_string_lossy().into_owned(), SOCKET_PORT),
        None => ("socks".to_owned(), 0),
    };
    framed(&[request, id, kind], |bytes| {
        for (host, port) in [listen, connect] {
            put_text(bytes, &host);
            bytes.extend_from_slice(&port.to_be_bytes());
        }
    })
}

fn decode_forward(fields: &mut Fields<'_>) -> Result<(Kind, Forward), MessageError> {
    let kind = match fields.number()? {
        1 => Kind::Local,
        2 => Kind::Remote,
        3 => Kind::Dynamic,
        _ => return Err(MessageError::Malformed),
    };
    let (listen_host, listen_port) = (fields.text()?, fields.number()?);
    let (host, port) = (fields.text()?, fields.number()?);
    let listen = match (listen_host, listen_port) {
        (path, SOCKET_PORT) => Listen::Socket(path.into()),
        (bind, port) => Listen::Port {
            bind: (!bind.is_empty()).then(|| bind.to_owned()),
            port: u16::try_from(port).map_err(|_| MessageError::Malformed)?,
        },
    };
    let target = match (host, port) {
        (path, SOCKET_PORT) => Some(Target::Socket(path.into())),
        (_, 0) => None,
        (host, port) => Some(Target::Host {
            host: host.to_owned(),
            port: u16::try_from(port).map_err(|_| MessageError::Malformed)?,
        }),
    };
    let forward = Forward { listen, target };
    match forward.fits(kind) {
        true => Ok((kind, forward)),
        false => Err(MessageError::Malformed),
    }
}

/// Reads fields from the front.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn number(&mut self) -> Result<u32, MessageError> {
        let (first, rest) = self.0.split_first_chunk().ok_or(MessageError::Malformed)?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*first))
    }

    fn text(&mut self) -> Result<&'a str, MessageError> {
        let length = usize::try_from(self.number()?).map_err(|_| MessageError::Malformed)?;
        let (text, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(MessageError::Malformed)?;
        self.0 = rest;
        str::from_utf8(text).map_err(|_| MessageError::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unframed(message: &[u8]) -> &[u8] {
        let (length, rest) = message.split_first_chunk().unwrap();
        assert_eq!(u32::from_be_bytes(*length) as usize, rest.len());
        rest
    }

    #[test]
    fn forwards_read_back() {
        for (kind, text) in [
            (Kind::Local, "8080:db:5432"),
            (Kind::Local, "*:80:[::1]:22"),
            (Kind::Local, "/a:/b"),
            (Kind::Remote, "0:h:1"),
            (Kind::Remote, "[::1]:80:/run/x"),
            (Kind::Remote, "1080"),
            (Kind::Dynamic, "localhost:1080"),
        ] {
            let forward = kind.parse(text).unwrap();
            for request in [
                Request::Add(kind, forward.clone()),
                Request::Remove(kind, forward.clone()),
            ] {
                let message = request.encode(7);
                assert_eq!(
                    Request::decode(unframed(&message)),
                    Ok((7, request)),
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn replies_read_back() {
        let failed = Reply::Failure("no".to_owned());
        for reply in [Reply::Ok, Reply::Alive(4711), Reply::Port(8080), failed] {
            assert_eq!(Reply::decode(unframed(&reply.encode(1))), Ok(reply));
        }
        assert_eq!(read_hello(unframed(&hello())), Ok(()));
        assert_eq!(
            read_hello(&[0, 0, 0, 1, 0, 0, 0, 9]),
            Err(MessageError::Version(9))
        );
    }

    #[test]
    fn a_forward_of_the_wrong_form_is_refused() {
        let local = Kind::Local.parse("80:h:1").unwrap();
        let mut message = Request::Add(Kind::Local, local).encode(1);
        message[15] = 3;
        assert_eq!(
            Request::decode(unframed(&message)),
            Err(MessageError::Malformed)
        );
    }

    proptest! {
        #[test]
        fn no_message_panics(kind in 0u32..12, bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let message = [&(0x1000_0000 + kind).to_be_bytes(), bytes.as_slice()].concat();
            let _ = Request::decode(&message);
            let _ = Reply::decode(&bytes);
            let _ = read_hello(&bytes);
        }
    }
}
