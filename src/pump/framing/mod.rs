//! Turns queued packets into the channel's messages: for a peer that takes only ordinary
//! packets, divides super-packets and completes open checksums; sshvpn takes them
//! unchanged.

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

/// The form in which packets travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// One ordinary packet for each message (OpenSSH PROTOCOL, section 2.3).
    Datagrams,
    /// One packet for each message, which may be a super-packet behind its offload
    /// header: between two sshvpn peers ([`frame::offload`]).
    DatagramsWithOffload,
    /// The agent stream, to a peer that takes these offload packets.
    Stream(Offload),
}

/// Makes the messages, or the stream, of one device's packets.
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

    /// Takes packets from the queue and appends about `most` bytes of frames. `spare`
    /// gets memory that becomes free, if it has less: an allocator that gets 64 KiB back
    /// with each super-packet returns them to the kernel each time.
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

/// Properties of the packets that were framed.
pub(super) struct Filled {
    /// A super-packet of [`LARGE`] packets was divided.
    pub large: bool,
}

/// Appends a message for each packet; a super-packet is one message if it fits. The
/// number of packets.
fn with_offload(mode: Mode, waiting: Waiting, frames: &mut Vec<Bytes>) -> Result<usize, Dropped> {
    let header = waiting.header()?;
    let length = waiting.length();
    if header.gso.is_some() && !frame::offload::fits(length) {
        return waiting.divide(mode, &header, |segment| {
            frames.push(frame::offload::encode(mode, segment)?.freeze());
            Ok(())
        });
    }
    frames.push(frame::offload::encode(mode, waiting)?.freeze());
    Ok(header.packets(length))
}

/// Appends a message for each ordinary packet; their number.
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
            frames.push(frame::encode(mode, segment)?.freeze());
            Ok(())
        });
        waiting.recycle(spare);
        return made;
    }
    if header.needs_checksum.is_some() {
        offload::finish_checksum(mode, &header, waiting.packet_mut())?;
    }
    frames.push(frame::encode(mode, waiting)?.freeze());
    Ok(1)
}
