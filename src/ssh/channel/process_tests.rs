//! Commands on a server that floods, lies or stops: the client's memory stays bounded and
//! every call ends.

use std::time::Duration;

use tokio::time::timeout;

use super::process::{Exit, Finished, ProcessRequest};
use crate::ssh::client::connect::Connection;
use crate::ssh::client::wire_server::{
    Message, Wire, WireServer, about, confirmation, data, number,
};
use crate::ssh::error::ChannelError;

/// A wait that takes this long hangs: it is far longer than any test needs.
const HANGS: Duration = Duration::from_secs(20);

/// Runs a command whose channel the server serves with `serve`.
async fn run(
    limit: usize,
    serve: impl AsyncFnOnce(&mut Wire, u32) -> std::io::Result<()>,
) -> Result<Finished, ChannelError> {
    let server = WireServer::bind().await;
    let (connection, mut wire) = server.connect().await;
    let serving = async {
        let (channel, command) = wire.start_next().await.unwrap();
        assert!(command.contains("command"), "{command}");
        serve(&mut wire, channel).await.unwrap();
        wire
    };
    let both = async { tokio::join!(connection.run("command", "command", "", limit), serving) };
    timeout(HANGS, both).await.expect("run hangs").0
}

fn exit_status(channel: u32, code: u32) -> Message {
    let request = about(number::CHANNEL_REQUEST, channel);
    request.string("exit-status").byte(0).word(code)
}

fn errors(channel: u32, bytes: impl AsRef<[u8]>) -> Message {
    about(number::CHANNEL_EXTENDED_DATA, channel)
        .word(1)
        .string(bytes)
}

#[tokio::test]
async fn of_megabytes_what_was_asked_for_is_kept() {
    let finished = run(1000, async |wire, channel| {
        for _ in 0..60 {
            wire.put(&data(channel, vec![b'o'; 32768])).await?;
            wire.put(&errors(channel, vec![b'e'; 32768])).await?;
        }
        wire.put(&exit_status(channel, 3)).await?;
        wire.send(&about(number::CHANNEL_CLOSE, channel)).await
    });
    let finished = finished.await.unwrap();
    assert_eq!(finished.output, [b'o'; 1000]);
    assert_eq!(finished.error_output, [b'e'; 1000]);
    assert_eq!(finished.exit, Some(Exit::Code(3)));
}

#[tokio::test]
async fn a_channel_closed_without_a_word_is_an_end_without_a_code() {
    let closed =
        async |wire: &mut Wire, channel| wire.send(&about(number::CHANNEL_CLOSE, channel)).await;
    assert_eq!(run(10, closed).await.unwrap().exit, None);
}

#[tokio::test]
async fn strange_requests_and_streams_are_passed_over() {
    let finished = run(10, async |wire, channel| {
        let request = |name: &str| about(number::CHANNEL_REQUEST, channel).string(name);
        for message in [
            about(number::CHANNEL_EXTENDED_DATA, channel)
                .word(99)
                .string("not stderr"),
            request("no-such-request").byte(1),
            request("xon-xoff").byte(0).byte(1),
            about(number::CHANNEL_SUCCESS, channel),
            about(number::CHANNEL_FAILURE, channel),
            confirmation(channel, 1, 1),
            request("exit-signal")
                .byte(0)
                .string("\x1b[2J\n".repeat(9000))
                .byte(0)
                .string("")
                .string(""),
            data(channel, "output"),
            about(number::CHANNEL_EOF, channel),
            about(number::CHANNEL_EOF, channel),
            about(number::CHANNEL_CLOSE, channel),
        ] {
            wire.send(&message).await?;
        }
        Ok(())
    });
    let finished = finished.await.unwrap();
    assert_eq!(finished.output, b"output");
    let Some(Exit::Signal(name)) = finished.exit else {
        panic!("{:?}", finished.exit);
    };
    assert!(
        name.len() <= 32 && !name.chars().any(char::is_control),
        "{name:?}"
    );
}

/// The error of starting a command that the server answers with `answers`.
async fn refused(answers: impl Fn(u32) -> Vec<Message>) -> ChannelError {
    let server = WireServer::bind().await;
    let (connection, mut wire) = server.connect().await;
    // A refused session is asked for again.
    let serve = async {
        loop {
            let (channel, _) = wire.open_request().await.unwrap();
            for message in answers(channel) {
                wire.send(&message).await.unwrap();
            }
        }
    };
    let request = ProcessRequest::default();
    let start = timeout(HANGS, connection.start(&request));
    let started = tokio::select! {
        started = start => started.expect("start hangs"),
        () = serve => unreachable!("the server ended"),
    };
    started.err().expect("started")
}

