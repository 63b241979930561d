//! Packets under a guard, and super-packets between two of us by datagrams.

use std::collections::HashSet;
use std::net::Ipv6Addr;
use std::time::Duration;

use ipnetwork::IpNetwork;
use tokio::sync::watch;

use super::*;
use crate::frame;
use crate::packet::guard::link::{LinkAddress, LinkAddresses, MacAddress};
use crate::packet::guard::{GuardRules, Reach};
use crate::types::address_set::AddressSet;

const MODE: Mode = Mode::PointToPoint;

/// Rules for a sender at `source`, who may reach everything.
fn rules(source: &[&str]) -> Arc<GuardRules> {
    let everything: [IpNetwork; 2] = ["0.0.0.0/0", "::/0"].map(|text| text.parse().unwrap());
    let reach = Reach {
        here: &AddressSet::EMPTY,
        networks: &everything,
        clients: &AddressSet::EMPTY,
        peers: &AddressSet::EMPTY,
    };
    let sources = source.iter().map(|text| text.parse::<IpNetwork>().unwrap());
    Arc::new(GuardRules::new(sources.collect(), &reach, true))
}

/// The ones that [`Template`]s send from.
fn of_templates() -> Arc<GuardRules> {
    rules(&["10.0.0.1/32", "fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fd01/128"])
}

async fn receive_guarded(
    mode: Mode,
    framing: Framing,
    messages: Vec<Bytes>,
    device: &FakeDevice,
    guard: Option<Guard>,
) -> Snapshot {
    let (sender, receiver) = mpsc::channel(messages.len().max(1));
    for message in messages {
        sender.send(message).await.unwrap();
    }
    drop(sender);
    let (mut source, counters) = (FakeSource(receiver), Counters::default());
    let end = inbound(
        mode,
        Filtered::new(guard, Deframer::new(mode, framing), &counters),
        &mut source,
        device,
        &mpsc::channel(1).0,
        &counters,
    )
    .await;
    assert!(matches!(end, End::Channel));
    counters.snapshot()
}

/// What one of us sends of these to another.
async fn send_with_offload(
    mode: Mode,
    packets: &[(VirtioHeader, Vec<u8>)],
) -> (Vec<Bytes>, Snapshot) {
    let reads = packets
        .iter()
        .map(|(header, packet)| Ok((header.to_bytes(), packet.clone())));
    let (device, counters) = (FakeDevice::yielding_offload(reads), Counters::default());
    let sink = FakeSink {
        largest: frame::offload::MAX_MESSAGE,
        ..sink()
    };
    let (_, nothing) = mpsc::channel(1);
    let framing = Framing::DatagramsWithOffload;
    outbound(
        mode,
        Framer::new(mode, framing),
        &device,
        &sink,
        nothing,
        Pings::None,
        &counters,
    )
    .await;
    (sink.sent.into_inner().unwrap(), counters.snapshot())
}

fn kernel_packets(mode: Mode) -> Vec<(VirtioHeader, Vec<u8>)> {
    let payload = test_packets::payload(20_000);
    let templates = Template::all().map(|template| Template { mode, ..template });
    let of = |template: &Template| {
        [
            template.super_packet(&payload, 1400),
            template.partial(&payload[..700]),
            (VirtioHeader::PLAIN, template.packet(&payload[..300])),
        ]
    };
    templates.iter().flat_map(of).collect()
}

fn written(device: &FakeDevice) -> Vec<(VirtioHeader, Vec<u8>)> {
    device.writes.lock().unwrap().clone()
}

#[tokio::test]
async fn super_packets_pass_by_datagrams_as_they_are() {
    for mode in [Mode::PointToPoint, Mode::Ethernet] {
        let packets = kernel_packets(mode);
        let (messages, sent) = send_with_offload(mode, &packets).await;
        assert_eq!(messages.len(), packets.len());
        let at_peer = FakeDevice::default().with_offload(Offload::ALL);
        let framing = Framing::DatagramsWithOffload;
        let received = receive_guarded(mode, framing, messages, &at_peer, None).await;
        assert_eq!(received, sent);
        assert_eq!(received.packets, 4 * (15 + 1 + 1));
        let there = written(&at_peer);
        assert_eq!(there.len(), packets.len());
        for packet in packets {
            assert!(there.contains(&packet), "{:?}", packet.0);
        }
    }
}

