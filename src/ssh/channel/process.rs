//! A command, shell or subsystem on the server: a session channel (RFC 4254, section 6).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use russh::client::Msg;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Pty, Sig};
use tokio::time::timeout;

use super::reader::ChannelReader;
use crate::ssh::client::connect::{Connection, STREAM_WINDOW};
use crate::ssh::client::events::Shared;
use crate::ssh::client::prompt::terminal_text;
use crate::ssh::error::ChannelError;

/// At most this many characters of a command appear in an error.
const NAME_LENGTH: usize = 60;
/// Limit for an answer between two attempts to open a session.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A command or shell to run.
#[derive(Debug, Clone, Default)]
pub struct ProcessRequest {
    /// The command; `None` starts a login shell.
    pub command: Option<String>,
    /// The terminal to allocate, if any.
    pub terminal: Option<Terminal>,
    /// Environment variables; the server accepts those that its AcceptEnv lists.
    pub environment: Vec<(String, String)>,
}

impl ProcessRequest {
    /// A short name for errors, because the command may be a whole program.
    pub(in crate::ssh) fn name(&self) -> String {
        match &self.command {
            Some(command) => {
                let line = command.lines().next().unwrap_or_default();
                let start: String = line.chars().take(NAME_LENGTH).collect();
                let rest = if start == *command { "" } else { "…" };
                format!("'{start}{rest}'")
            }
            None => "a shell".to_owned(),
        }
    }
}

/// A terminal as requested from the server (RFC 4254, sections 6.2 and 8).
#[derive(Debug, Clone, Default)]
pub struct Terminal {
    /// `TERM`.
    pub name: String,
    /// The terminal's size.
    pub size: TerminalSize,
    /// Terminal modes: opcode and value.
    pub modes: Vec<(u8, u32)>,
}

/// A terminal's size in characters and pixels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns, in characters.
    pub columns: u16,
    /// Rows, in characters.
    pub rows: u16,
    /// Width in pixels; 0 if unknown.
    pub width: u16,
    /// Height in pixels; 0 if unknown.
    pub height: u16,
}

/// An event of a running process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcessEvent {
    /// It wrote to its standard output.
    Output(Bytes),
    /// It wrote to its standard error.
    ErrorOutput(Bytes),
    /// It ended; the value says how.
    Exited(Exit),
    /// It will write nothing more.
    OutputEnd,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// With a code.
    Code(u32),
    /// By a signal, named as in RFC 4254 section 6.10.
    Signal(String),
}

/// A running process.
pub struct Process {
    /// Its output and its end.
    pub events: ProcessEvents,
    /// Its input, and changes of the terminal's size.
    pub input: ProcessInput,
}

/// The reading side of a [`Process`]. Read it or drop it: unread output takes memory up to
/// the channel's window, and then the process blocks.
pub struct ProcessEvents(ChannelReader);

/// The writing side of a [`Process`].
pub struct ProcessInput {
    channel: ChannelWriteHalf<Msg>,
    connection: Arc<Shared>,
}

/// The channel, or the connection under it, is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the process or the connection is gone")]
pub struct ProcessGone;

impl Process {
    /// A process on an open channel.
    pub(in crate::ssh) fn over(
        read: ChannelReadHalf,
        write: ChannelWriteHalf<Msg>,
        connection: &Arc<Shared>,
    ) -> Self {
        Process {
            events: ProcessEvents(ChannelReader::new(read)),
            input: ProcessInput {
                channel: write,
                connection: Arc::clone(connection),
            },
        }
    }
}

impl ProcessEvents {
    /// Raises the channel's window to that of an agent stream, so that the process can send
    /// more before it blocks.
    pub fn widen(&self) {
        self.0.set_window(STREAM_WINDOW);
    }

    /// The next event; `None` once the channel is closed.
    pub async fn next(&mut self) -> Option<ProcessEvent> {
        loop {
            if let Some(event) = event(self.0.message().await?) {
                return Some(event);
            }
        }
    }

    /// The next event if it has already arrived. `None` also once the channel is closed;
    /// [`next`](Self::next) tells the two apart.
    pub fn try_next(&mut self) -> Option<ProcessEvent> {
        loop {
            if let Some(event) = event(self.0.try_message()?) {
                return Some(event);
            }
        }
    }
}

