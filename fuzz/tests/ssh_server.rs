//! A client that sends any messages to the SSH server, before and after its login: its connection
//! ends or goes on, the task does not panic, and its memory is bounded.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sshvpn::ssh::server::host_keys::HostKeys;
use sshvpn::ssh::server::login::Login;
use sshvpn::ssh::server::login::accept::accept;
use sshvpn::ssh::server::login::credential::{Attempt, KeyBlob};
use sshvpn::ssh::server::login::gate::{Gate, Tried};
use sshvpn::ssh::server::requests::{RefusalCode, Request};
use sshvpn::ssh::server::settings::ServerSettings;
use sshvpn_fuzz::{Source, target};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

#[allow(dead_code)]
#[path = "../../src/ssh/wire/mod.rs"]
mod wire;

use wire::client::{WireKey, login_request, open};
use wire::{Message, Wire, about, adjust, confirmation, data, number};

target!(ssh_server, run);

/// The memory of one client, in bytes, at most: the unread data of its channels, half as much
/// again, packet buffers, and the test's own side.
const AFFORDABLE: u64 = 48 << 20;
/// The most channels of a client.
const CHANNELS: u8 = 24;
/// Limit for sending to a server that no longer reads, since it waits for readers itself.
const STALLED: Duration = Duration::from_millis(200);
/// Far longer than any step here takes; a test that reaches it hangs.
const HANGS: Duration = Duration::from_secs(20);

/// Accepts the key of the tests.
struct OneKey(KeyBlob);

impl Gate for OneKey {
    type Grant = ();

    fn judge(&self, attempt: &Attempt<'_>) -> Option<()> {
        (attempt.credential.key() == &self.0).then_some(())
    }

    fn failed(&self, _: SocketAddr, _: &str, _: Tried<'_>) {}
}

/// A server on a loopback listener.
struct Lab {
    runtime: Runtime,
    listener: TcpListener,
    settings: ServerSettings,
    gate: Arc<OneKey>,
    key: WireKey,
}

impl Lab {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path: PathBuf = directory.path().join("host");
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let bound = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let key = WireKey::new(1);
        Lab {
            runtime,
            listener: bound.expect("a listener"),
            settings: ServerSettings {
                host_keys: HostKeys::load_or_make(&[path]).expect("a host key"),
                max_auth_tries: 6,
                grace_time: None,
                congestion: None,
                channels: CHANNELS.into(),
            },
            gate: Arc::new(OneKey(KeyBlob(key.blob()))),
            key,
        }
    }
}

thread_local!(static LAB: Lab = Lab::new());

fn run(input: &[u8]) {
    LAB.with(|lab| lab.runtime.block_on(conversation(lab, input)));
}

async fn conversation(lab: &Lab, input: &[u8]) {
    let mut source = Source::new(input);
    let before = resident();
    let address = lab.listener.local_addr().expect("an address");
    let mut wire = Wire::dial(address).await;
    let (stream, peer) = lab.listener.accept().await.expect("a connection");
    let (settings, gate) = (lab.settings.clone(), Arc::clone(&lab.gate));
    let manner = Manner(source.byte());
    let server = tokio::spawn(async move {
        if let Ok(login) = accept(stream, peer, &settings, gate).await {
            serve(login, manner).await;
        }
    });
    // The server may close the connection.
    let _ = timeout(HANGS, talk(lab, &mut wire, source)).await;
    let grown = resident().saturating_sub(before);
    assert!(grown < AFFORDABLE, "grown by {grown} bytes");
    drop(wire);
    let ended = timeout(HANGS, server).await;
    ended
        .expect("the server goes on")
        .expect("the server failed");
}

/// How the server handles requests.
#[derive(Clone, Copy)]
struct Manner(u8);

impl Manner {
    fn refuses(self) -> bool {
        self.0 & 1 != 0
    }

    fn reads(self) -> bool {
        self.0 & 2 != 0
    }
}

/// Answers the requests of a client until it ends. Opened channels are kept, and read or not.
async fn serve(mut login: Login<()>, manner: Manner) {
    let (mut tunnels, mut subsystems, mut forwards) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(request) = login.requests.next().await {
        match request {
            Request::Tunnel { reply, .. } if !manner.refuses() => {
                let (sender, mut receiver) = reply.accept().await;
                if manner.reads() {
                    tokio::spawn(async move { while receiver.receive().await.is_some() {} });
                } else {
                    tunnels.push(receiver);
                }
                drop(sender);
            }
            Request::Subsystem { reply, .. } if !manner.refuses() => {
                let (output, mut input) = reply.accept().await;
                if manner.reads() {
                    tokio::spawn(async move { while input.receive().await.is_some() {} });
                } else {
                    subsystems.push(input);
                }
                drop(output);
            }
            Request::Open { reply, .. } if !manner.refuses() => {
                forwards.push(reply.accept().await);
            }
            Request::Listen { reply, .. } if !manner.refuses() => {
                let _ = reply.accept(80);
            }
            Request::Open { reply, .. } => reply.refuse(RefusalCode::Prohibited, "no").await,
            // Dropping a request refuses it.
            _ => {}
        }
    }
    let reason = timeout(HANGS, login.connection.ended()).await;
    // The reason after a panic of the connection's task.
    assert_ne!(reason.expect("no end"), "the connection failed");
}