#[tokio::test]
async fn a_super_packet_that_fits_no_message_is_divided() {
    for mode in [Mode::PointToPoint, Mode::Ethernet] {
        let template = Template {
            mode,
            ..Template::new(IpVersion::V6, true)
        };
        let most = frame::offload::MAX_MESSAGE - 4 - 10;
        for (length, messages) in [(most, 1), (most + 1, 47)] {
            let payload = test_packets::payload(length - template.head_len());
            let packets = [template.super_packet(&payload, 1400)];
            let (sent, counted) = send_with_offload(mode, &packets).await;
            assert_eq!((sent.len(), counted.packets), (messages, 47));
            let at_peer = FakeDevice::default();
            let framing = Framing::DatagramsWithOffload;
            let received = receive_guarded(mode, framing, sent, &at_peer, None).await;
            assert_eq!(received.packets, 47);
            assert_eq!(at_peer.packets(), template.packets(&payload, 1400));
        }
    }
}

#[tokio::test]
async fn offload_headers_are_taken_from_those_alone_who_agreed() {
    let packets = kernel_packets(MODE);
    let (messages, _) = send_with_offload(MODE, &packets).await;
    let at_peer = FakeDevice::default().with_offload(Offload::ALL);
    let counted = receive_guarded(MODE, Framing::Datagrams, messages, &at_peer, None).await;
    // The four without an offload header are as anybody sends them.
    assert_eq!(counted.packets, 4);
    assert_eq!(counted.dropped, [("wrong family", 8)]);
    // In ethernet mode there is no family without agreement.
    let bare = packets_of(&kernel_packets(Mode::Ethernet));
    let framing = Framing::DatagramsWithOffload;
    let counted = receive_guarded(Mode::Ethernet, framing, bare, &at_peer, None).await;
    assert_eq!(
        (counted.packets, counted.dropped),
        (0, vec![("wrong family", 12)])
    );
}

fn packets_of(packets: &[(VirtioHeader, Vec<u8>)]) -> Vec<Bytes> {
    packets
        .iter()
        .map(|(_, packet)| packet.clone().into())
        .collect()
}

#[tokio::test]
async fn lying_offload_headers_cost_their_packets() {
    let template = Template::new(IpVersion::V4, true);
    let (header, packet) = template.super_packet(&test_packets::payload(5000), 1000);
    let (messages, _) = send_with_offload(MODE, &[(header, packet)]).await;
    let whole = messages[0].to_vec();
    let at_peer = FakeDevice::default().with_offload(Offload::ALL);
    let mut lies = vec![
        whole[..4].to_vec(),
        whole[..13].to_vec(),
        whole[..900].to_vec(),
    ];
    // Flags, kind, segment size, where the checksum is, the family.
    for (place, value) in [(4, 0x80), (5, 4), (8, 0), (10, 9), (3, 24)] {
        let mut lie = whole.clone();
        lie[place] = value;
        if place == 8 {
            lie[9] = 0;
        }
        lies.push(lie);
    }
    let count = lies.len() as u64;
    lies.push(whole.clone());
    let framing = Framing::DatagramsWithOffload;
    let lies = lies.into_iter().map(Bytes::from).collect();
    let counted = receive_guarded(MODE, framing, lies, &at_peer, None).await;
    assert_eq!(counted.packets, 5);
    assert_eq!(counted.dropped.iter().map(|(_, n)| n).sum::<u64>(), count);
    assert_eq!(at_peer.packets().len(), 1);
}

