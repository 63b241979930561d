//! The remote command or shell beside a tunnel: its streams are ours, its exit
//! code becomes ours.

use std::io::IsTerminal;

use anyhow::anyhow;
use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::escape::{Escape, EscapeFilter};
use super::failure::Failure;
use super::terminal::{self, RawTerminal};
use crate::config::ssh_options::{RequestTty, SessionType, SshOptions};
use crate::ssh::connect::Connection;
use crate::ssh::process::{
    Exit, Process, ProcessEvent, ProcessEvents, ProcessInput, ProcessRequest,
};

/// Bytes read from standard input at a time.
const INPUT_CHUNK: usize = 32 * 1024;
/// Chunks that may wait to be sent.
const INPUT_QUEUE: usize = 4;

/// Runs what `options` ask for to its end; yields its exit code, 255 where it
/// was ended by a signal or without a word.
pub async fn run(connection: &Connection, options: &SshOptions) -> Result<u8, Failure> {
    if options.session_type == SessionType::Subsystem {
        return Err(Failure::local(anyhow!(
            "subsystems are not supported beside a tunnel"
        )));
    }
    let wants_terminal = wants_terminal(options);
    let request = ProcessRequest {
        command: options.remote_command.clone(),
        terminal: wants_terminal.then(terminal::describe),
        environment: options.environment(std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        })),
    };
    let process = connection.start(&request).await.map_err(Failure::ssh)?;
    let raw = if wants_terminal && std::io::stdin().is_terminal() {
        Some(RawTerminal::enter().map_err(Failure::local)?)
    } else {
        None
    };
    let escape = options.escape_char.filter(|_| raw.is_some());
    let typed = read_input(options.stdin_null);
    let (output, error_output) = (tokio::io::stdout(), tokio::io::stderr());
    let exit = relay(process, typed, escape, output, error_output).await;
    drop(raw);
    match exit {
        Some(Exit::Code(code)) => Ok(u8::try_from(code & 0xff).unwrap_or(Failure::SSH)),
        Some(Exit::Signal(_)) => Ok(Failure::SSH),
        None => Ok(Failure::SSH),
    }
}

/// As ssh decides (ssh_config(5), RequestTTY).
fn wants_terminal(options: &SshOptions) -> bool {
    let here = std::io::stdin().is_terminal() && !options.stdin_null;
    match options.request_tty {
        RequestTty::No => false,
        RequestTty::Auto => here && options.remote_command.is_none(),
        RequestTty::Yes => here,
        RequestTty::Force => true,
    }
}

/// Passes the streams on until the process is gone or the user disconnects,
/// both directions at once: a process that waits for its output to be taken
/// takes no input.
async fn relay(
    process: Process,
    typed: mpsc::Receiver<Bytes>,
    escape: Option<u8>,
    output: impl AsyncWrite + Unpin,
    error_output: impl AsyncWrite + Unpin,
) -> Option<Exit> {
    let Process { events, input } = process;
    tokio::select! {
        exit = show(events, output, error_output) => exit,
        () = feed(&input, typed, escape) => None,
    }
}

/// Writes what the process says, to its end; yields how it ended.
async fn show(
    mut events: ProcessEvents,
    mut output: impl AsyncWrite + Unpin,
    mut error_output: impl AsyncWrite + Unpin,
) -> Option<Exit> {
    let mut exit = None;
    while let Some(event) = events.next().await {
        match event {
            ProcessEvent::Output(data) => pass(&mut output, &data).await,
            ProcessEvent::ErrorOutput(data) => pass(&mut error_output, &data).await,
            ProcessEvent::Exited(how) => exit = Some(how),
            ProcessEvent::OutputEnd => {}
        }
    }
    exit
}

async fn pass(output: &mut (impl AsyncWrite + Unpin), data: &[u8]) {
    // A reader that went away must not end the tunnel.
    let _ = output.write_all(data).await;
    let _ = output.flush().await;
}

