//! An in-memory device and channel for a pump: they yield the same packets repeatedly up to a
//! number, and discard what they get.

use std::hint::black_box;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use nix::errno::Errno;
use sshvpn::packet::offload::virtio::{Offload, VirtioHeader};
use sshvpn::pump::{FrameSink, FrameSource, PacketSink, PacketSource, SendFailure};

/// A device with packets to read, which fails after the last one.
pub struct Reading<'a> {
    /// The packets, each with its offload header.
    packets: &'a [Vec<u8>],
    most: usize,
    read: AtomicUsize,
}

impl<'a> Reading<'a> {
    /// Yields `most` packets.
    pub fn new(packets: &'a [Vec<u8>], most: usize) -> Self {
        Reading {
            packets,
            most,
            read: AtomicUsize::new(0),
        }
    }

    fn next(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        let number = self.read.fetch_add(1, Ordering::Relaxed);
        if number >= self.most {
            return Err(Errno::EBADFD.into());
        }
        let packet = &self.packets[number % self.packets.len()];
        buffer.extend_from_slice(packet);
        Ok(packet.len())
    }
}

impl PacketSource for Reading<'_> {
    async fn read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        self.next(buffer)
    }

    fn try_read(&self, buffer: &mut BytesMut) -> io::Result<Option<usize>> {
        self.next(buffer).map(Some)
    }

    async fn readable(&self) -> io::Result<()> {
        Ok(())
    }

    fn decline_offload(&self) {}
}

/// A device that discards written packets.
pub struct Writing {
    /// The offload packets that it takes.
    pub takes: Offload,
}

impl PacketSink for Writing {
    fn takes(&self) -> Offload {
        self.takes
    }

    async fn write(&self, header: &VirtioHeader, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        black_box((header.to_bytes(), pieces));
        Ok(())
    }
}

/// A channel that discards sent messages.
pub struct Sending;

impl FrameSink for Sending {
    async fn send_all(&self, frames: &mut Vec<Bytes>) -> Result<(), SendFailure> {
        black_box(&frames);
        frames.clear();
        Ok(())
    }
}

/// A channel with messages to receive, which closes after the last one.
pub struct Receiving<'a> {
    messages: &'a [Bytes],
    left: usize,
}

impl<'a> Receiving<'a> {
    /// Yields all of `messages`, `times` times.
    pub fn new(messages: &'a [Bytes], times: usize) -> Self {
        Receiving {
            messages,
            left: messages.len() * times,
        }
    }

    fn next(&mut self) -> Option<Bytes> {
        let count = self.messages.len();
        let message = &self.messages[(count - self.left % count) % count];
        self.left = self.left.checked_sub(1)?;
        Some(message.clone())
    }
}

impl FrameSource for Receiving<'_> {
    async fn receive(&mut self) -> Option<Bytes> {
        self.next()
    }

    fn try_receive(&mut self) -> Option<Bytes> {
        self.next()
    }
}
