//! Sessions with agents in memory, correct and hostile. Tokio's paused clock advances when every
//! task waits.

use super::*;
use crate::frame::control::{Dns, FEATURE_ETHERNET, FEATURE_OFFLOAD, Permissions};
use crate::link::control::tests::{Input, Output, pair};
use crate::ssh::channel::process::Exit;
use crate::types::{Mode, Mtu};
use bytes::Bytes;

type Peer = Conversation<Input, Output>;
type Agent = RemoteAgent<Input, Output>;

fn unmet() -> (Agent, Peer) {
    let [local, remote] = pair();
    (RemoteAgent::new("b", local, LastWords::default()), remote)
}

/// An agent that has sent its hello.
async fn met() -> (Agent, Peer) {
    let (mut agent, mut peer) = unmet();
    let answer = async {
        let hello = peer.receive().await.unwrap();
        assert!(matches!(hello, Message::Hello(_)));
        peer.send(&Message::Hello(Hello::ours())).await.unwrap();
    };
    let (greeted, ()) = tokio::join!(agent.greet(), answer);
    greeted.unwrap();
    (agent, peer)
}

/// The result of greeting an agent that sends this answer.
async fn greeted(answer: Message) -> (Result<(), RemoteAgentError>, Agent, Peer) {
    let (mut agent, mut peer) = unmet();
    peer.send(&answer).await.unwrap();
    let result = agent.greet().await;
    assert!(matches!(peer.receive().await, Ok(Message::Hello(_))));
    (result, agent, peer)
}

fn set_up() -> SetUp {
    SetUp {
        mode: Mode::PointToPoint,
        mtu: Mtu::ETHERNET,
        device: None,
        addresses: Vec::new(),
        forward: None,
    }
}

fn facts() -> Message {
    Message::AgentFacts(AgentFacts {
        login: "ro\u{1b}[2Jot".to_owned(),
        networks: Vec::new(),
        ipv6: true,
        ways: Default::default(),
        permissions: Permissions::all(),
        routed: None,
    })
}

fn ready(mtu: Mtu) -> Message {
    let device = "tun0".parse().unwrap();
    Message::Ready(Ready { device, mtu })
}

fn done(what: &str) -> Message {
    let what = what.to_owned();
    Message::Done {
        what,
        warning: false,
    }
}

fn close(reason: CloseReason, text: &str) -> Message {
    let text = text.to_owned();
    Message::Close { reason, text }
}

/// A hello with a version range.
fn hello(oldest: u32, version: u32) -> Message {
    Message::Hello(Hello {
        version,
        oldest,
        software: "sshvpn 9.\u{1b}[2J9".to_owned(),
        features: [FEATURE_OFFLOAD.to_owned()].into(),
    })
}

#[tokio::test]
async fn a_whole_tunnel_is_agreed_on() {
    let (mut agent, mut peer) = met().await;
    assert!(agent.has(FEATURE_ETHERNET));
    assert!(agent.software().starts_with("sshvpn 0."));
    let ways = vec!["10.0.0.1".parse().unwrap()];
    peer.send(&facts()).await.unwrap();
    let asked = Look { ways, routed: true };
    let facts = agent.look(asked.clone()).await.unwrap();
    assert_eq!(facts.login, "ro[2Jot");
    assert_eq!(peer.receive().await, Ok(Message::Look(asked)));

    for message in [done("device\ntun0"), done("address"), ready(Mtu::ETHERNET)] {
        peer.send(&message).await.unwrap();
    }
    let mut steps = Vec::new();
    let set_up = agent.set_up(set_up(), |step, _| steps.push(step.to_owned()));
    assert_eq!(set_up.await.unwrap().device.as_str(), "tun0");
    assert_eq!(steps, ["devicetun0", "address"]);

    assert!(matches!(peer.receive().await, Ok(Message::SetUp(_))));
    let left = vec!["a route".to_owned()];
    peer.send(&done("late")).await.unwrap();
    peer.send(&Message::Closed { left }).await.unwrap();
    assert_eq!(agent.close().await.unwrap(), ["a route"]);
    let asked = close(CloseReason::Requested, "");
    assert_eq!(peer.receive().await, Ok(asked));
}

#[tokio::test]
async fn pings_are_answered_and_packets_passed_over_before_all_is_ready() {
    let (mut agent, mut peer) = met().await;
    peer.send(&Message::Ping { token: 7 }).await.unwrap();
    // An invalid packet, marked as IPv4.
    peer.send_raw(Bytes::from_static(&[0, 0, 0, 5, 0, 0, 0, 2, 0x45]))
        .await;
    peer.send(&facts()).await.unwrap();
    agent.look(Look::default()).await.unwrap();
    assert!(matches!(peer.receive().await, Ok(Message::Look(_))));
    assert_eq!(peer.receive().await, Ok(Message::Pong { token: 7 }));
}

