//! A running agent, or a server that speaks like one: what the local end says to
//! it, in the order in which it is said (`frame::control` has the picture). It is
//! not trusted: each answer has a time limit, and what it says is made fit to be
//! shown.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::error::{RemoteAgentError, Role};
use crate::frame::control::{
    AgentFacts, Ask, CloseReason, FEATURE_CLAIM, Hello, Look, Message, Offer, Ready, SetUp,
};
use crate::link::control::{Conversation, ConversationError};
use crate::link::last_words::LastWords;
use crate::link::process_stream::{AgentInput, AgentOutput};
use crate::packet::offload::virtio::Offload;
use crate::pump::{FrameSink, FrameSource};
use crate::ssh::client::prompt::terminal_text;
use crate::types::Mtu;

/// How long an agent may take for its hello: it may have to undo first what a
/// killed one left.
const HELLO_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an answer or a step may take.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an agent may take to undo its part before we leave it to do so by
/// itself.
const UNDO_TIMEOUT: Duration = Duration::from_secs(10);
/// Steps that an agent may report: a handful for each address and network.
const MOST_STEPS: usize = 4096;
/// The most that is shown of what an agent says, in characters.
const SHOWN: usize = 300;

/// What is done in each state, for errors.
const GREET: &str = "greet the agent there";
const LOOK: &str = "look at it";
const CLAIM: &str = "claim addresses there";
const SET_UP: &str = "set it up";
const ASK: &str = "ask for a tunnel";
const ACCEPT: &str = "take the tunnel that is offered";

/// An agent that speaks our version of the protocol.
pub struct RemoteAgent<R = AgentOutput, W = AgentInput> {
    host: String,
    conversation: Conversation<R, W>,
    last_words: LastWords,
    /// Its hello, once it has come.
    hello: Option<Hello>,
    /// Whether either end has said that it ends the tunnel.
    closing: bool,
}

impl<R: FrameSource, W: FrameSink> RemoteAgent<R, W> {
    /// One at `host` whose preamble has come.
    pub fn new(host: &str, conversation: Conversation<R, W>, last_words: LastWords) -> Self {
        RemoteAgent {
            host: host.to_owned(),
            conversation,
            last_words,
            hello: None,
            closing: false,
        }
    }

    /// Exchanges hellos, and sees that both ends understand each other.
    pub async fn greet(&mut self) -> Result<(), RemoteAgentError> {
        let ours = Hello::ours();
        let limit = Instant::now() + HELLO_TIMEOUT;
        let hello = Message::Hello(ours.clone());
        self.say(GREET, &hello, limit).await?;
        let theirs = match self.hear(GREET, limit).await? {
            Message::Hello(hello) => hello,
            other => return Err(self.unexpected(GREET, &other)),
        };
        if ours.common_version(&theirs).is_none() {
            let error = version_error(&self.host, &ours, &theirs);
            self.end(CloseReason::Version, &error.to_string()).await;
            return Err(error);
        }
        self.hello = Some(theirs);
        Ok(())
    }

    /// Its program and version.
    pub fn software(&self) -> String {
        let software = self.hello.as_ref().map(|hello| shown(&hello.software));
        software.unwrap_or_default()
    }

    /// What it says that it is.
    pub fn role(&self) -> Role {
        match &self.hello {
            Some(hello) if hello.is_server() => Role::Server,
            _ => Role::Agent,
        }
    }

    /// Whether both ends have an optional part of the protocol.
    pub fn has(&self, feature: &str) -> bool {
        let theirs = self.hello.as_ref();
        theirs.is_some_and(|theirs| Hello::ours().common_feature(theirs, feature))
    }

    /// Which offload packets both ends take.
    pub fn offload(&self) -> Offload {
        let theirs = self.hello.as_ref();
        theirs.map_or(Offload::NONE, |theirs| Hello::ours().common_offload(theirs))
    }

    /// What its host is like.
    pub async fn look(&mut self, look: Look) -> Result<AgentFacts, RemoteAgentError> {
        let limit = Instant::now() + STEP_TIMEOUT;
        let asked = Message::Look(look);
        self.say(LOOK, &asked, limit).await?;
        match self.hear(LOOK, limit).await? {
            Message::AgentFacts(mut facts) => {
                facts.login = shown(&facts.login);
                Ok(facts)
            }
            other => Err(self.unexpected(LOOK, &other)),
        }
    }

