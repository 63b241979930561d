//! Measures the cost of queueing a packet and taking it out again.

#[path = "../crates/wire/benches/packets/mod.rs"]
mod packets;

use std::hint::black_box;
use std::time::Instant;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sshvpn::pump::{FairQueue, QueueSettings};
use sshvpn_wire::packet::flow::{FlowClassifier, FlowKey};

use packets::{Flow, MODE, interleaved, total};

/// The flow key of a packet.
fn classify(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("classify");
    group.throughput(Throughput::Elements(1));
    let flows = FlowClassifier::new();
    for flow in [Flow::TCP4, Flow::TCP6, Flow::UDP4] {
        let packet = &flow.packets(1)[0];
        group.bench_function(flow.name(), |bencher| {
            bencher.iter(|| flows.classify(MODE, black_box(packet)));
        });
    }
    group.finish();
}

/// Fills a queue with 44 packets and empties it, as one pass of the outbound direction does:
/// packets of the MTU, and super-packets.
fn push_and_pop(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fair_queue");
    let (_, merged) = Flow::TCP4.super_packet();
    let small = Flow::TCP4.packets_of_a_super_packet();
    let each = (total(&small) / small.len() as u64) as usize;
    for (name, length, count) in [("packets", each, 44), ("super_packets", merged.len(), 8)] {
        for flows in [1, 8] {
            let keys = keys(flows);
            let mut queue = FairQueue::new(QueueSettings::default());
            group.throughput(Throughput::Elements(count as u64));
            group.bench_function(format!("{name}/{flows}_flows"), |bencher| {
                bencher.iter(|| {
                    let now = Instant::now();
                    for key in keys.iter().cycle().take(count) {
                        queue.push(*key, length, black_box([0_u8; 32]), now);
                    }
                    let mut popped = 0;
                    while let Some(packet) = queue.pop(now) {
                        black_box(packet);
                        popped += 1;
                    }
                    assert_eq!(popped, count);
                });
            });
        }
    }
    group.finish();
}

fn keys(flows: u16) -> Vec<FlowKey> {
    let classifier = FlowClassifier::new();
    let packets = interleaved(Flow::TCP4, flows, 1);
    let keys = packets
        .iter()
        .map(|packet| classifier.classify(MODE, packet));
    keys.collect()
}

criterion_group!(benches, classify, push_and_pop);
criterion_main!(benches);
