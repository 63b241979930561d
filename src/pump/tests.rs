//! The pump between a device and a channel that are no more than queues.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use nix::errno::Errno;
use tokio::sync::mpsc;

use super::*;
use crate::frame::MAX_FRAME;
use crate::frame::stream::StreamReader;
use crate::packet::test_packets::udp;
use crate::packet::test_packets::{self, Template};
use crate::packet::{IpVersion, offload};
use crate::types::Mode;

/// A device that yields what is queued, then fails with EBADFD as a deleted one.
struct FakeDevice {
    reads: Mutex<VecDeque<Result<Vec<u8>, Errno>>>,
    writes: Mutex<Vec<(VirtioHeader, Vec<u8>)>>,
    refusals: Mutex<VecDeque<Errno>>,
    takes: Offload,
    declined: AtomicBool,
}

impl Default for FakeDevice {
    fn default() -> Self {
        FakeDevice {
            reads: Mutex::default(),
            writes: Mutex::default(),
            refusals: Mutex::default(),
            takes: Offload::NONE,
            declined: AtomicBool::new(false),
        }
    }
}

impl FakeDevice {
    /// Ordinary packets.
    fn yielding(reads: impl IntoIterator<Item = Result<Vec<u8>, Errno>>) -> Self {
        let plain = VirtioHeader::PLAIN.to_bytes();
        let reads = reads.into_iter();
        Self::yielding_offload(reads.map(|read| read.map(|packet| (plain, packet))))
    }

    /// Packets behind offload headers.
    fn yielding_offload(
        reads: impl IntoIterator<Item = Result<([u8; 10], Vec<u8>), Errno>>,
    ) -> Self {
        let reads = reads.into_iter();
        let reads = reads.map(|read| read.map(|(header, packet)| [&header, &packet[..]].concat()));
        FakeDevice {
            reads: Mutex::new(reads.collect()),
            ..Default::default()
        }
    }

    /// What was written, headers left out.
    fn packets(&self) -> Vec<Vec<u8>> {
        let writes = self.writes.lock().unwrap();
        writes.iter().map(|(_, packet)| packet.clone()).collect()
    }

    fn refusing(errnos: impl IntoIterator<Item = Errno>) -> Self {
        FakeDevice {
            refusals: Mutex::new(errnos.into_iter().collect()),
            ..Default::default()
        }
    }

    /// Offloads as a kernel would do them.
    fn with_offload(self, takes: Offload) -> Self {
        FakeDevice { takes, ..self }
    }

    fn next(&self, packet: &mut Waiting) -> io::Result<()> {
        let read = self
            .reads
            .lock()
            .unwrap()
            .pop_front()
            .unwrap_or(Err(Errno::EBADFD))?;
        packet.space().extend_from_slice(&read);
        Ok(())
    }
}

impl PacketSource for FakeDevice {
    async fn read(&self, packet: &mut Waiting) -> io::Result<()> {
        self.next(packet)
    }

    fn try_read(&self, packet: &mut Waiting) -> io::Result<bool> {
        if self.reads.lock().unwrap().is_empty() {
            return Ok(false);
        }
        self.next(packet)?;
        Ok(true)
    }

    async fn readable(&self) -> io::Result<()> {
        Ok(())
    }

    fn decline_offload(&self) {
        self.declined.store(true, Ordering::Relaxed);
    }
}

impl PacketSink for FakeDevice {
    fn takes(&self) -> Offload {
        self.takes
    }

    async fn write(&self, header: &VirtioHeader, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        if let Some(errno) = self.refusals.lock().unwrap().pop_front() {
            return Err(errno.into());
        }
        let packet = pieces.iter().flat_map(|piece| piece.iter().copied());
        let written = (*header, packet.collect());
        self.writes.lock().unwrap().push(written);
        Ok(())
    }
}

/// A channel that takes frames up to a size, and ends after a number of them.
struct FakeSink {
    sent: Mutex<Vec<Bytes>>,
    largest: usize,
    most: usize,
}

