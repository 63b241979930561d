//! Turns queued packets into frames of the agent stream. Super-packets are sent
//! unchanged; consecutive ordinary packets of a flow that wait together are merged, for a
//! peer that takes super-packets: fewer bytes for the SSH servers on the way, and one
//! write at the peer's device instead of many. No packet waits for another.

use bytes::{Bytes, BytesMut};

use crate::frame::stream;
use crate::frame::waiting::Waiting;
use crate::packet::offload::coalesce::{Coalescer, Limits, Unit};
use crate::packet::offload::virtio::{Offload, VirtioHeader};
use crate::pump::{Counters, Dropped, FairQueue, LARGE};
use crate::types::Mode;

/// Frames up to this length are copied into one buffer, so that many make one message;
/// larger ones are sent without a copy.
const SMALL: usize = 4096;

/// Makes the frames of one stream.
pub(in crate::pump) struct StreamFraming {
    mode: Mode,
    /// `None` for a peer that takes no super-packets.
    coalescer: Option<Coalescer>,
}

/// The frames of one pass.
pub(in crate::pump) struct Pass<'a> {
    /// The size of the buffer for small frames, so that it need not grow.
    room: usize,
    /// Only one packet waits, so none can be merged.
    alone: bool,
    /// The small frames since the last large frame.
    joined: BytesMut,
    /// The frames before.
    frames: &'a mut Vec<Bytes>,
    counters: &'a Counters,
}

impl StreamFraming {
    /// Framing for a peer that takes the offload packets `peer`.
    pub fn new(mode: Mode, peer: Offload) -> Self {
        let limits = Limits {
            unit_bytes: usize::from(u16::MAX),
            udp: peer.udp,
        };
        StreamFraming {
            mode,
            coalescer: peer.tcp.then(|| Coalescer::new(mode, limits)),
        }
    }

    /// Takes one packet.
    pub fn push(&mut self, waiting: Waiting, pass: &mut Pass<'_>) {
        let header = match waiting.header() {
            Ok(header) => header,
            Err(error) => return pass.counters.dropped(error.into()),
        };
        let length = waiting.length();
        let mergeable = header.gso.is_none() && length < LARGE;
        match &mut self.coalescer {
            Some(coalescer) if mergeable && !pass.alone => {
                if let Err(packet) = coalescer.push_offload(header, waiting.into_packet()) {
                    // It is full; flushing makes room.
                    self.flush(pass);
                    self.push_again(header, packet, pass);
                }
            }
            _ => {
                // Sends the earlier packets first.
                self.flush(pass);
                let framed = pass.append(self.mode, waiting);
                pass.count(framed, header.packets(length) as u64, length);
            }
        }
    }

    fn push_again(&mut self, header: VirtioHeader, packet: Bytes, pass: &mut Pass<'_>) {
        let pushed = (self.coalescer.as_mut()).map(|all| all.push_offload(header, packet));
        if !matches!(pushed, Some(Ok(()))) {
            pass.counters.dropped(Dropped::QueueFull);
        }
    }

    /// Frames the packets held for merging; called at the end of each pass.
    pub fn flush(&mut self, pass: &mut Pass<'_>) {
        let Some(coalescer) = &mut self.coalescer else {
            return;
        };
        for unit in coalescer.flush() {
            let (framed, packets, bytes) = match &unit {
                Unit::Plain(packet) => {
                    let framed = pass.append_parts(self.mode, &VirtioHeader::PLAIN, packet, &[]);
                    (framed, 1, packet.len())
                }
                Unit::Offload(header, packet) => {
                    let framed = pass.append_parts(self.mode, header, packet, &[]);
                    (framed, 1, packet.len())
                }
                Unit::Super(merged) => {
                    let (head, payloads) = (&merged.head, &merged.payloads);
                    let framed = pass.append_parts(self.mode, &merged.header, head, payloads);
                    let payload: usize = payloads.iter().map(Bytes::len).sum();
                    (framed, payloads.len(), head.len() + payload)
                }
            };
            pass.count(framed, packets as u64, bytes);
        }
    }
}

impl<'a> Pass<'a> {
    /// A pass that takes about `most` bytes from `queue`.
    pub fn new(
        queue: &FairQueue<Waiting>,
        frames: &'a mut Vec<Bytes>,
        counters: &'a Counters,
        most: usize,
    ) -> Self {
        let headers = queue.len() * stream::FRONT_LEN;
        Pass {
            room: queue.bytes().min(most.saturating_add(SMALL)) + headers,
            alone: queue.len() == 1,
            joined: BytesMut::new(),
            frames,
            counters,
        }
    }

    /// Ends the pass.
    pub fn finish(self) {
        if !self.joined.is_empty() {
            self.frames.push(self.joined.freeze());
        }
    }

    /// Frames a packet in place.
    fn append(&mut self, mode: Mode, waiting: Waiting) -> Result<(), Dropped> {
        let frame = stream::encode(mode, waiting)?;
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
        mode: Mode,
        header: &VirtioHeader,
        head: &[u8],
        rest: &[Bytes],
    ) -> Result<(), Dropped> {
        let offload = header.to_bytes();
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
