//! From packets that wait to what the channel sends: for a peer that takes single
//! packets alone, super-packets are divided and open checksums completed; for one
//! of us they go as they are (`stream_framing`).

pub(super) mod stream;
pub(super) mod whole;

use std::time::Instant;

use bytes::Bytes;

use super::{Counters, Dropped, FairQueue, LARGE};
use crate::frame;
use crate::frame::waiting::Waiting;
use crate::packet::offload;
use crate::packet::offload::virtio::Offload;
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
        spare: &mut Waiting,
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
                && let Some(waiting) = queue.pop(now)
            {
                filled += waiting.length();
                stream.push(waiting, &mut pass);
            }
            stream.flush(&mut pass);
            pass.finish();
            return done;
        }
        while filled < most
            && let Some(waiting) = queue.pop(now)
        {
            let length = waiting.length();
            let framed = match self.offload {
                true => with_offload(self.mode, waiting, frames),
                false => datagrams(self.mode, waiting, spare, frames, &mut done),
            };
            match framed {
                Ok(packets) => counters.passed_many(packets as u64, length),
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

/// A message for each packet, super-packets as they are if they fit one; the
/// number of packets.
fn with_offload(mode: Mode, waiting: Waiting, frames: &mut Vec<Bytes>) -> Result<usize, Dropped> {
    let header = waiting.header()?;
    let length = waiting.length();
    if header.gso.is_some() && !frame::offload::fits(length) {
        return waiting.divide(mode, &header, |segment| {
            frames.push(frame::offload::encode(mode, segment)?);
            Ok(())
        });
    }
    frames.push(frame::offload::encode(mode, waiting)?);
    Ok(header.packets(length))
}

/// A message for each packet; their number.
fn datagrams(
    mode: Mode,
    mut waiting: Waiting,
    spare: &mut Waiting,
    frames: &mut Vec<Bytes>,
    done: &mut Filled,
) -> Result<usize, Dropped> {
    let header = waiting.header()?;
    if let Some(gso) = header.gso {
        done.large |= usize::from(gso.size.get()) >= LARGE;
        let made = waiting.divide(mode, &header, |segment| {
            frames.push(frame::encode(mode, segment)?);
            Ok(())
        });
        waiting.recycle(spare);
        return made;
    }
    offload::finish_checksum(mode, &header, waiting.packet_mut())?;
    frames.push(frame::encode(mode, waiting)?);
    Ok(1)
}
