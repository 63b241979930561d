//! Reads an agent's output up to the preamble, past the output of shell startup files and of the
//! programs that start it.

use bytes::{Bytes, BytesMut};

use crate::frame::control::{MAX_SOCKET_PATH, PREAMBLE, SOCKET_LINE, SOCKET_WORD};
use crate::link::last_words::{LastWords, last_lines};
use crate::link::process_stream::AgentOutput;
use crate::pump::FrameSource;

/// Output before the preamble, in bytes, at most.
const LIMIT: usize = 64 * 1024;

/// A process's output, line by line, up to the preamble.
pub struct Opening<R = AgentOutput> {
    output: R,
    unread: BytesMut,
    passed: Vec<u8>,
}

/// One line of output.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// The agent's preamble.
    Preamble,
    /// The preamble of another version of the stream, with that version.
    OtherPreamble(String),
    /// A socket on which the agent listens as well.
    Socket(AgentSocket),
    /// Any other line, without its end.
    Other(String),
}

/// A socket on an agent's host.
#[derive(Debug, PartialEq, Eq)]
pub struct AgentSocket {
    /// Its path.
    pub path: String,
    /// The secret word that authenticates the client there; sent first.
    pub word: String,
}

/// Why there is no next line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoLine {
    /// The process ended its output.
    Ended,
    /// It has printed more than 64 KiB.
    TooMuch,
}

impl<R: FrameSource> Opening<R> {
    /// `output` must not have been read from.
    pub fn new(output: R) -> Self {
        Opening {
            output,
            unread: BytesMut::new(),
            passed: Vec::new(),
        }
    }

    /// The next line.
    pub async fn line(&mut self) -> Result<Line, NoLine> {
        let mut searched = 0;
        loop {
            let new = self.unread.get(searched..).unwrap_or_default();
            if let Some(end) = new.iter().position(|byte| *byte == b'\n') {
                let line = self.unread.split_to(searched + end + 1);
                self.passed.extend_from_slice(&line);
                return match self.passed.len() > LIMIT {
                    true => Err(NoLine::TooMuch),
                    false => Ok(read(&line)),
                };
            }
            searched = self.unread.len();
            if self.passed.len() + searched > LIMIT {
                return Err(NoLine::TooMuch);
            }
            match self.output.receive().await {
                Some(chunk) => self.unread.extend_from_slice(&chunk),
                None => return Err(NoLine::Ended),
            }
        }
    }

    /// The last lines printed so far.
    pub fn printed(&self) -> String {
        let end = [&self.passed[..], &self.unread].concat();
        last_lines(&end)
    }

    /// The bytes read beyond the last line, and the rest of the output.
    pub fn into_parts(self) -> (Bytes, R) {
        (self.unread.freeze(), self.output)
    }
}

impl Opening {
    /// The last lines of the process's standard error.
    pub fn last_words(&self) -> LastWords {
        self.output.last_words()
    }
}

/// Classifies a line, given with its end. The preamble may follow other text, since the output
/// before it may lack a line end.
fn read(line: &[u8]) -> Line {
    if line.ends_with(PREAMBLE) {
        return Line::Preamble;
    }
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches(['\r', '\n']);
    match (other_version(text), socket(text)) {
        (Some(version), _) => Line::OtherPreamble(version.to_owned()),
        (None, Some(socket)) => Line::Socket(socket),
        (None, None) => Line::Other(text.to_owned()),
    }
}

/// The socket that a line announces, if it is valid.
fn socket(line: &str) -> Option<AgentSocket> {
    let (_, socket) = line.rsplit_once(SOCKET_LINE)?;
    let (path, word) = socket.split_once(' ')?;
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    let fits = path.starts_with('/') && path.len() <= MAX_SOCKET_PATH && plain(path);
    (fits && word.len() == SOCKET_WORD && plain(word)).then(|| AgentSocket {
        path: path.to_owned(),
        word: word.to_owned(),
    })
}

