//! Sends large frames over a Unix socket without copying them: lends their pages to a
//! pipe (vmsplice(2)) and from there to the socket (splice(2)); the socket's reader
//! copies from them. Until it has, they must not change; for a reader that splices them
//! on, the kernel would not tell for how long.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice, vmsplice};
use nix::libc;
use nix::sys::uio::writev;
use nix::sys::utsname::uname;
use nix::unistd::pipe2;

/// Bytes of a frame from which on lending its pages costs less than copying them. Lending
/// smaller frames would also keep large buffers for few bytes.
const WORTH_IT: usize = 16 * 1024;
/// Bytes of pages that the pipe holds; each needs a place, however little of it is used.
const PIPE_SIZE: libc::c_int = 256 * 1024;
/// Frames in one write at most; the kernel takes 1024 (UIO_MAXIOV).
const MOST_PIECES: usize = 64;

/// The first Linux on which lending is faster: older ones sum all bytes of a page that is
/// spliced into a Unix socket, and before 6.5 take the reader's lock for each page.
const SINCE: (u32, u32) = (6, 13);

/// Whether lending is faster than copying on this kernel.
pub(crate) fn pays() -> bool {
    uname().is_ok_and(|host| version(&host.release().to_string_lossy()) >= Some(SINCE))
}