impl FrameSink for FakeSink {
    async fn send_all(&self, frames: &mut Vec<Bytes>) -> Result<(), SendFailure> {
        while !frames.is_empty() {
            let frame = frames.remove(0);
            if frame.len() > self.largest {
                return Err(SendFailure::TooLarge(frame.len()));
            }
            let mut sent = self.sent.lock().unwrap();
            if sent.len() == self.most {
                return Err(SendFailure::Closed);
            }
            sent.push(frame);
        }
        Ok(())
    }
}

fn sink() -> FakeSink {
    FakeSink {
        sent: Mutex::default(),
        largest: MAX_FRAME,
        most: usize::MAX,
    }
}

struct FakeSource(mpsc::Receiver<Bytes>);

impl FrameSource for FakeSource {
    async fn receive(&mut self) -> Option<Bytes> {
        self.0.recv().await
    }

    fn try_receive(&mut self) -> Option<Bytes> {
        self.0.try_recv().ok()
    }
}

async fn send(mode: Mode, device: &FakeDevice, sink: &FakeSink, counters: &Counters) -> End {
    let (_, nothing) = mpsc::channel(1);
    outbound(
        mode,
        Framer::new(mode, Framing::Datagrams),
        device,
        sink,
        nothing,
        Pings::None,
        counters,
    )
    .await
}

async fn receive(mode: Mode, frames: Vec<Vec<u8>>, device: &FakeDevice) -> (End, Snapshot) {
    let (sender, receiver) = mpsc::channel(frames.len().max(1));
    for frame in frames {
        sender.send(frame.into()).await.unwrap();
    }
    drop(sender);
    let counters = Counters::default();
    let (framing, mut source) = (Framing::Datagrams, FakeSource(receiver));
    let end = inbound(
        mode,
        Filtered::new(None, Deframer::new(mode, framing), &counters),
        &mut source,
        device,
        &mpsc::channel(1).0,
        &counters,
    )
    .await;
    (end, counters.snapshot())
}

fn sorted(mut packets: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    packets.sort();
    packets
}

fn framed(packet: &[u8]) -> Vec<u8> {
    let family = if packet[0] >> 4 == 4 { 2_u32 } else { 24 };
    [&family.to_be_bytes()[..], packet].concat()
}

#[tokio::test]
async fn packets_of_every_size_arrive_whole_and_in_order() {
    let sizes = (0..1473).chain([8000, 16000, MAX_FRAME - 4 - 28]);
    let packets: Vec<Vec<u8>> = sizes.map(|size| udp(IpVersion::V4, size)).collect();
    let device = FakeDevice::yielding(packets.iter().cloned().map(Ok));
    let (sink, counters) = (sink(), Counters::default());
    let end = send(Mode::PointToPoint, &device, &sink, &counters).await;
    assert!(matches!(end, End::Device(_)));
    assert_eq!(counters.snapshot().packets, packets.len() as u64);
    let frames: Vec<Vec<u8>> = sink
        .sent
        .lock()
        .unwrap()
        .iter()
        .map(|f| f.to_vec())
        .collect();
    let at_peer = FakeDevice::default();
    let (end, received) = receive(Mode::PointToPoint, frames, &at_peer).await;
    assert!(matches!(end, End::Channel));
    assert_eq!(received, counters.snapshot());
    assert_eq!(at_peer.packets(), packets);
}

#[tokio::test]
async fn what_must_not_be_sent_is_dropped_by_name() {
    let good = udp(IpVersion::V6, 9);
    let bare = udp(IpVersion::V4, 0)[..20].to_vec();
    let device = FakeDevice::yielding([
        Ok(bare),
        Ok(vec![0x45; MAX_FRAME]),
        Ok(vec![0x15; 40]),
        Err(Errno::EIO),
        Ok(good.clone()),
    ]);
    let (sink, counters) = (sink(), Counters::default());
    send(Mode::PointToPoint, &device, &sink, &counters).await;
    assert_eq!(sink.sent.lock().unwrap().as_slice(), [framed(&good)]);
    let dropped = counters.snapshot().dropped;
    assert_eq!(
        dropped,
        [
            ("too short", 1),
            ("too long", 1),
            ("wrong family", 1),
            ("refused by the kernel", 1)
        ]
    );
}

