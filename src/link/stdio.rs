//! The agent's end of the stream: its standard input and output, which sshd makes pipes
//! or sockets, or a socket that sshd connects to; read and written without blocking.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};

use bytes::{Buf, Bytes, BytesMut};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sys::prctl::get_dumpable;
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::{Gid, Uid};
use thiserror::Error;
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;

use super::page_lending::{self, Lender, slices};
use crate::pump::{FrameSink, FrameSource, SendFailure};
use crate::sandbox::capabilities;

/// Bytes of one read at most.
const READ_SIZE: usize = 256 * 1024;
/// Bytes that a pipe from or to sshd holds: as many go through it between two process
/// switches. More would add delay: no packet can overtake those in a pipe.
const PIPE_SIZE: libc::c_int = 256 * 1024;

/// Why the stream cannot be opened.
#[derive(Debug, Error)]
pub enum StdioError {
    /// A user started the agent at a terminal.
    #[error(
        "'sshvpn up' starts 'sshvpn agent' on the remote host over SSH; at a terminal the agent has nothing to do: run 'sshvpn up HOST' on the other host"
    )]
    Terminal,
    /// Neither a pipe nor a socket.
    #[error("the standard {name} of 'sshvpn agent' has to be a pipe or a socket, as sshd makes it")]
    Kind {
        /// `input` or `output`.
        name: &'static str,
    },
    /// A system call failed.
    #[error("cannot use the standard {name}: {source}")]
    Io {
        /// `input` or `output`.
        name: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// Standard input or output.
struct Descriptor {
    name: &'static str,
    fd: OwnedFd,
    socket: bool,
}

impl Descriptor {
    fn of(name: &'static str, stream: impl AsFd + IsTerminal) -> Result<Self, StdioError> {
        if stream.is_terminal() {
            return Err(StdioError::Terminal);
        }
        let failed = |source| StdioError::Io { name, source };
        let fd = stream.as_fd().try_clone_to_owned().map_err(failed)?;
        let found = fstat(&fd).map_err(|errno| failed(errno.into()))?;
        let socket = match SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFIFO => false,
            SFlag::S_IFSOCK => true,
            _ => return Err(StdioError::Kind { name }),
        };
        Ok(Descriptor { name, fd, socket })
    }

    /// Enlarges a pipe's buffer.
    fn widen(&self) {
        if !self.socket {
            // Without permission for this size the default works too.
            let _ = fcntl(&self.fd, FcntlArg::F_SETPIPE_SZ(PIPE_SIZE));
        }
    }

    /// The descriptor as a socket (socketpair(2)); it may be that of the other direction
    /// too.
    fn socket(self) -> io::Result<UnixStream> {
        let stream = std::os::unix::net::UnixStream::from(self.fd);
        stream.set_nonblocking(true)?;
        UnixStream::from_std(stream)
    }
}

/// Standard input.
pub(crate) struct Input {
    stream: Source,
    buffer: BytesMut,
}

enum Source {
    Pipe(pipe::Receiver),
    Socket(UnixStream),
}

/// Standard output.
pub(crate) struct Output(Sink);

enum Sink {
    Pipe(pipe::Sender),
    Socket(UnixStream),
    Lending(UnixStream, Lender),
}

/// Standard input and output of this process.
pub(crate) fn open() -> Result<(Input, Output), StdioError> {
    let input = Descriptor::of("input", io::stdin())?;
    let output = Descriptor::of("output", io::stdout())?;
    Ok((Input::new(input)?, Output::new(output)?))
}

/// Both directions of a Unix socket to which nothing was written yet.
pub(crate) fn of_socket(socket: UnixStream) -> io::Result<(Input, Output)> {
    let reader = socket.peer_cred()?.uid();
    let socket = socket.into_std()?;
    let other = UnixStream::from_std(socket.try_clone()?)?;
    let input = Input {
        stream: Source::Socket(UnixStream::from_std(socket)?),
        buffer: BytesMut::new(),
    };
    let output = match lender(reader) {
        Some(lender) => Sink::Lending(other, lender),
        None => Sink::Socket(other),
    };
    Ok((input, Output(output)))
}

/// A lender, which saves a copy, if that is fast, safe for this user, and works.
fn lender(reader: u32) -> Option<Lender> {
    if !page_lending::pays() || !may_be_lent(reader) {
        return None;
    }
    let lender = Lender::new();
    lender
        .inspect_err(|error| tracing::debug!(%error, "pages cannot be lent; copying them"))
        .ok()
}