#[tokio::test]
async fn each_packet_is_judged_however_it_travels() {
    let foreign = |packets: &mut Vec<(VirtioHeader, Vec<u8>)>| {
        let template = Template {
            host: 9,
            ..Template::new(IpVersion::V4, true)
        };
        packets.push(template.super_packet(&test_packets::payload(20_000), 1400));
        packets.push((VirtioHeader::PLAIN, template.packet(&[0; 9])));
    };
    let mut packets = kernel_packets(MODE);
    let own = packets.len();
    foreign(&mut packets);
    let (_held, replaced) = watch::channel(of_templates());
    let guard = || Some(Guard::new(replaced.clone()));
    let dropped = [("source not allowed", 15 + 1)];

    let (messages, _) = send_with_offload(MODE, &packets).await;
    let at_peer = FakeDevice::default().with_offload(Offload::ALL);
    let framing = Framing::DatagramsWithOffload;
    let counted = receive_guarded(MODE, framing, messages, &at_peer, guard()).await;
    assert_eq!(counted.packets, 4 * 17);
    assert_eq!(counted.dropped, dropped);
    assert_eq!(written(&at_peer).len(), own);

    // As ordinary packets, which are merged after they were judged.
    let reads = packets
        .iter()
        .map(|(header, packet)| Ok((header.to_bytes(), packet.clone())));
    let (device, sink, counters) = (
        FakeDevice::yielding_offload(reads),
        sink(),
        Counters::default(),
    );
    send(MODE, &device, &sink, &counters).await;
    let messages = sink.sent.into_inner().unwrap();
    let at_peer = FakeDevice::default().with_offload(Offload::ALL);
    let counted = receive_guarded(MODE, Framing::Datagrams, messages, &at_peer, guard()).await;
    assert_eq!(counted.packets, 4 * 17);
    assert_eq!(counted.dropped, dropped);
    assert!(
        written(&at_peer).len() < 4 * 17,
        "{}",
        written(&at_peer).len()
    );

    // By the agent stream.
    let reads = packets
        .iter()
        .map(|(header, packet)| Ok((header.to_bytes(), packet.clone())));
    let (device, counters) = (FakeDevice::yielding_offload(reads), Counters::default());
    let (_, nothing) = mpsc::channel(1);
    let sink = FakeSink {
        largest: usize::MAX,
        ..self::sink()
    };
    outbound(
        MODE,
        Framer::new(MODE, Framing::Stream(Offload::NONE)),
        &device,
        &sink,
        nothing,
        Pings::None,
        &counters,
    )
    .await;
    let chunks = sink.sent.into_inner().unwrap();
    let (sender, receiver) = mpsc::channel(chunks.len());
    for chunk in chunks {
        sender.send(chunk).await.unwrap();
    }
    drop(sender);
    let at_peer = FakeDevice::default().with_offload(Offload::ALL);
    let (control, _said) = mpsc::channel(1);
    let (reader, counters) = (StreamReader::new(MODE), Counters::default());
    let mut source = FakeSource(receiver);
    inbound(
        MODE,
        Filtered::new(guard(), Deframer::Stream(reader), &counters),
        &mut source,
        &at_peer,
        &control,
        &counters,
    )
    .await;
    assert_eq!(counters.snapshot().packets, 4 * 17);
    assert_eq!(counters.snapshot().dropped, dropped);
    assert_eq!(written(&at_peer).len(), own);
}

