//! Ends a connection at every moment: each call that waits for the server returns an error
//! soon.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::connect::Connection;
use super::wire_server::{Message, Wire, WireServer, about, confirmation, data, number};
use crate::ssh::channel::process::{Process, ProcessRequest, TerminalSize};
use crate::ssh::channel::tunnel::SendError;
use crate::ssh::error::ChannelError;
use crate::types::{Mode, UnitRequest};

/// A wait that takes this long hangs: it is far longer than any test needs.
const HANGS: Duration = Duration::from_secs(20);

type Step<'a> = Pin<Box<dyn Future<Output = std::io::Result<()>> + Send + 'a>>;
type Moment = fn(&mut Wire) -> Step<'_>;

/// Connects to a server that does `moment` and then closes the connection; yields the
/// client's result.
async fn connecting(moment: Moment) -> String {
    let server = WireServer::bind().await;
    let serve = async {
        let mut wire = server.accept().await;
        // The client may close the connection first.
        let _ = moment(&mut wire).await;
    };
    let options = server.options();
    let both = async { tokio::join!(WireServer::client(&options), serve) };
    let (client, ()) = timeout(HANGS, both).await.expect("the client hangs");
    client.err().expect("connected").to_string()
}

#[tokio::test]
async fn while_connecting() {
    let moments: [(&str, Moment); 13] = [
        ("at once", |_| Box::pin(async { Ok(()) })),
        ("in the identification", |wire| {
            Box::pin(wire.raw(b"SSH-2."))
        }),
        ("after garbage", |wire| Box::pin(wire.raw(&[0xff; 4096]))),
        ("after nothing but lines", |wire| {
            Box::pin(async {
                loop {
                    wire.raw(b"not SSH\r\n").await?;
                }
            })
        }),
        ("after the identification", |wire| {
            Box::pin(async { wire.identify().await.map(drop) })
        }),
        ("after a packet of every length", |wire| {
            Box::pin(async {
                wire.identify().await?;
                wire.raw(&[0xff; 64]).await
            })
        }),
        ("after a packet of no length", |wire| {
            Box::pin(async {
                wire.identify().await?;
                wire.raw(&[0; 64]).await
            })
        }),
        ("in a packet", |wire| {
            Box::pin(async {
                wire.identify().await?;
                let packet = wire.seal(&Wire::kexinit().0);
                wire.raw(packet.get(..20).unwrap()).await
            })
        }),
        ("in a message", |wire| {
            Box::pin(async {
                wire.identify().await?;
                let mut message = Wire::kexinit();
                message.0.truncate(40);
                wire.send(&message).await
            })
        }),
        ("in the key exchange", |wire| {
            Box::pin(async {
                wire.identify().await?;
                wire.send(&Wire::kexinit()).await?;
                wire.wait_for(number::KEX_ECDH_INIT).await.map(drop)
            })
        }),
        ("after a wrong key exchange", |wire| {
            Box::pin(async {
                wire.identify().await?;
                wire.send(&Wire::kexinit()).await?;
                wire.wait_for(number::KEX_ECDH_INIT).await?;
                let reply = Message::new(number::KEX_ECDH_REPLY);
                wire.send(&reply.string("key").string([0; 32]).string("signature"))
                    .await
            })
        }),
        ("before authentication", |wire| {
            Box::pin(wire.exchange_keys())
        }),
        ("in authentication", |wire| {
            Box::pin(async {
                wire.exchange_keys().await?;
                wire.wait_for(number::SERVICE_REQUEST).await?;
                let accept = Message::new(number::SERVICE_ACCEPT).string("ssh-userauth");
                wire.send(&accept).await?;
                wire.wait_for(number::USERAUTH_REQUEST).await.map(drop)
            })
        }),
    ];
    for (name, moment) in moments {
        let error = connecting(moment).await;
        assert!(!error.is_empty() && error.len() < 1000, "{name}: {error}");
    }
}

/// Runs calls of which the last still waits when the server's part ends.
async fn ended<T>(
    client: impl AsyncFnOnce(&Connection) -> T,
    server: impl AsyncFnOnce(&mut Wire) -> std::io::Result<()>,
) -> T {
    let listening = WireServer::bind().await;
    let (connection, mut wire) = listening.connect().await;
    let serve = async {
        server(&mut wire).await.unwrap();
        drop(wire);
    };
    let both = async { tokio::join!(client(&connection), serve) };
    let (result, ()) = timeout(HANGS, both).await.expect("a call hangs");
    timeout(HANGS, connection.ended())
        .await
        .expect("ended() hangs");
    assert!(connection.end_reason().is_some());
    timeout(HANGS, connection.close())
        .await
        .expect("close() hangs");
    result
}

async fn open_tunnel(connection: &Connection) -> Result<(), ChannelError> {
    let opened = connection.open_tunnel(Mode::PointToPoint, UnitRequest::Any);
    opened.await.map(drop)
}

async fn start(connection: &Connection) -> Result<Process, ChannelError> {
    connection.start(&ProcessRequest::default()).await
}

/// Every call on a connection that is gone fails.
async fn all_calls_fail(connection: &Connection, process: &mut Process) {
    assert!(open_tunnel(connection).await.is_err());
    assert!(start(connection).await.is_err());
    assert!(connection.run("true", "true", "", 10).await.is_err());
    let Process { events, input } = process;
    while events.next().await.is_some() {}
    assert!(input.write("text").await.is_err());
    assert!(input.end().await.is_err());
    assert!(input.resize(TerminalSize::default()).await.is_err());
}

