//! The tun or tap device of this host: opened or attached to, read and written
//! without blocking. Addresses and routes on it are `net`'s business.

mod open;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::unistd;
use tokio::io::unix::AsyncFd;

use crate::config::types::{InterfaceName, Mode};

pub use open::{DeviceRequest, OpenError};

/// An open tun or tap device (kernel: Documentation/networking/tuntap.rst),
/// without packet information headers. It goes away when this is dropped,
/// unless it was made persistent by somebody else.
#[derive(Debug)]
pub struct Device {
    fd: AsyncFd<OwnedFd>,
    name: InterfaceName,
    mode: Mode,
    preexisting: bool,
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

    /// Reads one packet or frame into `buffer`; yields its length in bytes. One
    /// that is longer than `buffer` is cut by the kernel.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.fd.readable().await?;
            match ready.try_io(|fd| Ok(unistd::read(fd.get_ref(), buffer)?)) {
                Ok(result) => return result,
                Err(_would_block) => continue,
            }
        }
    }

    /// Reads one packet if there is one now.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match unistd::read(self.fd.get_ref(), buffer) {
            Ok(length) => Ok(Some(length)),
            Err(Errno::EAGAIN) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Writes one packet or frame.
    pub async fn write(&self, packet: &[u8]) -> io::Result<()> {
        loop {
            match unistd::write(self.fd.get_ref(), packet) {
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
