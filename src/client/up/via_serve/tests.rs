//! The carrier `serve` against a scripted server on the wire, from the choice of the carrier to
//! the end of the tunnel, with a real local device.

use std::time::Duration;

use bytes::Bytes;
use ipnetwork::IpNetwork;
use tokio::time::timeout;

use super::*;
use crate::client::up::choice::{self, Chosen};
use crate::client::up::claims::Claims;
use crate::client::up::remote_part::{LocalDevice, RemotePart};
use crate::client::up::test_request::request;
use crate::frame::control::{Addresses, CloseReason, Dns, Hello, Message, Offer, PREAMBLE, Ready};
use crate::frame::stream::{StreamFrame, StreamReader, encode_control};
use crate::host::plan::facts::HostFacts;
use crate::host::test_namespace::{self, ip};
use crate::link::datagram::Restrictions;
use crate::ssh::client::wire_server::{Reader, Wire, WireServer, data, number};
use crate::tun::{Device, DeviceRequest};
use crate::types::{DevicePrefix, Mode};

/// Far longer than any step here takes; a test that reaches it hangs.
const HANGS: Duration = Duration::from_secs(20);
const QUIET: Reporter = Reporter { quiet: true };

/// The server's side of the subsystem's stream.
struct Served {
    wire: Wire,
    channel: u32,
    reader: StreamReader,
}

impl Served {
    /// Accepts the client's subsystem request, as a server does.
    async fn greeting(mut wire: Wire) -> Self {
        let (channel, name) = wire.start_next().await.unwrap();
        assert!(name.ends_with("sshvpn"), "{name}");
        wire.send(&data(channel, PREAMBLE)).await.unwrap();
        let mut served = Served {
            wire,
            channel,
            reader: StreamReader::new(Mode::PointToPoint),
        };
        let Message::Hello(theirs) = served.hear().await else {
            panic!("no hello")
        };
        assert!(!theirs.is_server());
        served.say(&server_hello()).await;
        served
    }

    async fn say(&mut self, message: &Message) {
        let frame = encode_control(&message.to_json().unwrap()).unwrap();
        self.wire.send(&data(self.channel, frame)).await.unwrap();
    }

    /// The next control message; skips packets.
    async fn hear(&mut self) -> Message {
        loop {
            match self.reader.next_frame().unwrap() {
                Some(StreamFrame::Control(json)) => return Message::from_json(&json).unwrap(),
                Some(_) => {}
                None => {
                    let packet = self.wire.wait_for(number::CHANNEL_DATA).await.unwrap();
                    let mut fields = Reader::new(&packet);
                    assert_eq!(fields.word(), self.channel);
                    self.reader.push(Bytes::copy_from_slice(fields.string()));
                }
            }
        }
    }
}

fn server_hello() -> Message {
    Message::Hello(Hello::of_server())
}

fn offer() -> Offer {
    Offer {
        mtu: Mtu::ETHERNET,
        addresses: vec![Addresses {
            client: "10.99.0.2".parse().unwrap(),
            agent: "10.99.0.1".parse().unwrap(),
            prefix: 24,
        }],
        routes: vec!["10.20.0.0/16".parse().unwrap()],
        dns: Dns::default(),
    }
}

fn ready(mtu: Mtu) -> Message {
    Message::Ready(Ready {
        device: "tun4".parse().unwrap(),
        mtu,
    })
}

fn start<'a>(connection: &'a Connection, request: &'a UpRequest, claims: &'a Claims) -> Start<'a> {
    Start {
        reporter: QUIET,
        connection,
        request,
        local: HostFacts::default(),
        claims,
        seed: 1,
    }
}

async fn chosen(connection: &Connection, request: &UpRequest) -> ByServe {
    match choice::choose(connection, request, QUIET).await {
        Ok(Chosen::Serve(server)) => ByServe::new(Server, *server),
        Ok(_) => panic!("another carrier"),
        Err(failure) => panic!("{failure}"),
    }
}

/// Brings up a client's tunnel; returns it, or its failure.
async fn comes_up(
    connection: &Connection,
    request: &UpRequest,
) -> Result<(ByServe, Agreed<Mtu>), Failure> {
    let mut remote = chosen(connection, request).await;
    let claims = Claims::default();
    let start = start(connection, request, &claims);
    let agreed = remote.agree(&start).await?;
    let first = DeviceRequest::FirstFree(DevicePrefix::default());
    let tun = Device::open(&first, Mode::PointToPoint).unwrap();
    let held = Restrictions::default();
    let local = LocalDevice { tun, held };
    let device = remote.open(&start, &agreed, local).await?;
    assert_eq!(device, "tun4");
    Ok((remote, agreed))
}

