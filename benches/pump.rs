//! Benchmarks of the whole pump between a device and a channel in memory: all work
//! between the device's system call and the SSH library.

mod ends;
#[path = "../crates/wire/benches/packets/mod.rs"]
mod packets;

use std::future::Future;

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ipnetwork::IpNetwork;
use sshvpn::pump::{
    Counters, Deframer, Filtered, Framer, Framing, Guard, Pings, inbound, outbound,
};
use sshvpn_wire::frame;
use sshvpn_wire::frame::stream::{self, StreamReader};
use sshvpn_wire::frame::waiting::Waiting;
use sshvpn_wire::packet::guard::{ClientTerms, GuardRules};
use sshvpn_wire::packet::offload::virtio::{Offload, VIRTIO_HEADER_LEN, VirtioHeader};
use sshvpn_wire::types::address_set::AddressSet;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

use ends::{Reading, Receiving, Sending, Writing};
use packets::{Flow, MODE, interleaved, total};

/// Bytes of one run, about; so many that the start does not matter.
const RUN: usize = 16 << 20;
/// Bytes of a stream in one message of a channel.
const CHUNK: usize = 32 * 1024;
/// Datagrams that are received at once.
const BURST: usize = 128;

/// From a device with packets to each kind of channel.
fn outward(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("outbound");
    let plain = interleaved(Flow::TCP4, 8, 44);
    let plain: Vec<Vec<u8>> = plain
        .iter()
        .map(|packet| from_device(VirtioHeader::PLAIN, packet))
        .collect();
    let mut cases = vec![("packets".to_owned(), plain)];
    for size in [4200, 9000, 16000] {
        let large = from_device(VirtioHeader::PLAIN, &vec![0x45; size]);
        cases.push((format!("packets_of_{size}"), vec![large]));
    }
    for flow in [Flow::TCP4, Flow::TCP6, Flow::UDP4] {
        cases.push((super_packets(flow), vec![from_super_packet(flow)]));
    }
    for (name, packets) in &cases {
        let length = packets[0].len() - VIRTIO_HEADER_LEN;
        let count = RUN / length;
        for (framing, kind) in [
            (Framing::Datagrams, "datagrams"),
            (Framing::Stream(Offload::NONE), "stream"),
            (Framing::Stream(Offload::ALL), "merged_stream"),
        ] {
            group.throughput(Throughput::Bytes((length * count) as u64));
            group.bench_function(format!("{kind}/{name}"), |bencher| {
                bencher.iter(|| {
                    let (device, counters) = (Reading::new(packets, count), Counters::default());
                    let (_, extra) = mpsc::channel(1);
                    let sending = outbound(
                        MODE,
                        Framer::new(MODE, framing),
                        &device,
                        &Sending,
                        extra,
                        Pings::None,
                        &counters,
                    );
                    all_pass(&runtime, sending, &counters);
                });
            });
        }
    }
    group.finish();
}

/// From a tun channel to devices with and without offload.
fn inward_by_datagrams(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("inbound/datagrams");
    let cases = [
        ("tcp4/1_flow", Flow::TCP4.packets(BURST)),
        ("tcp6/1_flow", Flow::TCP6.packets(BURST)),
        ("udp4/1_flow", Flow::UDP4.packets(BURST)),
        ("tcp4/8_flows", interleaved(Flow::TCP4, 8, BURST / 8)),
    ];
    for (name, packets) in &cases {
        let frames: Vec<Bytes> = packets.iter().map(|packet| datagram(packet)).collect();
        let times = RUN / total(packets) as usize;
        group.throughput(Throughput::Bytes(total(packets) * times as u64));
        for (takes, guarded, kind) in DEVICES {
            group.bench_function(format!("{name}/{kind}"), |bencher| {
                bencher.iter(|| {
                    let (device, counters) = (Writing { takes }, Counters::default());
                    let mut channel = Receiving::new(&frames, times);
                    let framing = Framing::Datagrams;
                    let (nowhere, _) = mpsc::channel(1);
                    let receiving = inbound(
                        MODE,
                        Filtered::new(guard(guarded), Deframer::new(MODE, framing), &counters),
                        &mut channel,
                        &device,
                        &nowhere,
                        &counters,
                    );
                    all_pass(&runtime, receiving, &counters);
                });
            });
        }
    }
    group.finish();
}

