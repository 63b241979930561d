//! Batches of frames, to and from a server that counts its window: each frame is one
//! message, in order and within the window; and both sides may write before they read.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::time::timeout;

use super::process::{Process, ProcessEvent, ProcessRequest};
use super::tunnel::{SendError, TunnelReceiver, TunnelSender};
use crate::ssh::client::connect::Connection;
use crate::ssh::client::wire_server::{
    Reader, Wire, WireServer, about, adjust, confirmation, data, number,
};
use crate::types::{Mode, UnitRequest};

/// A wait that takes this long hangs: it is far longer than any test needs.
const HANGS: Duration = Duration::from_secs(20);

/// Bytes that OpenSSH charges its window for a frame, beyond the frame's length.
const CHARGE: u32 = 4;

struct Tunnel {
    /// The connection ends when its last handle is dropped.
    _connection: Connection,
    sender: TunnelSender,
    receiver: TunnelReceiver,
    wire: Wire,
    channel: u32,
}

/// A tunnel whose server grants `window` bytes and accepts messages of at most `max_packet`
/// bytes.
async fn tunnel(window: u32, max_packet: u32) -> Tunnel {
    let server = WireServer::bind().await;
    let (connection, mut wire) = server.connect().await;
    let open = connection.open_tunnel(Mode::PointToPoint, UnitRequest::Any);
    let answer = async {
        let (channel, _) = wire.open_request().await.unwrap();
        let confirm = confirmation(channel, window, max_packet);
        wire.send(&confirm).await.unwrap();
        channel
    };
    let (opened, channel) = tokio::join!(open, answer);
    let (sender, receiver) = opened.unwrap();
    Tunnel {
        _connection: connection,
        sender,
        receiver,
        wire,
        channel,
    }
}

/// The next frame that arrives at the server.
async fn arrived(wire: &mut Wire) -> Vec<u8> {
    let packet = timeout(HANGS, wire.wait_for(number::CHANNEL_DATA));
    let packet = packet.await.expect("no frame arrives").unwrap();
    let mut reader = Reader::new(&packet);
    reader.word();
    reader.string().to_vec()
}

/// Different frames whose lengths divide no limit evenly.
fn frames(count: usize) -> Vec<Bytes> {
    let frame = |index: usize| vec![index as u8; 1 + index * 7919 % 1500];
    (0..count).map(|index| Bytes::from(frame(index))).collect()
}

#[tokio::test]
async fn frames_sent_at_once_keep_to_the_window_and_their_order() {
    const WINDOW: u32 = 4000;
    let Tunnel {
        sender,
        mut wire,
        channel,
        _connection,
        ..
    } = tunnel(WINDOW, 32768).await;
    let expected = frames(200);
    let mut waiting = expected.clone();
    let send = async { sender.send_all(&mut waiting).await.unwrap() };
    let count = async {
        let mut window = WINDOW;
        for frame in &expected {
            assert_eq!(arrived(&mut wire).await, frame[..]);
            let charge = frame.len() as u32 + CHARGE;
            window = window.checked_sub(charge).expect("the window is overrun");
            if window < 1600 {
                wire.send(&adjust(channel, 1777)).await.unwrap();
                window += 1777;
            }
        }
    };
    timeout(HANGS, async { tokio::join!(send, count) })
        .await
        .expect("the sender hangs");
    assert!(waiting.is_empty());
}

#[tokio::test]
async fn a_frame_that_is_too_large_stops_those_behind_it() {
    let mut tunnel = tunnel(1 << 20, 1000).await;
    let frame = |length: usize| Bytes::from(vec![1; length]);
    let mut waiting = vec![frame(10), frame(1000), frame(1001), frame(20)];
    let sent = tunnel.sender.send_all(&mut waiting).await;
    assert_eq!(sent, Err(SendError::TooLarge));
    assert_eq!(waiting, [frame(1001), frame(20)]);
    waiting.remove(0);
    tunnel.sender.send_all(&mut waiting).await.unwrap();
    for length in [10, 1000, 20] {
        assert_eq!(arrived(&mut tunnel.wire).await.len(), length);
    }
}

