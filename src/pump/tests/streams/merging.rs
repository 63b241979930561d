//! Packets that are merged for a stream: what comes out of the other device is
//! what went into this one.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::packet::test_packets::{payload, templates};

/// Runs of packets, each of one flow, as a device yields them, and as they are
/// once their checksums are complete.
fn run_of(
    flow: &mut Template,
    count: usize,
    length: usize,
    open: bool,
) -> Vec<([u8; 10], Vec<u8>, Vec<u8>)> {
    let mut made = Vec::new();
    for _ in 0..count {
        let mut body = payload(length);
        // Numbered, so that no two packets of a flow are equal.
        if let Some(front) = body.first_chunk_mut() {
            *front = flow.sequence.to_be_bytes();
        }
        let whole = flow.packet(&body);
        let (header, packet) = match open {
            true => flow.partial(&body),
            false => (VirtioHeader::PLAIN, whole.clone()),
        };
        made.push((header.to_bytes(), packet, whole));
        flow.sequence = flow.sequence.wrapping_add(length as u32);
        flow.identification = flow.identification.wrapping_add(1);
    }
    made
}

fn in_memory<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.unwrap().block_on(future)
}

#[tokio::test]
async fn datagrams_that_wait_together_are_one_write_at_the_other_device() {
    for version in [IpVersion::V4, IpVersion::V6] {
        for open in [false, true] {
            let mut flow = Template::new(version, false);
            let made = run_of(&mut flow, 40, 200, open);
            let reads = made
                .iter()
                .map(|(header, packet, _)| (*header, packet.clone()));
            let device = FakeDevice::yielding_offload(reads.map(Ok));
            let (stream, sent) = send_stream_to(Offload::ALL, &device, Vec::new()).await;
            let at_peer = FakeDevice::default().with_offload(Offload::ALL);
            let (_, received, _) = receive_stream(stream, &at_peer).await;
            assert_eq!((sent.packets, received.packets), (40, 40));
            let writes = at_peer.writes.lock().unwrap();
            // The first read is sent before there is a second.
            assert!(writes.len() <= 2, "{} writes", writes.len());
        }
    }
}

#[tokio::test]
async fn acknowledgments_are_not_merged() {
    let mut flow = Template::new(IpVersion::V4, true);
    let mut reads = Vec::new();
    for _ in 0..40 {
        flow.acknowledgment += 1400;
        flow.identification += 1;
        reads.push(Ok(flow.packet(&[])));
    }
    let device = FakeDevice::yielding(reads.clone());
    let (stream, _) = send_stream_to(Offload::ALL, &device, Vec::new()).await;
    let at_peer = FakeDevice::default().with_offload(Offload::ALL);
    receive_stream(stream, &at_peer).await;
    let expected: Vec<Vec<u8>> = reads.into_iter().map(Result::unwrap).collect();
    assert_eq!(at_peer.packets(), expected);
}

#[tokio::test]
async fn a_peer_that_does_not_say_it_takes_them_gets_packets_one_by_one() {
    let no_udp = Offload {
        udp: false,
        ..Offload::ALL
    };
    for (peer, tcp) in [
        (Offload::NONE, true),
        (Offload::NONE, false),
        (no_udp, false),
    ] {
        let mut flow = Template::new(IpVersion::V6, tcp);
        let made = run_of(&mut flow, 40, 200, false);
        let reads = made
            .iter()
            .map(|(header, packet, _)| (*header, packet.clone()));
        let device = FakeDevice::yielding_offload(reads.map(Ok));
        let (stream, _) = send_stream_to(peer, &device, Vec::new()).await;
        let at_peer = FakeDevice::default().with_offload(Offload::ALL);
        receive_stream(stream, &at_peer).await;
        assert_eq!(at_peer.packets().len(), 40);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn what_comes_out_is_what_went_in(
        flows in prop::collection::vec(templates(true), 1..6),
        runs in prop::collection::vec((any::<prop::sample::Index>(), 1..30_usize, 0..1400_usize, any::<[bool; 2]>()), 1..20),
        udp: bool,
        whole: bool,
    ) {
        let mut flows: Vec<Template> = flows
            .into_iter()
            .enumerate()
            .map(|(index, flow)| Template { mode: Mode::PointToPoint, tags: 0, host: index as u8, ..flow })
            .collect();
        let (mut reads, mut sent, mut flow_of) = (Vec::new(), vec![Vec::new(); flows.len()], HashMap::new());
        for (index, count, length, [open, damaged]) in runs {
            let index = index.index(flows.len());
            let open = open && !flows[index].extended;
            for (header, mut packet, mut whole) in run_of(&mut flows[index], count, length, open) {
                if damaged && !open && length > 4 {
                    *packet.last_mut().unwrap() ^= 1;
                    whole.clone_from(&packet);
                }
                reads.push(Ok((header, packet)));
                sent[index].push(whole.clone());
                flow_of.insert(whole, index);
            }
        }
        let count = reads.len() as u64;
        let device = FakeDevice::yielding_offload(reads);
        let takes = if whole { Offload::NONE } else { Offload::ALL };
        let at_peer = FakeDevice::default().with_offload(takes);
        let (sending, receiving) = in_memory(async {
            let peer = Offload { tcp: true, udp };
            let (stream, sending) = send_stream_to(peer, &device, Vec::new()).await;
            let (_, receiving, _) = receive_stream(stream, &at_peer).await;
            (sending, receiving)
        });
        prop_assert_eq!((sending.packets, sending.dropped), (count, vec![]));
        prop_assert_eq!((receiving.packets, receiving.dropped), (count, vec![]));
        let mut got = vec![Vec::new(); flows.len()];
        for (header, packet) in at_peer.writes.lock().unwrap().iter() {
            let packets = match header.gso {
                Some(_) => test_packets::divide(Mode::PointToPoint, header, packet),
                None => {
                    let mut packet = packet.clone();
                    offload::finish_checksum(Mode::PointToPoint, header, &mut packet).unwrap();
                    vec![packet]
                }
            };
            for packet in packets {
                let flow = *flow_of.get(&packet).expect("a packet that was sent");
                got[flow].push(packet);
            }
        }
        prop_assert_eq!(got, sent);
    }
}