/// The version of a preamble at the end of `text`.
fn other_version(text: &str) -> Option<&str> {
    let name = PREAMBLE.split_inclusive(|byte| *byte == b'/').next()?;
    let (_, version) = text.rsplit_once(std::str::from_utf8(name).ok()?)?;
    let number = version.bytes().all(|byte| byte.is_ascii_digit());
    (number && (1..=9).contains(&version.len())).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::control::tests::Input;
    use tokio::sync::mpsc;

    async fn opening(chunks: &[&[u8]]) -> Opening<Input> {
        let (sender, receiver) = mpsc::channel(chunks.len().max(1));
        for chunk in chunks {
            sender.send(Bytes::copy_from_slice(chunk)).await.unwrap();
        }
        Opening::new(Input(receiver))
    }

    fn other(text: &str) -> Result<Line, NoLine> {
        Ok(Line::Other(text.to_owned()))
    }

    #[tokio::test]
    async fn the_preamble_is_found_behind_noise_however_it_is_cut() {
        let text = b"Welcome\r\n\nprompt$ sshvpn-agent/1\r\n\0\0\0rest";
        for size in 1..text.len() {
            let chunks: Vec<&[u8]> = text.chunks(size).collect();
            let mut opening = opening(&chunks).await;
            assert_eq!(opening.line().await, other("Welcome"));
            assert_eq!(opening.line().await, other(""));
            assert_eq!(opening.line().await, Ok(Line::Preamble));
            let (unread, mut rest) = opening.into_parts();
            let mut left = unread.to_vec();
            while let Some(chunk) = rest.receive().await {
                left.extend_from_slice(&chunk);
            }
            assert_eq!(left, b"\0\0\0rest");
        }
    }

    #[tokio::test]
    async fn another_stream_is_told_apart() {
        let mut opening =
            opening(&[b"about sshvpn-agent/x\nsshvpn-agent/1 \nsshvpn-agent/12\r\n"]).await;
        assert_eq!(opening.line().await, other("about sshvpn-agent/x"));
        assert_eq!(opening.line().await, other("sshvpn-agent/1 "));
        let newer = Line::OtherPreamble("12".to_owned());
        assert_eq!(opening.line().await, Ok(newer));
        assert_eq!(opening.line().await, Err(NoLine::Ended));
    }

    #[tokio::test]
    async fn a_socket_is_told_of_by_path_and_word() {
        let word = "w".repeat(SOCKET_WORD);
        let long = "x".repeat(MAX_SOCKET_PATH);
        let lines = [
            format!("$ sshvpn-socket: /run/a.b/socket {word}\r\n"),
            format!("sshvpn-socket: /run/socket {word}w\n"),
            format!("sshvpn-socket: run/socket {word}\n"),
            format!("sshvpn-socket: /run/a b {word}\n"),
            format!("sshvpn-socket: /{long} {word}\n"),
            "sshvpn-socket: /run/socket\n".to_owned(),
        ];
        let mut opening = opening(&lines.each_ref().map(String::as_bytes)).await;
        let path = "/run/a.b/socket".to_owned();
        let socket = AgentSocket { path, word };
        assert_eq!(opening.line().await, Ok(Line::Socket(socket)));
        for line in &lines[1..] {
            assert_eq!(opening.line().await, other(line.trim_end_matches('\n')));
        }
    }

    #[tokio::test]
    async fn noise_has_an_end() {
        let line = [b'n'; 1023].iter().chain(b"\n").copied();
        let line: Vec<u8> = line.collect();
        let mut lines = opening(&[&line[..]; 80]).await;
        let mut read = 0;
        while lines.line().await.is_ok() {
            read += 1;
        }
        assert_eq!(read, 64);
        assert_eq!(lines.line().await, Err(NoLine::TooMuch));
        let mut endless = opening(&[&[b'n'; 1024][..]; 80]).await;
        assert_eq!(endless.line().await, Err(NoLine::TooMuch));
        assert!(endless.passed.len() + endless.unread.len() <= LIMIT + 1024);
        assert!(endless.printed().len() < 1000);
    }
}
