//! Every state and every wrong message, over an in-memory stream and with a host that only records
//! its calls; where packets flow, its device is real.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::agent::error::AgentError;
use crate::agent::guard;
use crate::agent::host::Opened;
use crate::agent::limits::Limits;
use crate::frame::control::{
    Addresses, AgentFacts, Ask, CloseReason, Look, MAX_CONTROL, OLDEST_VERSION, Permissions, Ready,
    VERSION,
};
use crate::host::change::Change;
use crate::host::privilege::PrivilegeError;
use crate::host::test_namespace;
use crate::link::control::tests::{Input, Output, pair};
use crate::link::dialogue::SILENCE;
use crate::tun::DeviceRequest;
use crate::types::{DevicePrefix, Mode, Mtu};
use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// The calls of a [`NotedHost`], and the one that has to fail.
#[derive(Default)]
struct Notes {
    done: Vec<&'static str>,
    fail_at: Option<&'static str>,
}

#[derive(Clone, Default)]
struct NotedHost(Arc<Mutex<Notes>>);

impl NotedHost {
    fn failing_at(what: &'static str) -> Self {
        let host = NotedHost::default();
        host.0.lock().unwrap().fail_at = Some(what);
        host
    }

    fn note(&self, what: &'static str) -> Result<(), AgentError> {
        let mut notes = self.0.lock().unwrap();
        notes.done.push(what);
        match notes.fail_at == Some(what) {
            true => Err(PrivilegeError::NoNetAdmin.into()),
            false => Ok(()),
        }
    }

    fn done(&self) -> Vec<&'static str> {
        self.0.lock().unwrap().done.clone()
    }
}

impl Host for NotedHost {
    async fn prepare(&mut self) -> Result<(), AgentError> {
        self.note("prepare")
    }

    async fn look(&self, _: &Look) -> Result<AgentFacts, AgentError> {
        self.note("look")?;
        Ok(facts())
    }

    fn claim(&mut self, addresses: &[IpAddr]) -> Result<Vec<IpAddr>, AgentError> {
        self.note("claim")?;
        Ok(addresses.to_vec())
    }

    async fn open(&mut self, wish: &SetUp) -> Result<Opened, AgentError> {
        self.note("open")?;
        let request = DeviceRequest::FirstFree(DevicePrefix::default());
        let device = Device::open(&request, Mode::PointToPoint).unwrap();
        let changes = vec![Change::Mtu(Mtu::ETHERNET), Change::LinkUp];
        Ok(Opened {
            device,
            ready: ready(),
            changes,
            warnings: vec!["a chain drops".to_owned()],
            guard: guard::rules(wish, &Limits::default()),
        })
    }

    async fn apply(&mut self, change: Change) -> Result<String, AgentError> {
        self.note("apply")
            .map(|()| crate::agent::set_up::described(&change))
    }

    async fn confine(&mut self) {}

    async fn undo(&mut self) -> Vec<String> {
        self.0.lock().unwrap().done.push("undo");
        vec!["something".to_owned()]
    }

    async fn finish(&mut self) {
        self.0.lock().unwrap().done.push("finish");
    }
}

fn facts() -> AgentFacts {
    AgentFacts {
        login: "root".to_owned(),
        networks: Vec::new(),
        ipv6: true,
        ways: BTreeMap::new(),
        permissions: Permissions::all(),
        routed: None,
    }
}

fn ready() -> Ready {
    Ready {
        device: "sshvpn0".parse().unwrap(),
        mtu: Mtu::ETHERNET,
    }
}

fn wish() -> SetUp {
    SetUp {
        mode: Mode::PointToPoint,
        mtu: Mtu::ETHERNET,
        device: None,
        addresses: vec![Addresses {
            client: "10.1.0.0".parse().unwrap(),
            agent: "10.1.0.1".parse().unwrap(),
            prefix: 31,
        }],
        forward: None,
    }
}

/// A client of an agent, which runs as a task.
struct Client {
    conversation: Conversation<Input, Output>,
    agent: tokio::task::JoinHandle<AgentEnd>,
    host: NotedHost,
    signal: Option<oneshot::Sender<i32>>,
}

