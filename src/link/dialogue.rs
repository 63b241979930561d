//! The control dialogue of the side that is dialled, agent or server: hellos, messages
//! until packets flow, the end and the last messages. `frame::control` draws the order
//! of the messages.

use std::io;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::control::{Conversation, ConversationError};
use super::datagram::LinkCounters;
use super::stream::{LinkEvent, StreamLink};
use crate::frame::control::{Hello, Message};
use crate::packet::offload::virtio::Offload;
use crate::pump::{End, FrameSink, FrameSource};
use crate::types::Mode;

/// Limit for the client to send something, since it pings every 15 seconds, and to read
/// a message.
pub(crate) const SILENCE: Duration = Duration::from_secs(45);
/// Limit for sending the last message.
const LAST_WORD: Duration = Duration::from_secs(5);

/// Why a dialogue ended: `S` is why this end stops it, `F` why there is no tunnel.
#[derive(Debug)]
pub(crate) enum DialogueEnd<S, F> {
    /// The client wanted it.
    Requested,
    /// The stream ended: the client or its connection is gone.
    StreamEnded,
    /// The client says nothing, or reads nothing.
    Silence,
    /// This end stops it.
    Stopped(S),
    /// The client said what it may not say, or not now.
    Protocol(String),
    /// No version is spoken at both ends; this is the client's.
    Version(Hello),
    /// What was asked for is not allowed, or failed.
    Failed(F),
    /// The device failed while packets flowed.
    Device(io::Error),
}

impl<S, F> DialogueEnd<S, F> {
    /// For a message that has no place there.
    pub(crate) fn misplaced(message: &Message, when: &str) -> Self {
        let name = message.name();
        DialogueEnd::Protocol(format!("a '{name}' message cannot come {when}"))
    }
}

impl<S, F> From<ConversationError> for DialogueEnd<S, F> {
    fn from(error: ConversationError) -> Self {
        match error {
            ConversationError::Ended => DialogueEnd::StreamEnded,
            other => DialogueEnd::Protocol(other.to_string()),
        }
    }
}

/// A dialogue before packets flow. `stop` comes true once this end stops it.
pub(crate) struct ControlDialogue<R, W, S, F> {
    conversation: Conversation<R, W>,
    stop: S,
    /// Whether the stream towards the client still is a row of whole frames.
    can_speak: bool,
    failure: PhantomData<fn() -> F>,
}

impl<R, W, S, F> ControlDialogue<R, W, S, F>
where
    R: FrameSource,
    W: FrameSink,
    S: Future + Unpin,
{
    /// Of which nothing was said.
    pub(crate) fn new(conversation: Conversation<R, W>, stop: S) -> Self {
        ControlDialogue {
            conversation,
            stop,
            can_speak: true,
            failure: PhantomData,
        }
    }

    /// Exchanges hellos; yields which offload packets both ends take.
    pub(crate) async fn greet(
        &mut self,
        ours: Hello,
    ) -> Result<Offload, DialogueEnd<S::Output, F>> {
        let theirs = match self.next().await? {
            Message::Hello(hello) => hello,
            Message::Close { .. } => return Err(DialogueEnd::Requested),
            other => return Err(DialogueEnd::misplaced(&other, "before hello")),
        };
        if ours.common_version(&theirs).is_none() {
            return Err(DialogueEnd::Version(theirs));
        }
        let offload = ours.common_offload(&theirs);
        tracing::debug!(software = theirs.software, "the client");
        self.say(&Message::Hello(ours)).await?;
        Ok(offload)
    }

    /// The next message that is about the tunnel; pings are answered on the way.
    pub(crate) async fn hear(&mut self) -> Result<Message, DialogueEnd<S::Output, F>> {
        loop {
            match self.next().await? {
                Message::Ping { token } => self.say(&Message::Pong { token }).await?,
                Message::Pong { .. } => {}
                Message::Close { .. } => return Err(DialogueEnd::Requested),
                message => return Ok(message),
            }
        }
    }

    async fn next(&mut self) -> Result<Message, DialogueEnd<S::Output, F>> {
        let received = tokio::select! {
            why = &mut self.stop => return Err(DialogueEnd::Stopped(why)),
            received = timeout(SILENCE, self.conversation.receive()) => received,
        };
        Ok(received.map_err(|_| DialogueEnd::Silence)??)
    }

    /// Says something; as long as that takes, the client has to read.
    pub(crate) async fn say(&mut self, message: &Message) -> Result<(), DialogueEnd<S::Output, F>> {
        // One that is not sent to its end leaves half a frame behind.
        self.can_speak = false;
        let sent = tokio::select! {
            biased;
            sent = timeout(SILENCE, self.conversation.send(message)) => sent,
            why = &mut self.stop => return Err(DialogueEnd::Stopped(why)),
        };
        let sent = sent.map_err(|_| DialogueEnd::Silence)?;
        // One that failed was not begun.
        self.can_speak = sent != Err(ConversationError::Ended);
        Ok(sent?)
    }

    /// The parts, for the packets that follow.
    pub(crate) fn into_parts(self) -> (Conversation<R, W>, S) {
        (self.conversation, self.stop)
    }

    /// For the last words, where no packets have flowed.
    pub(crate) fn into_speaker(self) -> Speaker<R, W> {
        Speaker {
            way: Way::Conversation(self.conversation),
            mute: !self.can_speak,
        }
    }
}

