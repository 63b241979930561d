//! What an agent says and does, from the first hello to the undoing: the order
//! of messages that `frame::control` draws, and every way in which it can end.

use std::future::Future;
use std::time::Duration;

use tokio::time::timeout;

use super::error::AgentError;
use super::host::Host;
use super::set_up::described;
use crate::frame::control::{CloseReason, Hello, Message, OLDEST_VERSION, SetUp, VERSION};
use crate::message::say;
use crate::pump::{FrameSink, FrameSource};
use crate::session::conversation::{Conversation, ConversationError};

/// How long a near end may be silent: it pings every 15 seconds. As long may
/// it leave unread what it is told.
pub(super) const SILENCE: Duration = Duration::from_secs(45);
/// How long a last word may take.
const LAST_WORD: Duration = Duration::from_secs(5);

/// Why an agent ended.
#[derive(Debug)]
pub(super) enum End {
    /// The near end wanted it.
    Requested,
    /// The stream ended: the near end or its connection is gone.
    StreamEnded,
    /// The near end says nothing, or reads nothing.
    Silence,
    /// A signal to this process.
    Signal(i32),
    /// The near end said what it may not say, or not now.
    Protocol(String),
    /// No version is spoken at both ends.
    Version(Hello),
    /// What was asked for is not allowed, or failed.
    Failed(AgentError),
}

impl From<AgentError> for End {
    fn from(error: AgentError) -> Self {
        End::Failed(error)
    }
}

impl End {
    /// Whether this is how agents are meant to end.
    pub(super) fn is_orderly(&self) -> bool {
        matches!(self, End::Requested | End::StreamEnded | End::Signal(_))
    }

    /// What the near end is told, as far as it can hear; nothing where it knows.
    fn close(&self) -> Option<(CloseReason, String)> {
        Some(match self {
            End::Requested | End::StreamEnded => return None,
            End::Silence => {
                let seconds = SILENCE.as_secs();
                (
                    CloseReason::Silence,
                    format!("no word from the near end in {seconds} seconds"),
                )
            }
            End::Signal(number) => (
                CloseReason::Requested,
                format!("the agent was ended by signal {number}"),
            ),
            End::Protocol(what) => (CloseReason::Protocol, what.clone()),
            End::Version(theirs) => (CloseReason::Version, version_advice(theirs)),
            End::Failed(error) => (error.reason(), error.to_string()),
        })
    }
}

/// Which end to update.
fn version_advice(theirs: &Hello) -> String {
    let ours = Hello::ours();
    let end = match theirs.version < OLDEST_VERSION {
        true => "the near end",
        false => "this end",
    };
    format!(
        "{} speaks the agent protocol {OLDEST_VERSION} to {VERSION}, {} {} to {}: update sshvpn at {end}",
        ours.software, theirs.software, theirs.oldest, theirs.version
    )
}

/// One agent with one near end.
pub(super) struct Dialogue<R, W, H, S> {
    conversation: Conversation<R, W>,
    host: H,
    /// Comes true with the number of a signal.
    stop: S,
    /// This host's name, for the near end's user.
    name: String,
    /// Whether the stream towards the near end still is a row of whole frames.
    can_speak: bool,
}

