//! Benchmarks of the kernel's work that sshvpn does: dividing super-packets, and merging
//! packets into super-packets.

mod packets;

use std::convert::Infallible;
use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use sshvpn_wire::packet::offload::coalesce::{Coalescer, Limits};
use sshvpn_wire::packet::offload::segment::Segments;

use packets::{Flow, MODE, interleaved, total};

/// Divides a super-packet of 64 KiB into packets of MTU 1500.
fn segment(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("segment");
    for flow in [Flow::TCP4, Flow::TCP6, Flow::UDP4] {
        let (header, merged) = flow.super_packet();
        let expected = flow.packets_of_a_super_packet().len();
        group.throughput(Throughput::Bytes(merged.len() as u64));
        group.bench_function(flow.name(), |bencher| {
            bencher.iter(|| {
                let segments =
                    Segments::new(MODE, &header, black_box(&merged)).expect("a super-packet");
                let Ok(made) = segments.divide(0, |segment| -> Result<(), Infallible> {
                    black_box(segment);
                    Ok(())
                });
                assert_eq!(made, expected);
            });
        });
    }
    group.finish();
}

/// Merges packets of one flow, and of eight flows that send in turn.
fn coalesce(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("coalesce");
    let cases = [
        ("tcp4/1_flow", Flow::TCP4.packets(44), 1),
        ("tcp6/1_flow", Flow::TCP6.packets(44), 1),
        ("udp4/1_flow", Flow::UDP4.packets(44), 1),
        ("tcp4/8_flows", interleaved(Flow::TCP4, 8, 44), 8),
    ];
    for (name, packets, units) in cases {
        let limits = Limits {
            unit_bytes: usize::from(u16::MAX),
            udp: true,
        };
        let mut coalescer = Coalescer::new(MODE, limits);
        group.throughput(Throughput::Bytes(total(&packets)));
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || packets.clone(),
                |packets| assert_eq!(merge(&mut coalescer, packets), units),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// The number of units that the packets merge into.
fn merge(coalescer: &mut Coalescer, packets: Vec<Bytes>) -> usize {
    for packet in packets {
        coalescer.push(packet).expect("fewer than a batch");
    }
    let mut units = 0;
    for unit in coalescer.flush() {
        black_box(&unit);
        units += 1;
    }
    units
}

criterion_group!(benches, segment, coalesce);
criterion_main!(benches);
