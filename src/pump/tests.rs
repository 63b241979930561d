//! The pump between a device and a channel that are no more than queues.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use nix::errno::Errno;
use tokio::sync::mpsc;

use super::*;
use crate::config::types::Mode;
use crate::frame::MAX_FRAME;
use crate::frame::stream::StreamReader;
use crate::packet::test_packets::{self, Template};
use crate::packet::tests::udp;
use crate::packet::{IpVersion, offload};

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

    fn next(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        let packet = self
            .reads
            .lock()
            .unwrap()
            .pop_front()
            .unwrap_or(Err(Errno::EBADFD))?;
        buffer.extend_from_slice(&packet);
        Ok(packet.len())
    }
}

impl PacketSource for FakeDevice {
    async fn read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        self.next(buffer)
    }

    fn try_read(&self, buffer: &mut BytesMut) -> io::Result<Option<usize>> {
        if self.reads.lock().unwrap().is_empty() {
            Ok(None)
        } else {
            self.next(buffer).map(Some)
        }
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
    outbound(mode, Framing::Datagrams, device, sink, nothing, counters).await
}

async fn receive(mode: Mode, frames: Vec<Vec<u8>>, device: &FakeDevice) -> (End, Snapshot) {
    let (sender, receiver) = mpsc::channel(frames.len().max(1));
    for frame in frames {
        sender.send(frame.into()).await.unwrap();
    }
    drop(sender);
    let counters = Counters::default();
    let end = inbound_datagrams(mode, &mut FakeSource(receiver), device, &counters).await;
    (end, counters.snapshot())
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
    let far = FakeDevice::default();
    let (end, received) = receive(Mode::PointToPoint, frames, &far).await;
    assert!(matches!(end, End::Channel));
    assert_eq!(received, counters.snapshot());
    assert_eq!(far.packets(), packets);
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
async fn a_hostile_far_end_costs_counted_drops() {
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
    let far = Arc::new(FakeDevice::default());
    let (_, counted) = receive(Mode::Ethernet, sent.clone(), &far).await;
    assert_eq!(counted.packets, 26);
    assert_eq!(far.packets(), sent);
}

/// What a stream delivers to a device.
async fn receive_stream(stream: Vec<Bytes>, device: &FakeDevice) -> (End, Snapshot, Vec<Bytes>) {
    let (sender, receiver) = mpsc::channel(stream.len().max(1));
    for chunk in stream {
        sender.send(chunk).await.unwrap();
    }
    drop(sender);
    let (control, mut said) = mpsc::channel(16);
    let mode = Mode::PointToPoint;
    let (reader, counters) = (StreamReader::new(mode), Counters::default());
    let mut source = FakeSource(receiver);
    let end = inbound_stream(mode, reader, &mut source, device, &control, &counters).await;
    let mut messages = Vec::new();
    while let Ok(message) = said.try_recv() {
        messages.push(message);
    }
    (end, counters.snapshot(), messages)
}

async fn send_stream(device: &FakeDevice, extra: Vec<Bytes>) -> (Vec<Bytes>, Snapshot) {
    let (sender, receiver) = mpsc::channel(extra.len().max(1));
    for frame in extra {
        sender.send(frame).await.unwrap();
    }
    let (sink, counters) = (
        FakeSink {
            largest: usize::MAX,
            ..sink()
        },
        Counters::default(),
    );
    let mode = Mode::PointToPoint;
    outbound(mode, Framing::Stream, device, &sink, receiver, &counters).await;
    (sink.sent.into_inner().unwrap(), counters.snapshot())
}

/// An offload header, a packet, and the ordinary packets that it stands for.
type KernelPacket = ([u8; 10], Vec<u8>, Vec<Vec<u8>>);

/// Super-packets of both protocols, open checksums and ordinary packets, each as
/// the kernel hands it out; and the ordinary packets that they stand for.
fn kernel_packets() -> Vec<KernelPacket> {
    let mut packets = Vec::new();
    for template in Template::all() {
        if template.mode != Mode::PointToPoint {
            continue;
        }
        let payload = test_packets::payload(10_000);
        for (header, packet) in [
            template.super_packet(&payload, 1400),
            template.partial(&payload[..500]),
            (VirtioHeader::PLAIN, template.packet(&payload[..300])),
        ] {
            let whole = match header.gso {
                Some(_) => test_packets::divide(template.mode, &header, &packet),
                None => {
                    let mut packet = packet.clone();
                    offload::finish_checksum(template.mode, &header, &mut packet).unwrap();
                    vec![packet]
                }
            };
            packets.push((header.to_bytes(), packet, whole));
        }
    }
    assert!(packets.len() >= 12);
    packets
}

fn device_of_kernel_packets() -> FakeDevice {
    let packets = kernel_packets();
    FakeDevice::yielding_offload(
        packets
            .into_iter()
            .map(|(header, packet, _)| Ok((header, packet))),
    )
}

fn whole_packets() -> Vec<Vec<u8>> {
    let packets = kernel_packets();
    packets
        .into_iter()
        .flat_map(|(_, _, whole)| whole)
        .collect()
}

fn sorted(mut packets: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    packets.sort();
    packets
}

#[tokio::test]
async fn a_peer_of_single_packets_gets_super_packets_divided() {
    let device = device_of_kernel_packets();
    let (sink, counters) = (sink(), Counters::default());
    send(Mode::PointToPoint, &device, &sink, &counters).await;
    let expected: Vec<Vec<u8>> = whole_packets().iter().map(|p| framed(p)).collect();
    let sent = sink.sent.lock().unwrap();
    let sent: Vec<Vec<u8>> = sent.iter().map(|frame| frame.to_vec()).collect();
    // Flows may overtake each other.
    assert_eq!(sorted(sent), sorted(expected.clone()));
    assert_eq!(counters.snapshot().packets, expected.len() as u64);
}

#[tokio::test]
async fn super_packets_pass_a_stream_as_they_are() {
    let (stream, sent) = send_stream(&device_of_kernel_packets(), Vec::new()).await;
    let far = FakeDevice::default().with_offload(Offload::ALL);
    let (end, received, _) = receive_stream(stream, &far).await;
    assert!(matches!(end, End::Channel));
    assert_eq!(sent, received);
    assert_eq!(sent.packets, whole_packets().len() as u64);
    let there: Vec<Vec<u8>> = kernel_packets().into_iter().map(|(_, p, _)| p).collect();
    assert_eq!(sorted(far.packets()), sorted(there));
}

#[tokio::test]
async fn a_device_without_offload_gets_them_whole() {
    let (stream, _) = send_stream(&device_of_kernel_packets(), Vec::new()).await;
    for takes in [
        Offload::NONE,
        Offload {
            tcp: true,
            udp: false,
        },
    ] {
        let far = FakeDevice::default().with_offload(takes);
        let (_, received, _) = receive_stream(stream.clone(), &far).await;
        assert_eq!(received.packets, whole_packets().len() as u64);
        for (header, _) in far.writes.lock().unwrap().iter() {
            assert!(takes.includes(header), "{header:?}");
        }
        if takes == Offload::NONE {
            assert_eq!(sorted(far.packets()), sorted(whole_packets()));
        }
    }
}

#[tokio::test]
async fn packets_of_one_flow_are_merged_for_the_device() {
    let template = Template::new(IpVersion::V4, true);
    let payload = test_packets::payload(10_000);
    let frames = template.packets(&payload, 1400);
    let frames = frames.iter().map(|packet| framed(packet)).collect();
    let far = FakeDevice::default().with_offload(Offload::ALL);
    let (_, counted) = receive(Mode::PointToPoint, frames, &far).await;
    assert_eq!(far.packets().len(), 1);
    assert_eq!(counted.packets, 8);
    let (header, packet) = far.writes.lock().unwrap()[0].clone();
    let divided = test_packets::divide(Mode::PointToPoint, &header, &packet);
    assert_eq!(divided, template.packets(&payload, 1400));
}

#[tokio::test]
async fn control_messages_pass_between_packets() {
    let message = crate::frame::stream::encode_control(b"{}").unwrap();
    let (stream, _) = send_stream(&device_of_kernel_packets(), vec![message]).await;
    let far = FakeDevice::default().with_offload(Offload::ALL);
    let (_, _, said) = receive_stream(stream, &far).await;
    assert_eq!(said, [Bytes::from_static(b"{}")]);
}

#[tokio::test]
async fn offload_headers_of_a_hostile_far_end_cost_their_packets() {
    let template = Template::new(IpVersion::V4, true);
    let (good, packet) = template.super_packet(&test_packets::payload(3000), 1000);
    let good = good.to_bytes();
    let mut lies = Vec::new();
    // Flags, kind, segment size 0 and beyond, the checksum's place.
    for (place, value) in [(0, 0x80), (1, 3), (1, 5), (4, 0), (5, 0xff), (6, 9), (8, 1)] {
        let mut lie = good;
        lie[place] = value;
        if place == 4 {
            lie[5] = 0;
        }
        lies.push(lie);
    }
    let count = lies.len() as u64;
    let mut reads: Vec<_> = lies.into_iter().map(|lie| (lie, packet.clone())).collect();
    reads.push((good, packet.clone()));
    let mut stream = Vec::new();
    for (header, packet) in reads {
        let mut buffer = [&[0; 8], &header[..], &packet].concat();
        let start = crate::frame::stream::encode(Mode::PointToPoint, &mut buffer).unwrap();
        stream.push(Bytes::from(buffer.split_off(start)));
    }
    let far = FakeDevice::default().with_offload(Offload::ALL);
    let (end, counted, _) = receive_stream(stream, &far).await;
    assert!(matches!(end, End::Channel));
    assert_eq!(counted.dropped, [("malformed", count)]);
    assert_eq!(far.packets(), [packet]);
}

#[tokio::test]
async fn a_stream_that_makes_no_sense_ends() {
    let far = FakeDevice::default();
    let stream = vec![Bytes::from_static(
        b"Connection closed.
",
    )];
    let (end, _, _) = receive_stream(stream, &far).await;
    assert!(matches!(end, End::Stream(_)));
}

/// A channel that takes nothing until it is told to.
struct Blocked {
    open: tokio::sync::Semaphore,
    sent: Mutex<Vec<Bytes>>,
}

impl FrameSink for Blocked {
    async fn send_all(&self, frames: &mut Vec<Bytes>) -> Result<(), SendFailure> {
        let permit = self.open.acquire().await;
        permit.map_err(|_| SendFailure::Closed)?.forget();
        self.sent.lock().unwrap().append(frames);
        Ok(())
    }
}

#[tokio::test]
async fn what_waits_for_the_channel_is_bounded_and_a_small_flow_goes_first() {
    let bulk = Template::new(IpVersion::V4, true);
    let (header, packet) = bulk.super_packet(&test_packets::payload(60_000), 1400);
    let small = udp(IpVersion::V6, 100);
    let mut reads = vec![Ok((header.to_bytes(), packet)); 400];
    reads.push(Ok((VirtioHeader::PLAIN.to_bytes(), small.clone())));
    let device = FakeDevice::yielding_offload(reads);
    let blocked = Blocked {
        open: tokio::sync::Semaphore::new(0),
        sent: Mutex::default(),
    };
    let counters = Counters::default();
    let (_, nothing) = mpsc::channel(1);
    let opened = async {
        // All of the device's packets have been read by then.
        while !device.reads.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        blocked.open.add_permits(1000);
    };
    let pumped = outbound(
        Mode::PointToPoint,
        Framing::Stream,
        &device,
        &blocked,
        nothing,
        &counters,
    );
    tokio::join!(pumped, opened);
    let dropped: u64 = counters.snapshot().dropped.iter().map(|(_, n)| n).sum();
    assert!(dropped > 300, "{dropped} super-packets were dropped");
    let sent = blocked.sent.lock().unwrap();
    let place = sent.iter().position(|frame| frame.ends_with(&small));
    // Behind the batch that was on its way already.
    assert!(place.is_some_and(|place| place <= 2), "{place:?}");
}

#[tokio::test]
async fn large_packets_are_neither_divided_nor_merged_for_long() {
    let template = Template::new(IpVersion::V4, true);
    let payload = test_packets::payload(60_000);
    for (size, declined) in [(1400, false), (8000, true)] {
        let (header, packet) = template.super_packet(&payload, size);
        let device = FakeDevice::yielding_offload([Ok((header.to_bytes(), packet))]);
        let (sink, counters) = (sink(), Counters::default());
        send(Mode::PointToPoint, &device, &sink, &counters).await;
        assert_eq!(device.declined.load(Ordering::Relaxed), declined);
        let frames = template.packets(&payload, size.into());
        let frames = frames.iter().map(|packet| framed(packet)).collect();
        let far = FakeDevice::default().with_offload(Offload::ALL);
        receive(Mode::PointToPoint, frames, &far).await;
        let merged = far.packets().len() == 1;
        assert_eq!(merged, !declined);
    }
}