/// From an agent stream to devices with and without offload.
fn inward_by_stream(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("inbound/stream");
    let plain = interleaved(Flow::TCP4, 8, 44);
    let plain = plain.iter().map(|p| from_device(VirtioHeader::PLAIN, p));
    let mut cases = vec![("packets".to_owned(), plain.collect())];
    for flow in [Flow::TCP4, Flow::UDP4] {
        cases.push((super_packets(flow), vec![from_super_packet(flow); 8]));
    }
    for (name, packets) in &cases {
        let packets: &Vec<Vec<u8>> = packets;
        let bytes: usize = packets.iter().map(|p| p.len() - VIRTIO_HEADER_LEN).sum();
        let (chunks, times) = (in_chunks(packets), RUN / bytes);
        group.throughput(Throughput::Bytes((bytes * times) as u64));
        for (takes, guarded, kind) in DEVICES {
            group.bench_function(format!("{name}/{kind}"), |bencher| {
                bencher.iter(|| {
                    let (device, counters) = (Writing { takes }, Counters::default());
                    let mut channel = Receiving::new(&chunks, times);
                    let (control, _said) = mpsc::channel(1);
                    let reader = StreamReader::new(MODE);
                    let (channel, control) = (&mut channel, &control);
                    let receiving = inbound(
                        MODE,
                        Filtered::new(guard(guarded), Deframer::Stream(reader), &counters),
                        channel,
                        &device,
                        control,
                        &counters,
                    );
                    all_pass(&runtime, receiving, &counters);
                });
            });
        }
    }
    group.finish();
}

/// The offload packets that a device takes, and whether a client's guard checks packets.
const DEVICES: [(Offload, bool, &str); 3] = [
    (Offload::ALL, false, "offload"),
    (Offload::NONE, false, "no_offload"),
    (Offload::ALL, true, "guarded"),
];

/// The guard of a client with 16 routes, one of which contains the packets' source.
fn guard(guarded: bool) -> Option<Guard> {
    let networks = |texts: &[&str]| -> AddressSet {
        let parsed = texts.iter().map(|text| text.parse::<IpNetwork>());
        parsed.map(|network| network.expect("a network")).collect()
    };
    let routes: AddressSet = (0..16)
        .filter_map(|index| IpNetwork::new([172, 16 + index, 0, 0].into(), 17).ok())
        .collect();
    guarded.then(|| {
        Guard::fixed(GuardRules::of_client(&ClientTerms {
            own: networks(&["10.0.0.2", "fefe:fefe:fefe:fefe:fefe:fefe:fefe:fefe"]),
            routed: routes.union(&networks(&[
                "10.0.0.1",
                "fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd",
            ])),
            ..ClientTerms::default()
        }))
    })
}

fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime without I/O")
}

/// Runs a direction to its end; fails if it drops packets, which would not be measured.
#[inline(never)]
fn all_pass<E>(runtime: &Runtime, direction: impl Future<Output = E>, counters: &Counters) {
    runtime.block_on(direction);
    let counted = counters.snapshot();
    assert!(
        counted.packets > 0 && counted.dropped.is_empty(),
        "{counted}"
    );
}

/// The name of super-packets in the results.
fn super_packets(flow: Flow) -> String {
    format!("{}_super_packets", flow.name())
}

/// A packet in the form that a device yields.
fn from_device(header: VirtioHeader, packet: &[u8]) -> Vec<u8> {
    [&header.to_bytes(), packet].concat()
}

fn from_super_packet(flow: Flow) -> Vec<u8> {
    let (header, packet) = flow.super_packet();
    from_device(header, &packet)
}

/// A packet in the form that a tun channel yields.
fn datagram(packet: &[u8]) -> Bytes {
    let waiting = Waiting::new(&VirtioHeader::PLAIN.to_bytes(), [packet]);
    let frame = frame::encode(MODE, waiting);
    frame.expect("a packet of the MTU").freeze()
}

/// Packets in an agent stream, cut anywhere.
fn in_chunks(packets: &[Vec<u8>]) -> Vec<Bytes> {
    let mut stream = BytesMut::new();
    for packet in packets {
        let mut waiting = Waiting::default();
        waiting.space().extend_from_slice(packet);
        let frame = stream::encode(MODE, waiting).expect("a packet that fits a frame");
        stream.extend_from_slice(&frame);
    }
    let mut stream = stream.freeze();
    let mut chunks = Vec::new();
    while !stream.is_empty() {
        chunks.push(stream.split_to(stream.len().min(CHUNK)));
    }
    chunks
}

criterion_group!(benches, outward, inward_by_datagrams, inward_by_stream);
criterion_main!(benches);