#[tokio::test]
async fn a_newer_agent_with_a_common_version_is_taken() {
    let (result, agent, _peer) = greeted(hello(1, 9)).await;
    result.unwrap();
    assert_eq!(agent.software(), "sshvpn 9.[2J9");
    assert!(agent.has(FEATURE_OFFLOAD) && !agent.has(FEATURE_ETHERNET));
}

#[tokio::test(start_paused = true)]
async fn which_end_is_older_is_said() {
    for (range, advice) in [
        (hello(8, 9), "the one here is older"),
        (hello(0, 0), "the one at b is older: update it there"),
    ] {
        let (result, _agent, mut peer) = greeted(range).await;
        let error = result.unwrap_err();
        assert!(error.is_final(), "{error}");
        let text = error.to_string();
        assert!(text.contains(advice) && text.contains("9.[2J9"), "{text}");
        let Ok(Message::Close { reason, .. }) = peer.receive().await else {
            panic!("the agent is not told");
        };
        assert_eq!(reason, CloseReason::Version);
    }
}

#[tokio::test]
async fn an_agent_may_close_in_every_state() {
    let refusal = close(CloseReason::NotPermitted, "no CAP_NET\u{1b}[2J_ADMIN");
    let (result, _agent, _peer) = greeted(refusal.clone()).await;
    let greeting = result.unwrap_err();

    let (mut agent, peer) = met().await;
    peer.send(&refusal).await.unwrap();
    let looking = agent.look(Look::default()).await.unwrap_err();

    let (mut agent, mut peer) = met().await;
    peer.send(&done("device")).await.unwrap();
    peer.send(&refusal).await.unwrap();
    let setting_up = agent.set_up(set_up(), |_, _| {}).await.unwrap_err();

    for (error, state) in [
        (greeting, "greet"),
        (looking, "look"),
        (setting_up, "set it up"),
    ] {
        let text = error.to_string();
        assert!(text.contains(state), "{text}");
        assert!(text.ends_with("no CAP_NET[2J_ADMIN"), "{text}");
    }
    // The client does not send a second close, but waits.
    peer.send(&Message::Closed { left: Vec::new() })
        .await
        .unwrap();
    assert_eq!(agent.close().await, Some(Vec::new()));
    assert!(matches!(peer.receive().await, Ok(Message::SetUp(_))));
    assert_eq!(peer.receive().await, Err(ConversationError::Ended));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_never_answers_is_given_up() {
    let (mut agent, _peer) = unmet();
    let error = agent.greet().await.unwrap_err().to_string();
    assert_eq!(
        error,
        "b: cannot greet the agent there: no answer in 60 seconds"
    );
    let (mut agent, _peer) = met().await;
    let error = agent.look(Look::default()).await.unwrap_err().to_string();
    assert!(error.contains("no answer in 30 seconds"), "{error}");
    let error = agent.set_up(set_up(), |_, _| {}).await.unwrap_err();
    assert!(error.to_string().contains("no answer in 30 seconds"));
    let before = Instant::now();
    assert_eq!(agent.close().await, None);
    assert_eq!(before.elapsed(), UNDO_TIMEOUT);
}

/// An agent that keeps sending, but never the answer.
#[tokio::test(start_paused = true)]
async fn pings_do_not_hold_up_the_end() {
    let (mut agent, mut peer) = met().await;
    let chatter = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if peer.send(&Message::Ping { token: 1 }).await.is_err() {
                std::future::pending::<()>().await;
            }
            let _ = tokio::time::timeout(Duration::from_millis(1), peer.receive()).await;
        }
    };
    let error = tokio::select! {
        looked = agent.look(Look::default()) => looked.unwrap_err(),
        () = chatter => unreachable!(),
    };
    assert!(
        matches!(error, RemoteAgentError::NoAnswer { .. }),
        "{error}"
    );
}

/// An agent that reads nothing: sending waits up to the time limit.
#[tokio::test(start_paused = true)]
async fn a_peer_that_never_reads_is_given_up() {
    let (mut agent, peer) = met().await;
    for _ in 0..16 {
        let look = agent.conversation.send(&Message::Pong { token: 0 });
        look.await.unwrap();
    }
    let error = agent.look(Look::default()).await.unwrap_err();
    assert!(
        matches!(error, RemoteAgentError::NoAnswer { .. }),
        "{error}"
    );
    assert_eq!(agent.close().await, None);
    drop(peer);
}

#[tokio::test]
async fn messages_without_place_are_named() {
    let (result, ..) = greeted(facts()).await;
    let error = result.unwrap_err().to_string();
    assert!(error.contains("it says 'agent-facts'"), "{error}");
    let (mut agent, peer) = met().await;
    for message in [hello(1, 1), ready(Mtu::MIN), ready(Mtu::MIN)] {
        peer.send(&message).await.unwrap();
    }
    let error = agent.look(Look::default()).await.unwrap_err().to_string();
    assert!(error.contains("it says 'hello'"), "{error}");
    let error = agent.look(Look::default()).await.unwrap_err().to_string();
    assert!(error.contains("it says 'ready'"), "{error}");
    let error = agent.set_up(set_up(), |_, _| {}).await.unwrap_err();
    assert!(error.to_string().contains("an MTU of 68, not 1500"));
}

