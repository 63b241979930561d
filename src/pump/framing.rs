//! From packets that wait to what the channel sends: for a peer that takes single
//! packets alone, super-packets are divided and open checksums completed; for one
//! of us they go as they are (`stream_framing`).

use std::time::Instant;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::sync::mpsc;

use super::flight::Pong;
use super::outbound::Waiting;
use super::stream_framing::{Pass, StreamFraming};
use super::{Counters, Dropped, FairQueue, LARGE};
use crate::config::types::Mode;
use crate::frame;
use crate::frame::stream::{OFFLOAD_LEN, STREAM_HEADROOM};
use crate::packet::offload;
use crate::packet::segment::Segments;
use crate::packet::virtio::{Offload, VirtioHeader};

/// How packets travel.
#[derive(Debug)]
pub enum Framing {
    /// One ordinary packet a message (OpenSSH PROTOCOL, section 2.3).
    Datagrams,
    /// The agent stream.
    Stream(Peer),
}

/// The other end of a stream.
#[derive(Debug)]
pub struct Peer {
    /// What it takes merged.
    pub takes: Offload,
    /// Its answers to the pings that bound what is on its way to it; without
    /// these, nothing does.
    pub pongs: Option<mpsc::Receiver<Pong>>,
}

/// Makes what the channel sends of the packets of one device.
pub(super) struct Framer {
    mode: Mode,
    /// None where each packet is a message.
    stream: Option<StreamFraming>,
}

impl Framer {
    /// For a peer that takes `stream` merged in a stream, or else datagrams.
    pub fn new(mode: Mode, stream: Option<Offload>) -> Self {
        let stream = stream.map(|takes| StreamFraming::new(mode, takes));
        Framer { mode, stream }
    }

    /// Takes packets whose turn it is, about `most` bytes of them, and appends to
    /// `frames` what the channel is to send of them. `spare` gets memory that
    /// is free again by that, if it has less: an allocator that is given 64 KiB
    /// back with each super-packet returns them to the kernel each time.
    pub fn fill(
        &mut self,
        most: usize,
        queue: &mut FairQueue<Waiting>,
        spare: &mut BytesMut,
        frames: &mut Vec<Bytes>,
        counters: &Counters,
    ) -> Filled {
        let mut done = Filled { large: false };
        if queue.is_empty() {
            return done;
        }
        let now = Instant::now();
        let mut filled = 0;
        if let Some(stream) = &mut self.stream {
            let mut pass = Pass::new(most, queue, frames, counters);
            while filled < most
                && let Some((length, waiting)) = queue.pop(now)
            {
                stream.push(waiting, &mut pass);
                filled += length;
            }
            stream.flush(&mut pass);
            pass.finish();
            return done;
        }
        while filled < most
            && let Some((length, waiting)) = queue.pop(now)
        {
            match datagrams(self.mode, waiting, spare, frames, &mut done) {
                Ok(packets) => counters.passed_many(packets, length),
                Err(error) => counters.dropped(error),
            }
            filled += length;
        }
        done
    }
}

/// What was noticed about the packets that were framed.
pub(super) struct Filled {
    /// A super-packet of [`LARGE`] packets was divided.
    pub large: bool,
}

/// The offload header of what the device yielded.
pub(super) fn header_of(waiting: &Waiting) -> Result<VirtioHeader, Dropped> {
    let header = waiting
        .get(STREAM_HEADROOM - OFFLOAD_LEN..)
        .and_then(|rest| rest.first_chunk())
        .ok_or(Dropped::TooShort)?;
    VirtioHeader::from_bytes(header).map_err(|_| Dropped::Malformed)
}

/// A message for each packet; their number.
fn datagrams(
    mode: Mode,
    mut waiting: Waiting,
    spare: &mut BytesMut,
    frames: &mut Vec<Bytes>,
    done: &mut Filled,
) -> Result<u64, Dropped> {
    let header = header_of(&waiting)?;
    let headroom = frame::headroom(mode);
    if let Some(gso) = header.gso {
        done.large |= usize::from(gso.size.get()) >= LARGE;
        let made = segments(mode, &header, &waiting, headroom, frames);
        if spare.capacity() < waiting.capacity() {
            *spare = waiting;
        }
        return made;
    }
    if header.needs_checksum.is_some() {
        let packet = waiting.get_mut(STREAM_HEADROOM..).unwrap_or_default();
        offload::finish_checksum(mode, &header, packet)?;
    }
    waiting.advance(STREAM_HEADROOM - headroom);
    frame::encode(mode, &mut waiting)?;
    frames.push(waiting.freeze());
    Ok(1)
}

fn segments(
    mode: Mode,
    header: &VirtioHeader,
    waiting: &Waiting,
    headroom: usize,
    frames: &mut Vec<Bytes>,
) -> Result<u64, Dropped> {
    let packet = waiting.get(STREAM_HEADROOM..).unwrap_or_default();
    let mut segments = Segments::new(mode, header, packet)?;
    let count = segments.count();
    let each = headroom + segments.segment_len();
    let mut space = BytesMut::with_capacity(count * each);
    for _ in 0..count {
        space.put_bytes(0, headroom);
        segments.append_next(&mut space);
        let mut frame = space.split();
        frame::encode(mode, &mut frame)?;
        frames.push(frame.freeze());
    }
    Ok(count as u64)
}
