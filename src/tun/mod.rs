//! The tun or tap device of this host: opens, reads and writes it without blocking.
//! `host` sets its addresses and routes.

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

use crate::packet::MAX_PIECES;
use crate::packet::offload::virtio::{Offload, VIRTIO_HEADER_LEN, VirtioHeader};
use crate::types::{InterfaceName, Mode};

pub use open::{DeviceRequest, OpenError};

/// An open tun or tap device (kernel: Documentation/networking/tuntap.rst), without
/// packet information headers. The kernel deletes it when this is dropped, unless it is
/// persistent.
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

    /// Whether it is a tun or a tap device.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether it existed, persistent, before it was opened.
    pub fn preexisting(&self) -> bool {
        self.preexisting
    }

    /// Which offload packets it yields and takes.
    pub fn offload(&self) -> Offload {
        self.offload
    }

    /// Its descriptor, which keeps the device open. Closing takes the kernel some
    /// milliseconds if it deletes the device; the holder can drop this on a thread that
    /// may block.
    pub fn descriptor(&self) -> Arc<OwnedFd> {
        Arc::clone(self.fd.get_ref())
    }

    /// Makes the kernel yield only ordinary packets from now on.
    pub fn decline_offload(&self) -> io::Result<()> {
        match self.headers {
            true => sys::disable_offload(&self.fd),
            false => Ok(()),
        }
    }

    /// Reads one packet or frame, and appends its offload header ([`VirtioHeader`],
    /// little-endian) and its bytes to `buffer`. Yields the length of both. The kernel
    /// truncates a packet that does not fit the capacity of `buffer`.
    pub async fn read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        loop {
            let mut ready = self.fd.ready(Interest::READABLE | Interest::ERROR).await?;
            // The kernel reports an error when the interface is being deleted
            // (drivers/net/tun.c, tun_chr_poll), maybe before a read fails.
            let deleted = ready.ready().is_error();
            match ready.try_io(|_| self.read_once(buffer)) {
                Ok(result) => return result,
                Err(_would_block) if deleted => return Err(Errno::EBADFD.into()),
                Err(_would_block) => continue,
            }
        }
    }

    /// [`read`](Self::read) without waiting; `None` if no packet is there.
    pub fn try_read(&self, buffer: &mut BytesMut) -> io::Result<Option<usize>> {
        // After a read without a packet, tokio does not read again before the kernel
        // reports one.
        let read = |_: &_| self.read_once(buffer);
        match self.fd.try_io(Interest::READABLE, read) {
            Ok(length) => Ok(Some(length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits until a read would yield a packet or an error.
    pub async fn readable(&self) -> io::Result<()> {
        loop {
            let mut ready = self.fd.ready(Interest::READABLE | Interest::ERROR).await?;
            // The remembered readiness may be of a packet that was read since.
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
