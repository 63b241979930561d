//! A server that sends data that the client does not read, on channels and beside them:
//! the client's memory is bounded.

use std::time::Duration;

use tokio::time::timeout;

use super::channel::process::{Process, ProcessRequest};
use super::client::wire_server::{
    Message, Reader, Wire, WireServer, about, adjust, confirmation, data, number,
};
use crate::process::memory::resident;

/// The memory in bytes that a server may cost the client in these tests: far less than
/// without a bound, and more than the other tests use meanwhile.
const AFFORDABLE: u64 = 80 << 20;
/// The number of commands that run at once.
const COMMANDS: usize = 8;

/// A command's channel, as the server sees it.
#[derive(Clone, Copy)]
struct Running {
    channel: u32,
    window: u32,
}

/// Accepts and starts the client's next command.
async fn start(wire: &mut Wire) -> std::io::Result<Running> {
    let packet = wire.wait_for(number::CHANNEL_OPEN).await?;
    let mut reader = Reader::new(&packet);
    reader.string();
    let (channel, window) = (reader.word(), reader.word());
    wire.send(&confirmation(channel, 1 << 21, 32768)).await?;
    wire.wait_for(number::CHANNEL_REQUEST).await?;
    let success = about(number::CHANNEL_SUCCESS, channel);
    wire.send(&success).await?;
    Ok(Running { channel, window })
}

/// Sends messages for as long as the client accepts them, while commands run whose output
/// is not read; yields by how many bytes the client's memory has grown.
async fn grown_by<I: Iterator<Item = Message>>(messages: impl FnOnce(Vec<Running>) -> I) -> u64 {
    let server = WireServer::bind().await;
    let (connection, mut wire) = server.connect().await;
    let (mut processes, mut running): (Vec<Process>, _) = (Vec::new(), Vec::new());
    for _ in 0..COMMANDS {
        let request = ProcessRequest::default();
        let (process, started) = tokio::join!(connection.start(&request), start(&mut wire));
        processes.push(process.unwrap());
        running.push(started.unwrap());
    }
    let before = resident();
    // The client stops reading but does not hang up.
    let flood = wire.flood(messages(running));
    let _ = timeout(Duration::from_secs(3), flood).await;
    let grown = resident().saturating_sub(before);
    drop(processes);
    grown
}

/// Sends the same message `count` times, on each channel in turn.
async fn grown_by_many(count: usize, message: impl Fn(u32) -> Message) -> u64 {
    grown_by(|running| {
        let turns = (0..count).map(move |turn| running[turn % running.len()].channel);
        turns.map(&message)
    })
    .await
}

fn request(channel: u32, name: &str) -> Message {
    let request = about(number::CHANNEL_REQUEST, channel);
    request.string(name).byte(0)
}

#[tokio::test]
async fn output_that_is_not_read_holds_its_own_length() {
    let grown = grown_by(|running| {
        let all: u64 = running.iter().map(|one| u64::from(one.window)).sum();
        assert!(all <= 17 << 20, "{all}");
        running.into_iter().flat_map(|Running { channel, window }| {
            (0..window / 8200).flat_map(move |turn| {
                let output = match turn % 2 {
                    0 => data(channel, vec![1; 8200]),
                    _ => {
                        let errors = about(number::CHANNEL_EXTENDED_DATA, channel);
                        errors.word(1).string(vec![1; 8200])
                    }
                };
                // The long message in between puts each output into a chunk of its own.
                let between = Message::new(number::IGNORE).string(vec![2; 250_000]);
                [output, between]
            })
        })
    });
    let grown = grown.await;
    assert!(grown < AFFORDABLE, "{grown}");
}

#[tokio::test]
async fn requests_and_answers_are_not_queued_without_end() {
    let long = "x".repeat(100_000);
    let signal = |channel| {
        let signal = request(channel, "exit-signal").string("TERM").byte(0);
        signal.string(&long).string(&long)
    };
    assert!(grown_by_many(1000, signal).await < AFFORDABLE);
    let unknown = |channel| request(channel, &long);
    assert!(grown_by_many(1000, unknown).await < AFFORDABLE);
    let global = |_| Message::new(number::GLOBAL_REQUEST).string(&long).byte(1);
    assert!(grown_by_many(1000, global).await < AFFORDABLE);
}

#[tokio::test]
async fn what_is_not_queued_holds_nobody_up() {
    let server = WireServer::bind().await;
    let (connection, mut wire) = server.connect().await;
    let ask = ProcessRequest::default();
    let (process, started) = tokio::join!(connection.start(&ask), start(&mut wire));
    let (_unread, channel) = (process.unwrap(), started.unwrap().channel);
    // More than a queue has places.
    for _ in 0..10_000 {
        for message in [
            request(channel, "exit-status").word(1),
            request(channel, "xon-xoff").byte(1),
            about(number::CHANNEL_EOF, channel),
            adjust(channel, 1),
        ] {
            wire.put(&message).await.unwrap();
        }
    }
    wire.flush().await.unwrap();
    let both = async { tokio::join!(connection.start(&ask), start(&mut wire)) };
    let second = timeout(Duration::from_secs(20), both).await;
    second
        .expect("the second command waits for the first")
        .0
        .unwrap();
}

#[tokio::test]
async fn debug_messages_and_channels_take_no_memory() {
    let long = "x".repeat(100_000);
    let debug = grown_by_many(1000, |_| {
        let debug = Message::new(number::DEBUG).byte(0);
        debug.string(&long).string("")
    });
    assert!(debug.await < AFFORDABLE);
    let opened = grown_by_many(2000, |channel| {
        let open = Message::new(number::CHANNEL_OPEN).string("forwarded-tcpip");
        let open = open.word(channel).word(1 << 20).word(32768);
        open.string(&long).word(80).string(&long).word(1)
    });
    assert!(opened.await < AFFORDABLE);
}