/// The first two numbers of a kernel's release.
fn version(release: &str) -> Option<(u32, u32)> {
    let (major, rest) = release.split_once('.')?;
    let minor = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

// What was written and not read yet, and at a Unix socket more than that: what the
// kernel keeps around it counts too (`unix_ioctl` in net/unix/af_unix.c, SIOCOUTQ).
nix::ioctl_read_bad!(unread, libc::TIOCOUTQ, libc::c_int);

/// Writes to one socket. Its reader could keep a lent page, and read what this process
/// puts there later: use it only for a reader that may read all of this process's memory.
pub(crate) struct Lender(Mutex<State>);

struct State {
    /// The pipe's reading and writing end.
    pipe: (OwnedFd, OwnedFd),
    /// Bytes in the pipe, which go first.
    in_pipe: usize,
    /// Bytes written to the socket.
    sent: u64,
    /// Frames that were lent and may not have been read, each with the number of bytes
    /// sent up to its end.
    lent: VecDeque<(u64, Bytes)>,
    /// Whether lending works.
    able: bool,
}

impl Lender {
    /// A lender for a socket to which nothing else writes.
    ///
    /// # Errors
    /// The kernel's error for one try between two sockets of this process: a sandbox may
    /// forbid what the kernel supports, and with bytes in the pipe it is too late to copy
    /// instead.
    pub(crate) fn new() -> io::Result<Self> {
        let (ours, mut peer) = UnixStream::pair()?;
        peer.set_nonblocking(true)?;
        State::new()?.try_out(&ours, &mut peer)?;
        Ok(Lender(Mutex::new(State::new()?)))
    }

    /// Takes some of `frames` from the front; yields the number of bytes. They may still
    /// be in the pipe: call [`Lender::pass_on`].
    ///
    /// # Errors
    /// `WouldBlock` while the socket is full; other errors of the kernel.
    pub(crate) fn write(&self, socket: &impl AsFd, frames: &[Bytes]) -> io::Result<usize> {
        let mut state = self.state();
        state.release(socket);
        state.pass_on(socket)?;
        let lent = state.lend(frames);
        if lent == 0 {
            return state.copy(socket, frames);
        }
        match state.pass_on(socket) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(lent),
        }
    }

    /// Empties the pipe into the socket.
    ///
    /// # Errors
    /// `WouldBlock` while the socket does not take all bytes; other errors of the kernel.
    pub(crate) fn pass_on(&self, socket: &impl AsFd) -> io::Result<()> {
        self.state().pass_on(socket)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new() -> io::Result<Self> {
        let pipe = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        // Without permission for this size the default works too.
        let _ = fcntl(&pipe.1, FcntlArg::F_SETPIPE_SZ(PIPE_SIZE));
        Ok(State {
            pipe,
            in_pipe: 0,
            sent: 0,
            lent: VecDeque::new(),
            able: true,
        })
    }

    /// Lends a frame to `socket` and reads it from `peer`.
    fn try_out(mut self, socket: &impl AsFd, peer: &mut impl Read) -> io::Result<()> {
        let frame = Bytes::from(vec![0x5a; WORTH_IT]);
        let lent = self.lend(std::slice::from_ref(&frame));
        self.pass_on(socket)?;
        let mut arrived = vec![0; lent];
        peer.read_exact(&mut arrived)?;
        self.release(socket);
        match frame == arrived && self.lent.is_empty() {
            true => Ok(()),
            false => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Releases frames that have been read.
    fn release(&mut self, socket: &impl AsFd) {
        if self.lent.is_empty() {
            return;
        }
        let mut unread_bytes = 0;
        // SAFETY: the descriptor is open, and the kernel writes one int to where the
        // pointer says, which is one.
        let asked = unsafe { unread(socket.as_fd().as_raw_fd(), &raw mut unread_bytes) };
        let Ok(unread) = asked.and_then(|_| u64::try_from(unread_bytes).map_err(|_| Errno::ERANGE))
        else {
            // Keeps the frames that are lent, and lends no more.
            self.able = false;
            return;
        };
        let read = self.sent.saturating_sub(unread);
        while self.lent.front().is_some_and(|(end, _)| *end <= read) {
            self.lent.pop_front();
        }
    }

    /// Puts the pages of the large frames at the front into the empty pipe; yields the
    /// number of bytes.
    fn lend(&mut self, frames: &[Bytes]) -> usize {
        let large = |frame: &&Bytes| self.able && frame.len() >= WORTH_IT;
        let pieces = slices(frames.iter().take_while(large));
        if pieces.is_empty() {
            return 0;
        }
        match vmsplice(&self.pipe.1, &pieces, SpliceFFlags::SPLICE_F_NONBLOCK) {
            Ok(count) => {
                self.in_pipe = count;
                self.keep(frames, count);
                count
            }
            Err(error) => {
                tracing::debug!(%error, "pages cannot be lent; copying them");
                self.able = false;
                0
            }
        }
    }

    /// Keeps the frames of the first `count` bytes until they have been read.
    fn keep(&mut self, frames: &[Bytes], count: usize) {
        let (mut end, mut left) = (self.sent, count);
        for frame in frames {
            if left == 0 {
                break;
            }
            let part = left.min(frame.len());
            left -= part;
            end += part as u64;
            self.lent.push_back((end, frame.clone()));
        }
    }

    fn pass_on(&mut self, socket: &impl AsFd) -> io::Result<()> {
        while self.in_pipe > 0 {
            let flags = SpliceFFlags::SPLICE_F_NONBLOCK;
            let count = splice(&self.pipe.0, None, socket, None, self.in_pipe, flags)?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.in_pipe -= count;
            self.sent += count as u64;
        }
        Ok(())
    }

    /// Writes the frames that are not lent; the pipe is empty.
    fn copy(&mut self, socket: &impl AsFd, frames: &[Bytes]) -> io::Result<usize> {
        let small = |frame: &&Bytes| !self.able || frame.len() < WORTH_IT;
        let count = writev(socket, &slices(frames.iter().take_while(small)))?;
        self.sent += count as u64;
        Ok(count)
    }
}

/// Slices of as many frames as one call takes.
pub(crate) fn slices<'a>(frames: impl Iterator<Item = &'a Bytes>) -> Vec<IoSlice<'a>> {
    let pieces = frames.take(MOST_PIECES).map(|frame| IoSlice::new(frame));
    pieces.collect()
}

impl Drop for State {
    /// Leaks frames that may not have been read: their memory must not be reused.
    fn drop(&mut self) {
        for (_, frame) in self.lent.drain(..) {
            std::mem::forget(frame);
        }
    }
}

#[cfg(test)]
mod tests;