#[tokio::test]
async fn rules_are_replaced_while_packets_flow() {
    let (rules_of_sender, replaced) = watch::channel(of_templates());
    let (sender, receiver) = mpsc::channel(1);
    let (at_peer, counters) = (FakeDevice::default(), Counters::default());
    let mut source = FakeSource(receiver);
    let guard = Some(Guard::new(replaced));
    let packet = Template::new(IpVersion::V4, false).packet(&[1; 40]);
    let (nowhere, _) = mpsc::channel(1);
    let received = inbound(
        MODE,
        Filtered::new(guard, Deframer::new(MODE, Framing::Datagrams), &counters),
        &mut source,
        &at_peer,
        &nowhere,
        &counters,
    );
    let script = async {
        for (rules, packets, dropped) in [
            (None, 1, 0),
            (Some(rules(&["10.0.0.9/32"])), 1, 1),
            (Some(rules(&["10.0.0.0/24"])), 2, 1),
        ] {
            if let Some(rules) = rules {
                rules_of_sender.send(rules).unwrap();
            }
            sender.send(framed(&packet).into()).await.unwrap();
            loop {
                let now = counters.snapshot();
                let lost: u64 = now.dropped.iter().map(|(_, count)| count).sum();
                if (now.packets, lost) == (packets, dropped) {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        // The last rules stay.
        drop(rules_of_sender);
        sender.send(framed(&packet).into()).await.unwrap();
        drop(sender);
    };
    tokio::join!(received, script);
    assert_eq!(counters.snapshot().packets, 3);
}

#[tokio::test]
async fn one_station_is_behind_a_tap_device() {
    let (_held, replaced) = watch::channel(of_templates());
    let frame = |host: u8, station: u8| {
        let template = Template {
            mode: Mode::Ethernet,
            host,
            ..Template::new(IpVersion::V4, false)
        };
        let mut frame = template.packet(&[0; 20]);
        frame[11] = station;
        Bytes::from(frame)
    };
    let frames = vec![frame(1, 7), frame(1, 8), frame(2, 7), frame(1, 7)];
    let at_peer = FakeDevice::default();
    let guard = Some(Guard::new(replaced));
    let counted =
        receive_guarded(Mode::Ethernet, Framing::Datagrams, frames, &at_peer, guard).await;
    assert_eq!(counted.packets, 2);
    assert_eq!(counted.dropped, [("source not allowed", 2)]);
}

/// A frame of the host, from that station; of IPv4, or a router solicitation.
fn from_station(station: u8, link_local: bool) -> Bytes {
    let template = Template {
        mode: Mode::Ethernet,
        ..Template::new(IpVersion::V4, false)
    };
    let mut frame = template.packet(&[0; 20]);
    if link_local {
        let addresses = [
            &[0x60, 0, 0, 0, 0, 8, 58, 255, 0xfe, 0x80][..],
            &[0; 13],
            &[station, 0xff, 2],
            &[0; 13],
            &[2, 133, 0, 0, 0, 0, 0, 0, 0],
        ];
        frame.truncate(12);
        frame.extend([0x86, 0xdd]);
        frame.extend(addresses.concat());
    }
    frame[11] = station;
    Bytes::from(frame)
}

#[tokio::test]
async fn on_a_shared_link_the_first_frame_waits_for_its_station() {
    let (_held, replaced) = watch::channel(of_templates());
    let (wanted, mut asked) = mpsc::channel(4);
    let (grant, held) = watch::channel(Arc::<LinkAddresses>::default());
    let guard = Guard::new(replaced).on_shared_link(LinkClaims { wanted, held });
    let (sender, receiver) = mpsc::channel(8);
    let (mut source, counters) = (FakeSource(receiver), Counters::default());
    let at_peer = FakeDevice::default();
    let inbound = async {
        let framing = Framing::Datagrams;
        inbound(
            Mode::Ethernet,
            Filtered::new(
                Some(guard),
                Deframer::new(Mode::Ethernet, framing),
                &counters,
            ),
            &mut source,
            &at_peer,
            &mpsc::channel(1).0,
            &counters,
        )
        .await
    };
    let script = async {
        let send = |frame| async { sender.send(frame).await.unwrap() };
        send(from_station(7, false)).await;
        let LinkAddress::Station(station) = asked.recv().await.unwrap() else {
            panic!("a station comes first");
        };
        assert_eq!(station.0[5], 7);
        // Nothing is judged meanwhile.
        assert_eq!(counters.snapshot(), Counters::default().snapshot());
        grant.send_modify(|held| Arc::make_mut(held).stations.push(station));
        // Another station asks for nothing; a link-local address does, and what
        // comes before the answer is dropped.
        send(from_station(8, false)).await;
        send(from_station(7, true)).await;
        let link_local: Ipv6Addr = "fe80::7".parse().unwrap();
        let asked = asked.recv().await;
        assert_eq!(asked, Some(LinkAddress::LinkLocal(link_local)));
        until(|| counters.snapshot().dropped == [("source not allowed", 2)]).await;
        grant.send_modify(|held| Arc::make_mut(held).link_local.push(link_local));
        send(from_station(7, true)).await;
        drop(sender);
    };
    let (end, ()) = tokio::join!(inbound, script);
    assert!(matches!(end, End::Channel));
    let counted = counters.snapshot();
    assert_eq!(counted.packets, 2);
    assert_eq!(counted.dropped, [("source not allowed", 2)]);
}

async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_station_that_is_refused_or_never_answered_does_not_get_in() {
    let (_held, replaced) = watch::channel(of_templates());
    let (wanted, mut asked) = mpsc::channel(4);
    let (grant, held) = watch::channel(Arc::<LinkAddresses>::default());
    let guard = Guard::new(replaced).on_shared_link(LinkClaims { wanted, held });
    let refusing = async {
        asked.recv().await;
        grant.send_modify(|_| {});
        // The others have no answer.
        for _ in 0..3 {
            asked.recv().await;
        }
    };
    let frames = [7, 9, 9, 7].map(|station| from_station(station, false));
    let (frames, start) = (frames.to_vec(), tokio::time::Instant::now());
    let at_peer = FakeDevice::default();
    let received = receive_guarded(
        Mode::Ethernet,
        Framing::Datagrams,
        frames,
        &at_peer,
        Some(guard),
    );
    let (counted, ()) = tokio::join!(received, refusing);
    assert_eq!(counted.packets, 0);
    assert_eq!(counted.dropped, [("source not allowed", 4)]);
    // And none of them waits for it.
    assert!(start.elapsed() < Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn only_the_first_frame_waits_where_nobody_answers() {
    let (_held, replaced) = watch::channel(of_templates());
    let (wanted, _asked) = mpsc::channel(4);
    let (_grant, held) = watch::channel(Arc::<LinkAddresses>::default());
    let guard = Guard::new(replaced).on_shared_link(LinkClaims { wanted, held });
    let frames = [7, 7, 9, 7].map(|station| from_station(station, false));
    let at_peer = FakeDevice::default();
    let start = tokio::time::Instant::now();
    let counted = receive_guarded(
        Mode::Ethernet,
        Framing::Datagrams,
        frames.to_vec(),
        &at_peer,
        Some(guard),
    )
    .await;
    assert_eq!(counted.dropped, [("source not allowed", 4)]);
    let waited = start.elapsed();
    assert!(waited >= Duration::from_secs(1) && waited < Duration::from_secs(2));
}

/// Hears all but these.
#[derive(Debug)]
struct DeafTo(HashSet<MacAddress>);

impl Hears for DeafTo {
    fn hears(&self, station: MacAddress) -> bool {
        !self.0.contains(&station)
    }
}

#[tokio::test]
async fn frames_of_strangers_are_not_heard() {
    let frames = [7, 8, 8, 7, 8].map(|station| {
        Ok((
            VirtioHeader::PLAIN.to_bytes(),
            from_station(station, false).to_vec(),
        ))
    });
    let device = FakeDevice::yielding_offload(frames);
    let (sink, counters) = (sink(), Counters::default());
    let stranger = [station_of(&from_station(8, false))].into();
    let egress_filter = EgressFilter::new(Box::new(DeafTo(stranger)));
    let (_nothing, extra) = mpsc::channel(1);
    let heard = Filtered::new(egress_filter, &device, &counters);
    let end = outbound(
        Mode::Ethernet,
        Framer::new(Mode::Ethernet, Framing::Datagrams),
        &heard,
        &sink,
        extra,
        Pings::None,
        &counters,
    )
    .await;
    assert!(matches!(end, End::Device(_)));
    let counted = counters.snapshot();
    assert_eq!(counted.packets, 2);
    assert_eq!(counted.dropped, [("source not allowed", 3)]);
}

fn station_of(frame: &[u8]) -> MacAddress {
    MacAddress(frame[6..12].try_into().unwrap())
}
