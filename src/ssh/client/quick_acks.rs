//! A TCP connection that acknowledges received data at once while the peer uses Nagle's
//! algorithm. sshd uses it until a session channel opens: it then holds a small message
//! back until all earlier data is acknowledged (RFC 1122, section 4.2.3.4), and the
//! client's kernel would delay that by 40 ms (section 4.2.3.2). Each acknowledgment costs a
//! packet, which slows a fast transfer, so this ends once it is of no use.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::narrow::WatchedSocket;

/// A connection without delayed acknowledgments.
#[derive(Debug)]
pub struct QuickAcks {
    stream: TcpStream,
    prompt: Arc<AtomicBool>,
    _watched: WatchedSocket,
}

/// Returns acknowledgments to the kernel.
#[derive(Debug, Clone, Default)]
pub struct AckSwitch(Option<Arc<AtomicBool>>);

impl QuickAcks {
    /// Acknowledges at once what is read from `stream` from now on.
    pub fn new(stream: TcpStream, watched: WatchedSocket) -> (Self, AckSwitch) {
        let prompt = Arc::new(AtomicBool::new(true));
        let switch = AckSwitch(Some(Arc::clone(&prompt)));
        let stream = QuickAcks {
            stream,
            prompt,
            _watched: watched,
        };
        (stream, switch)
    }
}

impl AckSwitch {
    /// Leaves acknowledgments to the kernel: the peer no longer uses Nagle's algorithm.
    pub fn leave_to_kernel(&self) {
        if let Some(prompt) = &self.0 {
            prompt.store(false, Ordering::Relaxed);
        }
    }
}

impl AsyncRead for QuickAcks {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before && self.prompt.load(Ordering::Relaxed) {
            // The kernel resets it by itself (tcp(7), TCP_QUICKACK). A failure only makes
            // the connection slower.
            let _ = SockRef::from(&self.stream).set_tcp_quickack(true);
        }
        read
    }
}

impl AsyncWrite for QuickAcks {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
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
    use crate::host::test_namespace::{self, ip};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// How many acknowledgments the kernel has delayed in this network namespace.
    fn delayed() -> u64 {
        let all = std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
        let mut lines = all.lines().filter(|line| line.starts_with("TcpExt:"));
        let [names, values] = [(); 2].map(|()| lines.next().unwrap().split(' '));
        let found = names.zip(values).find(|(name, _)| *name == "DelayedACKs");
        found.unwrap().1.parse().unwrap()
    }

    /// A peer with Nagle's algorithm that replies to each message with two: the second
    /// waits for the acknowledgment of the first.
    async fn talk(mut local: impl AsyncRead + AsyncWrite + Unpin, mut remote: TcpStream) {
        remote.set_nodelay(false).unwrap();
        let asking = async {
            for _ in 0..20 {
                local.write_all(b"?").await.unwrap();
                for _ in 0..2 {
                    local.read_exact(&mut [0]).await.unwrap();
                }
            }
        };
        let answering = async {
            for _ in 0..20 {
                remote.read_exact(&mut [0]).await.unwrap();
                for _ in 0..2 {
                    remote.write_all(b"!").await.unwrap();
                }
            }
        };
        tokio::join!(asking, answering);
    }

    #[test]
    fn nothing_is_acknowledged_late_before_that_is_the_kernels_business() {
        test_namespace::run(async {
            ip("link set lo up");
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let connect = async || {
                let (local, remote) = tokio::join!(TcpStream::connect(address), listener.accept());
                (local.unwrap(), remote.unwrap().0)
            };
            let (local, remote) = connect().await;
            let (local, _switch) = QuickAcks::new(local, WatchedSocket::default());
            talk(local, remote).await;
            assert_eq!(delayed(), 0);
            let (local, remote) = connect().await;
            let (local, switch) = QuickAcks::new(local, WatchedSocket::default());
            switch.leave_to_kernel();
            talk(local, remote).await;
            assert_ne!(delayed(), 0);
        });
    }
}
