//! The accept loop of all listeners: it retries at once after a failed
//! connection, and after a pause when descriptors or memory have run out.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use nix::errno::Errno;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// The pause when descriptors or memory have run out: the kernel reports no event
/// when some are free again.
const PAUSE: Duration = Duration::from_millis(100);

/// A listener.
pub(crate) trait Accept: Send {
    /// An accepted connection.
    type Connection: Send;

    /// The next connection, or why there is none. May be dropped without losing one.
    fn try_accept(&mut self) -> impl Future<Output = io::Result<Self::Connection>> + Send;

    /// Reports that new connections wait, and the error.
    fn pauses(&mut self, _: &io::Error) {}
}

/// The next connection of `listener`. May be dropped without losing one.
pub(crate) async fn accept<L: Accept>(listener: &mut L) -> L::Connection {
    loop {
        let error = match listener.try_accept().await {
            Ok(connection) => return connection,
            Err(error) => error,
        };
        tracing::debug!("accept: {error}");
        if !is_of_connection(&error) {
            listener.pauses(&error);
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Accept for TcpListener {
    type Connection = (TcpStream, SocketAddr);

    async fn try_accept(&mut self) -> io::Result<Self::Connection> {
        self.accept().await
    }
}

impl Accept for UnixListener {
    type Connection = UnixStream;

    async fn try_accept(&mut self) -> io::Result<Self::Connection> {
        Ok(self.accept().await?.0)
    }
}

/// Whether the connection is gone, not the listener (accept(2)).
fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(
            Errno::ECONNABORTED
                | Errno::EHOSTDOWN
                | Errno::EHOSTUNREACH
                | Errno::EINTR
                | Errno::ENETDOWN
                | Errno::ENETUNREACH
                | Errno::ENONET
                | Errno::ENOPROTOOPT
                | Errno::EOPNOTSUPP
                | Errno::EPERM
                | Errno::EPROTO
        )
    )
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    /// Fails with each of these in turn, and then has a connection.
    struct Failing(Vec<Errno>, usize);

    impl Accept for Failing {
        type Connection = usize;

        async fn try_accept(&mut self) -> io::Result<usize> {
            match self.0.pop() {
                Some(errno) => Err(errno.into()),
                None => Ok(self.1),
            }
        }

        fn pauses(&mut self, _: &io::Error) {
            self.1 += 1;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_lack_of_files_or_memory_makes_the_next_connection_wait() {
        let start = Instant::now();
        let lost = vec![Errno::ECONNABORTED, Errno::EPROTO, Errno::EPERM];
        assert_eq!(accept(&mut Failing(lost, 0)).await, 0);
        assert_eq!(start.elapsed(), Duration::ZERO);
        let lack = vec![Errno::EMFILE, Errno::ECONNABORTED, Errno::ENOMEM];
        assert_eq!(accept(&mut Failing(lack, 0)).await, 2);
        assert_eq!(start.elapsed(), 2 * PAUSE);
    }
}
