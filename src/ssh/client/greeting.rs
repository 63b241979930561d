//! Watches for the server's identification at the start of a stream, and keeps the last line
//! before it: a server that refuses a connection early says why in such a line.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::prompt::terminal_text;

/// The bytes of a line that are kept.
const KEPT: usize = 255;
/// The beginning of an identification (RFC 4253, section 4.2).
const IDENTIFICATION: &[u8] = b"SSH-";

/// The server's words so far.
#[derive(Debug, Clone, Default)]
pub struct Greeted(Arc<Mutex<Words>>);

#[derive(Debug, Default)]
struct Words {
    identified: bool,
    line: Vec<u8>,
    last_line: Vec<u8>,
}

impl Greeted {
    fn words(&self) -> MutexGuard<'_, Words> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the server has begun its identification.
    pub fn is_identified(&self) -> bool {
        self.words().identified
    }

    /// The last line before it, safe to show.
    pub fn last_line(&self) -> Option<String> {
        let words = self.words();
        let line = match words.line.is_empty() {
            true => &words.last_line,
            false => &words.line,
        };
        let text = terminal_text::line(String::from_utf8_lossy(line).trim());
        (!text.is_empty()).then_some(text)
    }
}

impl Words {
    fn take(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                self.last_line = std::mem::take(&mut self.line);
            } else if self.line.len() < KEPT {
                self.line.push(byte);
                self.identified |= self.line == IDENTIFICATION;
            }
        }
    }
}

/// A stream whose first lines are kept.
pub struct Greeting<S> {
    stream: S,
    /// `None` once the server has identified itself.
    greeted: Option<Greeted>,
}

impl<S> Greeting<S> {
    /// Watches the start of `stream`.
    pub fn new(stream: S) -> (Self, Greeted) {
        let greeted = Greeted::default();
        let watched = Greeting {
            stream,
            greeted: Some(greeted.clone()),
        };
        (watched, greeted)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Greeting<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let Some(greeted) = &self.greeted {
            let arrived = buffer.filled().get(before..).unwrap_or_default();
            greeted.words().take(arrived);
            if greeted.is_identified() {
                self.greeted = None;
            }
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Greeting<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    /// The state after a server has sent this.
    async fn after(sent: &[u8]) -> Greeted {
        let (mut stream, greeted) = Greeting::new(io::Cursor::new(sent.to_vec()));
        let mut read = Vec::new();
        stream.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, sent);
        greeted
    }

    #[tokio::test]
    async fn the_last_line_before_the_identification_is_kept() {
        for (sent, identified, line) in [
            (&b""[..], false, None),
            (
                b"Exceeded MaxStartups\r\n",
                false,
                Some("Exceeded MaxStartups"),
            ),
            (b"one\ntwo \x1b[2J", false, Some("two [2J")),
            (b"SSH", false, Some("SSH")),
            (b"SSH-2.0-x\r\n\0\0\0\x10", true, Some("SSH-")),
            (b"hello\r\nSSH-2.0-x\r\n", true, Some("SSH-")),
            (b"no SSH-\n", false, Some("no SSH-")),
        ] {
            let greeted = after(sent).await;
            assert_eq!(greeted.is_identified(), identified, "{sent:?}");
            if !identified {
                assert_eq!(greeted.last_line().as_deref(), line);
            }
        }
        let long = after(&[b'x'; 4000]).await;
        assert_eq!(long.last_line().unwrap().len(), KEPT);
    }
}