    /// Claims the tunnel addresses of this end there; yields those that another tunnel has. An agent
    /// without that part of the protocol claims nothing.
    pub async fn claim(&mut self, addresses: Vec<IpAddr>) -> Result<Vec<IpAddr>, RemoteAgentError> {
        if !self.has(FEATURE_CLAIM) {
            return Ok(Vec::new());
        }
        let limit = Instant::now() + STEP_TIMEOUT;
        let claim = Message::Claim {
            addresses: addresses.clone(),
        };
        self.say(CLAIM, &claim, limit).await?;
        match self.hear(CLAIM, limit).await? {
            // What was not asked about says nothing.
            Message::Claimed { mut taken } => {
                taken.retain(|address| addresses.contains(address));
                Ok(taken)
            }
            other => Err(self.unexpected(CLAIM, &other)),
        }
    }

    /// Has its host set up; `done` is told of each step, and whether it
    /// is a warning. Packets may follow.
    pub async fn set_up(
        &mut self,
        set_up: SetUp,
        mut done: impl FnMut(&str, bool),
    ) -> Result<Ready, RemoteAgentError> {
        let mtu = set_up.mtu;
        let mut limit = Instant::now() + STEP_TIMEOUT;
        self.say(SET_UP, &Message::SetUp(set_up), limit).await?;
        for _ in 0..MOST_STEPS {
            match self.hear(SET_UP, limit).await? {
                Message::Done { what, warning } => done(&shown(&what), warning),
                Message::Ready(ready) => return self.ready_with(SET_UP, ready, mtu),
                other => return Err(self.unexpected(SET_UP, &other)),
            }
            limit = Instant::now() + STEP_TIMEOUT;
        }
        Err(self.nonsense(SET_UP, "it takes step after step".to_owned()))
    }

    /// Asks a server for a tunnel.
    pub async fn ask(&mut self, ask: Ask) -> Result<Offer, RemoteAgentError> {
        let limit = Instant::now() + STEP_TIMEOUT;
        self.say(ASK, &Message::Ask(ask), limit).await?;
        match self.hear(ASK, limit).await? {
            Message::Offer(offer) => Ok(offer),
            other => Err(self.unexpected(ASK, &other)),
        }
    }

    /// Takes the tunnel that a server has offered, with that MTU. Packets may
    /// follow.
    pub async fn accept(&mut self, mtu: Mtu) -> Result<Ready, RemoteAgentError> {
        let limit = Instant::now() + STEP_TIMEOUT;
        self.say(ACCEPT, &Message::Accept, limit).await?;
        match self.hear(ACCEPT, limit).await? {
            Message::Ready(ready) => self.ready_with(ACCEPT, ready, mtu),
            other => Err(self.unexpected(ACCEPT, &other)),
        }
    }

    /// What was agreed on is what there is.
    fn ready_with(
        &self,
        what: &'static str,
        ready: Ready,
        mtu: Mtu,
    ) -> Result<Ready, RemoteAgentError> {
        if ready.mtu == mtu {
            return Ok(ready);
        }
        let said = format!("its device has an MTU of {}, not {mtu}", ready.mtu);
        Err(self.nonsense(what, said))
    }

    /// Has everything undone there and ends the agent. Yields what it could not
    /// undo; nothing if it did not say that all is undone.
    pub async fn close(mut self) -> Option<Vec<String>> {
        self.end(CloseReason::Requested, "").await
    }

    async fn end(&mut self, reason: CloseReason, text: &str) -> Option<Vec<String>> {
        let limit = Instant::now() + UNDO_TIMEOUT;
        if !self.closing {
            self.closing = true;
            let text = text.to_owned();
            let close = Message::Close { reason, text };
            let sent = timeout_at(limit, self.conversation.send(&close));
            sent.await.ok()?.ok()?;
        }
        loop {
            let next = timeout_at(limit, self.conversation.receive());
            if let Message::Closed { left } = next.await.ok()?.ok()? {
                return Some(left.iter().map(|what| shown(what)).collect());
            }
        }
    }

    /// The stream, for the packets that follow, and the agent's last words.
    pub fn into_stream(self) -> (Conversation<R, W>, LastWords) {
        (self.conversation, self.last_words)
    }

