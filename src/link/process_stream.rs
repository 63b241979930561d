//! An agent's process as the two ends of a byte stream: what it prints comes
//! in, what it reads goes out; or the same over a socket that it listens at.

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

/// How long after the end of its output a process may take to say how it ended.
const EXIT_WAIT: Duration = Duration::from_secs(2);

/// What an agent says, in the pieces in which it comes. Standard error goes
/// to the log and to the [`LastWords`].
pub struct AgentOutput {
    printed: Printed,
    /// Where the stream is in place of standard output, until its end.
    socket: Option<ProcessEvents>,
    ended: bool,
}

/// Where an agent reads from. Writes are not to overlap: the window may cut
/// one, and another would come between its parts.
pub struct AgentInput {
    process: ProcessInput,
    /// Where the stream is in place of standard input.
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

/// The stream goes over `socket` from here on.
pub(crate) fn go_over(socket: Process, output: &mut AgentOutput, input: &mut AgentInput) {
    socket.events.widen();
    output.socket = Some(socket.events);
    input.socket = Some(socket.input);
}

/// What comes from the process itself.
struct Printed {
    host: String,
    events: ProcessEvents,
    last_words: LastWords,
}

impl Printed {
    /// The next piece of its standard output; nothing at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            match self.events.next().await? {
                ProcessEvent::Output(data) => return Some(data),
                ProcessEvent::OutputEnd => return None,
                other => self.note(other),
            }
        }
    }

    /// How it ended comes behind the end of its output.
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
    /// What it says on its standard error.
    pub fn last_words(&self) -> LastWords {
        self.printed.last_words.clone()
    }

    /// The next piece of the stream; nothing at the end.
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
                // What it prints besides is no part of the stream.
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

    /// Closes all there is: what it says has nowhere to go any more.
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
