//! Benchmarks of framing: adding headers in front of packets, and removing them.

mod packets;

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use sshvpn_wire::frame;
use sshvpn_wire::frame::stream::{self, StreamReader};
use sshvpn_wire::frame::waiting::Waiting;
use sshvpn_wire::packet::offload::virtio::VirtioHeader;

use packets::{Flow, MODE, interleaved, total};

/// Bytes of a stream in one message of a channel.
const CHUNK: usize = 32 * 1024;

/// Frames of a tun channel.
fn datagrams(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    group.throughput(Throughput::Elements(1));
    for flow in [Flow::TCP4, Flow::TCP6, Flow::UDP4] {
        let packet = &flow.packets(1)[0];
        group.bench_function(format!("encode/{}", flow.name()), |bencher| {
            bencher.iter_batched(
                || waiting(&VirtioHeader::PLAIN, packet),
                |waiting| frame::encode(MODE, waiting),
                BatchSize::SmallInput,
            );
        });
        let framed = frame::encode(MODE, waiting(&VirtioHeader::PLAIN, packet));
        let framed = framed.expect("a packet of the MTU");
        group.bench_function(format!("decode/{}", flow.name()), |bencher| {
            bencher.iter(|| frame::decode(MODE, black_box(&framed)).map(<[u8]>::len));
        });
    }
    group.finish();
}

/// Frames of the agent stream, in place.
fn stream_encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("stream_encode");
    group.throughput(Throughput::Elements(1));
    let (header, merged) = Flow::TCP4.super_packet();
    let plain = Flow::TCP4.packets(1);
    let cases = [
        ("packet", VirtioHeader::PLAIN, &plain[0][..]),
        ("super_packet", header, &merged[..]),
    ];
    for (name, header, packet) in cases {
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || waiting(&header, packet),
                |waiting| stream::encode(MODE, waiting),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// Splits a stream, in chunks that end anywhere, into frames.
fn stream_decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("stream_decode");
    let (header, merged) = Flow::TCP4.super_packet();
    let mut small = BytesMut::new();
    let plain = interleaved(Flow::TCP4, 8, 45);
    for packet in &plain {
        small.extend_from_slice(&framed(&VirtioHeader::PLAIN, packet));
    }
    let mut large = BytesMut::new();
    for _ in 0..8 {
        large.extend_from_slice(&framed(&header, &merged));
    }
    let cases = [
        ("packets", small.freeze(), plain.len(), total(&plain)),
        ("super_packets", large.freeze(), 8, 8 * merged.len() as u64),
    ];
    for (name, stream, frames, bytes) in cases {
        let chunks = chunks(stream);
        group.throughput(Throughput::Bytes(bytes));
        group.bench_function(name, |bencher| {
            bencher.iter(|| assert_eq!(read(&chunks), frames));
        });
    }
    group.finish();
}

/// The number of frames in a stream.
fn read(chunks: &[Bytes]) -> usize {
    let mut reader = StreamReader::new(MODE);
    let mut frames = 0;
    for chunk in chunks {
        reader.push(chunk.clone());
        while let Some(frame) = reader.next_frame().expect("a stream of frames") {
            black_box(&frame);
            frames += 1;
        }
    }
    frames
}

fn chunks(mut stream: Bytes) -> Vec<Bytes> {
    let mut chunks = Vec::new();
    while !stream.is_empty() {
        chunks.push(stream.split_to(stream.len().min(CHUNK)));
    }
    chunks
}

fn waiting(header: &VirtioHeader, packet: &[u8]) -> Waiting {
    Waiting::new(&header.to_bytes(), [packet])
}

fn framed(header: &VirtioHeader, packet: &[u8]) -> BytesMut {
    stream::encode(MODE, waiting(header, packet)).expect("a packet that fits a frame")
}

criterion_group!(benches, datagrams, stream_encode, stream_decode);
criterion_main!(benches);
