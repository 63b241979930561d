//! Clients that break the protocol: this costs them their request or their connection, but
//! never the server's memory or its task.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use proptest::prelude::RngExt;
use proptest::test_runner::{RngAlgorithm, TestRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::login::{Login, LoginFailure};
use super::requests::{RefusalCode, Request};
use super::stream::{ForwardInput, ForwardOutput, SubsystemInput, SubsystemOutput};
use super::test_lab::{HANGS, Lab, UNTOUCHED};
use crate::process::memory::resident;
use crate::ssh::client::connect::{STREAM_WINDOW, UNREAD_LIMIT};
use crate::ssh::client::wire_server::{
    Message, Reader, Wire, about, adjust, confirmation, data, number,
};
use crate::ssh::wire::client::{WireKey, WireSecurityKey, login_request, open};

/// The memory in bytes that a client may cost the server in these tests: less than half of
/// its cost without a bound, and more than the other tests use meanwhile.
const AFFORDABLE: u64 = 100 << 20;

/// A key that the gate knows.
fn good() -> WireKey {
    WireKey::new(1)
}

async fn lab() -> Lab {
    let lab = Lab::new().await;
    lab.gate.know_blob(good().blob());
    lab
}

/// A client that is logged in, and the server's side of the connection.
async fn connected(lab: &Lab) -> (Wire, Login<String>) {
    let client = async {
        let mut wire = Wire::dial(lab.address()).await;
        wire.log_in_as_client(&good()).await.unwrap();
        wire
    };
    tokio::join!(client, lab.login())
}

/// The server's result for a client that does `act` before a login.
async fn before_login(
    lab: &Lab,
    act: impl AsyncFnOnce(&mut Wire) -> std::io::Result<()>,
) -> LoginFailure {
    let client = async {
        let mut wire = Wire::dial(lab.address()).await;
        // The server may disconnect it at any point.
        let _ = act(&mut wire).await;
    };
    let ((), accepted) = tokio::join!(client, lab.accept());
    accepted.err().expect("the client logged in")
}

async fn next(login: &mut Login<String>) -> Request {
    let next = timeout(HANGS, login.requests.next()).await;
    next.expect("no request").expect("the connection has ended")
}

/// The refused request, as it is logged.
async fn unserved(login: &mut Login<String>) -> String {
    match next(login).await {
        Request::Unserved { what, .. } => what,
        _ => panic!("another request"),
    }
}

async fn ended(login: &Login<String>) -> String {
    let ended = timeout(HANGS, login.connection.ended()).await;
    let reason = ended.expect("the connection goes on");
    // The reason after a panic of the connection's task.
    assert_ne!(reason, "the connection failed");
    reason
}

async fn answer(wire: &mut Wire, number: u8) -> Vec<u8> {
    let answer = timeout(HANGS, wire.wait_for(number)).await;
    answer.expect("no answer").unwrap()
}

/// The reason code of the next refused channel.
async fn refusal(wire: &mut Wire) -> u32 {
    let packet = answer(wire, number::CHANNEL_OPEN_FAILURE).await;
    let mut reader = Reader::new(&packet);
    reader.word();
    reader.word()
}

/// Opens a session; yields the server's channel number.
async fn session(wire: &mut Wire, channel: u32) -> u32 {
    let request = open("session", channel, 1 << 20);
    wire.send(&request).await.unwrap();
    let packet = answer(wire, number::CHANNEL_OPEN_CONFIRMATION).await;
    let mut reader = Reader::new(&packet);
    reader.word();
    reader.word()
}

fn request(channel: u32, kind: &str) -> Message {
    about(number::CHANNEL_REQUEST, channel).string(kind).byte(1)
}

/// Sends at most `count` messages, until the server accepts no more.
async fn flood(mut wire: Wire, count: usize, message: impl Fn(usize) -> Message) {
    wire.flood((0..count).map(message)).await;
}

#[tokio::test]
async fn a_client_without_strict_key_exchange_is_served() {
    let lab = lab().await;
    let (mut wire, mut login) = connected(&lab).await;
    assert_eq!(login.user, "mallory");
    let tunnel = open("tun@openssh.com", 7, 1 << 20)
        .word(1)
        .word(0x7fff_ffff);
    wire.send(&tunnel).await.unwrap();
    let Request::Tunnel { reply, .. } = next(&mut login).await else {
        panic!("another request");
    };
    let (sender, mut receiver) = reply.accept().await;
    let packet = answer(&mut wire, number::CHANNEL_OPEN_CONFIRMATION).await;
    let mut reader = Reader::new(&packet);
    assert_eq!(reader.word(), 7);
    let channel = reader.word();
    wire.send(&data(channel, [1; 60])).await.unwrap();
    assert_eq!(receiver.receive().await.unwrap(), [1; 60][..]);
    sender.send(vec![2; 70].into()).await.unwrap();
    let packet = answer(&mut wire, number::CHANNEL_DATA).await;
    let mut reader = Reader::new(&packet);
    assert_eq!((reader.word(), reader.string()), (7, &[2; 70][..]));
}

#[tokio::test]
async fn messages_out_of_order_are_no_login() {
    let lab = lab().await;
    let first = |message: Message| {
        async move |wire: &mut Wire| {
            wire.identify().await?;
            wire.send(&message).await?;
            wire.wait_for(0).await.map(drop)
        }
    };
    for message in [
        Message::new(number::NEWKEYS),
        Message::new(number::KEX_ECDH_INIT).string([1; 32]),
        login_request("mallory", "none"),
        open("session", 0, 1),
        Message::new(number::KEXINIT),
        Message::new(number::KEXINIT).string([0xff; 100]),
    ] {
        let failure = before_login(&lab, first(message.clone())).await;
        assert!(
            matches!(failure, LoginFailure::Protocol(_)),
            "{:?}: {failure:?}",
            message.0
        );
    }
    let point_at_infinity = before_login(&lab, async |wire| {
        wire.identify().await?;
        wire.send(&Wire::kexinit()).await?;
        let init = Message::new(number::KEX_ECDH_INIT).string([0; 32]);
        wire.send(&init).await?;
        wire.wait_for(0).await.map(drop)
    });
    assert!(matches!(point_at_infinity.await, LoginFailure::Protocol(_)));
}

/// A client that stops after the key exchange counts like one that stays silent.
#[tokio::test]
async fn a_login_has_begun_when_it_is_asked_for() {
    let mut lab = lab().await;
    lab.settings.grace_time = Some(Duration::from_millis(500));
    for asks in [false, true] {
        let failure = before_login(&lab, async |wire| {
            wire.ask_for_login().await?;
            if asks {
                wire.send(&login_request("mallory", "none")).await?;
            }
            // Until the server disconnects it.
            wire.receive().await?;
            wire.receive().await.map(drop)
        });
        assert_eq!(failure.await, LoginFailure::GraceTime(0));
        assert_eq!(lab.gate.begun(), usize::from(asks));
    }
}

#[tokio::test]
async fn nothing_is_had_before_a_login() {
    let mut lab = lab().await;
    lab.settings.grace_time = Some(Duration::from_secs(2));
    let failure = before_login(&lab, async |wire| {
        wire.ask_for_login().await?;
        wire.send(&open("session", 0, 1 << 20)).await?;
        let listen = Message::new(number::GLOBAL_REQUEST).string("tcpip-forward");
        let listen = listen.byte(1).string("").word(80);
        wire.send(&listen).await?;
        let success = Message::new(number::USERAUTH_SUCCESS);
        wire.send(&success).await?;
        let message = wire.receive().await?;
        panic!("an answer: {message:?}");
    });
    assert_eq!(failure.await, LoginFailure::GraceTime(0));
}

#[tokio::test]
async fn other_methods_fail_and_count() {
    let mut lab = lab().await;
    lab.settings.max_auth_tries = 4;
    let failure = before_login(&lab, async |wire| {
        wire.ask_for_login().await?;
        let password = login_request("mallory", "password")
            .byte(0)
            .string("secret");
        let interactive = login_request("mallory", "keyboard-interactive")
            .string("")
            .string("");
        let none = login_request("mallory", "none");
        // The first "none" only asks for the methods.
        for message in [&none, &password, &interactive, &none, &password] {
            wire.send(message).await?;
            let packet = wire.wait_for(number::USERAUTH_FAILURE).await?;
            assert_eq!(Reader::new(&packet).string(), b"publickey");
        }
        wire.send(&password).await?;
        wire.wait_for(number::DISCONNECT).await?;
        // The server does not wait until the client closes.
        wire.wait_for(0).await.map(drop)
    });
    // A second "none" is a failure, but not an attempt with a key.
    assert_eq!(failure.await, LoginFailure::Failed(3));
    let tried = [
        "mallory: password",
        "mallory: keyboard-interactive",
        "mallory: password",
    ];
    assert_eq!(lab.gate.failures(), tried);
}

#[tokio::test]
async fn a_key_without_its_signature_is_no_login() {
    let lab = lab().await;
    let failure = before_login(&lab, async |wire| {
        let mut session = wire.ask_for_login().await?;
        session[0] ^= 1;
        wire.show(&session, "mallory", &good()).await?;
        wire.wait_for(number::USERAUTH_FAILURE).await?;
        // Another user's key with a signature by the client's own key.
        let request = login_request("mallory", "publickey").byte(1);
        let request = request.string("ssh-ed25519").string(good().blob());
        let signature = Message(Vec::new()).string("ssh-ed25519").string([7; 64]);
        wire.send(&request.string(signature.0)).await?;
        wire.wait_for(number::USERAUTH_FAILURE).await.map(drop)
    });
    assert!(matches!(failure.await, LoginFailure::Failed(_)));
    // The log names the keys that the client claimed.
    let said = "mallory: a key, bad signature";
    assert_eq!(lab.gate.failures(), [said; 2]);
}

#[tokio::test]
async fn a_security_key_has_to_be_touched() {
    let lab = lab().await;
    let key = WireSecurityKey::new(2);
    lab.gate.know_blob(key.blob());
    let failure = before_login(&lab, async |wire| {
        let session = wire.ask_for_login().await?;
        let shown = wire.show_security_key(&session, "mallory", &key, false);
        shown.await?;
        wire.wait_for(number::USERAUTH_FAILURE).await.map(drop)
    });
    failure.await;
    assert_eq!(lab.gate.failures(), ["mallory: a key"]);
    // The gate accepts untouched signatures only for a user who is allowed them.
    for (user, touched) in [("mallory", true), (UNTOUCHED, false)] {
        let client = async {
            let mut wire = Wire::dial(lab.address()).await;
            let session = wire.ask_for_login().await.unwrap();
            let shown = wire.show_security_key(&session, user, &key, touched);
            shown.await.unwrap();
            answer(&mut wire, number::USERAUTH_SUCCESS).await
        };
        let (_, login) = tokio::join!(client, lab.login());
        assert_eq!(login.touched, touched);
    }
}

/// The algorithm of a signature decides whether it states a touch at all, so a security
/// key's signature under the name of another algorithm is refused.
#[tokio::test]
async fn a_security_key_signs_as_a_security_key() {
    let lab = lab().await;
    let key = WireSecurityKey::new(2);
    lab.gate.know_blob(key.blob());
    for name in ["rsa-sha2-512", "ssh-rsa", "ecdsa-sha2-nistp256"] {
        let failure = before_login(&lab, async |wire| {
            let session = wire.ask_for_login().await?;
            wire.show_security_key_as(&session, &key, name).await?;
            wire.wait_for(number::USERAUTH_FAILURE).await.map(drop)
        });
        let failure = failure.await;
        assert!(
            matches!(failure, LoginFailure::Failed(1) | LoginFailure::Protocol(_)),
            "{name}: {failure}"
        );
    }
}

#[tokio::test]
async fn keys_cannot_be_asked_for_without_end() {
    let lab = lab().await;
    let failure = before_login(&lab, async |wire| {
        wire.ask_for_login().await?;
        let offer = login_request("mallory", "publickey").byte(0);
        let offer = offer.string("ssh-ed25519").string(good().blob());
        loop {
            wire.send(&offer).await?;
            wire.receive().await?;
        }
    });
    assert!(matches!(failure.await, LoginFailure::Failed(6)));
    assert!(lab.gate.judged() < 100);
}

#[tokio::test]
async fn a_long_user_name_is_not_considered() {
    let lab = lab().await;
    let failure = before_login(&lab, async |wire| {
        let session = wire.ask_for_login().await?;
        wire.show(&session, &"m".repeat(200_000), &good()).await?;
        wire.wait_for(number::USERAUTH_FAILURE).await.map(drop)
    });
    assert_eq!(failure.await, LoginFailure::Failed(1));
    assert_eq!(lab.gate.judged(), 0);
}

#[tokio::test]
async fn channels_are_counted_and_what_is_unknown_is_called_so() {
    let mut lab = lab().await;
    lab.settings.channels = 3;
    let (mut wire, mut login) = connected(&lab).await;
    for kind in ["x11", "auth-agent@openssh.com", "nonsense@example"] {
        let request = open(kind, 1, 1 << 20);
        let request = match kind {
            "x11" => request.string("localhost").word(1),
            _ => request,
        };
        wire.send(&request).await.unwrap();
        assert_eq!(refusal(&mut wire).await, 3, "{kind}");
        assert_eq!(unserved(&mut login).await, kind);
    }
    let socket = open("direct-streamlocal@openssh.com", 1, 1 << 20);
    let socket = socket.string("/run/x").string("").word(0);
    wire.send(&socket).await.unwrap();
    assert_eq!(refusal(&mut wire).await, 1);
    assert_eq!(unserved(&mut login).await, "direct-streamlocal /run/x");

    let first = session(&mut wire, 1).await;
    session(&mut wire, 2).await;
    let forward = || {
        let request = open("direct-tcpip", 3, 1 << 20).string("host").word(80);
        request.string("127.0.0.1").word(1)
    };
    // A requested channel takes a place before it is open.
    wire.send(&forward()).await.unwrap();
    let Request::Open { reply, .. } = next(&mut login).await else {
        panic!("another request");
    };
    wire.send(&forward()).await.unwrap();
    assert_eq!(refusal(&mut wire).await, 4);
    assert_eq!(unserved(&mut login).await, "direct-tcpip host:80");
    reply.refuse(RefusalCode::ConnectFailed, "").await;
    assert_eq!(refusal(&mut wire).await, 2);
    let originator = SocketAddr::from(([127, 0, 0, 1], 1));
    let opened = {
        let opening = login.connection.open_forwarded("", 1, originator);
        let asked = answer(&mut wire, number::CHANNEL_OPEN);
        let (_, packet) = tokio::join!(timeout(Duration::from_millis(1), opening), asked);
        let mut reader = Reader::new(&packet);
        assert_eq!(reader.string(), b"forwarded-tcpip");
        reader.word()
    };
    // The server no longer waits for this reply.
    let refused = about(number::CHANNEL_OPEN_FAILURE, opened).word(1);
    wire.send(&refused.string("").string("")).await.unwrap();
    // Closing a channel makes room for another.
    wire.send(&about(number::CHANNEL_CLOSE, first))
        .await
        .unwrap();
    answer(&mut wire, number::CHANNEL_CLOSE).await;
    session(&mut wire, 9).await;
}

#[tokio::test]
async fn who_opens_channel_after_channel_is_thrown_out() {
    let lab = lab().await;
    for kind in ["nonsense@example", "auth-agent@openssh.com", "session"] {
        let (wire, login) = connected(&lab).await;
        let before = resident();
        flood(wire, 200_000, |number| {
            open(kind, u32::try_from(number).unwrap(), 1 << 20)
        })
        .await;
        let reason = ended(&login).await;
        assert!(reason.contains("too many requests"), "{kind}: {reason}");
        assert!(resident().saturating_sub(before) < AFFORDABLE, "{kind}");
    }
}

#[tokio::test]
async fn requests_that_nobody_takes_do_not_pile_up() {
    let lab = lab().await;
    let (wire, login) = connected(&lab).await;
    flood(wire, 200_000, |number| {
        let channel = u32::try_from(number).unwrap();
        let request = open("direct-tcpip", channel, 1 << 20)
            .string("host")
            .word(80);
        request.string("127.0.0.1").word(1)
    })
    .await;
    let reason = ended(&login).await;
    assert!(reason.contains("too many requests"), "{reason}");
}

#[tokio::test]
async fn requests_with_huge_strings_take_no_memory() {
    let lab = lab().await;
    let (mut wire, login) = connected(&lab).await;
    let channel = session(&mut wire, 1).await;
    let before = resident();
    let value = vec![b'x'; 200_000];
    for _ in 0..2000 {
        let request = request(channel, "env").string("NAME").string(&value);
        wire.send(&request).await.unwrap();
    }
    for kind in ["auth-agent-req@openssh.com", "nonsense"] {
        wire.send(&request(channel, kind)).await.unwrap();
    }
    let exec = request(channel, "exec").string(&value);
    wire.send(&exec).await.unwrap();
    for _ in 0..2003 {
        answer(&mut wire, number::CHANNEL_FAILURE).await;
    }
    // The session ends with the refusal of its program; later requests are not answered.
    answer(&mut wire, number::CHANNEL_CLOSE).await;
    wire.send(&request(channel, "shell")).await.unwrap();
    assert!(resident().saturating_sub(before) < AFFORDABLE);
    drop(wire);
    ended(&login).await;
}

/// The next window adjustment, which must be of this channel.
async fn granted(wire: &mut Wire, channel: u32) -> u32 {
    let packet = answer(wire, number::CHANNEL_WINDOW_ADJUST).await;
    let mut reader = Reader::new(&packet);
    // The client numbers its channels like the server.
    assert_eq!(reader.word(), channel);
    reader.word()
}

/// Starts a subsystem; yields its window and its halves.
async fn subsystem(
    wire: &mut Wire,
    login: &mut Login<String>,
    channel: u32,
) -> (u32, (SubsystemOutput, SubsystemInput)) {
    assert_eq!(session(wire, channel).await, channel);
    let subsystem = request(channel, "subsystem").string("sshvpn");
    wire.send(&subsystem).await.unwrap();
    let Request::Subsystem { reply, .. } = next(login).await else {
        panic!("another request");
    };
    let halves = reply.accept().await;
    (granted(wire, channel).await, halves)
}

/// Data messages that each take a chunk of memory of their own.
fn scattered(channels: &[u32], count: usize) -> impl Iterator<Item = Message> {
    let messages = (0..count).map(|turn| channels[turn % channels.len()]);
    messages.flat_map(|channel| {
        let between = Message::new(number::IGNORE).string(vec![2; 250_000]);
        [data(channel, vec![1; 8200]), between]
    })
}

#[tokio::test]
async fn a_session_has_no_window_until_something_is_started() {
    let lab = lab().await;
    let (mut wire, login) = connected(&lab).await;
    wire.send(&open("session", 2, 1 << 20)).await.unwrap();
    let packet = answer(&mut wire, number::CHANNEL_OPEN_CONFIRMATION).await;
    let mut reader = Reader::new(&packet);
    assert_eq!((reader.word(), reader.word(), reader.word()), (2, 2, 0));
    wire.send(&data(2, [1])).await.unwrap();
    ended(&login).await;
}

#[tokio::test]
async fn all_channels_of_a_connection_have_one_limit() {
    let lab = lab().await;
    let (mut wire, mut login) = connected(&lab).await;
    let channels: Vec<u32> = (2..18).collect();
    let (mut windows, mut unread) = (0, Vec::new());
    for &channel in &channels {
        let (window, halves) = subsystem(&mut wire, &mut login, channel).await;
        windows += window as usize;
        unread.push(halves);
    }
    let least = channels.len() * (256 << 10);
    assert!(
        windows > UNREAD_LIMIT / 2 && windows <= UNREAD_LIMIT + least,
        "{windows}"
    );
    // On each channel as much data as the smallest window permits, in the form that takes
    // the most memory.
    let before = resident();
    let each = (256 << 10) / 8200;
    wire.flood(scattered(&channels, each * channels.len()))
        .await;
    // The server has received everything.
    session(&mut wire, 90).await;
    assert!(resident().saturating_sub(before) < AFFORDABLE / 2);
    // A channel that is read is granted more, however little the others leave.
    let (_, input) = &mut unread[15];
    for _ in 0..each {
        assert_eq!(input.receive().await.unwrap().len(), 8200);
    }
    assert!(granted(&mut wire, 17).await > 0);
}

#[tokio::test]
async fn a_client_that_fills_all_its_windows_takes_what_was_granted() {
    let lab = lab().await;
    let (mut wire, mut login) = connected(&lab).await;
    let (window, _first) = subsystem(&mut wire, &mut login, 2).await;
    let (other, _second) = subsystem(&mut wire, &mut login, 3).await;
    let count = (window as usize / 8200).min(1000);
    let before = resident();
    wire.flood(scattered(&[2], count)).await;
    wire.flood(scattered(&[3], (other as usize / 8200).min(500)))
        .await;
    session(&mut wire, 4).await;
    assert!(resident().saturating_sub(before) < AFFORDABLE / 2);
    // Messages that no window limits: the server stops reading at some point, and the
    // connection stays up.
    let small = (0..2_000_000).map(|_| data(2, []));
    let _ = timeout(Duration::from_secs(2), wire.flood(small)).await;
    assert!(resident().saturating_sub(before) < AFFORDABLE / 2);
    drop(wire);
    drop((_first, _second));
    ended(&login).await;
}

#[tokio::test]
async fn ends_and_windows_are_not_queued() {
    let lab = lab().await;
    let (mut wire, mut login) = connected(&lab).await;
    let (_, (_output, mut input)) = subsystem(&mut wire, &mut login, 2).await;
    let before = resident();
    let messages = (0..1_000_000).map(|turn| match turn % 2 {
        0 => about(number::CHANNEL_EOF, 2),
        _ => adjust(2, 1),
    });
    wire.flood(messages).await;
    session(&mut wire, 3).await;
    assert!(resident().saturating_sub(before) < AFFORDABLE / 2);
    assert_eq!(input.receive().await, None);
}

#[tokio::test]
async fn refused_connections_cost_patience() {
    let lab = lab().await;
    for (code, lasts) in [
        (RefusalCode::Prohibited, false),
        (RefusalCode::ResourceShortage, false),
        (RefusalCode::ConnectFailed, true),
    ] {
        let (mut wire, mut login) = connected(&lab).await;
        let mut refused = 0;
        let ask = async {
            // One at a time, so that the receiver of the requests refuses each of them.
            while refused < 3000 {
                let open = open("direct-tcpip", refused, 100).string("host").word(80);
                wire.send(&open.string("127.0.0.1").word(1)).await?;
                wire.wait_for(number::CHANNEL_OPEN_FAILURE).await?;
                refused += 1;
            }
            std::io::Result::Ok(())
        };
        let refuse = async {
            while let Some(Request::Open { reply, .. }) = login.requests.next().await {
                reply.refuse(code, "no").await;
            }
        };
        tokio::select! {
            asked = ask => assert_eq!(asked.is_ok(), lasts, "{code:?}: {refused}"),
            () = refuse => assert!(!lasts, "{code:?}: {refused}"),
        }
        assert!(refused >= 1000, "{code:?}: {refused}");
    }
}

#[tokio::test]
async fn long_names_are_not_sent_back_or_kept() {
    let lab = lab().await;
    let (mut wire, mut login) = connected(&lab).await;
    let long = "x".repeat(100_000);
    let open = open("direct-tcpip", 1, 100).string(&long).word(80);
    wire.send(&open.string(&long).word(1)).await.unwrap();
    let packet = answer(&mut wire, number::CHANNEL_OPEN_FAILURE).await;
    assert!(packet.len() < 300, "{}", packet.len());
    assert!(unserved(&mut login).await.len() < 300);
    let listen = Message::new(number::GLOBAL_REQUEST).string("tcpip-forward");
    let listen = listen.byte(1).string(&long).word(80);
    wire.send(&listen).await.unwrap();
    answer(&mut wire, number::REQUEST_FAILURE).await;
    assert!(unserved(&mut login).await.len() < 300);
    let channel = session(&mut wire, 1).await;
    let subsystem = request(channel, "subsystem").string(&long);
    wire.send(&subsystem).await.unwrap();
    answer(&mut wire, number::CHANNEL_FAILURE).await;
    assert!(unserved(&mut login).await.len() < 300);
}

#[tokio::test]
async fn a_long_kexinit_is_no_login() {
    let lab = lab().await;
    let failure = before_login(&lab, async |wire| {
        wire.identify().await?;
        let mut long = Wire::kexinit();
        long.0.truncate(long.0.len() - 9);
        let long = long.string("x".repeat(40_000)).byte(0).word(0);
        wire.send(&long).await?;
        wire.wait_for(0).await.map(drop)
    });
    assert!(matches!(failure.await, LoginFailure::Protocol(_)));
}

#[tokio::test]
async fn data_beyond_the_window_ends_the_connection() {
    let lab = lab().await;
    for started in [false, true] {
        let (mut wire, mut login) = connected(&lab).await;
        let channel = session(&mut wire, 1).await;
        let mut halves = None;
        if started {
            let subsystem = request(channel, "subsystem").string("sshvpn");
            wire.send(&subsystem).await.unwrap();
            let Request::Subsystem { reply, .. } = next(&mut login).await else {
                panic!("another request");
            };
            halves = Some(reply.accept().await);
        }
        let before = resident();
        flood(wire, 10_000, |_| data(channel, vec![1; 32768])).await;
        ended(&login).await;
        assert!(resident().saturating_sub(before) < AFFORDABLE);
        drop(halves);
    }
}

#[tokio::test]
async fn a_reader_who_stops_stops_only_its_channel() {
    let lab = lab().await;
    let (mut wire, mut login) = connected(&lab).await;
    let stopped = session(&mut wire, 1).await;
    let subsystem = request(stopped, "subsystem").string("sshvpn");
    wire.send(&subsystem).await.unwrap();
    let Request::Subsystem { reply, .. } = next(&mut login).await else {
        panic!("another request");
    };
    let (_output, mut input) = reply.accept().await;
    // The client's channel has the number 1.
    assert_eq!(granted(&mut wire, 1).await, STREAM_WINDOW);
    // Fills the window; nothing reads the data.
    for _ in 0..STREAM_WINDOW / 32768 {
        wire.send(&data(stopped, vec![1; 32768])).await.unwrap();
    }
    session(&mut wire, 2).await;
    let mut bytes = 0;
    while bytes < STREAM_WINDOW as usize {
        bytes += input.receive().await.unwrap().len();
    }
    // After the data is read, the client may send more.
    answer(&mut wire, number::CHANNEL_WINDOW_ADJUST).await;
}

/// A TCP forward: the server's channel number, and the server's halves.
async fn forwarded(
    wire: &mut Wire,
    login: &mut Login<String>,
) -> (u32, (ForwardInput, ForwardOutput)) {
    let open = open("direct-tcpip", 3, 100).string("host").word(80);
    wire.send(&open.string("127.0.0.1").word(1)).await.unwrap();
    let Request::Open { reply, .. } = next(login).await else {
        panic!("another request");
    };
    let halves = reply.accept().await;
    let packet = answer(wire, number::CHANNEL_OPEN_CONFIRMATION).await;
    let mut reader = Reader::new(&packet);
    reader.word();
    (reader.word(), halves)
}

#[tokio::test]
async fn the_end_of_a_forward_is_told_from_its_close() {
    let lab = lab().await;
    for first in [number::CHANNEL_EOF, number::CHANNEL_CLOSE] {
        let (mut wire, mut login) = connected(&lab).await;
        let (channel, (mut input, _output)) = forwarded(&mut wire, &mut login).await;
        wire.send(&data(channel, [7; 100])).await.unwrap();
        wire.send(&about(first, channel)).await.unwrap();
        let mut came = Vec::new();
        let read = timeout(HANGS, input.read_to_end(&mut came)).await;
        read.expect("the input does not end").unwrap();
        assert_eq!(came, [7; 100]);
        if first == number::CHANNEL_EOF {
            let early = timeout(Duration::from_millis(50), input.closed()).await;
            assert!(early.is_err(), "the channel is not closed yet");
            let close = about(number::CHANNEL_CLOSE, channel);
            wire.send(&close).await.unwrap();
        }
        let closed = timeout(HANGS, input.closed()).await;
        closed.expect("the close is not reported");
    }
}

#[tokio::test]
async fn who_closes_a_channel_stops_its_writer() {
    let lab = lab().await;
    let (mut wire, mut login) = connected(&lab).await;
    let (channel, (_input, mut output)) = forwarded(&mut wire, &mut login).await;
    let write = async { output.write_all(&[5; 1000]).await };
    let close = async {
        answer(&mut wire, number::CHANNEL_DATA).await;
        wire.send(&about(number::CHANNEL_CLOSE, channel)).await
    };
    let both = async { tokio::join!(write, close) };
    let (written, closed) = timeout(HANGS, both).await.expect("the writer hangs");
    closed.unwrap();
    assert!(written.is_err());
}

#[tokio::test]
async fn channels_that_are_never_closed_by_the_client_leave_nothing() {
    let lab = lab().await;
    let (mut wire, mut login) = connected(&lab).await;
    let before = resident();
    for channel in 0..30_000 {
        let open = open("direct-tcpip", channel, 100).string("host").word(80);
        wire.send(&open.string("127.0.0.1").word(1)).await.unwrap();
        let Request::Open { reply, .. } = next(&mut login).await else {
            panic!("another request");
        };
        drop(reply.accept().await);
        answer(&mut wire, number::CHANNEL_CLOSE).await;
    }
    assert!(resident().saturating_sub(before) < AFFORDABLE);
}

#[tokio::test]
async fn who_does_not_leave_is_left() {
    let lab = lab().await;
    let (_wire, login) = connected(&lab).await;
    let started = Instant::now();
    login.connection.disconnect("enough").await;
    ended(&login).await;
    assert!(started.elapsed() < Duration::from_secs(5));

    let (mut wire, login) = connected(&lab).await;
    let goodbye = Message::new(number::DISCONNECT)
        .word(11)
        .string("\x1b[2Jbye");
    wire.send(&goodbye.string("")).await.unwrap();
    let reason = ended(&login).await;
    assert_eq!(reason, "the client disconnected: 11: [2Jbye");
}

#[tokio::test]
async fn broken_messages_end_the_connection_and_not_the_task() {
    let lab = lab().await;
    let unopened = 77;
    for message in [
        Message::new(number::CHANNEL_OPEN),
        Message::new(number::CHANNEL_OPEN).word(u32::MAX),
        open("session", 1, 1).string("more"),
        Message(open("tun@openssh.com", 1, 1).0[..10].to_vec()),
        Message::new(number::GLOBAL_REQUEST)
            .string("tcpip-forward")
            .byte(1),
        confirmation(unopened, 1 << 20, 32768),
        Message::new(number::CHANNEL_REQUEST).word(1).word(u32::MAX),
        Message::new(number::KEXINIT),
        Message::new(number::DISCONNECT),
    ] {
        let (mut wire, login) = connected(&lab).await;
        wire.send(&message).await.unwrap();
        ended(&login).await;
    }
    // Invalid packet lengths.
    for length in [0_u32, 1, 300 << 10, u32::MAX] {
        let (mut wire, login) = connected(&lab).await;
        wire.raw(&length.to_be_bytes()).await.unwrap();
        wire.raw(&[0; 64]).await.unwrap();
        ended(&login).await;
    }
}

#[tokio::test]
async fn random_messages_do_not_end_the_task() {
    let lab = lab().await;
    let mut random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    for _ in 0..40 {
        let (mut wire, login) = connected(&lab).await;
        let channel = session(&mut wire, 1).await;
        for _ in 0..200 {
            let mut message = match random.random_range(0..4) {
                0 => Message::new(random.random()),
                1 => about(random.random_range(80..101), channel),
                2 => request(channel, "pty-req").string("xterm"),
                _ => open("tun@openssh.com", random.random(), random.random()),
            };
            let length = random.random_range(0..60);
            message.0.extend((0..length).map(|_| random.random::<u8>()));
            if wire.send(&message).await.is_err() {
                break;
            }
        }
        drop(wire);
        ended(&login).await;
    }
}