#[tokio::test]
async fn every_refusal_is_an_error() {
    let wild = "\x1b]0;owned\x07\r\n".repeat(10_000);
    let failure = |channel| {
        let failure = about(number::CHANNEL_OPEN_FAILURE, channel).word(4);
        vec![failure.string(&wild).string("")]
    };
    let text = refused(failure).await.to_string();
    assert!(text.contains("]0;owned") && text.len() < 1000, "{text}");
    assert!(!text.chars().any(char::is_control), "{text}");
    let opened = |channel| confirmation(channel, 1 << 20, 32768);
    for refusal in [number::CHANNEL_FAILURE, number::CHANNEL_CLOSE] {
        let error = refused(|channel| vec![opened(channel), about(refusal, channel)]).await;
        assert!(matches!(error, ChannelError::Process { .. }), "{error}");
    }
}

#[test]
fn an_error_names_a_command_but_shows_no_program() {
    let name = |command: &str| {
        let command = Some(command.to_owned());
        ProcessRequest {
            command,
            ..Default::default()
        }
        .name()
    };
    assert_eq!(name("uname -s"), "'uname -s'");
    assert_eq!(name("one\ntwo\n"), "'one…'");
    assert!(name(&"long ".repeat(1000)).len() < 80);
}

/// A server that floods before the client has sent a request.
#[tokio::test]
async fn a_flood_before_the_command_does_not_block_it() {
    let server = WireServer::bind().await;
    let (connection, mut wire) = server.connect().await;
    let serve = async {
        let (channel, _) = wire.open_request().await.unwrap();
        wire.put(&confirmation(channel, 1 << 20, 32768))
            .await
            .unwrap();
        for _ in 0..1000 {
            wire.put(&data(channel, "noise")).await.unwrap();
        }
        wire.flush().await.unwrap();
        let mut left = 41;
        while left > 0 {
            wire.wait_for(number::CHANNEL_REQUEST).await.unwrap();
            left -= 1;
        }
        wire.send(&about(number::CHANNEL_SUCCESS, channel))
            .await
            .unwrap();
        wire
    };
    // More messages than the send queue holds.
    let request = ProcessRequest {
        environment: vec![("NAME".to_owned(), "value".to_owned()); 40],
        ..Default::default()
    };
    let both = async { tokio::join!(connection.start(&request), serve) };
    let (started, _wire) = timeout(HANGS, both).await.expect("start hangs");
    assert!(started.is_ok());
}

/// Unread output must not block writing input.
#[tokio::test]
async fn dropped_output_holds_nothing_up() {
    let server = WireServer::bind().await;
    let (connection, mut wire): (Connection, Wire) = server.connect().await;
    let serve = async {
        let (channel, _) = wire.start_next().await.unwrap();
        for _ in 0..10_000 {
            wire.put(&data(channel, "chatter")).await.unwrap();
        }
        wire.flush().await.unwrap();
        wire.wait_for(number::CHANNEL_DATA).await.unwrap();
        wire
    };
    let client = async {
        let process = connection.start(&ProcessRequest::default()).await.unwrap();
        drop(process.events);
        process.input.write("input").await.unwrap();
    };
    let both = async { tokio::join!(client, serve) };
    let ((), _wire) = timeout(HANGS, both).await.expect("input waits for output");
}

/// The result of requesting a subsystem that the server answers like this.
async fn subsystem(
    server: impl AsyncFnOnce(Wire) -> Option<Wire>,
) -> Result<super::process::Process, ChannelError> {
    let listening = WireServer::bind().await;
    let (connection, wire) = listening.connect().await;
    let both = async { tokio::join!(connection.subsystem("name"), server(wire)) };
    timeout(HANGS, both).await.expect("it hangs").0
}

#[tokio::test]
async fn a_subsystem_is_asked_for_by_its_name() {
    let started = subsystem(async |mut wire| {
        let (_, name) = wire.start_next().await.unwrap();
        assert!(name.ends_with("name"), "{name}");
        Some(wire)
    });
    assert!(started.await.is_ok());
}

#[tokio::test]
async fn a_refused_subsystem_is_no_lost_connection() {
    let refused = subsystem(async |mut wire| {
        let channel = wire.confirm_next().await.unwrap();
        let refusal = about(number::CHANNEL_FAILURE, channel);
        wire.send(&refusal).await.unwrap();
        Some(wire)
    });
    let error = refused.await.err().expect("started");
    assert!(matches!(error, ChannelError::Process { .. }), "{error}");
    assert!(error.to_string().contains("the subsystem 'name'"));
    let lost = subsystem(async |mut wire| {
        wire.confirm_next().await.unwrap();
        None
    });
    let error = lost.await.err().expect("started");
    assert!(matches!(error, ChannelError::Gone { .. }), "{error}");
}
