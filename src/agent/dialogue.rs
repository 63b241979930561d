//! What an agent says and does, from the first hello until packets flow, in the
//! order of messages that `frame::control` draws.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::end::{self, AgentEnd, Speaker, misplaced};
use super::host::Host;
use super::running;
use crate::frame::control::{Hello, Message, SetUp};
use crate::link::control::{Conversation, ConversationError};
use crate::link::datagram::Restrictions;
use crate::link::stream::StreamLink;
use crate::packet::guard::GuardRules;
use crate::packet::offload::virtio::Offload;
use crate::pump::{FrameSink, FrameSource};
use crate::tun::Device;

/// How long a client may be silent: it pings every 15 seconds. As long may
/// it leave unread what it is told.
pub(crate) const SILENCE: Duration = Duration::from_secs(45);
/// One agent with one client.
pub(crate) struct Dialogue<R, W, H, S> {
    conversation: Conversation<R, W>,
    host: H,
    /// Comes true with the number of a signal.
    stop: S,
    /// Which offload packets the client takes, once it has said so.
    peer: Offload,
    /// This host's name, for the client's user.
    name: String,
    /// Whether the stream towards the client still is a row of whole frames.
    can_speak: bool,
}

impl<R, W, H, S> Dialogue<R, W, H, S>
where
    R: FrameSource + Send + 'static,
    W: FrameSink + Send + 'static,
    H: Host,
    S: Future<Output = i32> + Unpin,
{
    pub(crate) fn new(conversation: Conversation<R, W>, host: H, stop: S, name: String) -> Self {
        Dialogue {
            conversation,
            host,
            stop,
            peer: Offload::NONE,
            name,
            can_speak: true,
        }
    }

    /// All of it; everything is undone when this returns.
    pub(crate) async fn run(mut self) -> AgentEnd {
        let result = self.come_up().await;
        let Dialogue {
            conversation,
            mut host,
            mut stop,
            peer,
            name,
            can_speak,
        } = self;
        let (end, speaker) = match result {
            Ok((device, guard)) => {
                host.confine().await;
                let held = Restrictions::of_addresses(guard);
                let counters = Arc::default();
                let mut link = StreamLink::start(device, conversation, peer, held, counters);
                let end = running::until_end(&mut link, &mut stop).await;
                (end, Speaker::Link(link))
            }
            Err(end) if can_speak => (end, Speaker::Conversation(conversation)),
            Err(end) => (end, Speaker::Nobody),
        };
        end::close(&end, speaker, &mut host, &name).await;
        end
    }

    /// From the first message to the last before packets flow; yields the
    /// device for them, and what may come to it.
    async fn come_up(&mut self) -> Result<(Device, GuardRules), AgentEnd> {
        self.greet().await?;
        self.host.prepare().await?;
        let wish = self.negotiate().await?;
        self.set_up(&wish).await
    }

    /// The hellos.
    async fn greet(&mut self) -> Result<(), AgentEnd> {
        let theirs = match self.next().await? {
            Message::Hello(hello) => hello,
            Message::Close { .. } => return Err(AgentEnd::Requested),
            other => return Err(misplaced(&other, "before hello")),
        };
        let ours = Hello::ours();
        if ours.common_version(&theirs).is_none() {
            return Err(AgentEnd::Version(theirs));
        }
        self.peer = ours.common_offload(&theirs);
        tracing::debug!(software = theirs.software, "the client");
        self.say(&Message::Hello(ours)).await
    }

    /// Answers questions until the client knows what it wants.
    async fn negotiate(&mut self) -> Result<SetUp, AgentEnd> {
        loop {
            match self.next().await? {
                Message::Look(look) => {
                    let facts = self.host.look(&look).await?;
                    self.say(&Message::AgentFacts(facts)).await?;
                }
                Message::SetUp(wish) => return Ok(wish),
                Message::Ask(_) | Message::Accept => {
                    let what =
                        "this is an agent, which is told what to do: there is no tunnel to ask for";
                    return Err(AgentEnd::Protocol(what.to_owned()));
                }
                other => self.not_now(&other, "before set-up").await?,
            }
        }
    }

    /// A change that was begun is made to its end, so that it can be undone.
    async fn set_up(&mut self, wish: &SetUp) -> Result<(Device, GuardRules), AgentEnd> {
        let opened = self.host.open(wish).await?;
        for change in opened.changes {
            let what = self.host.apply(change).await?;
            self.say(&Message::Done { what }).await?;
        }
        self.say(&Message::Ready(opened.ready)).await?;
        Ok((opened.device, opened.guard))
    }

    /// What may come at any time; the rest is misplaced.
    async fn not_now(&mut self, message: &Message, when: &str) -> Result<(), AgentEnd> {
        match message {
            Message::Ping { token } => self.say(&Message::Pong { token: *token }).await,
            Message::Pong { .. } => Ok(()),
            Message::Close { .. } => Err(AgentEnd::Requested),
            other => Err(misplaced(other, when)),
        }
    }

    async fn next(&mut self) -> Result<Message, AgentEnd> {
        let received = tokio::select! {
            signal = &mut self.stop => return Err(AgentEnd::Signal(signal)),
            received = timeout(SILENCE, self.conversation.receive()) => received,
        };
        match received {
            Ok(Ok(message)) => Ok(message),
            Ok(Err(ConversationError::Ended)) => Err(AgentEnd::StreamEnded),
            Ok(Err(error)) => Err(AgentEnd::Protocol(error.to_string())),
            Err(_) => Err(AgentEnd::Silence),
        }
    }

    async fn say(&mut self, message: &Message) -> Result<(), AgentEnd> {
        // One that is not sent to its end leaves half a frame behind.
        self.can_speak = false;
        let sent = tokio::select! {
            signal = &mut self.stop => return Err(AgentEnd::Signal(signal)),
            sent = timeout(SILENCE, self.conversation.send(message)) => sent,
        };
        match sent {
            Ok(Ok(())) => {
                self.can_speak = true;
                Ok(())
            }
            Ok(Err(ConversationError::Ended)) => Err(AgentEnd::StreamEnded),
            Ok(Err(error)) => {
                // It was not begun.
                self.can_speak = true;
                Err(AgentEnd::Protocol(error.to_string()))
            }
            Err(_) => Err(AgentEnd::Silence),
        }
    }
}

#[cfg(test)]
mod tests;
