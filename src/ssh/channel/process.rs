//! A command, shell or subsystem on the remote end: a session channel (RFC 4254, section 6).

use std::sync::Arc;

use bytes::Bytes;
use russh::client::Msg;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Pty, Sig};

use crate::ssh::client::connect::{Connection, STREAM_WINDOW};
use crate::ssh::client::events::Shared;
use crate::ssh::client::prompt::terminal_text;
use crate::ssh::error::ChannelError;

/// Characters of a command that an error shows.
const NAME_LENGTH: usize = 60;

/// What is to run.
#[derive(Debug, Clone, Default)]
pub struct ProcessRequest {
    /// The command; a login shell if none.
    pub command: Option<String>,
    /// A terminal for it.
    pub terminal: Option<Terminal>,
    /// Environment variables; the server takes those that its AcceptEnv lists.
    pub environment: Vec<(String, String)>,
}

impl ProcessRequest {
    /// What it is called in an error: a whole program may be in it.
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

/// A terminal as the remote end is told of it (RFC 4254, sections 6.2 and 8).
#[derive(Debug, Clone, Default)]
pub struct Terminal {
    /// `TERM`.
    pub name: String,
    /// Its size.
    pub size: TerminalSize,
    /// Modes by their opcode.
    pub modes: Vec<(u8, u32)>,
}

/// In characters and pixels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TerminalSize {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
    /// Width in pixels, 0 if not known.
    pub width: u16,
    /// Height in pixels, 0 if not known.
    pub height: u16,
}

/// What a process does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcessEvent {
    /// It wrote to its standard output.
    Output(Bytes),
    /// It wrote to its standard error.
    ErrorOutput(Bytes),
    /// It ended.
    Exited(Exit),
    /// It will write no more.
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
    /// What it does.
    pub events: ProcessEvents,
    /// What it is told.
    pub input: ProcessInput,
}

/// The reading side of a [`Process`]. It has to be read or dropped: what waits in
/// it takes memory, up to the window, and the process waits behind it.
pub struct ProcessEvents {
    channel: ChannelReadHalf,
    /// The channel is closed.
    closed: bool,
}

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
    /// At the other end of a channel.
    pub(in crate::ssh) fn over(
        read: ChannelReadHalf,
        write: ChannelWriteHalf<Msg>,
        connection: &Arc<Shared>,
    ) -> Self {
        Process {
            events: ProcessEvents::new(read),
            input: ProcessInput {
                channel: write,
                connection: Arc::clone(connection),
            },
        }
    }
}

impl ProcessEvents {
    fn new(channel: ChannelReadHalf) -> Self {
        ProcessEvents {
            channel,
            closed: false,
        }
    }

    /// Lets the process send as much as an agent stream takes before it has to wait.
    pub fn widen(&self) {
        self.channel.set_window(STREAM_WINDOW);
    }

    /// The next event; nothing once the channel is closed.
    pub async fn next(&mut self) -> Option<ProcessEvent> {
        while !self.closed {
            let message = self.channel.wait().await;
            if let Some(event) = self.event(message?) {
                return Some(event);
            }
        }
        None
    }

    /// The next event if it has come already. Nothing also once the channel is
    /// closed: [`next`](Self::next) tells.
    pub fn try_next(&mut self) -> Option<ProcessEvent> {
        while !self.closed {
            let message = self.channel.try_wait();
            if let Some(event) = self.event(message?) {
                return Some(event);
            }
        }
        None
    }

    fn event(&mut self, message: ChannelMsg) -> Option<ProcessEvent> {
        Some(match message {
            ChannelMsg::Data { data } => ProcessEvent::Output(data),
            ChannelMsg::ExtendedData { data, ext: 1 } => ProcessEvent::ErrorOutput(data),
            ChannelMsg::ExitStatus { exit_status } => ProcessEvent::Exited(Exit::Code(exit_status)),
            ChannelMsg::ExitSignal { signal_name, .. } => {
                ProcessEvent::Exited(Exit::Signal(signal_text(&signal_name)))
            }
            ChannelMsg::Eof => ProcessEvent::OutputEnd,
            ChannelMsg::Close => {
                self.closed = true;
                return None;
            }
            _ => return None,
        })
    }
}

fn signal_text(signal: &Sig) -> String {
    terminal_text::line(&format!("{signal:?}"))
        .chars()
        .take(32)
        .collect()
}

impl ProcessInput {
    /// Writes to its standard input; waits while its window is full.
    pub async fn write(&self, data: impl Into<Bytes>) -> Result<(), ProcessGone> {
        self.or_gone(self.channel.data_bytes(data)).await
    }

    /// Ends its standard input.
    pub async fn end(&self) -> Result<(), ProcessGone> {
        self.or_gone(self.channel.eof()).await
    }

    /// Tells it that the terminal has another size.
    pub async fn resize(&self, size: TerminalSize) -> Result<(), ProcessGone> {
        let change = self.channel.window_change(
            u32::from(size.columns),
            u32::from(size.rows),
            u32::from(size.width),
            u32::from(size.height),
        );
        self.or_gone(change).await
    }

    /// Closes the channel: the process's output has nowhere to go any more.
    pub async fn close(&self) {
        // Gone already is as good.
        let _ = self.or_gone(self.channel.close()).await;
    }

    /// A message to the remote end, until the connection ends: russh would wait on
    /// for a window that nobody can grant any more.
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

/// What one finished command left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Its standard output, cut at the limit that the caller gave.
    pub output: Vec<u8>,
    /// Its standard error, likewise.
    pub error_output: Vec<u8>,
    /// How it ended; nothing if the channel was closed before it said.
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

    /// Starts a subsystem (RFC 4254, section 6.5), which the server's
    /// configuration names. A server that has none of that name answers with
    /// [`ChannelError::Process`].
    pub async fn subsystem(&self, subsystem: &str) -> Result<Process, ChannelError> {
        let name = format!("the subsystem '{subsystem}'");
        let started = self.request(&name, async |write| {
            write.request_subsystem(true, subsystem).await
        });
        self.answered(&name, started).await
    }

    /// A session in which `ask` asks for one thing, with a reply.
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
        let channel = match self.handle.channel_open_session().await {
            Ok(channel) => channel,
            Err(russh::Error::ChannelOpenFailure(_)) => {
                let reason = self.shared.take_open_failure().unwrap_or_default();
                return Err(refused(&format!("session refused: {reason}")));
            }
            Err(error) => return Err(self.gone(&error)),
        };
        let (mut read, write) = channel.split();
        // Both at once: a server that talks before it is asked fills the
        // queue that its answer has to come through.
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

    /// Runs a command, which errors call `name`, with this input to its end; keeps `limit`
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

/// Environment, terminal, and the command or shell itself.
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
    // Without a reply: ssh goes on without a terminal too if the server has none.
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
