//! The remote command or shell beside a tunnel: its streams are ours, its exit
//! code becomes ours.

use std::io::IsTerminal;

use anyhow::anyhow;
use bytes::Bytes;
use tokio::io::{AsyncWriteExt, Stdout};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::escape::{Escape, EscapeFilter};
use super::failure::Failure;
use super::terminal::{self, RawTerminal};
use crate::config::ssh_options::{RequestTty, SessionType, SshOptions};
use crate::ssh::connect::Connection;
use crate::ssh::process::{Exit, Process, ProcessEvent, ProcessInput, ProcessRequest};

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
    let exit = relay(process, options.stdin_null, escape).await;
    drop(raw);
    end_output();
    match exit {
        Some(Exit::Code(code)) => Ok(u8::try_from(code & 0xff).unwrap_or(Failure::SSH)),
        Some(Exit::Signal(_)) => Ok(Failure::SSH),
        None => Ok(Failure::SSH),
    }
}

/// Lets who reads our standard output see its end, though the tunnel stays.
fn end_output() {
    let null = std::fs::File::options().write(true).open("/dev/null");
    if let Some(error) = null
        .and_then(|null| Ok(nix::unistd::dup2_stdout(&null)?))
        .err()
    {
        tracing::debug!("standard output stays open: {error}");
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

/// Passes the streams on until the process is gone.
async fn relay(process: Process, stdin_null: bool, escape: Option<u8>) -> Option<Exit> {
    let Process { mut events, input } = process;
    let mut typed = read_input(stdin_null);
    let mut resized = signal(SignalKind::window_change()).ok();
    let mut filter = EscapeFilter::new(escape);
    let mut output = tokio::io::stdout();
    let mut error_output = tokio::io::stderr();
    let mut exit = None;
    let mut input_open = true;
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(ProcessEvent::Output(data)) => pass(&mut output, &data).await,
                Some(ProcessEvent::ErrorOutput(data)) => {
                    let _ = error_output.write_all(&data).await;
                }
                Some(ProcessEvent::Exited(how)) => exit = Some(how),
                Some(ProcessEvent::OutputEnd) => {}
                None => return exit,
            },
            chunk = typed.recv(), if input_open => match chunk.map(|chunk| filter.pass(&chunk)) {
                Some(Escape::Pass(data)) => input_open = input.write(data).await.is_ok(),
                Some(Escape::Disconnect) => return exit,
                None => {
                    input_open = false;
                    // Gone already is as good.
                    let _ = input.end().await;
                }
            },
            Some(()) = next_resize(&mut resized) => tell_size(&input).await,
        }
    }
}

async fn pass(output: &mut Stdout, data: &[u8]) {
    // A reader that went away must not end the tunnel.
    let _ = output.write_all(data).await;
    let _ = output.flush().await;
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
