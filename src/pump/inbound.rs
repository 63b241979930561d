//! From the channel to the device.

use std::io::{self, IoSlice};

use bytes::Bytes;
use nix::errno::Errno;
use tokio::sync::mpsc;

use super::framing::whole;
use super::{Counters, Dropped, End, FrameSource, Framing, Guard, LARGE, PacketSink};
use crate::frame;
use crate::frame::stream::{StreamFrame, StreamPacket, StreamReader};
use crate::packet::offload;
use crate::packet::offload::coalesce::{Coalescer, Limits, Super, Unit};
use crate::packet::offload::virtio::VirtioHeader;
use crate::packet::{self, MAX_PIECES};
use crate::types::Mode;

/// Messages received at most before the merged packets are written.
const BATCH: usize = 128;

/// Receives messages of one packet, merges packets if the device takes super-packets, and
/// writes them, until the channel or the device ends. Applies `guard`, if there is one,
/// to each packet; parses offload headers if `framing` has them.
pub async fn inbound_datagrams<C, S>(
    mode: Mode,
    framing: Framing,
    channel: &mut C,
    device: &S,
    mut guard: Option<Guard>,
    counters: &Counters,
) -> End
where
    C: FrameSource,
    S: PacketSink + Sync,
{
    let takes = device.takes();
    let mut coalescer = Coalescer::new(
        mode,
        Limits {
            unit_bytes: usize::from(u16::MAX),
            udp: takes.udp,
        },
    );
    while let Some(message) = channel.receive().await {
        let mut next = Some(message);
        let mut taken = 0;
        while let Some(message) = next {
            match arrived(mode, framing, message, &mut guard).await {
                Ok(Arrived::Plain(packet)) if takes.tcp && packet.len() < LARGE => {
                    // Cannot happen: the coalescer holds more than a batch.
                    if coalescer.push(packet).is_err() {
                        counters.dropped(Dropped::QueueFull);
                    }
                }
                Ok(arrived) => {
                    // Writes the earlier packets first.
                    let done = match flush(device, &mut coalescer, counters).await {
                        Ok(()) => deliver(mode, arrived, device, counters).await,
                        Err(end) => return end,
                    };
                    if let Err(end) = done {
                        return end;
                    }
                }
                Err(bad) => counters.dropped_many(bad.reason, bad.packets),
            }
            taken += 1;
            next = if taken < BATCH {
                channel.try_receive()
            } else {
                None
            };
        }
        if let Err(end) = flush(device, &mut coalescer, counters).await {
            return end;
        }
    }
    End::Channel
}

/// Writes the merged packets.
async fn flush<S: PacketSink>(
    device: &S,
    coalescer: &mut Coalescer,
    counters: &Counters,
) -> Result<(), End> {
    for unit in coalescer.flush() {
        write(device, unit, counters).await?;
    }
    Ok(())
}

async fn write<S: PacketSink>(device: &S, unit: Unit, counters: &Counters) -> Result<(), End> {
    let (packets, bytes, written) = match &unit {
        Unit::Plain(packet) => {
            let pieces = [IoSlice::new(packet)];
            let written = device.write(&VirtioHeader::PLAIN, &pieces).await;
            (1, packet.len(), written)
        }
        Unit::Offload(header, packet) => {
            let written = device.write(header, &[IoSlice::new(packet)]).await;
            (1, packet.len(), written)
        }
        Unit::Super(merged) => {
            let length: usize = merged.payloads.iter().map(Bytes::len).sum();
            let written = write_super(device, merged).await;
            (merged.payloads.len(), merged.head.len() + length, written)
        }
    };
    count(written, packets as u64, bytes, counters)
}

async fn write_super<S: PacketSink>(device: &S, merged: &Super) -> io::Result<()> {
    let head = std::iter::once(&merged.head[..]);
    let parts = head.chain(merged.payloads.iter().map(|payload| &payload[..]));
    write_parts(device, &merged.header, parts).await
}

/// Writes a packet that is in parts.
async fn write_parts<'a, S: PacketSink>(
    device: &S,
    header: &VirtioHeader,
    parts: impl Iterator<Item = &'a [u8]>,
) -> io::Result<()> {
    let mut pieces = [IoSlice::new(&[]); MAX_PIECES];
    let mut used = 0;
    for part in parts {
        let place = pieces.get_mut(used).ok_or(io::ErrorKind::InvalidInput)?;
        *place = IoSlice::new(part);
        used += 1;
    }
    let pieces = pieces.get(..used).unwrap_or_default();
    device.write(header, pieces).await
}

/// Counts the packets of a write. An error costs the packets, or ends the direction if
/// the device is gone.
fn count(
    written: io::Result<()>,
    packets: u64,
    bytes: usize,
    counters: &Counters,
) -> Result<(), End> {
    match written {
        Ok(()) => counters.passed_many(packets, bytes),
        Err(error) => match write_failure(&error) {
            Some(reason) => counters.dropped_many(reason, packets),
            None => return Err(End::Device(error)),
        },
    }
    Ok(())
}