#[tokio::test]
async fn while_a_channel_is_opened() {
    let ask = async |wire: &mut Wire| wire.open_request().await.map(drop);
    let error = ended(open_tunnel, ask).await.unwrap_err();
    assert!(matches!(error, ChannelError::Gone { .. }), "{error}");
    let error = ended(start, ask).await.err().unwrap();
    assert!(matches!(error, ChannelError::Gone { .. }), "{error}");
    let run = async |connection: &Connection| connection.run("true", "true", "", 10).await;
    let error = ended(run, ask).await.unwrap_err();
    assert!(matches!(error, ChannelError::Gone { .. }), "{error}");
}

#[tokio::test]
async fn while_a_command_is_asked_for() {
    let confirm = async |wire: &mut Wire| {
        wire.confirm_next().await?;
        wire.wait_for(number::CHANNEL_REQUEST).await.map(drop)
    };
    assert!(ended(start, confirm).await.is_err());
}

#[tokio::test]
async fn while_a_command_runs() {
    let run = async |connection: &Connection| connection.run("true", "true", "", 10).await;
    let half = async |wire: &mut Wire| {
        let (channel, _) = wire.start_next().await?;
        wire.send(&data(channel, "half of a li")).await
    };
    let error = ended(run, half).await.unwrap_err();
    assert!(matches!(error, ChannelError::Gone { .. }), "{error}");
}

#[tokio::test]
async fn while_input_waits_for_a_window() {
    let write = async |connection: &Connection| {
        let mut process = start(connection).await.unwrap();
        let written = process.input.write(vec![0; 1 << 16]).await;
        all_calls_fail(connection, &mut process).await;
        written
    };
    let starve = async |wire: &mut Wire| {
        let (channel, _) = wire.open_request().await?;
        wire.send(&confirmation(channel, 100, 32768)).await?;
        wire.wait_for(number::CHANNEL_REQUEST).await?;
        wire.send(&about(number::CHANNEL_SUCCESS, channel)).await?;
        wire.wait_for(number::CHANNEL_DATA).await.map(drop)
    };
    assert!(ended(write, starve).await.is_err());
}

#[tokio::test]
async fn in_a_frame() {
    let receive = async |connection: &Connection| {
        let opened = connection.open_tunnel(Mode::PointToPoint, UnitRequest::Any);
        let (sender, mut receiver) = opened.await.unwrap();
        let frames = [receiver.receive().await, receiver.receive().await];
        connection.ended().await;
        let sent = sender.send(Bytes::from_static(b"frame")).await;
        sender.close().await;
        (frames, sent)
    };
    let half = async |wire: &mut Wire| {
        let channel = wire.confirm_next().await?;
        wire.send(&data(channel, "whole")).await?;
        let packet = wire.seal(&data(channel, [0; 1000]).0);
        wire.raw(packet.get(..500).unwrap()).await
    };
    let (frames, sent) = ended(receive, half).await;
    assert_eq!(frames, [Some(Bytes::from_static(b"whole")), None]);
    assert_eq!(sent, Err(SendError::Closed));
}

#[tokio::test]
async fn in_a_rekey() {
    let send = async |connection: &Connection| {
        let opened = connection.open_tunnel(Mode::PointToPoint, UnitRequest::Any);
        let (sender, mut receiver) = opened.await.unwrap();
        let mut process = start(connection).await.unwrap();
        // Nothing is sent during a key exchange: the frames fill every queue, then the
        // sender waits.
        let sent = async { while sender.send(Bytes::from_static(&[0; 100])).await.is_ok() {} };
        let (received, ()) = tokio::join!(receiver.receive(), sent);
        all_calls_fail(connection, &mut process).await;
        received
    };
    let rekey = async |wire: &mut Wire| {
        wire.confirm_next().await?;
        wire.start_next().await?;
        wire.send(&Wire::kexinit()).await?;
        wire.wait_for(number::KEXINIT).await.map(drop)
    };
    assert_eq!(ended(send, rekey).await, None);
}

#[tokio::test]
async fn a_server_that_never_answers_is_not_waited_for_long() {
    let server = WireServer::bind().await;
    let (connection, wire) = server.connect().await;
    let silent = tokio::spawn(wire.drain());
    // From here on, tokio advances the clock whenever all tasks wait.
    tokio::time::pause();
    let error = open_tunnel(&connection).await.unwrap_err();
    assert!(matches!(error, ChannelError::NoAnswer { .. }), "{error}");
    let error = start(&connection).await.err().unwrap();
    assert!(matches!(error, ChannelError::NoAnswer { .. }), "{error}");
    timeout(HANGS, connection.close())
        .await
        .expect("close hangs");
    silent.abort();
}

/// The server neither replies nor reads: the client's data waits in TCP.
#[tokio::test]
async fn a_server_that_reads_no_more_is_taken_for_dead() {
    let server = WireServer::bind().await;
    let mut options = server.options();
    options.server_alive_interval = Some(Duration::from_millis(300));
    options.server_alive_count_max = 2;
    let (connection, mut wire) = server.connect_with(&options).await;
    let open = connection.open_tunnel(Mode::PointToPoint, UnitRequest::Any);
    let answer = async {
        let (channel, _) = wire.open_request().await.unwrap();
        let generous = confirmation(channel, u32::MAX, 65536);
        wire.send(&generous).await.unwrap();
    };
    let (opened, ()) = tokio::join!(open, answer);
    let (sender, _receiver) = opened.unwrap();
    let frame = Bytes::from(vec![0; 16384]);
    let flood = async { while sender.send(frame.clone()).await.is_ok() {} };
    let both = async { tokio::join!(connection.ended(), flood) };
    let (reason, ()) = timeout(HANGS, both)
        .await
        .expect("the stall is not noticed");
    assert!(reason.contains("not responding"), "{reason}");
    drop(wire);
}
