//! Takes over listening sockets from the service manager (sd_listen_fds(3)).

use std::io;
use std::net::TcpListener;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::{SockRef, Type};
use thiserror::Error;

/// Why the service manager's sockets cannot be used.
#[derive(Debug, Error)]
pub enum ActivationError {
    /// `LISTEN_FDS` or `LISTEN_PID` is malformed, or a socket is missing.
    #[error("the sockets of the service manager cannot be taken over: {0}")]
    Environment(#[source] io::Error),
    /// The descriptor is not a listening TCP socket.
    #[error(
        "socket {number} of the service manager is not one that listens for TCP connections: in the .socket unit, use ListenStream=[ADDRESS:]PORT and leave Accept=no"
    )]
    Kind {
        /// The descriptor's number.
        number: RawFd,
    },
}

static TAKEN: AtomicBool = AtomicBool::new(false);

/// The sockets, at the first call; empty if the service manager passed none.
pub fn handed_over() -> Result<Vec<TcpListener>, ActivationError> {
    let numbers = sd_notify::listen_fds().map_err(ActivationError::Environment)?;
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    numbers.map(own).collect()
}

fn own(number: RawFd) -> Result<TcpListener, ActivationError> {
    // SAFETY: the service manager opened it for this very process, as LISTEN_PID
    // says, and it is open, since it has just been set to close on exec. `TAKEN`
    // lets it be owned once.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    if !is_tcp_listener(&SockRef::from(&socket)) {
        return Err(ActivationError::Kind { number });
    }
    Ok(socket.into())
}

fn is_tcp_listener(socket: &SockRef<'_>) -> bool {
    socket.is_listener().unwrap_or(false)
        && socket.r#type().is_ok_and(|kind| kind == Type::STREAM)
        && socket
            .local_addr()
            .is_ok_and(|address| address.as_socket().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;
    use std::os::unix::net::UnixListener;

    #[test]
    fn only_tcp_sockets_that_listen_are_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(is_tcp_listener(&SockRef::from(&listener)));
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(!is_tcp_listener(&SockRef::from(&stream)));
        let directory = tempfile::tempdir().unwrap();
        let unix = UnixListener::bind(directory.path().join("socket")).unwrap();
        assert!(!is_tcp_listener(&SockRef::from(&unix)));
    }
}