/// Sends what is typed and how large the terminal is, until the user
/// disconnects by the escape character.
async fn feed(input: &ProcessInput, mut typed: mpsc::Receiver<Bytes>, escape: Option<u8>) {
    let mut resized = signal(SignalKind::window_change()).ok();
    let mut filter = EscapeFilter::new(escape);
    let mut input_open = true;
    loop {
        tokio::select! {
            chunk = typed.recv(), if input_open => match chunk.map(|chunk| filter.pass(&chunk)) {
                Some(Escape::Pass(data)) => input_open = input.write(data).await.is_ok(),
                Some(Escape::Disconnect) => return,
                None => {
                    input_open = false;
                    // Gone already is as good.
                    let _ = input.end().await;
                }
            },
            Some(()) = next_resize(&mut resized) => tell_size(input).await,
            else => std::future::pending().await,
        }
    }
}

async fn next_resize(signal: &mut Option<tokio::signal::unix::Signal>) -> Option<()> {
    signal.as_mut()?.recv().await
}

async fn tell_size(input: &ProcessInput) {
    // Gone already is as good.
    let _ = input.resize(terminal::size()).await;
}

/// Standard input by chunks. A thread of its own reads it, since a blocked read
/// cannot be cancelled; it ends with the process.
fn read_input(stdin_null: bool) -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(INPUT_QUEUE);
    if stdin_null {
        return receiver;
    }
    std::thread::spawn(move || {
        let mut buffer = vec![0; INPUT_CHUNK];
        loop {
            let chunk = match nix::unistd::read(std::io::stdin(), &mut buffer) {
                Ok(0) => return,
                Ok(length) => Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default()),
                Err(nix::errno::Errno::EINTR) => continue,
                Err(_) => return,
            };
            if sender.blocking_send(chunk).is_err() {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ssh::wire_server::{WireServer, about, adjust, confirmation, data, number};

    /// A command such as `cat`, which takes input only while its output is taken.
    #[tokio::test]
    async fn input_and_output_do_not_wait_for_each_other() {
        const CHUNKS: usize = 1000;
        let server = WireServer::bind().await;
        let (connection, mut wire) = server.connect().await;
        let serve = async {
            let (channel, _) = wire.open_request().await.unwrap();
            wire.send(&confirmation(channel, 10, 32768)).await.unwrap();
            wire.wait_for(number::CHANNEL_REQUEST).await.unwrap();
            let started = about(number::CHANNEL_SUCCESS, channel);
            wire.send(&started).await.unwrap();
            // Its window is full; it says more than any queue holds, then goes on.
            wire.wait_for(number::CHANNEL_DATA).await.unwrap();
            for _ in 0..CHUNKS {
                wire.put(&data(channel, "output")).await.unwrap();
            }
            wire.send(&adjust(channel, 10)).await.unwrap();
            wire.wait_for(number::CHANNEL_DATA).await.unwrap();
            let exit = about(number::CHANNEL_REQUEST, channel).string("exit-status");
            wire.put(&exit.byte(0).word(7)).await.unwrap();
            let close = about(number::CHANNEL_CLOSE, channel);
            wire.send(&close).await.unwrap();
            wire
        };
        let client = async {
            let process = connection.start(&ProcessRequest::default()).await.unwrap();
            let (typing, typed) = mpsc::channel(1);
            typing.send(Bytes::from_static(&[b'i'; 20])).await.unwrap();
            let mut output = Vec::new();
            let exit = relay(process, typed, None, &mut output, tokio::io::sink()).await;
            (exit, output.len())
        };
        let both = async { tokio::join!(client, serve) };
        let ended = tokio::time::timeout(Duration::from_secs(20), both).await;
        let (ended, _wire) = ended.expect("both ends wait for each other");
        assert_eq!(ended, (Some(Exit::Code(7)), CHUNKS * "output".len()));
    }
}
