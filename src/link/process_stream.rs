//! The byte stream to an agent's process: over its standard input and output, or over a
//! socket at which it listens.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::time::timeout;

use super::last_words::LastWords;
use crate::pump::{FrameSink, FrameSource, SendFailure};
use crate::ssh::channel::process::{
    Process, ProcessEvent, ProcessEvents, ProcessGone, ProcessInput,
};
use crate::ssh::client::prompt::terminal_text;

/// How long to wait for the exit status after the end of the output.
const EXIT_WAIT: Duration = Duration::from_secs(2);

/// The receiving side. Standard error goes to the log and to the [`LastWords`].
pub struct AgentOutput {
    printed: Printed,
    /// The socket that replaces standard output, until its end.
    socket: Option<ProcessEvents>,
    ended: bool,
}

/// The sending side. Writes must not overlap: the window may split one, and another would
/// come between its parts.
pub struct AgentInput {
    process: ProcessInput,
    /// The socket that replaces standard input.
    socket: Option<ProcessInput>,
}

/// A process at `host` that may be an agent.
pub(crate) fn of_process(host: String, process: Process) -> (AgentOutput, AgentInput) {
    process.events.widen();
    let output = AgentOutput {
        printed: Printed {
            host,
            events: process.events,
            last_words: LastWords::default(),
        },
        socket: None,
        ended: false,
    };
    let input = AgentInput {
        process: process.input,
        socket: None,
    };
    (output, input)
}

/// Moves the stream to `socket`.
pub(crate) fn go_over(socket: Process, output: &mut AgentOutput, input: &mut AgentInput) {
    socket.events.widen();
    output.socket = Some(socket.events);
    input.socket = Some(socket.input);
}

/// The output of the process itself.
struct Printed {
    host: String,
    events: ProcessEvents,
    last_words: LastWords,
}

impl Printed {
    /// The next piece of its standard output; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            match self.events.next().await? {
                ProcessEvent::Output(data) => return Some(data),
                ProcessEvent::OutputEnd => return None,
                other => self.note(other),
            }
        }
    }

    /// The exit status follows the end of the output.
    async fn finish(&mut self) {
        while let Some(event) = self.events.next().await {
            self.note(event);
        }
    }

    fn note(&mut self, event: ProcessEvent) {
        match event {
            ProcessEvent::ErrorOutput(data) => {
                let text = String::from_utf8_lossy(&data);
                tracing::debug!(host = self.host, "agent: {}", terminal_text::line(&text));
                self.last_words.heard(&data);
            }
            ProcessEvent::Exited(exit) => self.last_words.ended(exit),
            ProcessEvent::Output(_) | ProcessEvent::OutputEnd => {}
        }
    }
}

impl AgentOutput {
    /// The last lines of its standard error.
    pub fn last_words(&self) -> LastWords {
        self.printed.last_words.clone()
    }

    /// The next piece of the stream; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        let AgentOutput {
            printed, socket, ..
        } = self;
        let Some(socket) = socket else {
            return printed.next().await;
        };
        let mut prints = true;
        loop {
            tokio::select! {
                biased;
                event = socket.next() => match event? {
                    ProcessEvent::Output(data) => return Some(data),
                    ProcessEvent::OutputEnd => return None,
                    _ => {}
                },
                // Standard output is not part of the stream then.
                more = printed.next(), if prints => prints = more.is_some(),
            }
        }
    }
}

impl AgentInput {
    /// Writes to its standard input.
    pub(crate) async fn write(&self, data: Bytes) -> Result<(), ProcessGone> {
        self.process.write(data).await
    }

    /// Closes the channel: its output is no longer read.
    pub(crate) async fn close(&self) {
        if let Some(socket) = &self.socket {
            socket.close().await;
        }
        self.process.close().await;
    }
}

impl FrameSource for AgentOutput {
    async fn receive(&mut self) -> Option<Bytes> {
        if !self.ended {
            let output = self.next().await;
            if output.is_some() {
                return output;
            }
            self.ended = true;
        }
        let _ = timeout(EXIT_WAIT, self.printed.finish()).await;
        None
    }

    fn try_receive(&mut self) -> Option<Bytes> {
        self.receive().now_or_never().flatten()
    }
}

impl FrameSink for AgentInput {
    async fn send_all(&self, frames: &mut Vec<Bytes>) -> Result<(), SendFailure> {
        let stream = self.socket.as_ref().unwrap_or(&self.process);
        for frame in frames.drain(..) {
            let sent = stream.write(frame).await;
            sent.map_err(|_| SendFailure::Closed)?;
        }
        Ok(())
    }
}
