//! Ends an agent: tells the client the reason, undoes the host's changes and closes the stream.

use std::time::Duration;

use tokio::time::timeout;

use super::dialogue::SILENCE;
use super::error::AgentError;
use super::host::Host;
use super::refusals;
use crate::frame::control::{CloseReason, Hello, Message, OLDEST_VERSION, VERSION};
use crate::link::control::Conversation;
use crate::link::stream::{LinkEvent, StreamLink};
use crate::process::message::say;
use crate::pump::{FrameSink, FrameSource};

/// Limit for sending the last messages, and for the client to end the stream.
const LAST_WORD: Duration = Duration::from_secs(5);

/// Why an agent ended.
#[derive(Debug)]
pub(crate) enum AgentEnd {
    /// The client requested it.
    Requested,
    /// The stream ended, with the client or its connection.
    StreamEnded,
    /// The client sent or read nothing for the time limit.
    Silence,
    /// A signal to this process.
    Signal(i32),
    /// The client sent an invalid message, or one in the wrong state.
    Protocol(String),
    /// The two programs have no common version.
    Version(Hello),
    /// The request is not permitted, or failed.
    Failed(AgentError),
}

/// The end after a message in the wrong state.
pub(crate) fn misplaced(message: &Message, when: &str) -> AgentEnd {
    AgentEnd::Protocol(format!("a '{}' message cannot come {when}", message.name()))
}

impl From<AgentError> for AgentEnd {
    fn from(error: AgentError) -> Self {
        AgentEnd::Failed(error)
    }
}

impl AgentEnd {
    /// Whether this is a normal end.
    pub(crate) fn is_orderly(&self) -> bool {
        matches!(
            self,
            AgentEnd::Requested | AgentEnd::StreamEnded | AgentEnd::Signal(_)
        )
    }

    /// The reason to send to the client; `None` if the client knows it.
    fn close(&self) -> Option<(CloseReason, String)> {
        Some(match self {
            AgentEnd::Requested | AgentEnd::StreamEnded => return None,
            AgentEnd::Silence => {
                let seconds = SILENCE.as_secs();
                (
                    CloseReason::Silence,
                    format!("nothing from the client in {seconds} seconds"),
                )
            }
            AgentEnd::Signal(number) => (
                CloseReason::Requested,
                format!("the agent was ended by signal {number}"),
            ),
            AgentEnd::Protocol(what) => (CloseReason::Protocol, what.clone()),
            AgentEnd::Version(theirs) => (CloseReason::Version, version_advice(theirs)),
            AgentEnd::Failed(error) => (error.reason(), error.to_string()),
        })
    }
}

/// Says which program to update.
fn version_advice(theirs: &Hello) -> String {
    let ours = Hello::ours();
    let end = match theirs.version < OLDEST_VERSION {
        true => "the client",
        false => "the agent's host",
    };
    format!(
        "{} speaks the agent protocol {OLDEST_VERSION} to {VERSION}, {} {} to {}: update sshvpn at {end}",
        ours.software, theirs.software, theirs.oldest, theirs.version
    )
}

/// The channel for the last messages to the client.
pub(crate) enum Speaker<R, W> {
    /// No packets have flowed yet.
    Conversation(Conversation<R, W>),
    /// Packets flow.
    Link(StreamLink),
    /// None: the stream ended in mid-frame.
    Nobody,
}

impl<R: FrameSource, W: FrameSink> Speaker<R, W> {
    /// Sends a message; returns whether it was sent.
    async fn say(&mut self, message: &Message) -> bool {
        let sent = match self {
            Speaker::Conversation(conversation) => {
                timeout(LAST_WORD, conversation.send(message)).await
            }
            Speaker::Link(link) => timeout(LAST_WORD, link.say(message)).await,
            Speaker::Nobody => return false,
        };
        let said = matches!(sent, Ok(Ok(())));
        if !said {
            // Part of the message may be sent, so nothing can follow it.
            *self = Speaker::Nobody;
        }
        said
    }

    /// Waits for the client to end the stream, which it does after the last message.
    async fn finish(self) {
        let Speaker::Link(mut link) = self else {
            return;
        };
        let ended = async { while !matches!(link.next().await, LinkEvent::Ended(_)) {} };
        if timeout(LAST_WORD, ended).await.is_err() {
            tracing::debug!("the client did not end the stream");
        }
        let counters = link.stop().await;
        if let Some(refused) = counters.inbound.snapshot().refused() {
            refusals::report(&refused);
        }
        tracing::debug!(
            outbound = %counters.outbound.snapshot(),
            inbound = %counters.inbound.snapshot(),
            "tunnel closed"
        );
    }
}

/// Sends the reason to the client, undoes everything, and confirms that. A reason that cannot be
/// sent goes to standard error.
pub(crate) async fn close<R: FrameSource, W: FrameSink>(
    end: &AgentEnd,
    mut speaker: Speaker<R, W>,
    host: &mut impl Host,
    name: &str,
) {
    if matches!(end, AgentEnd::StreamEnded) {
        speaker = Speaker::Nobody;
    }
    if let Some((reason, text)) = end.close() {
        let text = format!("{name}: {text}");
        let told = text.clone();
        if !speaker.say(&Message::Close { reason, text }).await {
            say(format_args!("sshvpn: agent: {told}"));
        }
    }
    let left = host.undo().await;
    speaker.say(&Message::Closed { left }).await;
    speaker.finish().await;
    host.finish().await;
}
