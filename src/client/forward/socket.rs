//! The local sockets of forwards: TCP and Unix, accepted or connected.

use std::io;
use std::net::SocketAddr;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, tcp, unix};

/// A socket that says when bytes have come, before a buffer for them is needed.
pub(super) trait Readable {
    /// Waits until a read would not wait.
    fn readable(&self) -> impl Future<Output = io::Result<()>> + Send;
}

impl Readable for tcp::OwnedReadHalf {
    async fn readable(&self) -> io::Result<()> {
        tcp::OwnedReadHalf::readable(self).await
    }
}

impl Readable for unix::OwnedReadHalf {
    async fn readable(&self) -> io::Result<()> {
        unix::OwnedReadHalf::readable(self).await
    }
}

/// A local connection of a forward.
pub(super) trait Local: Send + 'static {
    /// The reading half.
    type Read: AsyncRead + Readable + Unpin + Send;
    /// The writing half; its shutdown ends the direction.
    type Write: AsyncWrite + Unpin + Send;

    /// The two halves.
    fn split(self) -> (Self::Read, Self::Write);

    /// The address of its peer, if it has one.
    fn originator(&self) -> Option<SocketAddr>;
}

impl Local for TcpStream {
    type Read = tcp::OwnedReadHalf;
    type Write = tcp::OwnedWriteHalf;

    fn split(self) -> (Self::Read, Self::Write) {
        // These fail only if the connection is gone, which a read reports.
        let _ = self.set_nodelay(true);
        let _ = SockRef::from(&self).set_keepalive(true);
        self.into_split()
    }

    fn originator(&self) -> Option<SocketAddr> {
        self.peer_addr().ok()
    }
}

impl Local for UnixStream {
    type Read = unix::OwnedReadHalf;
    type Write = unix::OwnedWriteHalf;

    fn split(self) -> (Self::Read, Self::Write) {
        self.into_split()
    }

    fn originator(&self) -> Option<SocketAddr> {
        None
    }
}
