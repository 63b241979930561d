//! A real device joined to a hostile peer: bad frames are counted, the link ends with its
//! channel, and everything can be stopped.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::host::test_namespace::{self, ip};
use crate::link::datagram::{Link, Restrictions};
use crate::packet::IpVersion;
use crate::packet::test_packets::udp;
use crate::pump::{End, Framing};
use crate::ssh::client::connect::Connection;
use crate::ssh::client::wire_server::{
    Reader, Wire, WireServer, about, confirmation, data, number,
};
use crate::tun::{Device, DeviceRequest};
use crate::types::{DevicePrefix, Mode, UnitRequest};

/// Far longer than any step here takes; a test that reaches it hangs.
const HANGS: Duration = Duration::from_secs(20);

struct Linked {
    connection: Connection,
    link: Link,
    wire: Wire,
    channel: u32,
}

/// A link over a device with an address, to a peer that grants this window and packet size.
async fn linked(window: u32, max_packet: u32) -> Linked {
    ip("link set lo up");
    let server = WireServer::bind().await;
    let (connection, mut wire) = server.connect().await;
    let device = Device::open(
        &DeviceRequest::FirstFree(DevicePrefix::default()),
        Mode::PointToPoint,
    )
    .unwrap();
    let name = device.name().to_string();
    ip(&format!("address add 10.0.0.1 peer 10.0.0.2 dev {name}"));
    let open = connection.open_tunnel(Mode::PointToPoint, UnitRequest::Any);
    let answer = async {
        let (channel, _) = wire.open_request().await.unwrap();
        let confirm = confirmation(channel, window, max_packet);
        wire.send(&confirm).await.unwrap();
        channel
    };
    let (opened, channel) = tokio::join!(open, answer);
    let (sender, receiver) = opened.unwrap();
    let link = Link::start(
        device,
        Framing::Datagrams,
        sender,
        receiver,
        Restrictions::default(),
        Arc::default(),
    );
    // After the link has started: only the tests' own packets may come from the device.
    std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1").unwrap();
    ip(&format!("link set {name} up"));
    Linked {
        connection,
        link,
        wire,
        channel,
    }
}

fn framed(family: u32, packet: &[u8]) -> Vec<u8> {
    [&family.to_be_bytes(), packet].concat()
}

/// Invalid frames, each with the counter name for it.
fn bad_frames() -> Vec<(&'static str, Vec<u8>)> {
    let packet = udp(IpVersion::V4, 100);
    let mut frames = Vec::new();
    for length in [0, 1, 3] {
        frames.push(("too short", vec![0; length]));
    }
    for length in [4, 5, 19, 20, 21] {
        frames.push(("wrong family", vec![0; length]));
    }
    for family in [0, 1, 10, 24, 0x8000_0002, u32::MAX] {
        frames.push(("wrong family", framed(family, &packet)));
    }
    // One claims a byte more than there is, one a header longer than the packet.
    frames.push(("malformed", framed(2, &packet[..packet.len() - 1])));
    frames.push(("malformed", framed(2, &packet[..19])));
    let mut header = packet.clone();
    header[0] = 0x4f;
    header[3] = 40;
    frames.push(("malformed", framed(2, &header)));
    frames.push(("malformed", framed(24, &[0x60; 39])));
    frames.push(("wrong family", vec![0xff; 65535]));
    frames
}

#[test]
fn bad_frames_are_counted_and_good_ones_go_on() {
    test_namespace::run(async {
        let Linked {
            connection,
            mut link,
            mut wire,
            channel,
        } = linked(1 << 20, 32768).await;
        let bad = bad_frames();
        for (_, frame) in &bad {
            wire.put(&data(channel, frame)).await.unwrap();
        }
        wire.put(&data(channel, framed(2, &udp(IpVersion::V4, 100))))
            .await
            .unwrap();
        wire.send(&about(number::CHANNEL_EOF, channel))
            .await
            .unwrap();
        let end = timeout(HANGS, link.ended())
            .await
            .expect("the link runs on");
        assert!(matches!(end, End::Channel), "{end:?}");
        let inbound = timeout(HANGS, link.stop())
            .await
            .expect("stop hangs")
            .inbound
            .snapshot();
        assert_eq!((inbound.packets, inbound.bytes), (1, 128));
        for name in ["too short", "wrong family", "malformed"] {
            let expected = bad.iter().filter(|(reason, _)| *reason == name).count() as u64;
            assert!(inbound.dropped.contains(&(name, expected)), "{inbound}");
        }
        assert_eq!(connection.end_reason(), None);
    });
}

/// Sends `count` UDP packets into the device.
async fn send_packets(count: usize, length: usize) {
    let socket = UdpSocket::bind("10.0.0.1:0").await.unwrap();
    for _ in 0..count {
        socket
            .send_to(&vec![b'x'; length], "10.0.0.2:9")
            .await
            .unwrap();
    }
}

#[test]
fn packets_that_the_remote_end_does_not_take_are_counted() {
    test_namespace::run(async {
        let Linked {
            link,
            mut wire,
            channel,
            ..
        } = linked(1 << 20, 100).await;
        send_packets(5, 1000).await;
        send_packets(1, 10).await;
        let arrived = timeout(HANGS, wire.wait_for(number::CHANNEL_DATA));
        let arrived = arrived.await.expect("nothing arrives").unwrap();
        let mut reader = Reader::new(&arrived);
        assert_eq!(
            (reader.word(), reader.string().len()),
            (channel, 4 + 20 + 8 + 10)
        );
        let outbound = link.stop().await.outbound.snapshot();
        assert_eq!(outbound.dropped, [("too long", 5)]);
        assert_eq!(outbound.packets, 1);
    });
}

#[test]
fn a_link_to_a_remote_end_that_takes_nothing_can_be_stopped() {
    test_namespace::run(async {
        let Linked {
            connection,
            link,
            wire,
            ..
        } = linked(0, 32768).await;
        send_packets(50, 1000).await;
        let counters = timeout(HANGS, link.stop()).await.expect("stop hangs");
        assert_eq!(counters.outbound.snapshot().packets, 0);
        timeout(HANGS, connection.close())
            .await
            .expect("close hangs");
        drop(wire);
    });
}

/// At any moment that the peer chooses.
#[test]
fn a_link_ends_with_its_channel_or_connection() {
    test_namespace::run(async {
        for end in [number::CHANNEL_CLOSE, number::CHANNEL_EOF, 0] {
            let Linked {
                link: mut running,
                mut wire,
                channel,
                ..
            } = linked(100, 32768).await;
            send_packets(20, 1000).await;
            if end == 0 {
                drop(wire);
            } else {
                wire.send(&about(end, channel)).await.unwrap();
            }
            let how = timeout(HANGS, running.ended())
                .await
                .expect("the link runs on");
            assert!(matches!(how, End::Channel), "{how:?}");
            timeout(HANGS, running.stop()).await.expect("stop hangs");
        }
    });
}