impl<R, W, H, S> Dialogue<R, W, H, S>
where
    R: FrameSource,
    W: FrameSink,
    H: Host,
    S: Future<Output = i32> + Unpin,
{
    pub(super) fn new(conversation: Conversation<R, W>, host: H, stop: S, name: String) -> Self {
        Dialogue {
            conversation,
            host,
            stop,
            name,
            can_speak: true,
        }
    }

    /// All of it; everything is undone when this returns. What the near end
    /// could not be told is told on standard error.
    pub(super) async fn run(mut self) -> End {
        let end = match self.converse().await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        if let Some((reason, text)) = end.close() {
            let text = format!("{}: {text}", self.name);
            let close = Message::Close { reason, text };
            self.last_word(&close).await;
            if let (false, Message::Close { text, .. }) = (self.can_speak, close) {
                say(format_args!("sshvpn: agent: {text}"));
            }
        }
        let left = self.host.undo().await;
        self.last_word(&Message::Closed { left }).await;
        end
    }

    async fn converse(&mut self) -> Result<std::convert::Infallible, End> {
        self.greet().await?;
        self.host.prepare().await?;
        let wish = self.negotiate().await?;
        self.set_up(&wish).await?;
        loop {
            let message = self.next().await?;
            self.not_now(&message, "while the tunnel is up").await?;
        }
    }

    /// The hellos.
    async fn greet(&mut self) -> Result<(), End> {
        let theirs = match self.next().await? {
            Message::Hello(hello) => hello,
            Message::Close { .. } => return Err(End::Requested),
            other => return Err(misplaced(&other, "before hello")),
        };
        let ours = Hello::ours();
        if ours.common_version(&theirs).is_none() {
            return Err(End::Version(theirs));
        }
        tracing::debug!(software = theirs.software, "the near end");
        self.say(&Message::Hello(ours)).await
    }

    /// Answers questions until the near end knows what it wants.
    async fn negotiate(&mut self) -> Result<SetUp, End> {
        loop {
            match self.next().await? {
                Message::Look(look) => {
                    let facts = self.host.look(&look).await?;
                    self.say(&Message::Facts(facts)).await?;
                }
                Message::SetUp(wish) => return Ok(wish),
                other => self.not_now(&other, "before set-up").await?,
            }
        }
    }

    /// A change that was begun is made to its end, so that it can be undone.
    async fn set_up(&mut self, wish: &SetUp) -> Result<(), End> {
        let (ready, changes) = self.host.open(wish).await?;
        for change in changes {
            let what = described(&change);
            self.host.apply(change).await?;
            self.say(&Message::Done { what }).await?;
        }
        self.say(&Message::Ready(ready)).await
    }

    /// What may come at any time; the rest is misplaced.
    async fn not_now(&mut self, message: &Message, when: &str) -> Result<(), End> {
        match message {
            Message::Ping { token } => self.say(&Message::Pong { token: *token }).await,
            Message::Pong { .. } => Ok(()),
            Message::Close { .. } => Err(End::Requested),
            other => Err(misplaced(other, when)),
        }
    }

    async fn next(&mut self) -> Result<Message, End> {
        let received = tokio::select! {
            signal = &mut self.stop => return Err(End::Signal(signal)),
            received = timeout(SILENCE, self.conversation.receive()) => received,
        };
        match received {
            Ok(Ok(message)) => Ok(message),
            Ok(Err(ConversationError::Ended)) => Err(End::StreamEnded),
            Ok(Err(error)) => Err(End::Protocol(error.to_string())),
            Err(_) => Err(End::Silence),
        }
    }

    async fn say(&mut self, message: &Message) -> Result<(), End> {
        // One that is not sent to its end leaves half a frame behind.
        self.can_speak = false;
        let sent = tokio::select! {
            signal = &mut self.stop => return Err(End::Signal(signal)),
            sent = timeout(SILENCE, self.conversation.send(message)) => sent,
        };
        match sent {
            Ok(Ok(())) => {
                self.can_speak = true;
                Ok(())
            }
            Ok(Err(ConversationError::Ended)) => Err(End::StreamEnded),
            Ok(Err(error)) => {
                // It was not begun.
                self.can_speak = true;
                Err(End::Protocol(error.to_string()))
            }
            Err(_) => Err(End::Silence),
        }
    }

    /// Says something at the end, if anybody listens.
    async fn last_word(&mut self, message: &Message) {
        if !self.can_speak {
            return;
        }
        let sent = timeout(LAST_WORD, self.conversation.send(message)).await;
        self.can_speak = matches!(sent, Ok(Ok(())));
    }
}

fn misplaced(message: &Message, when: &str) -> End {
    End::Protocol(format!("a '{}' message cannot come {when}", message.name()))
}

#[cfg(test)]
#[path = "dialogue_tests.rs"]
mod tests;