/// Whether this user may read all of this process's memory, as far as that is simple to
/// decide (ptrace(2), access mode checking): any other user could read more from a lent
/// page.
fn may_be_lent(reader: u32) -> bool {
    let ordinary = || {
        let same = Uid::current() == Uid::effective() && Gid::current() == Gid::effective();
        let able = capabilities::has_any().unwrap_or(true);
        same && !able && get_dumpable().unwrap_or(false)
    };
    Uid::from_raw(reader).is_root() || reader == Uid::effective().as_raw() && ordinary()
}

impl Input {
    fn new(descriptor: Descriptor) -> Result<Self, StdioError> {
        let name = descriptor.name;
        descriptor.widen();
        let stream = match descriptor.socket {
            true => descriptor.socket().map(Source::Socket),
            false => pipe::Receiver::from_owned_fd(descriptor.fd).map(Source::Pipe),
        };
        let stream = stream.map_err(|source| StdioError::Io { name, source })?;
        let buffer = BytesMut::new();
        Ok(Input { stream, buffer })
    }

    /// Waits for bytes or the end.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match &self.stream {
            Source::Pipe(pipe) => pipe.readable().await,
            Source::Socket(socket) => socket.readable().await,
        }
    }

    fn try_read(&mut self) -> io::Result<usize> {
        self.buffer.reserve(READ_SIZE);
        match &self.stream {
            Source::Pipe(pipe) => pipe.try_read_buf(&mut self.buffer),
            Source::Socket(socket) => socket.try_read_buf(&mut self.buffer),
        }
    }
}

impl FrameSource for Input {
    /// The next bytes of the stream; `None` at its end.
    async fn receive(&mut self) -> Option<Bytes> {
        self.readable().await.ok()?;
        self.buffer.reserve(READ_SIZE);
        // After a short read tokio does not try another one.
        let read = match &mut self.stream {
            Source::Pipe(pipe) => pipe.read_buf(&mut self.buffer).await,
            Source::Socket(socket) => socket.read_buf(&mut self.buffer).await,
        };
        match read {
            Ok(0) => None,
            Ok(_) => Some(self.buffer.split().freeze()),
            Err(error) => {
                tracing::debug!(%error, "standard input failed");
                None
            }
        }
    }

    fn try_receive(&mut self) -> Option<Bytes> {
        match self.try_read() {
            Ok(count) if count > 0 => Some(self.buffer.split().freeze()),
            // `receive` reports the end and failures.
            _ => None,
        }
    }
}

impl Output {
    fn new(descriptor: Descriptor) -> Result<Self, StdioError> {
        let name = descriptor.name;
        descriptor.widen();
        let stream = match descriptor.socket {
            true => descriptor.socket().map(Sink::Socket),
            false => pipe::Sender::from_owned_fd(descriptor.fd).map(Sink::Pipe),
        };
        stream
            .map(Output)
            .map_err(|source| StdioError::Io { name, source })
    }

    /// Writes all frames in order, and empties the vector; one caller at a time.
    async fn write_all(&self, frames: &mut Vec<Bytes>) -> io::Result<()> {
        let mut rest = frames.as_mut_slice();
        loop {
            while rest.first().is_some_and(Bytes::is_empty) {
                rest = rest.get_mut(1..).unwrap_or_default();
            }
            if rest.is_empty() {
                break;
            }
            let written = self.write_some(rest).await?;
            skip(rest, written);
        }
        frames.clear();
        match &self.0 {
            Sink::Lending(socket, lender) => {
                let pass_on = || lender.pass_on(socket);
                socket.async_io(Interest::WRITABLE, pass_on).await
            }
            _ => Ok(()),
        }
    }

