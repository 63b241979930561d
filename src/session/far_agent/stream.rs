//! An agent's process as the two ends of a byte stream: what it prints comes
//! in, what it reads goes out.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::time::timeout;

use super::last_words::LastWords;
use crate::pump::{FrameSink, FrameSource, SendFailure};
use crate::ssh::process::{ProcessEvent, ProcessEvents, ProcessInput};
use crate::ssh::terminal_text;

/// How long after the end of its output a process may take to say how it ended.
const EXIT_WAIT: Duration = Duration::from_secs(2);

/// What an agent prints, in the pieces in which it comes. Standard error goes
/// to the log and to the [`LastWords`].
pub struct AgentOutput {
    host: String,
    events: ProcessEvents,
    last_words: LastWords,
    ended: bool,
}

/// Where an agent reads from. Writes are not to overlap: the window may cut
/// one, and another would come between its parts.
pub struct AgentInput(pub(super) ProcessInput);

impl AgentOutput {
    /// Of a process at `host`.
    pub fn new(host: String, events: ProcessEvents) -> Self {
        AgentOutput {
            host,
            events,
            last_words: LastWords::default(),
            ended: false,
        }
    }

    /// What it says on its standard error.
    pub fn last_words(&self) -> LastWords {
        self.last_words.clone()
    }

    /// The next piece of its output; nothing at the end.
    async fn next_output(&mut self) -> Option<Bytes> {
        loop {
            match self.events.next().await? {
                ProcessEvent::Output(data) => return Some(data),
                ProcessEvent::ErrorOutput(data) => {
                    let text = String::from_utf8_lossy(&data);
                    tracing::debug!(host = self.host, "agent: {}", terminal_text::line(&text));
                    self.last_words.heard(&data);
                }
                ProcessEvent::Exited(exit) => self.last_words.ended(exit),
                ProcessEvent::OutputEnd => return None,
            }
        }
    }
}

impl FrameSource for AgentOutput {
    async fn receive(&mut self) -> Option<Bytes> {
        if !self.ended {
            let output = self.next_output().await;
            if output.is_some() {
                return output;
            }
            self.ended = true;
        }
        // How it ended comes behind the end of its output.
        let rest = async { while self.next_output().await.is_some() {} };
        let _ = timeout(EXIT_WAIT, rest).await;
        None
    }

    fn try_receive(&mut self) -> Option<Bytes> {
        self.receive().now_or_never().flatten()
    }
}

impl FrameSink for AgentInput {
    async fn send_all(&self, frames: &mut Vec<Bytes>) -> Result<(), SendFailure> {
        for frame in frames.drain(..) {
            let sent = self.0.write(frame).await;
            sent.map_err(|_| SendFailure::Closed)?;
        }
        Ok(())
    }
}
