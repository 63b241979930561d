//! A running tunnel on a real device, to an in-memory agent that ends it in every way. Tokio's
//! paused clock advances when every task waits.

use super::*;
use crate::host::test_namespace;
use crate::link::control::Conversation;
use crate::link::control::tests::{Input, Output, pair};
use crate::link::datagram::Restrictions;
use crate::packet::offload::virtio::Offload;
use crate::tun::{Device, DeviceRequest};
use crate::types::{DevicePrefix, Mode};

type Peer = Conversation<Input, Output>;

/// Must be called in the test's own network namespace.
fn running() -> (Running, Peer) {
    let device = Device::open(
        &DeviceRequest::FirstFree(DevicePrefix::default()),
        Mode::PointToPoint,
    )
    .unwrap();
    let [local, remote] = pair();
    let running = Running {
        link: StreamLink::start(
            device,
            local,
            Offload::ALL,
            Restrictions::default(),
            Arc::default(),
        ),
        role: Role::Agent,
        last_words: LastWords::default(),
        closing: false,
    };
    (running, remote)
}

/// The next message that is not a ping.
async fn heard(peer: &mut Peer) -> Message {
    loop {
        match peer.receive().await.unwrap() {
            Message::Ping { .. } => {}
            message => return message,
        }
    }
}

fn closed(left: &[&str]) -> Message {
    let left = left.iter().map(|what| (*what).to_owned()).collect();
    Message::Closed { left }
}

#[test]
fn the_end_is_asked_for_and_waited_for() {
    test_namespace::run(async {
        let (mut running, mut peer) = running();
        let agent = async {
            let Message::Close { reason, .. } = heard(&mut peer).await else {
                panic!("not asked to close")
            };
            assert_eq!(reason, CloseReason::Requested);
            peer.send(&closed(&["a \u{1b}[2Jroute"])).await.unwrap();
        };
        let (left, ()) = tokio::join!(running.close(), agent);
        assert_eq!(left.unwrap(), ["a [2Jroute"]);
    });
}

#[test]
fn an_agent_that_ends_the_tunnel_is_quoted_and_not_asked_again() {
    test_namespace::run(async {
        let (mut running, mut peer) = running();
        let close = Message::Close {
            reason: CloseReason::Failed,
            text: "the device was \u{1b}[2Jremoved".to_owned(),
        };
        peer.send(&close).await.unwrap();
        peer.send(&closed(&[])).await.unwrap();
        let text = running.lost_to("b").await.to_string();
        assert_eq!(text, "b ended the tunnel: the device was [2Jremoved");
        assert_eq!(running.close().await, Some(Vec::new()));
        running.link.stop().await;
        assert!(peer.receive().await.is_err());
    });
}

#[test]
fn what_does_not_belong_there_is_named() {
    test_namespace::run(async {
        let (mut running, peer) = running();
        let late = Message::Done {
            what: "late".to_owned(),
            warning: false,
        };
        peer.send(&late).await.unwrap();
        let text = running.lost_to("b").await.to_string();
        assert!(text.contains("it says 'done'"), "{text}");
        let frame = crate::frame::stream::encode_control(b"tea");
        peer.send_raw(frame.unwrap()).await;
        let text = running.lost_to("b").await.to_string();
        assert!(text.contains("cannot be read"), "{text}");
        peer.send_raw(bytes::Bytes::from_static(b"Killed\n\n"))
            .await;
        let text = running.lost_to("b").await.to_string();
        assert!(text.contains("does not keep to the protocol"), "{text}");
    });
}

#[test]
fn an_agent_that_is_gone_is_not_waited_for() {
    test_namespace::run(async {
        let (mut running, peer) = running();
        running.last_words.heard(b"out of memory\n");
        drop(peer);
        let text = running.lost_to("b").await.to_string();
        let gone = "b: the agent there is gone: out of memory (it ended)";
        assert_eq!(text, gone);
        assert_eq!(running.close().await, None);
    });
}

#[test]
fn a_silent_agent_is_given_up() {
    test_namespace::run(async {
        tokio::time::pause();
        let (mut running, peer) = running();
        let text = running.lost_to("b").await.to_string();
        assert_eq!(text, "b: no word from the agent there in 45 seconds");
        let closing = timeout(UNDO_TIMEOUT, running.close()).await;
        assert!(closing.is_err(), "it is said to have closed");
        drop(peer);
    });
}

#[test]
fn pings_are_answered_while_nobody_asks_the_link() {
    test_namespace::run(async {
        let (_running, mut peer) = running();
        peer.send(&Message::Ping { token: 77 }).await.unwrap();
        assert_eq!(heard(&mut peer).await, Message::Pong { token: 77 });
    });
}