#[tokio::test]
async fn what_waits_for_a_window_is_not_lost_when_nobody_waits() {
    let mut tunnel = tunnel(150, 32768).await;
    let mut waiting: Vec<_> = (0..3).map(|byte| Bytes::from(vec![byte; 100])).collect();
    assert!(
        tunnel
            .sender
            .send_all(&mut waiting)
            .now_or_never()
            .is_none()
    );
    assert_eq!(waiting.len(), 2);
    let grant = adjust(tunnel.channel, 208 - 46);
    tunnel.wire.send(&grant).await.unwrap();
    let sent = timeout(HANGS, tunnel.sender.send_all(&mut waiting));
    assert_eq!(sent.await.expect("the sender hangs"), Ok(()));
    for byte in 0..3 {
        assert_eq!(arrived(&mut tunnel.wire).await, [byte; 100]);
    }
}

#[tokio::test]
async fn sending_ends_with_the_connection() {
    let tunnel = tunnel(0, 32768).await;
    let mut waiting = frames(3);
    let sent = async { tunnel.sender.send_all(&mut waiting).await };
    let gone = async { drop(tunnel.wire) };
    let (sent, ()) = timeout(HANGS, async { tokio::join!(sent, gone) })
        .await
        .expect("the sender hangs");
    assert_eq!(sent, Err(SendError::Closed));
    assert_eq!(waiting.len(), 3);
}

#[tokio::test]
async fn what_has_come_is_taken_at_once_and_the_end_is_seen_after_it() {
    let mut tunnel = tunnel(1 << 20, 32768).await;
    assert_eq!(tunnel.receiver.try_receive(), None);
    let sent = frames(300);
    for frame in &sent {
        tunnel.wire.put(&data(tunnel.channel, frame)).await.unwrap();
    }
    let end = about(number::CHANNEL_EOF, tunnel.channel);
    tunnel.wire.send(&end).await.unwrap();
    let mut received = Vec::new();
    let mut at_once = 0;
    while let Some(frame) = timeout(HANGS, tunnel.receiver.receive()).await.unwrap() {
        received.push(frame);
        while let Some(frame) = tunnel.receiver.try_receive() {
            received.push(frame);
            at_once += 1;
        }
    }
    assert_eq!(received, sent);
    assert!(at_once > 0);
    assert_eq!(tunnel.receiver.try_receive(), None);
}

#[tokio::test]
async fn output_that_has_come_is_taken_at_once_and_the_close_is_seen_after_it() {
    let server = WireServer::bind().await;
    let (connection, mut wire) = server.connect().await;
    let request = ProcessRequest::default();
    let (process, started) = tokio::join!(connection.start(&request), wire.start_next());
    let (channel, _) = started.unwrap();
    let Process { mut events, .. } = process.unwrap();
    for _ in 0..100 {
        wire.put(&data(channel, "line\n")).await.unwrap();
    }
    wire.send(&about(number::CHANNEL_CLOSE, channel))
        .await
        .unwrap();
    let mut lines = 0;
    while let Some(event) = timeout(HANGS, events.next()).await.unwrap() {
        assert_eq!(event, ProcessEvent::Output("line\n".into()));
        lines += 1;
        while let Some(event) = events.try_next() {
            assert_eq!(event, ProcessEvent::Output("line\n".into()));
            lines += 1;
        }
    }
    assert_eq!(lines, 100);
    assert_eq!(events.try_next(), None);
}

/// Each side writes more than the kernel buffers, and the server reads nothing before it
/// has written everything.
#[tokio::test]
async fn two_ends_that_write_before_they_read_do_not_stand_still() {
    const FRAMES: usize = 200;
    const LENGTH: usize = 16384;
    let Tunnel {
        sender,
        mut receiver,
        mut wire,
        channel,
        _connection,
    } = tunnel(u32::MAX, 32768).await;
    wire.keep_little();
    let mut waiting: Vec<_> = vec![Bytes::from(vec![1; LENGTH]); 5 * FRAMES];
    let count = waiting.len();
    let send = async { sender.send_all(&mut waiting).await.unwrap() };
    let receive = async {
        for _ in 0..FRAMES {
            assert_eq!(receiver.receive().await.unwrap().len(), LENGTH);
        }
    };
    let remote_end = async {
        for _ in 0..FRAMES {
            wire.send(&data(channel, vec![2; LENGTH])).await.unwrap();
        }
        for _ in 0..count {
            assert_eq!(arrived(&mut wire).await.len(), LENGTH);
        }
    };
    timeout(3 * HANGS, async { tokio::join!(send, receive, remote_end) })
        .await
        .expect("both ends wait for each other");
}