    /// Waits until some bytes of `frames` are written; yields their number.
    async fn write_some(&self, frames: &[Bytes]) -> io::Result<usize> {
        let pieces = || slices(frames.iter());
        loop {
            let written = match &self.0 {
                Sink::Pipe(pipe) => {
                    pipe.writable().await?;
                    pipe.try_write_vectored(&pieces())
                }
                Sink::Socket(socket) => {
                    socket.writable().await?;
                    socket.try_write_vectored(&pieces())
                }
                Sink::Lending(socket, lender) => {
                    let write = || lender.write(socket, frames);
                    socket.async_io(Interest::WRITABLE, write).await
                }
            };
            match written {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
    }
}

/// Removes the first `bytes` bytes.
fn skip(frames: &mut [Bytes], mut bytes: usize) {
    for frame in frames {
        let taken = bytes.min(frame.len());
        frame.advance(taken);
        bytes -= taken;
        if bytes == 0 {
            return;
        }
    }
}

impl FrameSink for Output {
    async fn send_all(&self, frames: &mut Vec<Bytes>) -> Result<(), SendFailure> {
        self.write_all(frames).await.map_err(|error| {
            tracing::debug!(%error, "standard output failed");
            SendFailure::Closed
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::PipeReader;
    use std::time::Duration;

    /// Both directions over a reading and a writing descriptor.
    fn ends(read: OwnedFd, write: OwnedFd) -> (Input, Output) {
        let socket = |fd: &OwnedFd| {
            let kind = SFlag::from_bits_truncate(fstat(fd).unwrap().st_mode) & SFlag::S_IFMT;
            kind == SFlag::S_IFSOCK
        };
        let descriptor = |name, fd: OwnedFd| Descriptor {
            name,
            socket: socket(&fd),
            fd,
        };
        (
            Input::new(descriptor("input", read)).unwrap(),
            Output::new(descriptor("output", write)).unwrap(),
        )
    }

    async fn much_goes_through(mut input: Input, output: Output) {
        let sent = Bytes::from((0..300_000).map(|n| n as u8).collect::<Vec<_>>());
        let write = async {
            // Small frames, and frames that are lent if lending is on.
            let (small, large) = sent.split_at(100_000);
            let sizes = small.chunks(700).chain(large.chunks(60_000));
            let mut frames: Vec<Bytes> = sizes.map(Bytes::copy_from_slice).collect();
            frames.insert(3, Bytes::new());
            output.send_all(&mut frames).await.unwrap();
            assert!(frames.is_empty());
            drop(output);
        };
        let read = async {
            let mut got = BytesMut::new();
            while let Some(bytes) = input.receive().await {
                assert!(bytes.len() <= READ_SIZE);
                got.extend_from_slice(&bytes);
            }
            got.freeze()
        };
        let ((), got) = tokio::join!(write, read);
        assert_eq!(got, sent);
    }

    #[tokio::test]
    async fn more_than_the_kernel_holds_goes_through_pipes_and_sockets() {
        let (reader, writer) = std::io::pipe().unwrap();
        let (input, output) = ends(reader.into(), writer.into());
        much_goes_through(input, output).await;
        let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
        let (input, output) = ends(one.into(), other.into());
        much_goes_through(input, output).await;
    }

    #[tokio::test]
    async fn much_goes_through_a_socket_that_is_lent_pages() {
        let (one, other) = UnixStream::pair().unwrap();
        let (input, _) = of_socket(one).unwrap();
        let (_, output) = of_socket(other).unwrap();
        let lends = matches!(output.0, Sink::Lending(..));
        let able = capabilities::has_any().unwrap();
        let own = Uid::effective().is_root() || !able;
        assert_eq!(lends, page_lending::pays() && own);
        much_goes_through(input, output).await;
    }

    #[test]
    fn nobody_is_lent_pages_who_may_not_see_the_rest() {
        let own = Uid::effective().as_raw();
        let able = capabilities::has_any().unwrap();
        assert!(may_be_lent(0));
        assert_eq!(may_be_lent(own), own == 0 || !able);
        assert!(!may_be_lent(own + 1));
    }

    #[tokio::test]
    async fn a_reader_that_is_gone_is_told() {
        let (reader, writer): (PipeReader, _) = std::io::pipe().unwrap();
        let (spare, _) = std::io::pipe().unwrap();
        let (_, output) = ends(spare.into(), writer.into());
        drop(reader);
        // A process that another test is starting may hold it for a moment.
        let told = async {
            while output.send(Bytes::from_static(b"x")).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        let told = tokio::time::timeout(Duration::from_secs(10), told).await;
        assert!(told.is_ok());
    }

    #[test]
    fn a_terminal_or_a_file_is_refused() {
        let terminal = nix::pty::openpty(None, None).unwrap();
        let error = Descriptor::of("input", File::from(terminal.slave)).err();
        assert!(matches!(error, Some(StdioError::Terminal)));
        let null = Descriptor::of("input", File::open("/dev/null").unwrap()).err();
        assert!(matches!(null, Some(StdioError::Kind { .. })));
    }
}
