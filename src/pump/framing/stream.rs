//! Turns queued packets into frames of the agent stream. Super-packets are sent
//! unchanged; consecutive ordinary packets of a flow that wait together are merged, for a
//! peer that takes super-packets: fewer bytes for the SSH servers on the way, and one
//! write at the peer's device instead of many. No packet waits for another.

use bytes::{Bytes, BytesMut};

use super::deframer::length;
use crate::frame::stream;
use crate::frame::waiting::Waiting;
use crate::packet::offload::coalesce::Coalescer;
use crate::packet::offload::virtio::VirtioHeader;
use crate::pump::{Counters, Dropped, FairQueue, LARGE};
use crate::types::Mode;

/// Frames up to this length are copied into one buffer, so that many make one message;
/// larger ones are sent without a copy.
const SMALL: usize = 4096;

/// The frames of one pass.
pub(super) struct Pass<'a> {
    mode: Mode,
    /// The size of the buffer for small frames, so that it need not grow.
    room: usize,
    /// Only one packet waits, so none can be merged.
    alone: bool,
    /// The small frames since the last large frame.
    joined: BytesMut,
    /// The frames before.
    pub frames: &'a mut Vec<Bytes>,
    counters: &'a Counters,
}

impl<'a> Pass<'a> {
    /// A pass that takes about `most` bytes from `queue`.
    pub fn new(
        mode: Mode,
        queue: &FairQueue<Waiting>,
        frames: &'a mut Vec<Bytes>,
        counters: &'a Counters,
        most: usize,
    ) -> Self {
        let headers = queue.len() * stream::FRONT_LEN;
        Pass {
            mode,
            room: queue.bytes().min(most.saturating_add(SMALL)) + headers,
            alone: queue.len() == 1,
            joined: BytesMut::new(),
            frames,
            counters,
        }
    }

    /// Takes one packet. `coalescer` is `None` for a peer that takes no super-packets.
    pub fn push(&mut self, coalescer: &mut Option<Coalescer>, waiting: Waiting) {
        let header = match waiting.header() {
            Ok(header) => header,
            Err(error) => return self.counters.dropped(error.into()),
        };
        let length = waiting.length();
        let mergeable = header.gso.is_none() && length < LARGE;
        match coalescer {
            Some(merging) if mergeable && !self.alone => {
                if let Err(packet) = merging.push_offload(header, waiting.into_packet()) {
                    // It is full; flushing makes room.
                    self.flush(coalescer);
                    self.push_again(coalescer, header, packet);
                }
            }
            _ => {
                // Sends the earlier packets first.
                self.flush(coalescer);
                let framed = self.append(waiting);
                self.count(framed, header.packets(length) as u64, length);
            }
        }
    }

    fn push_again(
        &mut self,
        coalescer: &mut Option<Coalescer>,
        header: VirtioHeader,
        packet: Bytes,
    ) {
        let pushed = (coalescer.as_mut()).map(|all| all.push_offload(header, packet));
        if !matches!(pushed, Some(Ok(()))) {
            self.counters.dropped(Dropped::QueueFull);
        }
    }

    /// Frames the packets held for merging; called at the end of each pass.
    pub fn flush(&mut self, coalescer: &mut Option<Coalescer>) {
        let Some(coalescer) = coalescer else {
            return;
        };
        for unit in coalescer.flush() {
            let (header, head, payloads) = unit.parts();
            let framed = self.append_parts(header, head, payloads);
            let packets = payloads.len().max(1) as u64;
            self.count(framed, packets, head.len() + length(payloads));
        }
    }

    /// Ends the pass.
    pub fn finish(self) {
        if !self.joined.is_empty() {
            self.frames.push(self.joined.freeze());
        }
    }

    /// Frames a packet in place.
    fn append(&mut self, waiting: Waiting) -> Result<(), Dropped> {
        let frame = stream::encode(self.mode, waiting)?;
        if frame.len() <= SMALL {
            self.space().extend_from_slice(&frame);
        } else {
            if !self.joined.is_empty() {
                self.frames.push(self.joined.split().freeze());
            }
            self.frames.push(frame.freeze());
        }
        Ok(())
    }

    /// Frames a packet that is in parts.
    fn append_parts(
        &mut self,
        header: &VirtioHeader,
        head: &[u8],
        rest: &[Bytes],
    ) -> Result<(), Dropped> {
        let (mode, offload) = (self.mode, header.to_bytes());
        Ok(stream::append(mode, &offload, head, rest, self.space())?)
    }

    /// The buffer for small frames.
    fn space(&mut self) -> &mut BytesMut {
        if self.joined.is_empty() {
            self.joined.reserve(self.room);
        }
        &mut self.joined
    }

    fn count(&self, framed: Result<(), Dropped>, packets: u64, bytes: usize) {
        match framed {
            Ok(()) => self.counters.passed_many(packets, bytes),
            Err(reason) => self.counters.dropped_many(reason, packets),
        }
    }
}