fn event(message: ChannelMsg) -> Option<ProcessEvent> {
    Some(match message {
        ChannelMsg::Data { data } => ProcessEvent::Output(data),
        ChannelMsg::ExtendedData { data, ext: 1 } => ProcessEvent::ErrorOutput(data),
        ChannelMsg::ExitStatus { exit_status } => ProcessEvent::Exited(Exit::Code(exit_status)),
        ChannelMsg::ExitSignal { signal_name, .. } => {
            ProcessEvent::Exited(Exit::Signal(signal_text(&signal_name)))
        }
        ChannelMsg::Eof => ProcessEvent::OutputEnd,
        _ => return None,
    })
}

fn signal_text(signal: &Sig) -> String {
    terminal_text::line(&format!("{signal:?}"))
        .chars()
        .take(32)
        .collect()
}

impl ProcessInput {
    /// Writes to the process's standard input; waits while the channel's window is full.
    pub async fn write(&self, data: impl Into<Bytes>) -> Result<(), ProcessGone> {
        self.or_gone(self.channel.data_bytes(data)).await
    }

    /// Closes the process's standard input.
    pub async fn end(&self) -> Result<(), ProcessGone> {
        self.or_gone(self.channel.eof()).await
    }

    /// Reports the terminal's new size.
    pub async fn resize(&self, size: TerminalSize) -> Result<(), ProcessGone> {
        let change = self.channel.window_change(
            u32::from(size.columns),
            u32::from(size.rows),
            u32::from(size.width),
            u32::from(size.height),
        );
        self.or_gone(change).await
    }

    /// Closes the channel; further output of the process is discarded.
    pub async fn close(&self) {
        // An error means that it is closed already.
        let _ = self.or_gone(self.channel.close()).await;
    }

    /// Sends a message unless the connection ends first: russh would go on waiting for
    /// window space that can no longer be granted.
    async fn or_gone(
        &self,
        sent: impl Future<Output = Result<(), russh::Error>>,
    ) -> Result<(), ProcessGone> {
        tokio::select! {
            sent = sent => sent.map_err(|_| ProcessGone),
            _ = self.connection.ended() => Err(ProcessGone),
        }
    }
}

/// The result of a finished command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Its standard output, cut at the caller's limit.
    pub output: Vec<u8>,
    /// Its standard error, likewise.
    pub error_output: Vec<u8>,
    /// How it ended; `None` if the channel was closed before the server reported it.
    pub exit: Option<Exit>,
}

impl Connection {
    /// Starts a command or shell.
    pub async fn start(&self, request: &ProcessRequest) -> Result<Process, ChannelError> {
        self.start_as(&request.name(), request).await
    }

    /// The same, called `name` in errors.
    pub async fn start_as(
        &self,
        name: &str,
        request: &ProcessRequest,
    ) -> Result<Process, ChannelError> {
        let started = self.request(name, async |write| ask(write, request).await);
        self.answered(name, started).await
    }

    /// Starts a subsystem (RFC 4254, section 6.5) by the name that the server's
    /// configuration gives it. An unknown name fails with [`ChannelError::Process`].
    pub async fn subsystem(&self, subsystem: &str) -> Result<Process, ChannelError> {
        let name = format!("the subsystem '{subsystem}'");
        let started = self.request(&name, async |write| {
            write.request_subsystem(true, subsystem).await
        });
        self.answered(&name, started).await
    }

