//! Runs the remote command or shell beside a tunnel: relays its streams and returns its exit code.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

use bytes::Bytes;
use tokio::fs::File;
use tokio::io::AsyncWriteExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::escape::{Escape, EscapeFilter};
use super::terminal::{self, RawTerminal};
use crate::config::ssh::options::{RequestTty, SessionType, SshOptions};
use crate::process::failure::Failure;
use crate::ssh::channel::process::{
    Exit, Process, ProcessEvent, ProcessEvents, ProcessInput, ProcessRequest,
};
use crate::ssh::client::connect::Connection;

/// Bytes read from standard input at a time.
const INPUT_CHUNK: usize = 32 * 1024;
/// Chunks read ahead of sending, at most.
const INPUT_QUEUE: usize = 4;

/// Duplicates of this process's standard output and error, taken before it goes into the
/// background, so that the remote output still goes there.
pub struct Output {
    standard: File,
    error: File,
}

impl Output {
    /// Duplicates the current streams.
    pub fn here() -> io::Result<Self> {
        let copy = |stream: &dyn AsFd| {
            let copy = stream.as_fd().try_clone_to_owned()?;
            io::Result::Ok(File::from_std(copy.into()))
        };
        Ok(Output {
            standard: copy(&io::stdout())?,
            error: copy(&io::stderr())?,
        })
    }
}

/// How a remote process ended.
pub enum Ended {
    /// With this exit code; 255 if a signal ended it or no status came.
    Process(u8),
    /// The user ended the connection (`~.`).
    ByUser,
}

/// Runs the command or shell of `options` until it ends.
pub async fn run(
    connection: &Connection,
    options: &SshOptions,
    output: Output,
) -> Result<Ended, Failure> {
    let wants_terminal = wants_terminal(options);
    let request = ProcessRequest {
        command: options.remote_command.clone(),
        terminal: wants_terminal.then(terminal::describe),
        environment: options.environment(std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        })),
    };
    let process = match options.session_type {
        SessionType::Subsystem => {
            let name = request.command.as_deref().unwrap_or_default();
            connection.subsystem(name).await
        }
        _ => connection.start(&request).await,
    };
    let process = process.map_err(Failure::ssh)?;
    let raw = if wants_terminal && std::io::stdin().is_terminal() {
        Some(RawTerminal::enter().map_err(Failure::local)?)
    } else {
        None
    };
    let escape = options.escape_char.filter(|_| raw.is_some());
    let ended = relay(process, options.stdin_null, escape, output).await;
    drop(raw);
    end_output();
    Ok(ended)
}

/// Relays standard input and output over `process`, a connection made for `-W`.
pub async fn relay_stdio(process: Process, options: &SshOptions, output: Output) -> Ended {
    let ended = relay(process, options.stdin_null, None, output).await;
    end_output();
    match ended {
        // The connection has no exit code.
        Ended::Process(_) => Ended::Process(0),
        Ended::ByUser => Ended::ByUser,
    }
}

/// Closes standard output, so that its reader sees end of file while the tunnel stays up.
fn end_output() {
    let null = std::fs::File::options().write(true).open("/dev/null");
    if let Some(error) = null
        .and_then(|null| Ok(nix::unistd::dup2_stdout(&null)?))
        .err()
    {
        tracing::debug!("standard output stays open: {error}");
    }
}

/// Whether to request a terminal, as ssh decides (ssh_config(5), RequestTTY).
fn wants_terminal(options: &SshOptions) -> bool {
    let here = std::io::stdin().is_terminal() && !options.stdin_null;
    match options.request_tty {
        RequestTty::No => false,
        RequestTty::Auto => here && options.remote_command.is_none(),
        RequestTty::Yes => here,
        RequestTty::Force => true,
    }
}

/// Relays the streams until the process ends.
async fn relay(process: Process, stdin_null: bool, escape: Option<u8>, output: Output) -> Ended {
    let Process { events, input } = process;
    // Concurrently: a process that reads no input can still write output.
    tokio::select! {
        code = pass_output(events, &input, output) => Ended::Process(code),
        () = pass_input(read_input(stdin_null), &input, EscapeFilter::new(escape)) => Ended::ByUser,
        never = pass_sizes(&input) => match never {},
    }
}

/// Relays the process's output; returns its exit code.
async fn pass_output(mut events: ProcessEvents, input: &ProcessInput, mut output: Output) -> u8 {
    let mut code = Failure::SSH;
    while let Some(event) = events.next().await {
        match event {
            ProcessEvent::Output(data) => {
                if write(&mut output.standard, &data).await.is_err() {
                    // The reader of standard output is gone. Closing the channel
                    // tells the process; the tunnel stays up.
                    input.close().await;
                    return Failure::SSH;
                }
            }
            ProcessEvent::ErrorOutput(data) => {
                // A lost error message does not stop the process.
                let _ = write(&mut output.error, &data).await;
            }
            ProcessEvent::Exited(Exit::Code(exit)) => {
                code = u8::try_from(exit & 0xff).unwrap_or(Failure::SSH);
            }
            ProcessEvent::Exited(Exit::Signal(_)) => code = Failure::SSH,
            ProcessEvent::OutputEnd => {}
        }
    }
    code
}

async fn write(output: &mut File, data: &[u8]) -> io::Result<()> {
    output.write_all(data).await?;
    output.flush().await
}

/// Relays standard input; returns when the user types the disconnect escape.
async fn pass_input(
    mut typed: mpsc::Receiver<Bytes>,
    input: &ProcessInput,
    mut filter: EscapeFilter,
) {
    while let Some(chunk) = typed.recv().await {
        match filter.pass(&chunk) {
            Escape::Pass(data) => {
                if input.write(data).await.is_err() {
                    break;
                }
            }
            Escape::Disconnect => return,
        }
    }
    // The process may have ended already.
    let _ = input.end().await;
    std::future::pending().await
}

/// Sends each new terminal size to the process; never returns.
async fn pass_sizes(input: &ProcessInput) -> std::convert::Infallible {
    if let Ok(mut resized) = signal(SignalKind::window_change()) {
        while resized.recv().await.is_some() {
            // The process may have ended already.
            let _ = input.resize(terminal::size()).await;
        }
    }
    std::future::pending().await
}

/// Reads standard input in chunks, on a separate thread, since a blocked read cannot be
/// cancelled; the thread ends with this process.
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
