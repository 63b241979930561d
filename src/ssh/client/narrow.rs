//! Notices a path that drops large packets and reports nothing: a router with a smaller MTU behind
//! a firewall that drops ICMP (RFC 2923, section 2.1). TCP repeats a segment that is too large
//! until it gives up, minutes later. Smaller segments from the start get through; the kernel takes
//! their size at the connection's opening alone (tcp(7), TCP_MAXSEG).

use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::Duration;

use nix::libc;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// A segment size for such a path, in bytes: with its headers it fits in 1280, the least MTU of
/// IPv6, and in what most tunnels leave.
pub const SMALL_SEGMENT: u16 = 1200;

/// How often the connection is looked at.
const INTERVAL: Duration = Duration::from_millis(500);
/// Repetitions of one segment after which it counts as stuck; the waits between them double.
const REPETITIONS: u8 = 2;
/// How long nothing may follow the server's identification.
const SILENCE: Duration = Duration::from_secs(8);
/// How long the server may take to accept another connection.
const OTHER_CONNECTION: Duration = Duration::from_secs(2);

/// Looks at the TCP connection under an SSH connection, as long as that is open; sees nothing on
/// other streams.
#[derive(Debug, Clone, Default)]
pub struct PathWatch(Weak<OwnedFd>);

/// A descriptor of the watched socket; the stream drops it with its own, so that a watch never
/// keeps a connection open.
#[derive(Debug, Default)]
pub struct WatchedSocket {
    _descriptor: Option<Arc<OwnedFd>>,
}

impl PathWatch {
    /// Looks at `stream`, which has to keep the second part until it is closed.
    pub fn of(stream: &TcpStream) -> (Self, WatchedSocket) {
        let descriptor = stream.as_fd().try_clone_to_owned().ok().map(Arc::new);
        let watch = descriptor.as_ref().map(Arc::downgrade).unwrap_or_default();
        let socket = WatchedSocket {
            _descriptor: descriptor,
        };
        (PathWatch(watch), socket)
    }

    /// Waits until large segments do not get through, though the server is reached: it accepts
    /// another connection, and a segment that is repeated after that is not acknowledged either.
    pub async fn narrow(&self) {
        loop {
            let first = self.stuck().await;
            if !self.is_reached().await {
                continue;
            }
            loop {
                sleep(INTERVAL).await;
                match self.repetitions() {
                    Some(now) if now > first + 1 => return,
                    Some(now) if now >= first => {}
                    // It was acknowledged.
                    _ => break,
                }
            }
        }
    }

    /// Whether a segment has been repeated and is not acknowledged yet.
    pub fn is_repeating(&self) -> bool {
        self.repetitions().is_some_and(|count| count > 0)
    }

    /// Waits until nothing has come for some seconds, though the server has begun to speak and
    /// another connection reaches it.
    pub async fn silent(&self) {
        loop {
            sleep(INTERVAL).await;
            let Some(info) = self.info() else {
                return std::future::pending().await;
            };
            let idle = Duration::from_millis(info.tcpi_last_data_recv.into());
            if info.tcpi_bytes_received > 0 && idle >= SILENCE && self.is_reached().await {
                return;
            }
        }
    }

    /// Ends the connection at once, so that the server notices it: data that waits is dropped.
    pub fn abort(&self) {
        let Some(socket) = self.0.upgrade() else {
            return;
        };
        let none = libc::sockaddr {
            sa_family: libc::AF_UNSPEC as libc::sa_family_t,
            sa_data: [0; 14],
        };
        let length = mem::size_of_val(&none) as libc::socklen_t;
        // SAFETY: the descriptor is open, and the address is as long as said. An address of no
        // family resets a TCP connection (connect(2)).
        unsafe { libc::connect(socket.as_raw_fd(), &none, length) };
    }

    /// Waits until a segment has been repeated often; yields how often.
    async fn stuck(&self) -> u8 {
        loop {
            sleep(INTERVAL).await;
            match self.repetitions() {
                Some(count) if count >= REPETITIONS => return count,
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// How often the oldest segment was repeated; `None` if segments are small already.
    fn repetitions(&self) -> Option<u8> {
        let info = self.info()?;
        let waiting = info.tcpi_unacked > 0;
        Some(if waiting { info.tcpi_retransmits } else { 0 })
    }

    /// Whether the server accepts another connection.
    async fn is_reached(&self) -> bool {
        let Some(socket) = self.0.upgrade() else {
            return false;
        };
        let peer = SockRef::from(socket.as_ref()).peer_addr();
        drop(socket);
        let Some(peer) = peer.ok().and_then(|peer| peer.as_socket()) else {
            return false;
        };
        let other = timeout(OTHER_CONNECTION, TcpStream::connect(peer));
        matches!(other.await, Ok(Ok(_)))
    }

    fn info(&self) -> Option<libc::tcp_info> {
        let socket = self.0.upgrade()?;
        let info = tcp_info(&socket).ok()?;
        (info.tcpi_snd_mss > u32::from(SMALL_SEGMENT)).then_some(info)
    }
}

fn tcp_info(socket: &OwnedFd) -> io::Result<libc::tcp_info> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = mem::size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and the kernel writes at most `length` bytes to `info`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &mut length,
        )
    };
    match result {
        // SAFETY: all zeros are a value of the structure, and so is what the kernel wrote over it.
        0 => Ok(unsafe { info.assume_init() }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn what_came_is_counted_and_an_aborted_connection_is_noticed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(client, listener.accept());
        let (mut client, (mut server, _)) = (client.unwrap(), accepted.unwrap());
        let (watch, _socket) = PathWatch::of(&client);
        assert_eq!(watch.info().unwrap().tcpi_bytes_received, 0);
        server.write_all(&[1; 100]).await.unwrap();
        client.read_exact(&mut [0; 100]).await.unwrap();
        assert_eq!(watch.info().unwrap().tcpi_bytes_received, 100);
        assert_eq!(watch.repetitions(), Some(0));
        assert!(watch.is_reached().await && !watch.is_repeating());
        watch.abort();
        let error = server.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(PathWatch::default().info().is_none());
    }

    #[tokio::test]
    async fn small_segments_are_not_watched() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        SockRef::from(&socket)
            .set_tcp_mss(SMALL_SEGMENT.into())
            .unwrap();
        let client = socket
            .connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (watch, _socket) = PathWatch::of(&client);
        assert!(watch.info().is_none());
    }
}