/// Sends messages as the input says, logs in where it says so, and goes on.
async fn talk(lab: &Lab, wire: &mut Wire, mut source: Source<'_>) -> std::io::Result<()> {
    let before = source.byte() % 8;
    if before == 0 {
        wire.identify().await?;
        return say(wire, source).await;
    }
    let session = wire.exchange_keys_as_client().await?;
    if before == 1 {
        return say(wire, source).await;
    }
    let service = Message::new(number::SERVICE_REQUEST).string("ssh-userauth");
    wire.send(&service).await?;
    wire.wait_for(number::SERVICE_ACCEPT).await?;
    if before == 2 {
        return say(wire, source).await;
    }
    wire.show(&session, "mallory", &lab.key).await?;
    wire.wait_for(number::USERAUTH_SUCCESS).await?;
    converse(wire, source).await
}

/// Sends messages, each as often as the input says, to a server that does not answer all of them.
async fn say(wire: &mut Wire, mut source: Source<'_>) -> std::io::Result<()> {
    while !source.is_empty() {
        if timeout(STALLED, wire.flood(step(&mut source))).await != Ok(true) {
            break;
        }
    }
    Ok(())
}

/// The same after the login. A message can use a channel that an earlier one opened.
async fn converse(wire: &mut Wire, mut source: Source<'_>) -> std::io::Result<()> {
    while !source.is_empty() {
        let handled = timeout(STALLED, wire.settle(step(&mut source))).await;
        let Ok(handled) = handled else { break };
        handled?;
        // Channels that the server confirmed meanwhile.
        let granted = timeout(STALLED, wire.settle(std::iter::empty())).await;
        granted.unwrap_or(Ok(()))?;
    }
    Ok(())
}

/// One message, or one followed by much unread data, as often as the input says.
fn step(source: &mut Source<'_>) -> impl Iterator<Item = Message> + use<> {
    let mut messages = vec![message(source)];
    let often = source.byte();
    if often & 0x80 != 0 {
        messages.push(Message::new(number::IGNORE).string(vec![0; 250_000]));
    }
    let count = messages.len() << (often % 10);
    messages.into_iter().cycle().take(count)
}

/// Bytes of a length that fits a packet.
fn payload(source: &mut Source<'_>) -> Vec<u8> {
    let length = source.byte();
    vec![length; (1 << (length % 18)) + usize::from(source.byte())]
}

fn message(source: &mut Source<'_>) -> Message {
    let kind = source.byte();
    let channel = u32::from(source.byte() % CHANNELS) + 2;
    match kind % 16 {
        0 | 1 => data(channel, payload(source)),
        2 => {
            let extended = about(number::CHANNEL_EXTENDED_DATA, channel);
            extended.word(1).string(payload(source))
        }
        3 => Message::new(number::IGNORE).string(payload(source)),
        4 | 5 => opening(source, channel),
        6 | 7 => channel_request(source, channel),
        8 => {
            let request = Message::new(number::GLOBAL_REQUEST);
            let names = ["tcpip-forward", "cancel-tcpip-forward", "unknown"];
            let request = request.string(names[usize::from(source.byte()) % names.len()]);
            request.byte(1).string(payload(source)).word(80)
        }
        9 => adjust(channel, u32::from(source.word()) << 16),
        10 => about(number::CHANNEL_EOF + source.byte() % 2, channel),
        11 => confirmation(channel, 1 << 20, 1 << source.byte().min(31)),
        12 => about(number::CHANNEL_OPEN_FAILURE, channel)
            .word(1)
            .string(payload(source))
            .string(""),
        13 => Wire::kexinit(),
        14 => {
            let methods = ["none", "password", "publickey", "keyboard-interactive"];
            let method = methods[usize::from(source.byte()) % methods.len()];
            let request = login_request("mallory", method).byte(source.byte() % 2);
            request.string(payload(source)).string(payload(source))
        }
        _ => {
            let mut any = vec![source.byte()];
            let length = source.byte();
            any.extend_from_slice(source.bytes(length.into()));
            Message(any)
        }
    }
}

fn opening(source: &mut Source<'_>, channel: u32) -> Message {
    let window = u32::from(source.word());
    match source.byte() % 5 {
        0 | 1 => open("session", channel, window),
        2 => {
            let open = open("direct-tcpip", channel, window).string(payload(source));
            open.word(80).string(payload(source)).word(1)
        }
        3 => {
            let tunnel = open("tun@openssh.com", channel, window);
            tunnel.word(1).word(0x7fff_ffff)
        }
        _ => open(&String::from_utf8_lossy(&payload(source)), channel, window),
    }
}

fn channel_request(source: &mut Source<'_>, channel: u32) -> Message {
    let request = about(number::CHANNEL_REQUEST, channel);
    match source.byte() % 5 {
        0 | 1 => request.string("subsystem").byte(1).string("sshvpn"),
        2 => {
            let request = request.string("env").byte(1).string(payload(source));
            request.string(payload(source))
        }
        3 => request.string("exec").byte(1).string(payload(source)),
        _ => request.string(payload(source)).byte(source.byte() % 2),
    }
}

/// This process's resident memory, in bytes (proc_pid_status(5)).
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.expect("VmRSS").trim().trim_end_matches(" kB");
    kilobytes.parse::<u64>().expect("a number") * 1024
}
