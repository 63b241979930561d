//! The queue counts the memory that its packets keep.

use super::*;
use crate::packet::offload::virtio::VirtioHeader;

/// Reads packets of these lengths, one of each in turn, until the queue has dropped some.
fn fill(intake: &mut Intake<'_>, lengths: &[usize]) {
    for round in 0_u16..5000 {
        for &length in lengths {
            // Each has its own flow, so that the queue drops from all flows.
            let mut packet = vec![0x45; length];
            packet[12..14].copy_from_slice(&round.to_be_bytes());
            let read = [&VirtioHeader::PLAIN.to_bytes()[..], &packet].concat();
            intake.buffer.space().extend_from_slice(&read);
            intake.take(Ok(()), Instant::now());
        }
    }
}

#[test]
fn a_queue_counts_the_memory_that_its_packets_keep() {
    for lengths in [
        &[4097][..],
        &[60],
        &[1500],
        &[9000],
        &[33_000],
        &[MAX_PACKET],
        &[60, 4097, 1500, 40_000, 9000],
    ] {
        let counters = Counters::default();
        let mut intake = Intake::new(Mode::PointToPoint, &counters);
        fill(&mut intake, lengths);
        let counted = intake.queue.memory();
        intake.buffer = Waiting::default();
        let now = Instant::now();
        let waiting: Vec<_> = std::iter::from_fn(|| intake.queue.pop(now)).collect();
        // A buffer with one owner turns into a vector with the whole allocation.
        let retained = waiting
            .into_iter()
            .map(|packet| Vec::from(packet.into_packet()).capacity())
            .sum::<usize>();
        assert!(
            retained <= counted && counted <= QueueSettings::default().max_memory,
            "{lengths:?}: {counted} bytes counted, {retained} retained"
        );
    }
}
