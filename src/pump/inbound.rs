//! From the channel to the device.

use std::io::{self, IoSlice};

use bytes::Bytes;
use nix::errno::Errno;
use tokio::sync::mpsc;

use super::{Counters, Dropped, End, FrameSource, LARGE, PacketSink, whole};
use crate::config::types::Mode;
use crate::frame::stream::{StreamFrame, StreamPacket, StreamReader};
use crate::frame::{self, FrameError};
use crate::packet::coalesce::{Coalescer, Limits, Super, Unit};
use crate::packet::offload::{self, OffloadError};
use crate::packet::virtio::VirtioHeader;
use crate::packet::{self};

/// Messages that are looked at together, for packets of theirs to be merged.
const BATCH: usize = 128;
/// The pieces of one packet at most: a head and as many payloads as are merged.
const MAX_PIECES: usize = 72;

/// Receives frames, one packet each, merges those that go together if the device
/// takes super-packets, and writes them; until the channel or the device ends.
pub async fn inbound_datagrams<C, S>(
    mode: Mode,
    channel: &mut C,
    device: &S,
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
            match frame::decode(mode, &message) {
                Ok(packet) if takes.tcp && packet.len() < LARGE => {
                    // The coalescer holds more than a batch.
                    if coalescer.push(message.slice_ref(packet)).is_err() {
                        counters.dropped(Dropped::QueueFull);
                    }
                }
                Ok(packet) => {
                    let packet = Unit::Plain(message.slice_ref(packet));
                    // What came before it goes before it.
                    for unit in coalescer.flush() {
                        if let Err(end) = write(device, unit, counters).await {
                            return end;
                        }
                    }
                    if let Err(end) = write(device, packet, counters).await {
                        return end;
                    }
                }
                Err(error) => counters.dropped(error.into()),
            }
            taken += 1;
            next = if taken < BATCH {
                channel.try_receive()
            } else {
                None
            };
        }
        for unit in coalescer.flush() {
            if let Err(end) = write(device, unit, counters).await {
                return end;
            }
        }
    }
    End::Channel
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

/// Writes a packet that lies in parts.
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

/// Counts what was written; an error costs the packet, or (if it is the device's
/// end) everything.
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

/// Takes the agent stream apart, writes its packets as they are, or whole where
/// the device takes no super-packets, and hands its control messages to `control`;
/// until the stream or the device ends.
pub async fn inbound_stream<C, S>(
    mode: Mode,
    mut reader: StreamReader,
    channel: &mut C,
    device: &S,
    control: &mpsc::Sender<Bytes>,
    counters: &Counters,
) -> End
where
    C: FrameSource,
    S: PacketSink + Sync,
{
    loop {
        match reader.next_frame() {
            Ok(Some(StreamFrame::Packet(packet))) => {
                match deliver(mode, &packet, device, counters).await {
                    Ok(()) => {}
                    Err(Trouble::Packet(reason)) => counters.dropped(reason),
                    Err(Trouble::End(end)) => return end,
                }
            }
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

/// What a bad packet costs.
enum Trouble {
    Packet(Dropped),
    End(End),
}

impl From<End> for Trouble {
    fn from(end: End) -> Self {
        Trouble::End(end)
    }
}

impl From<FrameError> for Trouble {
    fn from(error: FrameError) -> Self {
        Trouble::Packet(error.into())
    }
}

impl From<OffloadError> for Trouble {
    fn from(error: OffloadError) -> Self {
        Trouble::Packet(error.into())
    }
}

async fn deliver<S: PacketSink>(
    mode: Mode,
    packet: &StreamPacket,
    device: &S,
    counters: &Counters,
) -> Result<(), Trouble> {
    let length = packet.pieces.iter().map(Bytes::len).sum();
    let header = checked(mode, packet, length)?;
    if !device.takes().includes(&header) {
        let parts = whole::divide(mode, &header, &packet.pieces).map_err(Trouble::Packet)?;
        for part in parts {
            write(device, Unit::Plain(part), counters).await?;
        }
        return Ok(());
    }
    let written = match &packet.pieces[..] {
        [whole] => device.write(&header, &[IoSlice::new(whole)]).await,
        pieces => {
            let parts = pieces.iter().map(|piece| &piece[..]);
            write_parts(device, &header, parts).await
        }
    };
    let packets = header.packets(length) as u64;
    Ok(count(written, packets, length, counters)?)
}

/// The packet's offload header, if the packet is what it and the frame claim. The
/// far end is not trusted: family, version, lengths and offsets have to agree.
fn checked(mode: Mode, packet: &StreamPacket, length: usize) -> Result<VirtioHeader, Trouble> {
    let head: &[u8] = packet.pieces.first().map_or(&[], |head| head);
    match mode {
        Mode::Ethernet if length < frame::ETHERNET_HEADER => {
            return Err(FrameError::TooShort.into());
        }
        Mode::Ethernet => {}
        Mode::PointToPoint => {
            let version = packet::check_in(head, length).map_err(FrameError::from)?;
            if Some(version) != packet.version {
                return Err(FrameError::WrongFamily.into());
            }
        }
    }
    let Some(offload) = &packet.offload else {
        return Ok(VirtioHeader::PLAIN);
    };
    let header = VirtioHeader::from_bytes(offload).map_err(|_| FrameError::Malformed)?;
    Ok(offload::check_in(mode, &header, head, length)?)
}

/// What a failed write costs: a packet, or (nothing) the device.
fn write_failure(error: &io::Error) -> Option<Dropped> {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EIO) => Some(Dropped::DeviceDown),
        Some(Errno::EBADFD) | None => None,
        Some(_) => Some(Dropped::Refused),
    }
}
