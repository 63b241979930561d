//! From the channel to the device.
//!
//! Packets of a datagram channel that wait together are merged for a device that takes
//! super-packets; those of a stream were merged by the peer.

use std::convert::Infallible;
use std::io::{self, IoSlice};

use bytes::{Bytes, BytesMut};
use nix::errno::Errno;
use tokio::sync::mpsc;

use super::framing::deframer::{Arrived, Content, length};
use super::{Counters, Deframer, Dropped, End, Filtered, FrameSource, Guard, LARGE, PacketSink};
use crate::packet::MAX_PIECES;
use crate::packet::offload;
use crate::packet::offload::coalesce::{Coalescer, Limits};
use crate::packet::offload::segment::Segments;
use crate::packet::offload::virtio::VirtioHeader;
use crate::types::Mode;

/// Messages received at most before the merged packets are written.
const BATCH: usize = 128;

/// Receives messages, and writes the packets that pass the guard around the deframer,
/// until the channel or the device ends. Sends control messages to `control`.
pub async fn inbound<C, S>(
    mode: Mode,
    mut guarded: Filtered<'_, Option<Guard>, Deframer>,
    channel: &mut C,
    device: &S,
    control: &mpsc::Sender<Bytes>,
    counters: &Counters,
) -> End
where
    C: FrameSource,
    S: PacketSink + Sync,
{
    let merged = matches!(guarded.source, Deframer::Stream(_));
    let mut outlet = Outlet::new(mode, device, merged, counters);
    let mut taken = 0;
    let received: Result<Infallible, End> = async {
        loop {
            match guarded.next(mode).await.map_err(End::Stream)? {
                Some(Content::Packet(packet)) => outlet.take(packet).await?,
                Some(Content::Control(message)) => {
                    let sent = control.send(message).await;
                    sent.map_err(|_| End::Channel)?;
                }
                Some(Content::Bad(reason)) => counters.dropped(reason),
                None => {
                    let merges = outlet.holds() && taken < BATCH;
                    let waiting = merges.then(|| channel.try_receive()).flatten();
                    if waiting.is_none() {
                        outlet.flush().await?;
                        taken = 0;
                    }
                    let message = match waiting {
                        None => channel.receive().await.ok_or(End::Channel)?,
                        Some(message) => message,
                    };
                    taken += 1;
                    guarded.source.push(message);
                }
            }
        }
    }
    .await;
    let Err(end) = received;
    end
}

/// Writes to a device, and counts. A failed write costs the packets, or ends the
/// direction if the device is gone.
struct Outlet<'a, S> {
    mode: Mode,
    device: &'a S,
    /// `None` if packets are not merged.
    coalescer: Option<Coalescer>,
    counters: &'a Counters,
}

impl<'a, S: PacketSink> Outlet<'a, S> {
    /// An outlet to `device`, which merges packets if the device takes super-packets and
    /// the sender has not merged them.
    fn new(mode: Mode, device: &'a S, merged: bool, counters: &'a Counters) -> Self {
        let takes = device.takes();
        let limits = Limits {
            unit_bytes: usize::from(u16::MAX),
            udp: takes.udp,
        };
        Outlet {
            mode,
            device,
            coalescer: (takes.tcp && !merged).then(|| Coalescer::new(mode, limits)),
            counters,
        }
    }

    /// Whether it holds packets.
    fn holds(&self) -> bool {
        self.coalescer.as_ref().is_some_and(|held| !held.is_empty())
    }

    /// Holds a packet that may be merged, and writes another.
    async fn take(&mut self, arrived: Arrived) -> Result<(), End> {
        match (&mut self.coalescer, arrived) {
            (Some(coalescer), Arrived::Plain(packet)) if packet.len() < LARGE => {
                // Cannot happen: the coalescer holds more than a batch.
                if coalescer.push(packet).is_err() {
                    self.counters.dropped(Dropped::QueueFull);
                }
                Ok(())
            }
            (_, arrived) => {
                // Writes the earlier packets first.
                self.flush().await?;
                self.deliver(arrived).await
            }
        }
    }

    /// Writes the packets held.
    async fn flush(&mut self) -> Result<(), End> {
        if let Some(mut coalescer) = self.coalescer.take_if(|held| !held.is_empty()) {
            for unit in coalescer.flush() {
                let (header, head, payloads) = unit.parts();
                self.write(header, head, payloads).await?;
            }
            self.coalescer = Some(coalescer);
        }
        Ok(())
    }

    /// Writes a packet, as ordinary packets if the device takes no others.
    async fn deliver(&self, arrived: Arrived) -> Result<(), End> {
        let (header, pieces) = match arrived {
            Arrived::Plain(packet) => return self.write(&VirtioHeader::PLAIN, &packet, &[]).await,
            Arrived::Offload(header, pieces) => (header, pieces),
        };
        if self.device.takes().includes(&header) {
            let Some((head, rest)) = pieces.split_first() else {
                self.counters.dropped(Dropped::TooShort);
                return Ok(());
            };
            return self.write(&header, head, rest).await;
        }
        match divide(self.mode, &header, &pieces) {
            Ok(packets) => {
                for packet in packets {
                    self.write(&VirtioHeader::PLAIN, &packet, &[]).await?;
                }
            }
            Err(reason) => self.counters.dropped(reason),
        }
        Ok(())
    }

    /// Writes a packet in pieces.
    async fn write(&self, header: &VirtioHeader, head: &[u8], rest: &[Bytes]) -> Result<(), End> {
        let bytes = head.len() + length(rest);
        let written = if rest.is_empty() {
            self.device.write(header, &[IoSlice::new(head)]).await
        } else {
            let mut pieces = [IoSlice::new(head); MAX_PIECES];
            for (place, piece) in pieces.iter_mut().skip(1).zip(rest) {
                *place = IoSlice::new(piece);
            }
            match pieces.get(..=rest.len()) {
                Some(pieces) => self.device.write(header, pieces).await,
                None => Err(io::ErrorKind::InvalidInput.into()),
            }
        };
        self.count(written, header.packets(bytes) as u64, bytes)
    }

    fn count(&self, written: io::Result<()>, packets: u64, bytes: usize) -> Result<(), End> {
        match written {
            Ok(()) => self.counters.passed_many(packets, bytes),
            Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EBADFD) | None => return Err(End::Device(error)),
                Some(Errno::EIO) => self.counters.dropped_many(Dropped::DeviceDown, packets),
                Some(_) => self.counters.dropped_many(Dropped::Refused, packets),
            },
        }
        Ok(())
    }
}

/// The ordinary packets that an offload packet in pieces stands for.
fn divide(mode: Mode, header: &VirtioHeader, pieces: &[Bytes]) -> Result<Vec<Bytes>, Dropped> {
    let mut packet = BytesMut::with_capacity(length(pieces));
    for piece in pieces {
        packet.extend_from_slice(piece);
    }
    if header.gso.is_none() {
        offload::finish_checksum(mode, header, &mut packet)?;
        return Ok(vec![packet.freeze()]);
    }
    let segments = Segments::new(mode, header, &packet)?;
    let mut made = Vec::with_capacity(segments.count());
    let Ok(_) = segments.divide(0, |segment| -> Result<(), Infallible> {
        made.push(segment.freeze());
        Ok(())
    });
    Ok(made)
}
