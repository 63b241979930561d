//! Turns queued packets into the channel's messages: for a peer that takes only ordinary
//! packets, divides super-packets and completes open checksums; sshvpn takes them
//! unchanged.

use std::time::Instant;

use bytes::Bytes;

use super::Framing;
use super::stream::Pass;
use crate::frame;
use crate::frame::waiting::Waiting;
use crate::packet::offload;
use crate::packet::offload::coalesce::{Coalescer, Limits};
use crate::pump::{Counters, Dropped, FairQueue, LARGE};
use crate::types::Mode;

/// Makes the messages, or the stream, of one device's packets.
#[derive(Debug)]
pub enum Framer {
    /// For [`Framing::Datagrams`].
    Datagrams,
    /// For [`Framing::DatagramsWithOffload`].
    DatagramsWithOffload,
    /// For [`Framing::Stream`]; merges packets for a peer that takes super-packets.
    Stream(Option<Coalescer>),
}

impl Framer {
    /// The framer of this form.
    pub fn new(mode: Mode, framing: Framing) -> Self {
        match framing {
            Framing::Datagrams => Framer::Datagrams,
            Framing::DatagramsWithOffload => Framer::DatagramsWithOffload,
            Framing::Stream(peer) => {
                let limits = Limits {
                    unit_bytes: usize::from(u16::MAX),
                    udp: peer.udp,
                };
                Framer::Stream(peer.tcp.then(|| Coalescer::new(mode, limits)))
            }
        }
    }

    /// Takes packets from the queue and appends about `most` bytes of frames. `spare`
    /// gets memory that becomes free, if it has less: an allocator that gets 64 KiB back
    /// with each super-packet returns them to the kernel each time. Yields whether a
    /// super-packet of [`LARGE`] packets was divided.
    pub(in crate::pump) fn fill(
        &mut self,
        mode: Mode,
        queue: &mut FairQueue<Waiting>,
        spare: &mut Waiting,
        frames: &mut Vec<Bytes>,
        counters: &Counters,
        most: usize,
    ) -> bool {
        let (mut filled, mut large) = (0, false);
        if queue.is_empty() {
            return large;
        }
        let now = Instant::now();
        let mut pass = Pass::new(mode, queue, frames, counters, most);
        while filled < most
            && let Some(waiting) = queue.pop(now)
        {
            let length = waiting.length();
            filled += length;
            let framed = match self {
                Framer::Datagrams => datagrams(mode, waiting, spare, pass.frames, &mut large),
                Framer::DatagramsWithOffload => with_offload(mode, waiting, pass.frames),
                Framer::Stream(coalescer) => {
                    pass.push(coalescer, waiting);
                    continue;
                }
            };
            match framed {
                Ok(packets) => counters.passed_many(packets as u64, length),
                Err(error) => counters.dropped(error),
            }
        }
        if let Framer::Stream(coalescer) = self {
            pass.flush(coalescer);
        }
        pass.finish();
        large
    }
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
    large: &mut bool,
) -> Result<usize, Dropped> {
    let header = waiting.header()?;
    if let Some(gso) = header.gso {
        *large |= usize::from(gso.size.get()) >= LARGE;
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