    async fn say(
        &mut self,
        what: &'static str,
        message: &Message,
        limit: Instant,
    ) -> Result<(), RemoteAgentError> {
        let start = Instant::now();
        match timeout_at(limit, self.conversation.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(ConversationError::Ended)) => Err(self.gone(what, limit).await),
            Ok(Err(error)) => Err(self.failed(what, error)),
            Err(_) => Err(self.no_answer(what, limit - start)),
        }
    }

    /// The next message; pings are answered on the way.
    async fn hear(
        &mut self,
        what: &'static str,
        limit: Instant,
    ) -> Result<Message, RemoteAgentError> {
        let start = Instant::now();
        loop {
            let received = timeout_at(limit, self.conversation.receive()).await;
            match received {
                Err(_) => return Err(self.no_answer(what, limit - start)),
                Ok(Err(error)) => return Err(self.failed(what, error)),
                Ok(Ok(Message::Ping { token })) => {
                    self.say(what, &Message::Pong { token }, limit).await?;
                }
                Ok(Ok(Message::Pong { .. })) => {}
                Ok(Ok(Message::Close { reason, text })) => {
                    return Err(self.closed(what, reason, &text));
                }
                Ok(Ok(message)) => return Ok(message),
            }
        }
    }

    /// Why it takes nothing any more: it may have said so before it went.
    async fn gone(&mut self, what: &'static str, limit: Instant) -> RemoteAgentError {
        loop {
            match timeout_at(limit, self.conversation.receive()).await {
                Ok(Ok(Message::Close { reason, text })) => {
                    return self.closed(what, reason, &text);
                }
                Ok(Ok(_)) => {}
                _ => return self.failed(what, ConversationError::Ended),
            }
        }
    }

    fn closed(&mut self, what: &'static str, reason: CloseReason, text: &str) -> RemoteAgentError {
        self.closing = true;
        RemoteAgentError::Closed {
            host: self.host.clone(),
            what,
            reason,
            text: reason_text(reason, text),
        }
    }

    fn no_answer(&self, what: &'static str, limit: Duration) -> RemoteAgentError {
        RemoteAgentError::NoAnswer {
            host: self.host.clone(),
            what,
            limit,
        }
    }

    fn failed(&self, what: &'static str, source: ConversationError) -> RemoteAgentError {
        let (host, role) = (self.host.clone(), self.role());
        match source {
            ConversationError::Ended => RemoteAgentError::Gone {
                host,
                role,
                what,
                said: self.last_words.to_string(),
            },
            source => RemoteAgentError::Nonsense {
                host,
                role,
                what,
                source,
            },
        }
    }

    fn unexpected(&self, what: &'static str, message: &Message) -> RemoteAgentError {
        self.nonsense(what, format!("it says '{}'", message.name()))
    }

    fn nonsense(&self, what: &'static str, said: String) -> RemoteAgentError {
        RemoteAgentError::Unexpected {
            host: self.host.clone(),
            role: self.role(),
            what,
            said,
        }
    }
}

/// The error for two ends without a common version.
fn version_error(host: &str, ours: &Hello, theirs: &Hello) -> RemoteAgentError {
    let advice = if ours.version < theirs.oldest {
        "the one here is older: update it".to_owned()
    } else {
        format!("the one at {host} is older: update it there")
    };
    RemoteAgentError::Version {
        host: host.to_owned(),
        theirs: shown(&theirs.software),
        ours: ours.software.clone(),
        advice,
    }
}

/// What an agent says of its end.
pub fn reason_text(reason: CloseReason, text: &str) -> String {
    let text = shown(text);
    if !text.is_empty() {
        return text;
    }
    let kind = match reason {
        CloseReason::Requested => "it was told to end",
        CloseReason::Protocol => "it did not understand what it was told",
        CloseReason::Version => "it speaks another version of the protocol",
        CloseReason::NotPermitted => "it may not do that",
        CloseReason::Failed => "it failed there",
        CloseReason::Silence => "it heard nothing from here",
        CloseReason::Other => "it ended for a reason that this version does not know",
    };
    kind.to_owned()
}

/// What an agent says, fit to be shown in a line.
pub fn shown(text: &str) -> String {
    terminal_text::line(text.trim())
        .chars()
        .take(SHOWN)
        .collect()
}

#[cfg(test)]
mod tests;