/// Must be called in the test's own network namespace.
async fn server() -> (Connection, Wire) {
    ip("link set lo up");
    let server = WireServer::bind_as("SSH-2.0-sshvpn_9.9").await;
    server.connect().await
}

#[test]
fn a_whole_tunnel_from_the_hello_to_the_last_word() {
    test_namespace::run(async {
        let (connection, wire) = server().await;
        let mut asked = request(&[]);
        asked.acceptance.routes = true;
        asked.address = Some("10.99.0.2".parse().unwrap());
        let client = async {
            let (mut remote, agreed) = comes_up(&connection, &asked).await.unwrap();
            let routes: Vec<IpNetwork> = offer().routes;
            assert_eq!(agreed.pushed.routes, routes);
            assert_eq!(agreed.addresses[0].local, asked.address.unwrap());
            remote.stop(&connection, QUIET).await;
            remote.finish(&connection, QUIET).await;
        };
        let serve = async {
            let mut served = Served::greeting(wire).await;
            let Message::Ask(ask) = served.hear().await else {
                panic!("it does not ask")
            };
            assert_eq!((ask.mode, ask.mtu), (Mode::PointToPoint, None));
            assert_eq!(ask.addresses, [asked.address.unwrap()]);
            served.say(&Message::Ping { token: 5 }).await;
            served.say(&Message::Offer(offer())).await;
            assert_eq!(served.hear().await, Message::Pong { token: 5 });
            assert_eq!(served.hear().await, Message::Accept);
            served.say(&ready(Mtu::ETHERNET)).await;
            let Message::Close { reason, .. } = served.hear().await else {
                panic!("it does not close")
            };
            assert_eq!(reason, CloseReason::Requested);
            served.say(&Message::Closed { left: Vec::new() }).await;
            served
        };
        let both = async { tokio::join!(client, serve) };
        timeout(HANGS, both).await.expect("it hangs");
    });
}

#[test]
fn a_server_that_ends_the_tunnel_says_why() {
    test_namespace::run(async {
        let (connection, wire) = server().await;
        let asked = request(&[]);
        let client = async {
            let (mut remote, _) = comes_up(&connection, &asked).await.unwrap();
            let lost = remote.lost(&connection).await.to_string();
            assert_eq!(lost, "server ended the tunnel: going down for a while");
            remote.stop(&connection, QUIET).await;
        };
        let serve = async {
            let mut served = Served::greeting(wire).await;
            served.hear().await;
            served.say(&Message::Offer(offer())).await;
            served.hear().await;
            served.say(&ready(Mtu::ETHERNET)).await;
            let text = "going down for a while".to_owned();
            let reason = CloseReason::Failed;
            served.say(&Message::Close { reason, text }).await;
            served.say(&Message::Closed { left: Vec::new() }).await;
            served
        };
        let both = async { tokio::join!(client, serve) };
        timeout(HANGS, both).await.expect("it hangs");
    });
}

/// The failure of a client whose server sends these answers to its ask and to what follows.
async fn failure_of(answers: Vec<Message>) -> String {
    let (connection, wire) = server().await;
    let asked = request(&[]);
    let client = async {
        let failure = comes_up(&connection, &asked).await.err();
        failure.expect("it is up").to_string()
    };
    let serve = async {
        let mut served = Served::greeting(wire).await;
        for answer in answers {
            served.hear().await;
            served.say(&answer).await;
        }
        served
    };
    let both = async { tokio::join!(client, serve) };
    timeout(HANGS, both).await.expect("it hangs").0
}

#[test]
fn what_a_server_may_not_say_is_an_error() {
    test_namespace::run(async {
        let close = Message::Close {
            reason: CloseReason::NotPermitted,
            text: "no tunnel for \u{1b}[2Jyou".to_owned(),
        };
        let public = Offer {
            addresses: vec![Addresses {
                client: "8.8.8.8".parse().unwrap(),
                agent: "8.8.4.4".parse().unwrap(),
                prefix: 24,
            }],
            ..offer()
        };
        for (answers, part) in [
            (
                vec![close.clone()],
                "cannot ask for a tunnel: no tunnel for [2Jyou",
            ),
            (
                vec![Message::Offer(offer()), close],
                "that is offered: no tunnel",
            ),
            (vec![ready(Mtu::ETHERNET)], "it says 'ready'"),
            (vec![Message::Accept], "it says 'accept'"),
            (
                vec![server_hello()],
                "the server there does not keep to the protocol",
            ),
            (
                vec![Message::Offer(offer()), Message::Offer(offer())],
                "it says 'offer'",
            ),
            (
                vec![Message::Offer(offer()), ready(Mtu::MIN)],
                "an MTU of 68, not 1500",
            ),
            (vec![Message::Offer(public)], "not private"),
        ] {
            let text = failure_of(answers).await;
            assert!(text.contains(part), "{text}");
        }
    });
}
