//! From packets that wait to what the channel sends: for a peer that takes single
//! packets alone, super-packets are divided and open checksums completed; for one
//! of us they go as they are (`stream_framing`).

pub(super) mod pieces;
pub(super) mod stream;
pub(super) mod whole;

use std::time::Instant;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::outbound::Waiting;
use super::{Counters, Dropped, FairQueue, LARGE};
use crate::frame::stream::{OFFLOAD_LEN, STREAM_HEADROOM};
use crate::frame::{self, FrameError};
use crate::packet::offload;
use crate::packet::offload::segment::Segments;
use crate::packet::offload::virtio::{Offload, VirtioHeader};
use crate::types::Mode;
use stream::{Pass, StreamFraming};

/// How packets travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// One ordinary packet a message (OpenSSH PROTOCOL, section 2.3).
    Datagrams,
    /// One packet a message, which may be a super-packet behind its offload
    /// header: between two of us ([`frame::offload`]).
    DatagramsWithOffload,
    /// The agent stream, to a peer that takes this merged.
    Stream(Offload),
}

/// Makes what the channel sends of the packets of one device.
pub(super) struct Framer {
    mode: Mode,
    /// None where each packet is a message.
    stream: Option<StreamFraming>,
    /// Whether such a message may be a super-packet.
    offload: bool,
}

impl Framer {
    pub fn new(mode: Mode, framing: Framing) -> Self {
        let stream = match framing {
            Framing::Datagrams | Framing::DatagramsWithOffload => None,
            Framing::Stream(peer) => Some(StreamFraming::new(mode, peer)),
        };
        Framer {
            mode,
            stream,
            offload: framing == Framing::DatagramsWithOffload,
        }
    }

    /// Takes packets whose turn it is, and appends to `frames` what the channel
    /// is to send of them, about `most` bytes. `spare` gets memory that
    /// is free again by that, if it has less: an allocator that is given 64 KiB
    /// back with each super-packet returns them to the kernel each time.
    pub fn fill(
        &mut self,
        queue: &mut FairQueue<Waiting>,
        spare: &mut BytesMut,
        frames: &mut Vec<Bytes>,
        counters: &Counters,
        most: usize,
    ) -> Filled {
        let mut done = Filled { large: false };
        if queue.is_empty() {
            return done;
        }
        let now = Instant::now();
        let mut filled = 0;
        if let Some(stream) = &mut self.stream {
            let mut pass = Pass::new(queue, frames, counters, most);
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
            let framed = match self.offload {
                true => with_offload(self.mode, waiting, frames),
                false => datagrams(self.mode, waiting, spare, frames, &mut done),
            };
            match framed {
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

/// A message for each packet, super-packets as they are if they fit one; the
/// number of packets.
fn with_offload(mode: Mode, mut waiting: Waiting, frames: &mut Vec<Bytes>) -> Result<u64, Dropped> {
    let header = header_of(&waiting)?;
    let length = waiting.len() - STREAM_HEADROOM;
    if header.gso.is_some() && !frame::offload::fits(length) {
        return segments(
            mode,
            &header,
            &waiting,
            STREAM_HEADROOM,
            frames,
            |segment| frame::offload::encode(mode, segment),
        );
    }
    let start = frame::offload::encode(mode, &mut waiting)?;
    waiting.advance(start);
    frames.push(waiting.freeze());
    Ok(header.packets(length) as u64)
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
        let made = segments(mode, &header, &waiting, headroom, frames, |segment| {
            frame::encode(mode, segment).map(|()| 0)
        });
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

/// A message for each segment of a super-packet; their number. `encode` is given
/// each behind `headroom` bytes, and says where its message begins.
fn segments(
    mode: Mode,
    header: &VirtioHeader,
    waiting: &Waiting,
    headroom: usize,
    frames: &mut Vec<Bytes>,
    encode: impl Fn(&mut [u8]) -> Result<usize, FrameError>,
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
        let start = encode(&mut frame)?;
        frame.advance(start);
        frames.push(frame.freeze());
    }
    Ok(count as u64)
}
