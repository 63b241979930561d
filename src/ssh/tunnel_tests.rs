//! The tunnel's channel against a server that breaks the protocol: its messages cost a
//! frame or the channel, and nothing waits for ever.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::channel::tunnel::{SendError, TunnelReceiver, TunnelSender};
use super::client::connect::Connection;
use super::client::wire_server::{
    Message, Reader, Wire, WireServer, about, adjust, confirmation, data, number,
};
use super::error::ChannelError;
use crate::types::{Mode, UnitRequest};

/// A wait that takes this long hangs: it is far longer than any test needs.
const HANGS: Duration = Duration::from_secs(20);

struct Tunnel {
    connection: Connection,
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
        let (channel, kind) = wire.open_request().await.unwrap();
        assert_eq!(kind, "tun@openssh.com");
        let confirm = confirmation(channel, window, max_packet);
        wire.send(&confirm).await.unwrap();
        channel
    };
    let (opened, channel) = tokio::join!(open, answer);
    let (sender, receiver) = opened.unwrap();
    Tunnel {
        connection,
        sender,
        receiver,
        wire,
        channel,
    }
}

impl Tunnel {
    async fn say(&mut self, messages: &[Message]) {
        for message in messages {
            self.wire.put(message).await.unwrap();
        }
        self.wire.flush().await.unwrap();
    }

    async fn next(&mut self) -> Option<Bytes> {
        let next = timeout(HANGS, self.receiver.receive()).await;
        next.expect("the receiver hangs")
    }

    async fn send(&self, frame: &[u8]) -> Result<(), SendError> {
        let sent = timeout(HANGS, self.sender.send(Bytes::copy_from_slice(frame))).await;
        sent.expect("the sender hangs")
    }

    /// The next frame that arrives at the server.
    async fn arrived(&mut self) -> Vec<u8> {
        let packet = timeout(HANGS, self.wire.wait_for(number::CHANNEL_DATA));
        let packet = packet.await.expect("no frame arrives").unwrap();
        let mut reader = Reader::new(&packet);
        assert_eq!(reader.word(), self.channel);
        reader.string().to_vec()
    }
}

/// This process's resident memory, in bytes (proc_pid_status(5)).
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes: u64 = line
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    kilobytes * 1024
}

#[tokio::test]
async fn messages_for_no_one_are_passed_over() {
    let mut tunnel = tunnel(1 << 20, 32768).await;
    let nobody = tunnel.channel + 77;
    let request = |name: &str| about(number::CHANNEL_REQUEST, nobody).string(name).byte(1);
    tunnel
        .say(&[
            data(nobody, [1; 100]),
            about(number::CHANNEL_EXTENDED_DATA, nobody)
                .word(1)
                .string("x"),
            about(number::CHANNEL_EOF, nobody),
            about(number::CHANNEL_CLOSE, nobody),
            about(number::CHANNEL_SUCCESS, nobody),
            about(number::CHANNEL_FAILURE, nobody),
            adjust(nobody, u32::MAX),
            request("exit-status"),
            request("keepalive@openssh.com"),
            about(number::CHANNEL_OPEN_FAILURE, nobody)
                .word(1)
                .string("no")
                .string(""),
            // Extended data is not for the tunnel either.
            about(number::CHANNEL_EXTENDED_DATA, tunnel.channel)
                .word(1)
                .string("x"),
            about(number::CHANNEL_SUCCESS, tunnel.channel),
            data(tunnel.channel, [2; 30]),
        ])
        .await;
    assert_eq!(tunnel.next().await.unwrap(), [2; 30][..]);
    assert_eq!(tunnel.connection.end_reason(), None);
}

#[tokio::test]
async fn frames_of_any_length_arrive_as_they_are() {
    let mut tunnel = tunnel(1 << 20, 32768).await;
    for length in [0, 1, 3, 4, 5, 19, 20, 21, 16385, 65535, 200_000] {
        tunnel
            .say(&[data(tunnel.channel, vec![length as u8; length])])
            .await;
        assert_eq!(tunnel.next().await.unwrap().len(), length);
    }
    // A string longer than its message makes the message malformed: the connection ends
    // cleanly.
    let liar = about(number::CHANNEL_DATA, tunnel.channel)
        .word(100)
        .byte(1);
    tunnel.say(&[liar]).await;
    assert_eq!(tunnel.next().await, None);
    timeout(HANGS, tunnel.connection.ended()).await.unwrap();
}

