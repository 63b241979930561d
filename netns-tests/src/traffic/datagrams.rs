//! Batches of datagrams by one system call, and packet sockets for whole Ethernet frames
//! (packet(7)). The only file of the lab with unsafe code.

use std::io::{self, IoSlice};
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use nix::libc;

/// Datagrams per system call, at most.
pub const BATCH: usize = 64;

/// PACKET_VNET_HDR of linux/if_packet.h: each frame follows a `virtio_net_hdr`.
const PACKET_VNET_HDR: libc::c_int = 15;
/// PACKET_IGNORE_OUTGOING of linux/if_packet.h: no outgoing frames, including this socket's own.
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
/// The size of `struct virtio_net_hdr` (linux/virtio_net.h), which precedes each frame of a
/// [`packet_socket`]. It names the work that the sender's kernel left to the device (segmentation,
/// a checksum), so that the receiver's kernel does it.
pub const VIRTIO_HEADER: usize = 10;

/// The behaviour of [`receive`](Received::receive) if no datagram waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idle {
    /// It fails with `WouldBlock`.
    Return,
    /// It waits for one datagram, up to the socket's timeout.
    Wait,
}

/// Buffers for a batch of datagrams, and the datagrams of the last call.
pub struct Received {
    storage: Vec<u8>,
    size: usize,
    lengths: [usize; BATCH],
    count: usize,
}

impl Received {
    /// Buffers for [`BATCH`] datagrams of at most `size` bytes; longer ones are truncated.
    pub fn with_size(size: usize) -> Self {
        let size = size.max(1);
        Self {
            storage: vec![0; size * BATCH],
            size,
            lengths: [0; BATCH],
            count: 0,
        }
    }

    /// Receives a batch, which replaces the previous one; returns the number.
    pub fn receive(&mut self, socket: BorrowedFd<'_>, idle: Idle) -> io::Result<usize> {
        self.count = 0;
        let mut slices: [libc::iovec; BATCH] = [const {
            libc::iovec {
                iov_base: ptr::null_mut(),
                iov_len: 0,
            }
        }; BATCH];
        for (slice, room) in slices
            .iter_mut()
            .zip(self.storage.chunks_exact_mut(self.size))
        {
            slice.iov_base = room.as_mut_ptr().cast();
            slice.iov_len = room.len();
        }
        // SAFETY: all zeros is a valid mmsghdr: no name, no data, no control.
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
        for (header, slice) in headers.iter_mut().zip(&mut slices) {
            header.msg_hdr.msg_iov = slice;
            header.msg_hdr.msg_iovlen = 1;
        }
        let flags = match idle {
            Idle::Return => libc::MSG_DONTWAIT,
            Idle::Wait => libc::MSG_WAITFORONE,
        };
        // SAFETY: `headers` has BATCH entries; each points at one of `slices`,
        // which points at its own part of `storage`; all outlive the call.
        let result = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                flags as _,
                ptr::null_mut(),
            )
        };
        self.count = usize::try_from(result).map_err(|_| io::Error::last_os_error())?;
        for (length, header) in self.lengths.iter_mut().zip(&headers) {
            *length = header.msg_len as usize;
        }
        Ok(self.count)
    }

    /// The datagrams of the last call.
    pub fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        let rooms = self.storage.chunks_exact(self.size);
        let lengths = self.lengths.iter().take(self.count);
        rooms
            .zip(lengths)
            .map(|(room, length)| room.get(..*length).unwrap_or(room))
    }
}

/// Sends at most [`BATCH`] of `datagrams` to the address or device of `socket`; returns the number
/// sent. An error is that of the first one.
pub fn send(socket: BorrowedFd<'_>, datagrams: &[IoSlice<'_>]) -> io::Result<usize> {
    // SAFETY: all zeros is a valid mmsghdr: no name, no data, no control.
    let mut headers: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
    for (header, datagram) in headers.iter_mut().zip(datagrams) {
        // An IoSlice is an iovec by its documentation; the kernel only reads it.
        header.msg_hdr.msg_iov = ptr::from_ref(datagram).cast_mut().cast();
        header.msg_hdr.msg_iovlen = 1;
    }
    let count = datagrams.len().min(BATCH);
    // SAFETY: the first `count` headers point at one of `datagrams` each, which
    // outlive the call.
    let result = unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            count as libc::c_uint,
            0,
        )
    };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// A socket that receives every incoming frame of the device with this index, and sends frames
/// through it; each follows [`VIRTIO_HEADER`] bytes.
pub fn packet_socket(interface: i32) -> io::Result<OwnedFd> {
    // No protocol yet, so that no frame comes in before bind.
    let flags = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers.
    let socket = unsafe { libc::socket(libc::AF_PACKET, flags, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and has no other owner.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    switch_on(&socket, PACKET_VNET_HDR)?;
    switch_on(&socket, PACKET_IGNORE_OUTGOING)?;
    // SAFETY: all zeros is a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as libc::c_ushort;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = interface;
    // SAFETY: `address` is a sockaddr_ll of the length that is given.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            ptr::from_ref(&address).cast(),
            mem::size_of_val(&address) as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket)
}

fn switch_on(socket: &OwnedFd, option: libc::c_int) -> io::Result<()> {
    let one: libc::c_int = 1;
    // SAFETY: `one` is an int of the length that is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            ptr::from_ref(&one).cast(),
            mem::size_of_val(&one) as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_batch_arrives_as_it_was_sent() -> io::Result<()> {
        let (one, other) = (
            UdpSocket::bind("127.0.0.1:0")?,
            UdpSocket::bind("127.0.0.1:0")?,
        );
        one.connect(other.local_addr()?)?;
        let payloads: Vec<Vec<u8>> = (0..BATCH + 3).map(|size| vec![size as u8; size]).collect();
        let slices: Vec<IoSlice<'_>> = payloads
            .iter()
            .map(|payload| IoSlice::new(payload))
            .collect();
        assert_eq!(send(one.as_fd(), &slices)?, BATCH);
        let mut received = Received::with_size(32);
        let mut arrived = Vec::new();
        while arrived.len() < BATCH {
            received.receive(other.as_fd(), Idle::Wait)?;
            arrived.extend(received.datagrams().map(<[u8]>::to_vec));
        }
        // Datagrams longer than the buffer are truncated.
        let expected = payloads.iter().take(BATCH).map(|payload| {
            let mut payload = payload.clone();
            payload.truncate(32);
            payload
        });
        assert!(arrived.into_iter().eq(expected));
        let error = received.receive(other.as_fd(), Idle::Return).map(|_| ());
        assert_eq!(
            error.map_err(|error| error.kind()),
            Err(io::ErrorKind::WouldBlock)
        );
        assert_eq!(received.datagrams().count(), 0);
        Ok(())
    }
}