impl Client {
    fn with(host: NotedHost) -> Self {
        let [client, remote] = pair();
        let (signal, received) = oneshot::channel();
        let stop: Pin<Box<dyn Future<Output = i32> + Send>> = Box::pin(async move {
            match received.await {
                Ok(number) => number,
                Err(_) => pending().await,
            }
        });
        let dialogue = Dialogue::new(remote, host.clone(), stop, "gateway".to_owned());
        Client {
            conversation: client,
            agent: tokio::spawn(dialogue.run()),
            host,
            signal: Some(signal),
        }
    }

    fn new() -> Self {
        Self::with(NotedHost::default())
    }

    async fn greeted() -> Self {
        let mut client = Self::new();
        client.greet().await;
        client
    }

    async fn up() -> Self {
        let mut client = Self::greeted().await;
        client.say(Message::SetUp(wish())).await;
        for _ in 0..3 {
            assert_eq!(client.hear().await.name(), "done");
        }
        assert_eq!(client.hear().await, Message::Ready(ready()));
        client
    }

    async fn greet(&mut self) {
        self.say(Message::Hello(Hello::ours())).await;
        assert_eq!(self.hear().await, Message::Hello(Hello::ours()));
    }

    async fn say(&self, message: Message) {
        self.conversation.send(&message).await.unwrap();
    }

    async fn hear(&mut self) -> Message {
        self.conversation.receive().await.unwrap()
    }

    /// Brings the agent into a state: before hello, after it, or with packets flowing.
    async fn in_state(state: usize) -> Self {
        match state {
            0 => Self::new(),
            1 => Self::greeted().await,
            _ => Self::up().await,
        }
    }

    /// The agent's end, which undid everything once and reported what is left.
    async fn ends(mut self) -> (Option<(CloseReason, String)>, AgentEnd) {
        let mut close = None;
        loop {
            match self.conversation.receive().await {
                Ok(Message::Close { reason, text }) => close = Some((reason, text)),
                Ok(Message::Closed { left }) => {
                    assert_eq!(left, ["something"]);
                    break;
                }
                Ok(Message::Ping { .. }) => {}
                other => panic!("{other:?}"),
            }
        }
        drop(self.conversation);
        let end = self.agent.await.unwrap();
        let done = self.host.done();
        assert_eq!(done.iter().filter(|what| **what == "undo").count(), 1);
        assert!(done.ends_with(&["undo", "finish"]), "{done:?}");
        (close, end)
    }

    async fn ends_for(self, reason: CloseReason, text: &str) {
        let (close, end) = self.ends().await;
        let (given, said) = close.expect("a reason");
        assert_eq!(given, reason, "{said}");
        assert!(
            said.starts_with("gateway: ") && said.contains(text),
            "{said}"
        );
        assert!(!end.is_orderly());
    }
}

#[test]
fn from_hello_to_close() {
    test_namespace::run(async {
        let mut client = Client::greeted().await;
        for _ in 0..2 {
            client.say(Message::Look(Look::default())).await;
            assert_eq!(client.hear().await, Message::AgentFacts(facts()));
        }
        client.say(Message::Ping { token: 7 }).await;
        assert_eq!(client.hear().await, Message::Pong { token: 7 });
        client.say(Message::SetUp(wish())).await;
        for what in ["MTU 1500", "link up"] {
            let what = what.to_owned();
            let warning = false;
            assert_eq!(client.hear().await, Message::Done { what, warning });
        }
        let (what, warning) = ("a chain drops".to_owned(), true);
        assert_eq!(client.hear().await, Message::Done { what, warning });
        assert_eq!(client.hear().await, Message::Ready(ready()));
        client.say(Message::Pong { token: 1 }).await;
        client.say(Message::Ping { token: 8 }).await;
        assert_eq!(client.hear().await, Message::Pong { token: 8 });
        let text = String::new();
        let reason = CloseReason::Requested;
        client.say(Message::Close { reason, text }).await;
        let host = client.host.clone();
        let (close, end) = client.ends().await;
        assert_eq!(close, None);
        assert!(matches!(end, AgentEnd::Requested) && end.is_orderly());
        assert_eq!(
            host.done(),
            [
                "prepare", "look", "look", "open", "apply", "apply", "undo", "finish"
            ]
        );
    });
}

#[test]
fn a_close_is_taken_at_any_time() {
    test_namespace::run(async {
        let close = || Message::Close {
            reason: CloseReason::Other,
            text: String::new(),
        };
        for state in 0..3 {
            let client = Client::in_state(state).await;
            client.say(close()).await;
            assert!(matches!(client.ends().await, (None, AgentEnd::Requested)));
        }
    });
}

