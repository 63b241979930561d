//! Super-packets: through a stream, divided and merged for those who take none;
//! and what waits for the channel.

use super::*;

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
    let end = inbound(
        mode,
        Filtered::new(None, Deframer::Stream(reader), &counters),
        &mut source,
        device,
        &control,
        &counters,
    )
    .await;
    let mut messages = Vec::new();
    while let Ok(message) = said.try_recv() {
        messages.push(message);
    }
    (end, counters.snapshot(), messages)
}

async fn send_stream(device: &FakeDevice, extra: Vec<Bytes>) -> (Vec<Bytes>, Snapshot) {
    send_stream_to(Offload::NONE, device, extra).await
}

async fn send_stream_to(
    peer: Offload,
    device: &FakeDevice,
    extra: Vec<Bytes>,
) -> (Vec<Bytes>, Snapshot) {
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
    outbound(
        mode,
        Framer::new(mode, Framing::Stream(peer)),
        device,
        &sink,
        receiver,
        Pings::None,
        &counters,
    )
    .await;
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
    let at_peer = FakeDevice::default().with_offload(Offload::ALL);
    let (end, received, _) = receive_stream(stream, &at_peer).await;
    assert!(matches!(end, End::Channel));
    assert_eq!(sent, received);
    assert_eq!(sent.packets, whole_packets().len() as u64);
    let there: Vec<Vec<u8>> = kernel_packets().into_iter().map(|(_, p, _)| p).collect();
    assert_eq!(sorted(at_peer.packets()), sorted(there));
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
        let at_peer = FakeDevice::default().with_offload(takes);
        let (_, received, _) = receive_stream(stream.clone(), &at_peer).await;
        assert_eq!(received.packets, whole_packets().len() as u64);
        for (header, _) in at_peer.writes.lock().unwrap().iter() {
            assert!(takes.includes(header), "{header:?}");
        }
        if takes == Offload::NONE {
            assert_eq!(sorted(at_peer.packets()), sorted(whole_packets()));
        }
    }
}

#[tokio::test]
async fn packets_of_one_flow_are_merged_for_the_device() {
    let template = Template::new(IpVersion::V4, true);
    let payload = test_packets::payload(10_000);
    let frames = template.packets(&payload, 1400);
    let frames = frames.iter().map(|packet| framed(packet)).collect();
    let at_peer = FakeDevice::default().with_offload(Offload::ALL);
    let (_, counted) = receive(Mode::PointToPoint, frames, &at_peer).await;
    assert_eq!(at_peer.packets().len(), 1);
    assert_eq!(counted.packets, 8);
    let (header, packet) = at_peer.writes.lock().unwrap()[0].clone();
    let divided = test_packets::divide(Mode::PointToPoint, &header, &packet);
    assert_eq!(divided, template.packets(&payload, 1400));
}

#[tokio::test]
async fn control_messages_pass_between_packets() {
    let message = crate::frame::stream::encode_control(b"{}").unwrap();
    let (stream, _) = send_stream(&device_of_kernel_packets(), vec![message]).await;
    let at_peer = FakeDevice::default().with_offload(Offload::ALL);
    let (_, _, said) = receive_stream(stream, &at_peer).await;
    assert_eq!(said, [Bytes::from_static(b"{}")]);
}

#[tokio::test]
async fn offload_headers_of_a_hostile_remote_end_cost_their_packets() {
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
        let waiting = Waiting::new(&header, [&packet[..]]);
        stream.push(
            crate::frame::stream::encode(Mode::PointToPoint, waiting)
                .unwrap()
                .freeze(),
        );
    }
    let at_peer = FakeDevice::default().with_offload(Offload::ALL);
    let (end, counted, _) = receive_stream(stream, &at_peer).await;
    assert!(matches!(end, End::Channel));
    assert_eq!(counted.dropped, [("malformed", count)]);
    assert_eq!(at_peer.packets(), [packet]);
}

#[tokio::test]
async fn a_stream_that_makes_no_sense_ends() {
    let at_peer = FakeDevice::default();
    let stream = vec![Bytes::from_static(
        b"Connection closed.
",
    )];
    let (end, _, _) = receive_stream(stream, &at_peer).await;
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
        Framer::new(Mode::PointToPoint, Framing::Stream(Offload::NONE)),
        &device,
        &blocked,
        nothing,
        Pings::None,
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
        let at_peer = FakeDevice::default().with_offload(Offload::ALL);
        receive(Mode::PointToPoint, frames, &at_peer).await;
        let merged = at_peer.packets().len() == 1;
        assert_eq!(merged, !declined);
    }
}

mod bounding;
mod merging;