/// Waits for whatever ends a tunnel while packets flow: neither end has more to say.
pub(crate) async fn until_end<S, F>(link: &mut StreamLink, stop: S) -> DialogueEnd<S::Output, F>
where
    S: Future + Unpin,
{
    let event = tokio::select! {
        why = stop => return DialogueEnd::Stopped(why),
        event = link.next() => event,
    };
    match event {
        LinkEvent::Said(Message::Close { .. }) => DialogueEnd::Requested,
        LinkEvent::Said(other) => DialogueEnd::misplaced(&other, "while the tunnel is up"),
        LinkEvent::Nonsense(error) => DialogueEnd::Protocol(error.to_string()),
        LinkEvent::Silent(_) => DialogueEnd::Silence,
        LinkEvent::Ended(End::Channel) => DialogueEnd::StreamEnded,
        LinkEvent::Ended(End::Stream(error)) => DialogueEnd::Protocol(error.to_string()),
        LinkEvent::Ended(End::Device(error)) => DialogueEnd::Device(error),
    }
}

/// The way for the last messages to the client.
pub(crate) struct Speaker<R, W> {
    way: Way<R, W>,
    /// Nothing more can be said: the stream ended, or did so in the middle of a frame.
    mute: bool,
}

enum Way<R, W> {
    /// No packets have flowed yet.
    Conversation(Conversation<R, W>),
    /// Packets flow.
    Link(StreamLink),
}

impl<R: FrameSource, W: FrameSink> Speaker<R, W> {
    /// Where packets flow.
    pub(crate) fn of_link(link: StreamLink) -> Self {
        Speaker {
            way: Way::Link(link),
            mute: false,
        }
    }

    /// For what comes after `end`.
    pub(crate) fn after<S, F>(self, end: &DialogueEnd<S, F>) -> Self {
        let mute = self.mute || matches!(end, DialogueEnd::StreamEnded);
        Speaker { mute, ..self }
    }

    /// Sends a message if that is still possible; returns whether it was sent.
    pub(crate) async fn say(&mut self, message: &Message) -> bool {
        if self.mute {
            return false;
        }
        let sent = match &mut self.way {
            Way::Conversation(conversation) => timeout(LAST_WORD, conversation.send(message)).await,
            Way::Link(link) => timeout(LAST_WORD, link.say(message)).await,
        };
        // What was begun would stand in front of anything else.
        self.mute = !matches!(sent, Ok(Ok(())));
        !self.mute
    }

    /// Lets the client hear the last word, upon which it ends the stream, and closes
    /// all; yields what went through where packets flowed.
    pub(crate) async fn finish(self) -> Option<Arc<LinkCounters>> {
        let mut link = match self.way {
            Way::Link(link) => link,
            Way::Conversation(conversation) => {
                let (_, _, output) = conversation.into_parts(Mode::PointToPoint);
                output.close().await;
                return None;
            }
        };
        if !self.mute {
            let ended = async { while !matches!(link.next().await, LinkEvent::Ended(_)) {} };
            if timeout(LAST_WORD, ended).await.is_err() {
                tracing::debug!("the client does not end the stream");
            }
        }
        Some(link.stop().await)
    }
}