#[tokio::test]
async fn the_remote_end_ends_the_channel() {
    for end in [number::CHANNEL_EOF, number::CHANNEL_CLOSE] {
        let mut tunnel = tunnel(1 << 20, 32768).await;
        let channel = tunnel.channel;
        tunnel
            .say(&[
                data(channel, "last"),
                about(end, channel),
                data(channel, "late"),
            ])
            .await;
        assert_eq!(tunnel.next().await.unwrap(), "last");
        assert_eq!(tunnel.next().await, None);
        // A server that has sent EOF still accepts frames.
        if end == number::CHANNEL_EOF {
            assert!(tunnel.send(b"frame").await.is_ok());
        } else {
            while tunnel.send(b"frame").await.is_ok() {
                tokio::task::yield_now().await;
            }
        }
        // The connection stays up.
        assert_eq!(tunnel.connection.end_reason(), None);
    }
}

#[tokio::test]
async fn a_ping_is_asked_behind_the_frames_and_answered_by_a_refusal() {
    let mut tunnel = tunnel(1 << 20, 32768).await;
    assert_eq!(tunnel.send(b"frame").await, Ok(()));
    let answer = tunnel.sender.ping().await.unwrap();
    let never = tunnel.sender.ping().await.unwrap();
    assert_eq!(tunnel.arrived().await, b"frame");
    let asked = timeout(HANGS, tunnel.wire.wait_for(number::GLOBAL_REQUEST));
    let asked = asked.await.expect("nothing is asked").unwrap();
    let mut reader = Reader::new(&asked);
    assert_eq!(reader.string(), b"keepalive@openssh.com");
    assert_eq!(asked.last(), Some(&1), "no answer is asked for");
    tunnel.say(&[Message::new(number::REQUEST_FAILURE)]).await;
    assert_eq!(timeout(HANGS, answer).await.unwrap(), Ok(()));
    drop(tunnel.wire);
    assert!(timeout(HANGS, never).await.unwrap().is_err());
}

#[tokio::test]
async fn a_small_window_delays_frames_but_never_divides_them() {
    let tunnel = tunnel(0, 32768).await;
    let channel = tunnel.channel;
    let frames: Vec<Vec<u8>> = [1400_usize, 1, 800, 1400, 60]
        .iter()
        .map(|length| vec![*length as u8; *length])
        .collect();
    let total: usize = frames.iter().map(|frame| frame.len() + 4).sum();
    let Tunnel {
        sender, mut wire, ..
    } = tunnel;
    let send = async {
        for frame in &frames {
            sender.send(Bytes::from(frame.clone())).await.unwrap();
        }
    };
    let receive = async {
        // One byte less than the last frame needs, then that byte.
        let mut granted = 0;
        while granted + 7 < total {
            wire.send(&adjust(channel, 7)).await.unwrap();
            granted += 7;
        }
        let mut left = total - granted;
        let mut arrived = Vec::new();
        while arrived.len() < frames.len() {
            if arrived.len() == frames.len() - 1 && left > 0 {
                wire.send(&adjust(channel, left as u32)).await.unwrap();
                left = 0;
            }
            let packet = wire.wait_for(number::CHANNEL_DATA).await.unwrap();
            let mut reader = Reader::new(&packet);
            assert_eq!(reader.word(), channel);
            arrived.push(reader.string().to_vec());
        }
        arrived
    };
    let ((), arrived) = timeout(HANGS, async { tokio::join!(send, receive) })
        .await
        .expect("frames wait for a window that is there");
    assert_eq!(arrived, frames);
}

#[tokio::test]
async fn a_window_cannot_overflow() {
    let mut tunnel = tunnel(u32::MAX, 32768).await;
    let grants = vec![adjust(tunnel.channel, u32::MAX); 1000];
    tunnel.say(&grants).await;
    for turn in 0..100_u8 {
        tunnel
            .say(&[adjust(tunnel.channel, u32::MAX), adjust(tunnel.channel, 1)])
            .await;
        tunnel.send(&[turn; 1000]).await.unwrap();
        assert_eq!(tunnel.arrived().await, [turn; 1000]);
    }
}

#[tokio::test]
async fn a_frame_larger_than_the_remote_end_takes_is_only_not_sent() {
    for max_packet in [1, 10] {
        let mut tunnel = tunnel(1 << 20, max_packet).await;
        for length in [11, 1500, 16384] {
            assert_eq!(
                tunnel.send(&vec![0; length]).await,
                Err(SendError::TooLarge)
            );
        }
        tunnel.send(&[5]).await.unwrap();
        assert_eq!(tunnel.arrived().await, [5]);
        assert_eq!(tunnel.connection.end_reason(), None);
    }
}

