//! System calls on a tun device for which no library has a safe form: making it or
//! attaching to it, setting its offloads, and reading into uninitialized memory.

use std::ffi::c_short;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd};

use bytes::{BufMut, BytesMut};
use nix::errno::Errno;
use nix::libc;
use nix::unistd::Uid;

use crate::packet::offload::virtio::Offload;

/// `TUN_F_CSUM` (linux/if_tun.h): the reader takes packets with an open checksum.
const CHECKSUM: u32 = 0x01;
/// `TUN_F_TSO4`, `TUN_F_TSO6` and `TUN_F_TSO_ECN`.
const TCP: u32 = 0x02 | 0x04 | 0x08;
/// `TUN_F_USO4` and `TUN_F_USO6` (Linux 6.2).
const UDP: u32 = 0x20 | 0x40;

mod ioctl {
    nix::ioctl_readwrite_bad!(
        /// `TUNSETIFF`: binds the descriptor to a device; yields the device's name.
        set_interface,
        nix::request_code_write!(b'T', 202, size_of::<nix::libc::c_int>()),
        nix::libc::ifreq
    );
    nix::ioctl_write_int_bad!(
        /// `TUNSETOFFLOAD`: sets the offload packets that the reader takes.
        set_offload,
        nix::request_code_write!(b'T', 208, size_of::<nix::libc::c_uint>())
    );
    nix::ioctl_write_int_bad!(
        /// `TUNSETOWNER`: sets the user who may attach without CAP_NET_ADMIN.
        set_owner,
        nix::request_code_write!(b'T', 204, size_of::<nix::libc::c_int>())
    );
    nix::ioctl_write_ptr!(
        /// `TUNSETVNETLE`: the numbers in offload headers are little-endian.
        set_little_endian,
        b'T',
        220,
        nix::libc::c_int
    );
}

/// Binds `fd` to the device `name`, in which the kernel replaces `%d` by a number; yields
/// the full name. `flags` are those of linux/if_tun.h.
pub(super) fn set_interface(fd: &impl AsFd, name: &str, flags: c_short) -> io::Result<String> {
    // SAFETY: all zeros is a valid ifreq: no name, and a union of plain numbers.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    // The last byte stays zero.
    if name.len() >= request.ifr_name.len() {
        return Err(Errno::ENAMETOOLONG.into());
    }
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = flags;
    // SAFETY: the descriptor is open while `fd` is borrowed, and the kernel reads and
    // writes one ifreq behind the pointer.
    unsafe { ioctl::set_interface(fd.as_fd().as_raw_fd(), &raw mut request) }?;
    let name = request.ifr_name.iter().map(|byte| *byte as u8);
    let name = name.take_while(|byte| *byte != 0).collect();
    String::from_utf8(name).map_err(io::Error::other)
}

/// Enables all offloads that the kernel supports. The device was opened with
/// IFF_VNET_HDR.
pub(super) fn enable_offload(fd: &impl AsFd) -> io::Result<Offload> {
    let raw = fd.as_fd().as_raw_fd();
    let yes: libc::c_int = 1;
    // SAFETY: the descriptor is open while `fd` is borrowed, and the kernel
    // reads one int behind the pointer.
    unsafe { ioctl::set_little_endian(raw, &yes) }?;
    let offers = [
        (CHECKSUM | TCP | UDP, Offload::ALL),
        (
            CHECKSUM | TCP,
            Offload {
                udp: false,
                ..Offload::ALL
            },
        ),
        (0, Offload::NONE),
    ];
    for (flags, offload) in offers {
        // SAFETY: the descriptor is open while `fd` is borrowed; the argument is
        // a number, not a pointer.
        match unsafe { ioctl::set_offload(raw, flags as libc::c_int) } {
            Ok(_) => return Ok(offload),
            Err(Errno::EINVAL) => continue,
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(Errno::EINVAL.into())
}

/// Makes a user the device's owner.
pub(super) fn set_owner(fd: &impl AsFd, owner: Uid) -> io::Result<()> {
    // The kernel takes ids above the largest positive number unchanged.
    let owner = owner.as_raw() as libc::c_int;
    // SAFETY: the descriptor is open while `fd` is borrowed; the argument is a
    // number, not a pointer.
    unsafe { ioctl::set_owner(fd.as_fd().as_raw_fd(), owner) }?;
    Ok(())
}

/// Disables all offloads.
pub(super) fn disable_offload(fd: &impl AsFd) -> io::Result<()> {
    // SAFETY: the descriptor is open while `fd` is borrowed; the argument is a
    // number, not a pointer.
    unsafe { ioctl::set_offload(fd.as_fd().as_raw_fd(), 0) }?;
    Ok(())
}

/// Reads once, and appends at most `most` bytes to `buffer`, as far as its capacity goes.
pub(super) fn read(fd: &impl AsFd, buffer: &mut BytesMut, most: usize) -> nix::Result<usize> {
    let raw = fd.as_fd().as_raw_fd();
    let space = buffer.chunk_mut();
    let length = space.len().min(most);
    // SAFETY: the descriptor is open while `fd` is borrowed, and the kernel
    // writes at most `length` bytes from the start of `space`, which has them.
    let result = unsafe { libc::read(raw, space.as_mut_ptr().cast(), length) };
    let read = Errno::result(result)?;
    let read = usize::try_from(read).map_err(|_| Errno::EIO)?;
    // SAFETY: the kernel has just written this many bytes there.
    unsafe { buffer.advance_mut(read) };
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_read_goes_behind_what_is_there() {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"packet").unwrap();
        let mut buffer = BytesMut::with_capacity(64);
        buffer.extend_from_slice(b"head");
        assert_eq!(read(&reader, &mut buffer, 4), Ok(4));
        assert_eq!(&buffer[..], b"headpack");
        assert_eq!(read(&reader, &mut buffer, 64), Ok(2));
        assert_eq!(&buffer[..], b"headpacket");
    }
}
