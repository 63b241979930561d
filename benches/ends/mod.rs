//! A device and a channel in memory: they repeat the same packets up to a number, and
//! discard those that they get.

use std::hint::black_box;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use nix::errno::Errno;
use sshvpn::frame::waiting::Waiting;
use sshvpn::packet::offload::virtio::{Offload, VirtioHeader};
use sshvpn::pump::{FrameSink, FrameSource, PacketSink, PacketSource, SendFailure};

/// A device with packets to read, which fails as deleted after the last one.
pub struct Reading<'a> {
    /// The packets, each with its offload header.
    packets: &'a [Vec<u8>],
    most: usize,
    read: AtomicUsize,
}

impl<'a> Reading<'a> {
    /// A device that yields `most` packets.
    pub fn new(packets: &'a [Vec<u8>], most: usize) -> Self {
        Reading {
            packets,
            most,
            read: AtomicUsize::new(0),
        }
    }

    fn next(&self, packet: &mut Waiting) -> io::Result<()> {
        let number = self.read.fetch_add(1, Ordering::Relaxed);
        if number >= self.most {
            return Err(Errno::EBADFD.into());
        }
        let read = &self.packets[number % self.packets.len()];
        packet.space().extend_from_slice(read);
        Ok(())
    }
}

impl PacketSource for Reading<'_> {
    async fn read(&self, packet: &mut Waiting) -> io::Result<()> {
        self.next(packet)
    }

    fn try_read(&self, packet: &mut Waiting) -> io::Result<bool> {
        self.next(packet)?;
        Ok(true)
    }

    async fn readable(&self) -> io::Result<()> {
        Ok(())
    }

    fn decline_offload(&self) {}
}

/// A device that takes all packets.
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

/// A channel that takes all frames.
pub struct Sending;

impl FrameSink for Sending {
    async fn send_all(&self, frames: &mut Vec<Bytes>) -> Result<(), SendFailure> {
        black_box(&frames);
        frames.clear();
        Ok(())
    }
}

/// A channel with messages to receive, which is closed after the last one.
pub struct Receiving<'a> {
    messages: &'a [Bytes],
    left: usize,
}

impl<'a> Receiving<'a> {
    /// A channel that yields all of `messages` this many `times`.
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