#[tokio::test]
async fn a_remote_end_that_takes_no_message_at_all_is_refused() {
    let server = WireServer::bind().await;
    let (connection, mut wire) = server.connect().await;
    let open = connection.open_tunnel(Mode::PointToPoint, UnitRequest::Any);
    let answer = async {
        let (channel, _) = wire.open_request().await.unwrap();
        wire.send(&confirmation(channel, 1 << 20, 0)).await.unwrap();
    };
    let (opened, ()) = tokio::join!(timeout(HANGS, open), answer);
    let error = opened.expect("open_tunnel hangs").err().unwrap();
    assert!(matches!(error, ChannelError::Gone { .. }), "{error}");
}

#[tokio::test]
async fn a_window_that_never_opens_ends_with_the_connection() {
    let tunnel = tunnel(0, 32768).await;
    let waiting = tunnel.sender.send(Bytes::from_static(b"frame"));
    let Tunnel {
        connection, wire, ..
    } = tunnel;
    tokio::pin!(waiting);
    let alone = timeout(Duration::from_millis(50), &mut waiting).await;
    assert!(alone.is_err(), "sent into no window");
    drop(wire);
    let sent = timeout(HANGS, waiting).await.expect("the sender hangs");
    assert_eq!(sent, Err(SendError::Closed));
    timeout(HANGS, connection.ended()).await.unwrap();
}

#[tokio::test]
async fn a_second_confirmation_with_other_terms_hurts_only_the_channel() {
    let mut tunnel = tunnel(1 << 20, 32768).await;
    tunnel
        .say(&[
            confirmation(tunnel.channel, 3, 1),
            data(tunnel.channel, "x"),
        ])
        .await;
    assert_eq!(tunnel.next().await.unwrap(), "x");
    for _ in 0..200 {
        // Each frame is sent or waits; none may fail with a panic.
        let send = tunnel.sender.send(Bytes::from_static(&[9; 100]));
        if timeout(Duration::from_millis(1), send).await.is_err() {
            break;
        }
    }
    timeout(HANGS, tunnel.connection.close())
        .await
        .expect("close hangs");
}

#[tokio::test]
async fn a_flood_of_tiny_frames_arrives_whole_and_soon() {
    const FRAMES: usize = 200_000;
    let Tunnel {
        connection,
        mut receiver,
        mut wire,
        channel,
        sender: _sender,
    } = tunnel(1 << 20, 32768).await;
    let flood = tokio::spawn(async move {
        for _ in 0..FRAMES {
            wire.put(&data(channel, [0; 5])).await.unwrap();
        }
        wire.flush().await.unwrap();
        wire
    });
    for _ in 0..FRAMES {
        let frame = timeout(HANGS, receiver.receive()).await.unwrap().unwrap();
        assert_eq!(frame.len(), 5);
    }
    drop(flood.await.unwrap());
    timeout(HANGS, connection.ended()).await.unwrap();
}

#[tokio::test]
async fn a_flood_beyond_the_window_ends_the_connection() {
    let Tunnel {
        connection,
        receiver,
        mut wire,
        channel,
        sender,
    } = tunnel(1 << 20, 32768).await;
    let before = resident();
    let message = data(channel, vec![0; 32768]);
    let flood = async { while wire.put(&message).await.is_ok() {} };
    timeout(HANGS, flood).await.expect("the flood goes on");
    // Other tests run in this process, so the bound is wide; the flood has no end.
    let more = resident().saturating_sub(before);
    assert!(more < 512 << 20, "{more} bytes more");
    timeout(HANGS, connection.ended()).await.unwrap();
    timeout(HANGS, sender.close())
        .await
        .expect("closing the channel hangs");
    timeout(HANGS, connection.close())
        .await
        .expect("close hangs");
    drop(receiver);
}