#[tokio::test]
async fn a_frame_too_large_for_the_peer_costs_itself_alone() {
    let packets = [
        udp(IpVersion::V4, 10),
        udp(IpVersion::V4, 1400),
        udp(IpVersion::V4, 20),
    ];
    let device = FakeDevice::yielding(packets.iter().cloned().map(Ok));
    let small = FakeSink {
        largest: 1000,
        ..sink()
    };
    let counters = Counters::default();
    send(Mode::PointToPoint, &device, &small, &counters).await;
    assert_eq!(small.sent.lock().unwrap().len(), 2);
    assert_eq!(counters.snapshot().packets, 2);
    assert_eq!(counters.snapshot().dropped, [("too long", 1)]);
}

#[tokio::test]
async fn a_closed_channel_ends_the_outbound_direction() {
    let packets = (0..5).map(|size| Ok(udp(IpVersion::V4, size)));
    let device = FakeDevice::yielding(packets);
    let closing = FakeSink { most: 3, ..sink() };
    let counters = Counters::default();
    let end = send(Mode::PointToPoint, &device, &closing, &counters).await;
    assert!(matches!(end, End::Channel));
    assert_eq!(closing.sent.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn a_hostile_remote_end_costs_counted_drops() {
    let good = udp(IpVersion::V4, 30);
    let mut lying = framed(&good);
    lying[7] = 0xff;
    let mut foreign = framed(&good);
    foreign[3] = 24;
    let frames = vec![
        Vec::new(),
        vec![0, 0, 2],
        vec![0xff; 4],
        lying,
        foreign,
        framed(&good[..25]),
        framed(&good),
    ];
    let device = FakeDevice::default();
    let (end, counted) = receive(Mode::PointToPoint, frames, &device).await;
    assert!(matches!(end, End::Channel));
    assert_eq!(device.packets(), [good]);
    assert_eq!(counted.packets, 1);
    assert_eq!(
        counted.dropped.iter().map(|(_, count)| count).sum::<u64>(),
        6
    );
}

#[tokio::test]
async fn a_device_that_is_down_costs_packets_a_deleted_one_the_direction() {
    let frame = framed(&udp(IpVersion::V4, 1));
    let device = FakeDevice::refusing([Errno::EIO, Errno::EINVAL, Errno::ENOBUFS, Errno::EBADFD]);
    let (end, counted) = receive(Mode::PointToPoint, vec![frame; 6], &device).await;
    assert!(matches!(end, End::Device(_)));
    assert_eq!(
        counted.dropped,
        [("device down", 1), ("refused by the kernel", 2)]
    );
}

#[tokio::test]
async fn ethernet_frames_pass_as_they_are() {
    let frames: Vec<Vec<u8>> = (0..40).map(|size| vec![size as u8; size]).collect();
    let device = FakeDevice::yielding(frames.iter().cloned().map(Ok));
    let (sink, counters) = (sink(), Counters::default());
    send(Mode::Ethernet, &device, &sink, &counters).await;
    assert_eq!(counters.snapshot().dropped, [("too short", 14)]);
    let sent: Vec<Vec<u8>> = sink
        .sent
        .lock()
        .unwrap()
        .iter()
        .map(|f| f.to_vec())
        .collect();
    // Frames of different flows may overtake each other.
    assert_eq!(sorted(sent.clone()), sorted(frames[14..].to_vec()));
    let at_peer = Arc::new(FakeDevice::default());
    let (_, counted) = receive(Mode::Ethernet, sent.clone(), &at_peer).await;
    assert_eq!(counted.packets, 26);
    assert_eq!(at_peer.packets(), sent);
}

mod guarded;
mod idle;
mod streams;
