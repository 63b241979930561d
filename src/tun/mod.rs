//! The tun or tap device of this host: opened or attached to, read and written
//! without blocking. Addresses and routes on it are `net`'s business.

mod open;
mod sys;

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::uio;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::packet::offload::virtio::{Offload, VIRTIO_HEADER_LEN, VirtioHeader};
use crate::types::{InterfaceName, Mode};

pub use open::{DeviceRequest, OpenError};

/// The pieces of one packet at most.
pub const MAX_PIECES: usize = 80;

/// An open tun or tap device (kernel: Documentation/networking/tuntap.rst),
/// without packet information headers. It goes away when this is dropped,
/// unless it was made persistent by somebody else.
#[derive(Debug)]
pub struct Device {
    fd: AsyncFd<Arc<OwnedFd>>,
    name: InterfaceName,
    mode: Mode,
    preexisting: bool,
    /// Whether the kernel puts an offload header in front of each packet.
    headers: bool,
    offload: Offload,
}

impl Device {
    /// The interface's name.
    pub fn name(&self) -> &InterfaceName {
        &self.name
    }

    /// What it carries.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether it was there, persistent, before we attached to it.
    pub fn preexisting(&self) -> bool {
        self.preexisting
    }

    /// Which offload packets it yields and takes.
    pub fn offload(&self) -> Offload {
        self.offload
    }

    /// Its descriptor. While this is held the device is not closed, which takes
    /// the kernel some milliseconds where the device goes away by that: whoever
    /// holds it can have that done on a thread that may wait.
    pub fn descriptor(&self) -> Arc<OwnedFd> {
        Arc::clone(self.fd.get_ref())
    }

    /// Has the kernel hand out ordinary packets alone from now on.
    pub fn decline_offload(&self) -> io::Result<()> {
        match self.headers {
            true => sys::disable_offload(&self.fd),
            false => Ok(()),
        }
    }

    /// Reads one packet or frame behind what is in `buffer`: its offload header
    /// ([`VirtioHeader`], little-endian) and its bytes. Yields the length of both.
    /// What does not fit the capacity of `buffer` is cut off by the kernel.
    pub async fn read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        loop {
            let mut ready = self.fd.ready(Interest::READABLE | Interest::ERROR).await?;
            // So the kernel tells that the interface is being deleted
            // (drivers/net/tun.c, tun_chr_poll), maybe before a read does.
            let deleted = ready.ready().is_error();
            match ready.try_io(|_| self.read_once(buffer)) {
                Ok(result) => return result,
                Err(_would_block) if deleted => return Err(Errno::EBADFD.into()),
                Err(_would_block) => continue,
            }
        }
    }

    /// The same if the kernel has told of a packet.
    pub fn try_read(&self, buffer: &mut BytesMut) -> io::Result<Option<usize>> {
        // Once a read finds none, the next is not tried before the kernel tells of one.
        let read = |_: &_| self.read_once(buffer);
        match self.fd.try_io(Interest::READABLE, read) {
            Ok(length) => Ok(Some(length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits until there is a packet, or an error, for a read.
    pub async fn readable(&self) -> io::Result<()> {
        loop {
            let mut ready = self.fd.ready(Interest::READABLE | Interest::ERROR).await?;
            // What is remembered may be of a packet that was read since.
            let mut polled = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
            if ready.ready().is_error() || poll(&mut polled, PollTimeout::ZERO)? > 0 {
                return Ok(());
            }
            ready.clear_ready();
        }
    }

    fn read_once(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        if self.headers {
            return Ok(sys::read(&self.fd, buffer, usize::MAX)?);
        }
        let start = buffer.len();
        buffer.put_bytes(0, VIRTIO_HEADER_LEN);
        match sys::read(&self.fd, buffer, usize::MAX) {
            Ok(length) => Ok(VIRTIO_HEADER_LEN + length),
            Err(errno) => {
                buffer.truncate(start);
                Err(errno.into())
            }
        }
    }

    /// Writes one packet or frame, given in pieces, of which there are at most
    /// [`MAX_PIECES`]. `header` must not ask for more than [`offload`](Self::offload).
    pub async fn write(&self, header: &VirtioHeader, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        let header = header.to_bytes();
        let mut all = [IoSlice::new(&[]); MAX_PIECES + 1];
        if let Some(first) = all.first_mut() {
            *first = IoSlice::new(&header);
        }
        let places = all.get_mut(1..=pieces.len());
        places
            .ok_or(io::ErrorKind::InvalidInput)?
            .copy_from_slice(pieces);
        let start = usize::from(!self.headers);
        let all = all.get(start..=pieces.len()).unwrap_or_default();
        loop {
            match uio::writev(&self.fd, all) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => {
                    let mut ready = self.fd.writable().await?;
                    ready.clear_ready();
                }
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.get_ref().as_fd()
    }
}

impl AsRawFd for Device {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.get_ref().as_raw_fd()
    }
}