#[test]
fn the_end_of_the_stream_undoes_everything_at_any_time() {
    test_namespace::run(async {
        for state in 0..3 {
            let client = Client::in_state(state).await;
            let Client {
                conversation,
                agent,
                host,
                signal: _signal,
            } = client;
            drop(conversation);
            let end = agent.await.unwrap();
            assert!(matches!(end, AgentEnd::StreamEnded) && end.is_orderly());
            assert!(host.done().ends_with(&["undo", "finish"]));
        }
    });
}

#[test]
fn a_signal_is_told_and_undone_at_any_time() {
    test_namespace::run(async {
        for state in 0..3 {
            let mut client = Client::in_state(state).await;
            client.signal.take().unwrap().send(15).unwrap();
            let (close, end) = client.ends().await;
            let (reason, text) = close.unwrap();
            assert_eq!(reason, CloseReason::Requested);
            assert!(text.contains("signal 15"), "{text}");
            assert!(end.is_orderly());
        }
    });
}

#[test]
fn a_claim_is_answered_with_what_others_have() {
    test_namespace::run(async {
        let mut client = Client::greeted().await;
        let addresses: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap()];
        let taken = addresses.clone();
        client.say(Message::Claim { addresses }).await;
        assert_eq!(client.hear().await, Message::Claimed { taken });
    });
}

#[test]
fn a_message_of_another_state_ends_it_with_its_name() {
    test_namespace::run(async {
        let misplaced = |name: &str, when: &str| format!("a '{name}' message cannot come {when}");
        let hello = || Message::Hello(Hello::ours());
        let wrong = [
            Message::Look(Look::default()),
            Message::SetUp(wish()),
            Message::AgentFacts(facts()),
            Message::Ping { token: 1 },
            Message::Ready(ready()),
        ];
        for message in wrong {
            let client = Client::new();
            let text = misplaced(message.name(), "before hello");
            client.say(message).await;
            client.ends_for(CloseReason::Protocol, &text).await;
        }
        for message in [
            hello(),
            Message::AgentFacts(facts()),
            Message::Closed { left: vec![] },
        ] {
            let client = Client::greeted().await;
            let text = misplaced(message.name(), "before set-up");
            client.say(message).await;
            client.ends_for(CloseReason::Protocol, &text).await;
        }
        for message in [
            hello(),
            Message::SetUp(wish()),
            Message::Look(Look::default()),
        ] {
            let client = Client::up().await;
            let text = misplaced(message.name(), "while the tunnel is up");
            client.say(message).await;
            client.ends_for(CloseReason::Protocol, &text).await;
        }
    });
}

#[tokio::test]
async fn a_hello_of_the_future_is_spoken_down_to() {
    let mut client = Client::new();
    client
        .say(Message::Hello(Hello {
            version: VERSION + 7,
            features: BTreeSet::from(["warp".to_owned()]),
            ..Hello::ours()
        }))
        .await;
    assert_eq!(client.hear().await, Message::Hello(Hello::ours()));
}

#[tokio::test]
async fn no_common_version_says_which_end_to_update() {
    for (oldest, version, end) in [
        (
            VERSION + 1,
            VERSION + 7,
            "update sshvpn at the agent's host",
        ),
        (0, OLDEST_VERSION - 1, "update sshvpn at the client"),
    ] {
        let client = Client::new();
        client
            .say(Message::Hello(Hello {
                version,
                oldest,
                ..Hello::ours()
            }))
            .await;
        let host = client.host.clone();
        client.ends_for(CloseReason::Version, end).await;
        assert_eq!(host.done(), ["undo", "finish"], "nothing was looked at");
    }
}

#[test]
fn a_failure_is_told_with_its_reason_and_undone() {
    test_namespace::run(async {
        for what in ["prepare", "look", "open", "apply"] {
            let mut client = Client::with(NotedHost::failing_at(what));
            client.greet().await;
            if what == "look" {
                client.say(Message::Look(Look::default())).await;
            } else if what != "prepare" {
                client.say(Message::SetUp(wish())).await;
            }
            client
                .ends_for(CloseReason::NotPermitted, "CAP_NET_ADMIN")
                .await;
        }
    });
}