/// Splits the agent stream into frames, writes its packets, divided if the device takes
/// no super-packets, and sends its control messages to `control`, until the stream or the
/// device ends. Applies `guard`, if there is one, to each packet.
pub async fn inbound_stream<C, S>(
    mode: Mode,
    mut reader: StreamReader,
    channel: &mut C,
    device: &S,
    control: &mpsc::Sender<Bytes>,
    mut guard: Option<Guard>,
    counters: &Counters,
) -> End
where
    C: FrameSource,
    S: PacketSink + Sync,
{
    loop {
        match reader.next_frame() {
            Ok(Some(StreamFrame::Packet(packet))) => match judged(mode, packet, &mut guard).await {
                Ok(arrived) => {
                    if let Err(end) = deliver(mode, arrived, device, counters).await {
                        return end;
                    }
                }
                Err(bad) => counters.dropped_many(bad.reason, bad.packets),
            },
            Ok(Some(StreamFrame::Control(message))) => {
                if control.send(message).await.is_err() {
                    return End::Channel;
                }
            }
            Ok(Some(StreamFrame::Bad(error))) => counters.dropped(error.into()),
            Ok(None) => match channel.receive().await {
                Some(chunk) => reader.push(chunk),
                None => return End::Channel,
            },
            Err(error) => return End::Stream(error),
        }
    }
}

/// A packet that passed all checks.
enum Arrived {
    /// An ordinary packet in one piece.
    Plain(Bytes),
    /// Any packet, in pieces, with its offload header.
    Offload(VirtioHeader, Vec<Bytes>),
}

/// Dropped packets, and the reason.
struct Bad {
    reason: Dropped,
    packets: u64,
}

impl<E: Into<Dropped>> From<E> for Bad {
    fn from(error: E) -> Self {
        Bad {
            reason: error.into(),
            packets: 1,
        }
    }
}

/// Decodes and checks one message.
async fn arrived(
    mode: Mode,
    framing: Framing,
    message: Bytes,
    guard: &mut Option<Guard>,
) -> Result<Arrived, Bad> {
    if framing == Framing::DatagramsWithOffload {
        return judged(mode, frame::offload::decode(mode, message)?, guard).await;
    }
    let packet = frame::decode(mode, &message)?;
    if let Some(guard) = guard {
        guard.check(mode, packet).await?;
    }
    Ok(Arrived::Plain(message.slice_ref(packet)))
}

/// Checks a packet against its frame and the guard's rules.
async fn judged(
    mode: Mode,
    mut packet: StreamPacket,
    guard: &mut Option<Guard>,
) -> Result<Arrived, Bad> {
    let length = packet.pieces.iter().map(Bytes::len).sum();
    let header = checked(mode, &packet, length)?;
    if let Some(guard) = guard {
        let head = packet.pieces.first().map_or(&[][..], |head| head);
        guard.check(mode, head).await.map_err(|reason| Bad {
            reason,
            packets: header.packets(length) as u64,
        })?;
    }
    if header == VirtioHeader::PLAIN && packet.pieces.len() == 1 {
        return Ok(Arrived::Plain(packet.pieces.remove(0)));
    }
    Ok(Arrived::Offload(header, packet.pieces))
}

/// Writes a packet, as ordinary packets if the device takes no others.
async fn deliver<S: PacketSink>(
    mode: Mode,
    arrived: Arrived,
    device: &S,
    counters: &Counters,
) -> Result<(), End> {
    let (header, pieces) = match arrived {
        Arrived::Plain(packet) => return write(device, Unit::Plain(packet), counters).await,
        Arrived::Offload(header, pieces) => (header, pieces),
    };
    if !device.takes().includes(&header) {
        match whole::divide(mode, &header, &pieces) {
            Ok(parts) => {
                for part in parts {
                    write(device, Unit::Plain(part), counters).await?;
                }
            }
            Err(reason) => counters.dropped(reason),
        }
        return Ok(());
    }
    let length = pieces.iter().map(Bytes::len).sum();
    let parts = pieces.iter().map(|piece| &piece[..]);
    let written = write_parts(device, &header, parts).await;
    count(written, header.packets(length) as u64, length, counters)
}

/// The packet's offload header, if it and the frame fit the packet. The peer is not
/// trusted: family, version, lengths and offsets have to agree.
fn checked(mode: Mode, packet: &StreamPacket, length: usize) -> Result<VirtioHeader, Dropped> {
    let head: &[u8] = packet.pieces.first().map_or(&[], |head| head);
    match mode {
        Mode::Ethernet if length < frame::ETHERNET_HEADER => return Err(Dropped::TooShort),
        Mode::Ethernet => {}
        Mode::PointToPoint => {
            let version = packet::check_in(head, length)?;
            if Some(version) != packet.version {
                return Err(Dropped::WrongFamily);
            }
        }
    }
    let Some(offload) = &packet.offload else {
        return Ok(VirtioHeader::PLAIN);
    };
    let header = VirtioHeader::from_bytes(offload).map_err(|_| Dropped::Malformed)?;
    Ok(offload::check_in(mode, &header, head, length)?)
}

/// The reason for a drop after a failed write; `None` if the device is gone.
fn write_failure(error: &io::Error) -> Option<Dropped> {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EIO) => Some(Dropped::DeviceDown),
        Some(Errno::EBADFD) | None => None,
        Some(_) => Some(Dropped::Refused),
    }
}
