//! How an agent ends: for which reason, what the client is told of it, and in
//! what order everything is given up.

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

/// How long a last word may take to be heard.
const LAST_WORD: Duration = Duration::from_secs(5);

/// Why an agent ended.
#[derive(Debug)]
pub(crate) enum AgentEnd {
    /// The client wanted it.
    Requested,
    /// The stream ended: the client or its connection is gone.
    StreamEnded,
    /// The client says nothing, or reads nothing.
    Silence,
    /// A signal to this process.
    Signal(i32),
    /// The client said what it may not say, or not now.
    Protocol(String),
    /// No version is spoken at both ends.
    Version(Hello),
    /// What was asked for is not allowed, or failed.
    Failed(AgentError),
}

/// A message that has no place there.
pub(crate) fn misplaced(message: &Message, when: &str) -> AgentEnd {
    AgentEnd::Protocol(format!("a '{}' message cannot come {when}", message.name()))
}

impl From<AgentError> for AgentEnd {
    fn from(error: AgentError) -> Self {
        AgentEnd::Failed(error)
    }
}

impl AgentEnd {
    /// Whether this is how agents are meant to end.
    pub(crate) fn is_orderly(&self) -> bool {
        matches!(
            self,
            AgentEnd::Requested | AgentEnd::StreamEnded | AgentEnd::Signal(_)
        )
    }

    /// What the client is told, as far as it can hear; nothing where it knows.
    fn close(&self) -> Option<(CloseReason, String)> {
        Some(match self {
            AgentEnd::Requested | AgentEnd::StreamEnded => return None,
            AgentEnd::Silence => {
                let seconds = SILENCE.as_secs();
                (
                    CloseReason::Silence,
                    format!("no word from the client in {seconds} seconds"),
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

/// Which end to update.
fn version_advice(theirs: &Hello) -> String {
    let ours = Hello::ours();
    let end = match theirs.version < OLDEST_VERSION {
        true => "the client",
        false => "this end",
    };
    format!(
        "{} speaks the agent protocol {OLDEST_VERSION} to {VERSION}, {} {} to {}: update sshvpn at {end}",
        ours.software, theirs.software, theirs.oldest, theirs.version
    )
}

/// By what the client can still be told something.
pub(crate) enum Speaker<R, W> {
    /// No packets have flowed yet.
    Conversation(Conversation<R, W>),
    /// Packets flow.
    Link(StreamLink),
    /// By nothing: the stream ended in the middle of a frame.
    Nobody,
}

impl<R: FrameSource, W: FrameSink> Speaker<R, W> {
    /// Says something, if anybody listens; whether it went out.
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
            // What was begun would stand in front of anything else.
            *self = Speaker::Nobody;
        }
        said
    }

    /// Lets the client hear the last word: it ends the stream then.
    async fn finish(self) {
        let Speaker::Link(mut link) = self else {
            return;
        };
        let ended = async { while !matches!(link.next().await, LinkEvent::Ended(_)) {} };
        if timeout(LAST_WORD, ended).await.is_err() {
            tracing::debug!("the client does not end the stream");
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

/// Tells the client why, undoes everything, and tells it so. What it could not
/// be told is told on standard error.
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
