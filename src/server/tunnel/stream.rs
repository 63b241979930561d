//! A tunnel by the subsystem `sshvpn`, as `sshvpn up` asks for it: the server says
//! what the tunnel is like, in the order of messages that `frame::control` draws.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::rates::Rates;
use super::{Refusal, Reserved, Tunnel};
use crate::frame::control::{CloseReason, Hello, Message, PREAMBLE, Ready};
use crate::link::control::{Conversation, ConversationError};
use crate::link::datagram::Restrictions;
use crate::link::stream::{LinkEvent, StreamLink};
use crate::packet::offload::virtio::Offload;
use crate::pump::{self, FrameSink, FrameSource};
use crate::server::Server;
use crate::server::access::entitlement::{Dismissal, Entitlement};
use crate::server::report::audit::event::Asked;
use crate::server::report::registry::session::Session;
use crate::ssh::server::requests::RefusalCode;
use crate::tun::Device;
use crate::types::{Mode, UnitRequest};

/// The name of the subsystem.
pub(in crate::server) const SUBSYSTEM: &str = "sshvpn";

/// How long a client may be silent, or leave unread what it is told.
const SILENCE: Duration = Duration::from_secs(45);
/// How long a last word may take to be heard.
const LAST_WORD: Duration = Duration::from_secs(5);

/// One that is asked for.
pub(in crate::server) struct StreamTunnel {
    /// The server.
    pub server: Arc<Server>,
    /// What the client may.
    pub entitlement: Arc<Entitlement>,
    /// Where it is counted.
    pub session: Arc<Session>,
    /// How much it may carry.
    pub rates: Rates,
}

/// Why it ended.
#[derive(Debug)]
enum StreamEnd {
    /// The client wanted it.
    Requested,
    /// The stream ended.
    StreamEnded,
    /// The client says nothing, or reads nothing.
    Silence,
    /// The client has to go.
    Dismissed(Dismissal),
    /// The client said what it may not say, or not now.
    Protocol(String),
    /// No version is spoken at both ends.
    Version(String),
    /// It gets no tunnel.
    Refused(Refusal),
    /// The device failed.
    Device(String),
}

impl StreamEnd {
    /// What the client is told, as far as it can hear; nothing where it knows.
    fn close(&self) -> Option<(CloseReason, String)> {
        Some(match self {
            StreamEnd::Requested | StreamEnd::StreamEnded => return None,
            StreamEnd::Silence => (
                CloseReason::Silence,
                format!("no word from this end in {} seconds", SILENCE.as_secs()),
            ),
            StreamEnd::Dismissed(why) => {
                let reason = match why {
                    Dismissal::ServerStopping(_) => CloseReason::Requested,
                    Dismissal::AccessWithdrawn => CloseReason::NotPermitted,
                };
                (reason, why.to_string())
            }
            StreamEnd::Protocol(what) => (CloseReason::Protocol, what.clone()),
            StreamEnd::Version(advice) => (CloseReason::Version, advice.clone()),
            StreamEnd::Refused(refusal) => {
                let reason = match refusal.code {
                    RefusalCode::Prohibited => CloseReason::NotPermitted,
                    _ => CloseReason::Failed,
                };
                (reason, refusal.text.clone())
            }
            StreamEnd::Device(error) => (
                CloseReason::Failed,
                format!("the server's device failed or was removed: {error}"),
            ),
        })
    }
}

impl From<ConversationError> for StreamEnd {
    fn from(error: ConversationError) -> Self {
        match error {
            ConversationError::Ended => StreamEnd::StreamEnded,
            other => StreamEnd::Protocol(other.to_string()),
        }
    }
}

fn misplaced(message: &Message, when: &str) -> StreamEnd {
    StreamEnd::Protocol(format!("a '{}' message cannot come {when}", message.name()))
}

/// What both ends agreed on.
struct Agreed {
    reserved: Reserved,
    mode: Mode,
    /// What the client takes merged.
    offload: Offload,
}

/// A tunnel that is set up at both ends.
struct Up {
    tunnel: Tunnel,
    device: Device,
    restrictions: Restrictions,
    offload: Offload,
}

impl StreamTunnel {
    /// From the start of the subsystem to the end of the tunnel; all is undone
    /// when this returns.
    pub(in crate::server) async fn run<R, W>(self, input: R, output: W)
    where
        R: FrameSource + Send + 'static,
        W: FrameSink + Send + 'static,
    {
        if output.send(Bytes::from_static(PREAMBLE)).await.is_err() {
            return;
        }
        let mut conversation = Conversation::new(input, output);
        let end = match self.come_up(&mut conversation).await {
            Ok(up) => {
                let counters = Arc::clone(&up.tunnel.counters);
                let link = StreamLink::start(
                    up.device,
                    conversation,
                    up.offload,
                    up.restrictions,
                    counters,
                );
                return self.stay(up.tunnel, link).await;
            }
            Err(end) => end,
        };
        tracing::debug!(?end, "a stream ends before its tunnel is up");
        let close = end.close();
        let last_words = async {
            if let Some((reason, text)) = close {
                conversation.send(&Message::Close { reason, text }).await?;
            }
            let left = Vec::new();
            conversation.send(&Message::Closed { left }).await
        };
        // Where nobody hears it, nobody else can be told.
        let _ = timeout(LAST_WORD, last_words).await;
        let (_, _, output) = conversation.into_parts(Mode::PointToPoint);
        output.close().await;
    }