#[tokio::test]
async fn facts_that_are_nonsense_are_an_error() {
    for json in [
        r#"{"type":"facts"}"#,
        r#"{"type":"facts","login":"x","networks":["10.0.0.0/99"],"ipv6":true,"ways":{},"permissions":{"nat":true}}"#,
        r#"{"type":"facts","login":"x","networks":[],"ipv6":true,"ways":{"10.0.0.1":{"interface":"../x","local":false}},"permissions":{"nat":true}}"#,
        "}{",
    ] {
        let (mut agent, peer) = met().await;
        let frame = crate::frame::stream::encode_control(json.as_bytes());
        peer.send_raw(frame.unwrap()).await;
        let error = agent.look(Look::default()).await.unwrap_err();
        assert!(
            matches!(error, RemoteAgentError::Nonsense { .. }),
            "{error}"
        );
    }
    let (mut agent, peer) = met().await;
    peer.send_raw(Bytes::from_static(b"Killed\n\n")).await;
    let error = agent.look(Look::default()).await.unwrap_err();
    assert!(
        matches!(error, RemoteAgentError::Nonsense { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn steps_have_an_end() {
    let (mut agent, mut peer) = met().await;
    let endless = async {
        peer.receive().await.unwrap();
        while peer.send(&done("more")).await.is_ok() {}
    };
    let mut steps = 0;
    let error = tokio::select! {
        result = agent.set_up(set_up(), |_, _| steps += 1) => result.unwrap_err(),
        () = endless => unreachable!(),
    };
    assert_eq!(steps, MOST_STEPS);
    assert!(error.to_string().contains("step after step"), "{error}");
}

#[tokio::test]
async fn an_agent_that_dies_leaves_its_last_words() {
    let (mut agent, peer) = met().await;
    agent.last_words.heard(b"cannot open /dev/net/tun\n");
    agent.last_words.ended(Exit::Code(1));
    drop(peer);
    let error = agent.look(Look::default()).await.unwrap_err().to_string();
    let said = "cannot open /dev/net/tun (it ended with code 1)";
    assert!(error.ends_with(said), "{error}");
    assert_eq!(agent.close().await, None);
}

/// A server that has sent its hello.
async fn met_server() -> (Agent, Peer) {
    let (result, agent, peer) = greeted(Message::Hello(Hello::of_server())).await;
    result.unwrap();
    assert_eq!(agent.role(), Role::Server);
    (agent, peer)
}

fn ask() -> Ask {
    Ask {
        mode: Mode::PointToPoint,
        mtu: None,
        addresses: Vec::new(),
    }
}

fn offer() -> Offer {
    Offer {
        mtu: Mtu::ETHERNET,
        addresses: Vec::new(),
        routes: Vec::new(),
        dns: Dns::default(),
    }
}

#[tokio::test]
async fn a_server_is_asked_and_its_offer_taken() {
    let (mut server, mut peer) = met_server().await;
    peer.send(&Message::Offer(offer())).await.unwrap();
    peer.send(&ready(Mtu::ETHERNET)).await.unwrap();
    assert_eq!(server.ask(ask()).await.unwrap(), offer());
    server.accept(Mtu::ETHERNET).await.unwrap();
    assert_eq!(peer.receive().await, Ok(Message::Ask(ask())));
    assert_eq!(peer.receive().await, Ok(Message::Accept));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_silent_or_gone_is_given_up() {
    let (mut server, _peer) = met_server().await;
    let error = server.ask(ask()).await.unwrap_err().to_string();
    assert!(
        error.contains("ask for a tunnel: no answer in 30"),
        "{error}"
    );
    let error = server.accept(Mtu::ETHERNET).await.unwrap_err().to_string();
    assert!(error.contains("offered: no answer in 30"), "{error}");
    let (mut server, peer) = met_server().await;
    drop(peer);
    let error = server.ask(ask()).await.unwrap_err().to_string();
    assert!(error.contains("the server there is gone"), "{error}");
}

#[tokio::test]
async fn an_offer_that_cannot_be_read_is_an_error() {
    for json in [
        r#"{"type":"offer"}"#,
        r#"{"type":"offer","mtu":20,"addresses":[]}"#,
        r#"{"type":"offer","mtu":4294967296,"addresses":[]}"#,
        r#"{"type":"offer","mtu":1500,"addresses":[{"client":"10.0.0.1","agent":"x","prefix":24}]}"#,
        r#"{"type":"offer","mtu":1500,"addresses":[],"routes":["10.0.0.0/33"]}"#,
        r#"{"type":"offer","mtu":1500,"addresses":[],"dns":{"servers":["dns.example"]}}"#,
    ] {
        let (mut server, peer) = met_server().await;
        let frame = crate::frame::stream::encode_control(json.as_bytes());
        peer.send_raw(frame.unwrap()).await;
        let error = server.ask(ask()).await.unwrap_err();
        assert!(
            matches!(error, RemoteAgentError::Nonsense { .. }),
            "{error}"
        );
    }
}