#[test]
fn a_silent_local_end_is_left() {
    test_namespace::run(async {
        tokio::time::pause();
        for state in 0..3 {
            let client = Client::in_state(state).await;
            tokio::time::sleep(SILENCE - Duration::from_secs(1)).await;
            assert!(!client.agent.is_finished());
            let (close, end) = client.ends().await;
            let (reason, text) = close.unwrap();
            assert_eq!(reason, CloseReason::Silence);
            assert!(text.contains("45 seconds"), "{text}");
            assert!(matches!(end, AgentEnd::Silence));
        }
    });
}

#[test]
fn pings_keep_it_up() {
    test_namespace::run(async {
        tokio::time::pause();
        let mut client = Client::up().await;
        for token in 0..10 {
            tokio::time::sleep(Duration::from_secs(30)).await;
            client.say(Message::Ping { token }).await;
            // The agent also sends pings.
            while client.hear().await != (Message::Pong { token }) {}
        }
    });
}

#[tokio::test(start_paused = true)]
async fn a_local_end_that_never_reads_is_left_and_everything_undone() {
    let client = Client::greeted().await;
    let Client {
        conversation,
        agent,
        host,
        signal: _signal,
    } = client;
    // The stream holds a few messages; a client that writes more blocks as well.
    for token in 0..1000 {
        let ping = Message::Ping { token };
        let said = timeout(Duration::from_secs(1), conversation.send(&ping)).await;
        if said.is_err() {
            break;
        }
        assert!(token < 999, "there is no bound");
    }
    let end = agent.await.unwrap();
    assert!(matches!(end, AgentEnd::Silence), "{end:?}");
    assert!(host.done().ends_with(&["undo", "finish"]));
}

#[tokio::test]
async fn a_message_that_cannot_be_read_ends_it() {
    let raw = |json: &[u8]| crate::frame::stream::encode_control(json).unwrap();
    for (json, text) in [
        (&b"{\"type\":\"tea\"}"[..], "cannot be read"),
        (b"{\"type\":\"hello\"", "cannot be read"),
        (b"", "cannot be read"),
    ] {
        let client = Client::new();
        client.conversation.output().send(raw(json)).await.unwrap();
        client.ends_for(CloseReason::Protocol, text).await;
    }
    let client = Client::new();
    let length = u32::try_from(MAX_CONTROL + 5).unwrap().to_be_bytes();
    let frame = bytes::Bytes::copy_from_slice(&length);
    client.conversation.output().send(frame).await.unwrap();
    client.ends_for(CloseReason::Protocol, "at most").await;
}

#[test]
fn packets_flow_and_nonsense_between_them_ends_it() {
    test_namespace::run(async {
        let client = Client::up().await;
        // A frame of no known family is dropped and counted.
        let unknown = Bytes::from_static(&[0, 0, 0, 4, 0, 0, 0, 9]);
        client.conversation.output().send(unknown).await.unwrap();
        client.say(Message::Ping { token: 3 }).await;
        let mut client = client;
        assert_eq!(client.hear().await, Message::Pong { token: 3 });
        let frame = crate::frame::stream::encode_control(b"tea").unwrap();
        client.conversation.output().send(frame).await.unwrap();
        client
            .ends_for(CloseReason::Protocol, "cannot be read")
            .await;

        // The bytes after that cannot be parsed, and neither can the end.
        tokio::time::pause();
        let client = Client::up().await;
        let endless = Bytes::from_static(&[0xff; 8]);
        client.conversation.output().send(endless).await.unwrap();
        client.ends_for(CloseReason::Protocol, "at most").await;
    });
}

#[test]
fn a_device_that_is_removed_ends_it() {
    test_namespace::run(async {
        let client = Client::up().await;
        test_namespace::ip("link del sshvpn0");
        client
            .ends_for(CloseReason::Failed, "the agent's tunnel device failed")
            .await;
    });
}

#[test]
fn an_agent_is_told_and_not_asked() {
    test_namespace::run(async {
        let ask = Message::Ask(Ask {
            mode: Mode::PointToPoint,
            mtu: None,
            addresses: Vec::new(),
        });
        for message in [ask, Message::Accept] {
            let client = Client::greeted().await;
            client.say(message).await;
            let text = "this is an agent, which is told what to do";
            client.ends_for(CloseReason::Protocol, text).await;
        }
    });
}