/// The server refuses with every kind of text that a refusal can carry.
async fn refused(before: &[Message], reason: u32, description: &[u8]) -> ChannelError {
    let server = WireServer::bind().await;
    let (connection, mut wire) = server.connect().await;
    let open = connection.open_tunnel(Mode::Ethernet, UnitRequest::Any);
    let answer = async {
        let (channel, _) = wire.open_request().await.unwrap();
        for message in before {
            wire.put(message).await.unwrap();
        }
        let failure = about(number::CHANNEL_OPEN_FAILURE, channel);
        let failure = failure.word(reason).string(description).string("");
        wire.send(&failure).await.unwrap();
        wire
    };
    let (opened, _wire) = tokio::join!(timeout(HANGS, open), answer);
    opened.expect("open_tunnel hangs").err().unwrap()
}

#[tokio::test]
async fn refusals_of_every_kind_are_short_and_harmless_to_a_terminal() {
    let wild = "\x1b]0;owned\x07\r\n\u{202e}".repeat(8000);
    let debug = |text: &str| Message::new(number::DEBUG).byte(0).string(text).string("");
    let flood = vec![debug(&wild); 30];
    for reason in [0, 1, 2, 3, 4, 5, u32::MAX] {
        let error = refused(&flood, reason, wild.as_bytes()).await;
        let unknown = reason == 3;
        assert!(
            match error {
                ChannelError::TunnelRefused { .. } => !unknown,
                ChannelError::TunnelUnknown { .. } => unknown,
                _ => false,
            },
            "{reason}: {error}"
        );
        let text = error.to_string();
        assert!(text.len() < 8192, "{} bytes", text.len());
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
    // The description is not UTF-8, so the message is malformed: the connection ends
    // cleanly.
    let error = refused(&[], 1, &[0xff; 1000]).await;
    assert!(matches!(error, ChannelError::Gone { .. }), "{error}");
}

/// Each error has the description of its own refusal, or the meaning of its code.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_keeps_its_description() {
    let server = WireServer::bind().await;
    let (connection, mut wire) = server.connect().await;
    for round in 0..100 {
        let (description, expected) = match round % 2 {
            0 => (format!("reason {round}"), format!("reason {round}")),
            _ => (String::new(), "connect failed".to_owned()),
        };
        let open = timeout(HANGS, connection.remote_socket("/run/socket"));
        let answer = async {
            let (channel, _) = wire.open_request().await.unwrap();
            let failure = about(number::CHANNEL_OPEN_FAILURE, channel)
                .word(2)
                .string(description)
                .string("");
            wire.send(&failure).await.unwrap();
        };
        let (opened, ()) = tokio::join!(open, answer);
        let error = opened.expect("it hangs").err().unwrap().to_string();
        assert!(error.ends_with(&expected), "{round}: {error}");
    }
}

#[tokio::test]
async fn channels_that_the_server_opens_are_refused() {
    let mut tunnel = tunnel(1 << 20, 32768).await;
    let address = |message: Message| {
        message
            .string("10.0.0.1")
            .word(22)
            .string("10.0.0.2")
            .word(1)
    };
    let open = |kind: &str| {
        Message::new(number::CHANNEL_OPEN)
            .string(kind)
            .word(5)
            .word(1 << 20)
            .word(32768)
    };
    let opens = [
        open("session"),
        address(open("direct-tcpip")),
        address(open("forwarded-tcpip")),
        open("x11").string("10.0.0.1").word(1),
        open("forwarded-streamlocal@openssh.com")
            .string("/tmp/x")
            .string(""),
        open("direct-streamlocal@openssh.com")
            .string("/tmp/x")
            .string("")
            .word(0),
        open("auth-agent@openssh.com"),
        open("tun@openssh.com").word(1).word(0),
    ];
    for message in opens {
        tunnel.say(std::slice::from_ref(&message)).await;
        let answer = timeout(HANGS, async {
            loop {
                let packet = tunnel.wire.receive().await.unwrap();
                if (number::CHANNEL_OPEN_CONFIRMATION..=number::CHANNEL_OPEN_FAILURE)
                    .contains(&packet[0])
                {
                    return packet;
                }
            }
        });
        let answer = answer.await.expect("no answer");
        let text = String::from_utf8_lossy(&message.0).into_owned();
        assert_eq!(answer[0], number::CHANNEL_OPEN_FAILURE, "{text:?}");
    }
    // Channel after channel without end: the connection ends cleanly.
    let Tunnel {
        connection,
        mut wire,
        ..
    } = tunnel;
    let flood = async { while wire.send(&open("session")).await.is_ok() {} };
    let ended = async { tokio::join!(flood, connection.ended()).1 };
    let reason = timeout(HANGS, ended)
        .await
        .expect("a flood of channels is taken");
    assert!(reason.contains("did not request"), "{reason}");
}