    /// Opens a session in which `ask` sends one request that wants a reply.
    async fn request(
        &self,
        name: &str,
        ask: impl AsyncFnOnce(&ChannelWriteHalf<Msg>) -> Result<(), russh::Error>,
    ) -> Result<Process, ChannelError> {
        let refused = |reason: &str| ChannelError::Process {
            host: self.host().to_owned(),
            what: name.to_owned(),
            reason: reason.to_owned(),
        };
        self.acks.leave_to_kernel();
        let mut opened = self.handle.channel_open_session().await;
        if matches!(opened, Err(russh::Error::ChannelOpenFailure(_))) {
            // sshd frees a session that was closed after all that came with its closing, and
            // before it reads anything that follows its answer (MaxSessions).
            let _ = timeout(ANSWER_TIMEOUT, self.handle.send_ping()).await;
            opened = self.handle.channel_open_session().await;
        }
        let channel = match opened {
            Ok(channel) => channel,
            Err(russh::Error::ChannelOpenFailure(_)) => {
                let reason = self.shared.take_open_failure().unwrap_or_default();
                return Err(refused(&format!(
                    "session refused: {reason}; does the server's MaxSessions permit one more?"
                )));
            }
            Err(error) => return Err(self.gone(&error)),
        };
        let (mut read, write) = channel.split();
        // Concurrently: a server that sends output before the request would fill the queue
        // that also carries the reply.
        let ask = async {
            let asked = ask(&write).await;
            asked.map_err(|error| self.gone(&error))
        };
        let answer = async {
            loop {
                match read.wait().await {
                    Some(ChannelMsg::Success) => return Ok(()),
                    Some(ChannelMsg::Failure) => return Err(refused("request refused")),
                    Some(ChannelMsg::Close) => return Err(refused("the channel was closed")),
                    Some(_) => {}
                    None => return Err(self.gone(&russh::Error::Disconnect)),
                }
            }
        };
        if let Err(error) = tokio::try_join!(ask, answer) {
            // sshd counts it as a session until it is closed (MaxSessions).
            let _ = write.close().await;
            return Err(error);
        }
        Ok(Process::over(read, write, &self.shared))
    }

    /// Runs a command, which errors call `name`, with `input` until it ends; keeps at most `limit`
    /// bytes of each output.
    pub async fn run(
        &self,
        name: &str,
        command: &str,
        input: impl Into<Bytes>,
        limit: usize,
    ) -> Result<Finished, ChannelError> {
        let request = ProcessRequest {
            command: Some(command.to_owned()),
            ..Default::default()
        };
        let mut process = self.start_as(name, &request).await?;
        // A command that ended early says why in its output.
        let _ = process.input.write(input).await;
        let _ = process.input.end().await;
        let mut finished = Finished {
            output: Vec::new(),
            error_output: Vec::new(),
            exit: None,
        };
        while let Some(event) = process.events.next().await {
            match event {
                ProcessEvent::Output(data) => append(&mut finished.output, &data, limit),
                ProcessEvent::ErrorOutput(data) => append(&mut finished.error_output, &data, limit),
                ProcessEvent::Exited(exit) => finished.exit = Some(exit),
                ProcessEvent::OutputEnd => {}
            }
        }
        match finished.exit {
            None if self.end_reason().is_some() => Err(self.gone(&russh::Error::Disconnect)),
            _ => Ok(finished),
        }
    }
}

fn append(kept: &mut Vec<u8>, data: &[u8], limit: usize) {
    let room = limit.saturating_sub(kept.len()).min(data.len());
    kept.extend_from_slice(data.get(..room).unwrap_or_default());
}

/// Requests the environment, the terminal, and then the command or shell.
async fn ask(write: &ChannelWriteHalf<Msg>, request: &ProcessRequest) -> Result<(), russh::Error> {
    for (name, value) in &request.environment {
        write.set_env(false, name.as_str(), value.as_str()).await?;
    }
    if let Some(terminal) = &request.terminal {
        request_terminal(write, terminal).await?;
    }
    match &request.command {
        Some(command) => write.exec(true, command.as_bytes()).await,
        None => write.request_shell(true).await,
    }
}

async fn request_terminal(
    write: &ChannelWriteHalf<Msg>,
    terminal: &Terminal,
) -> Result<(), russh::Error> {
    let modes: Vec<(Pty, u32)> = terminal
        .modes
        .iter()
        .filter_map(|(code, value)| Some((Pty::from_u8(*code)?, *value)))
        .collect();
    // Without a reply: like ssh, go on without a terminal if the server allocates none.
    write
        .request_pty(
            false,
            &terminal.name,
            u32::from(terminal.size.columns),
            u32::from(terminal.size.rows),
            u32::from(terminal.size.width),
            u32::from(terminal.size.height),
            &modes,
        )
        .await
}