    /// Everything before packets flow.
    async fn come_up<R, W>(&self, conversation: &mut Conversation<R, W>) -> Result<Up, StreamEnd>
    where
        R: FrameSource,
        W: FrameSink,
    {
        let agreed = self.agree(conversation).await?;
        let opened = agreed.reserved.open(self.rates.clone()).await;
        let (tunnel, device, restrictions) =
            opened.map_err(|refusal| self.refuse(agreed.mode, refusal))?;
        tunnel.announce(&self.session);
        let ready = Message::Ready(Ready {
            device: tunnel.device().clone(),
            mtu: tunnel.mtu(),
        });
        if let Err(end) = self.say(conversation, &ready).await {
            drop(device);
            tunnel.close(&self.session).await;
            return Err(end);
        }
        Ok(Up {
            tunnel,
            device,
            restrictions,
            offload: agreed.offload,
        })
    }

    /// From the hellos to the client's word that it takes the tunnel.
    async fn agree<R, W>(&self, conversation: &mut Conversation<R, W>) -> Result<Agreed, StreamEnd>
    where
        R: FrameSource,
        W: FrameSink,
    {
        let ours = Hello::of_server();
        let theirs = match self.hear(conversation).await? {
            Message::Hello(hello) => hello,
            other => return Err(misplaced(&other, "before hello")),
        };
        if ours.common_version(&theirs).is_none() {
            return Err(StreamEnd::Version(format!(
                "{} speaks the protocol {} to {}, {} {} to {}: update the older one",
                ours.software,
                ours.oldest,
                ours.version,
                theirs.software,
                theirs.oldest,
                theirs.version
            )));
        }
        let offload = ours.common_offload(&theirs);
        self.say(conversation, &Message::Hello(ours)).await?;
        let ask = match self.hear(conversation).await? {
            Message::Ask(ask) => ask,
            Message::Look(_) | Message::SetUp(_) => {
                return Err(StreamEnd::Protocol(
                    "this is a server, which says itself what a tunnel is like: ask for one \
                     ('ask'; sshvpn up --via serve)"
                        .to_owned(),
                ));
            }
            other => return Err(misplaced(&other, "before ask")),
        };
        let reserved = Reserved::new(
            &self.server,
            &self.entitlement,
            self.session.id(),
            ask.mode,
            UnitRequest::Any,
            ask.mtu,
            &ask.addresses,
        );
        let reserved = reserved.map_err(|refusal| self.refuse(ask.mode, refusal))?;
        self.session
            .granted(Asked::tunnel(ask.mode, UnitRequest::Any));
        self.say(conversation, &Message::Offer(reserved.offer()))
            .await?;
        match self.hear(conversation).await? {
            Message::Accept => Ok(Agreed {
                reserved,
                mode: ask.mode,
                offload,
            }),
            other => Err(misplaced(&other, "before accept")),
        }
    }

    fn refuse(&self, mode: Mode, refusal: Refusal) -> StreamEnd {
        self.session
            .refused(Asked::tunnel(mode, UnitRequest::Any), &refusal.text);
        StreamEnd::Refused(refusal)
    }

    /// The next message that is about the tunnel.
    async fn hear<R, W>(&self, conversation: &mut Conversation<R, W>) -> Result<Message, StreamEnd>
    where
        R: FrameSource,
        W: FrameSink,
    {
        loop {
            let received = tokio::select! {
                why = self.entitlement.dismissed() => return Err(StreamEnd::Dismissed(why)),
                received = timeout(SILENCE, conversation.receive()) => received,
            };
            match received.map_err(|_| StreamEnd::Silence)?? {
                Message::Ping { token } => {
                    self.say(conversation, &Message::Pong { token }).await?;
                }
                Message::Pong { .. } => {}
                Message::Close { .. } => return Err(StreamEnd::Requested),
                message => return Ok(message),
            }
        }
    }

    async fn say<R, W>(
        &self,
        conversation: &Conversation<R, W>,
        what: &Message,
    ) -> Result<(), StreamEnd>
    where
        R: FrameSource,
        W: FrameSink,
    {
        let sent = timeout(SILENCE, conversation.send(what)).await;
        Ok(sent.map_err(|_| StreamEnd::Silence)??)
    }

    /// While packets flow.
    async fn stay(&self, tunnel: Tunnel, mut link: StreamLink) {
        let end = self.until_end(&mut link).await;
        tracing::debug!(?end, device = %tunnel.device(), "a tunnel ends");
        if let Some((reason, text)) = end.close() {
            let close = Message::Close { reason, text };
            let _ = timeout(LAST_WORD, link.say(&close)).await;
        }
        if !matches!(end, StreamEnd::StreamEnded) {
            let closed = Message::Closed { left: Vec::new() };
            let last_word = async {
                link.say(&closed).await?;
                // It ends the stream once it has heard.
                while !matches!(link.next().await, LinkEvent::Ended(_)) {}
                Ok::<(), ConversationError>(())
            };
            let _ = timeout(LAST_WORD, last_word).await;
        }
        link.stop().await;
        tunnel.close(&self.session).await;
    }

    async fn until_end(&self, link: &mut StreamLink) -> StreamEnd {
        let event = tokio::select! {
            why = self.entitlement.dismissed() => return StreamEnd::Dismissed(why),
            event = link.next() => event,
        };
        match event {
            LinkEvent::Said(Message::Close { .. }) => StreamEnd::Requested,
            LinkEvent::Said(other) => misplaced(&other, "while the tunnel is up"),
            LinkEvent::Nonsense(error) => StreamEnd::Protocol(error.to_string()),
            LinkEvent::Silent(_) => StreamEnd::Silence,
            LinkEvent::Ended(pump::End::Channel) => StreamEnd::StreamEnded,
            LinkEvent::Ended(pump::End::Stream(error)) => StreamEnd::Protocol(error.to_string()),
            LinkEvent::Ended(pump::End::Device(error)) => StreamEnd::Device(error.to_string()),
        }
    }
}
