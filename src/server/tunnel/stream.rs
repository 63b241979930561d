//! A tunnel by the subsystem `sshvpn`, as `sshvpn up` asks for it: the server says
//! what the tunnel is like, in the order of messages that `frame::control` draws.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;

use super::rates::Rates;
use super::{Refusal, Reserved, Tunnel};
use crate::frame::control::{CloseReason, Hello, Message, PREAMBLE, Ready};
use crate::link::control::Conversation;
use crate::link::datagram::Restrictions;
use crate::link::dialogue::{ControlDialogue, DialogueEnd, SILENCE, Speaker, until_end};
use crate::link::stream::StreamLink;
use crate::packet::offload::virtio::Offload;
use crate::pump::{FrameSink, FrameSource};
use crate::server::Server;
use crate::server::access::entitlement::{Dismissal, Entitlement};
use crate::server::report::audit::event::Asked;
use crate::server::report::registry::session::Session;
use crate::ssh::server::requests::RefusalCode;
use crate::tun::Device;
use crate::types::{Mode, UnitRequest};

/// The name of the subsystem.
pub(in crate::server) const SUBSYSTEM: &str = "sshvpn";

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
type StreamEnd = DialogueEnd<Dismissal, Refusal>;

/// What is said before packets flow.
type Control<R, W, S> = ControlDialogue<R, W, S, Refusal>;

impl StreamEnd {
    /// What the client is told, as far as it can hear; nothing where it knows.
    fn close(&self) -> Option<(CloseReason, String)> {
        Some(match self {
            StreamEnd::Requested | StreamEnd::StreamEnded => return None,
            StreamEnd::Silence => (
                CloseReason::Silence,
                format!("no word from this end in {} seconds", SILENCE.as_secs()),
            ),
            StreamEnd::Stopped(why) => {
                let reason = match why {
                    Dismissal::ServerStopping(_) => CloseReason::Requested,
                    Dismissal::AccessWithdrawn => CloseReason::NotPermitted,
                };
                (reason, why.to_string())
            }
            StreamEnd::Protocol(what) => (CloseReason::Protocol, what.clone()),
            StreamEnd::Version(theirs) => (CloseReason::Version, version_advice(theirs)),
            StreamEnd::Failed(refusal) => {
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

fn version_advice(theirs: &Hello) -> String {
    let ours = Hello::of_server();
    format!(
        "{} speaks the protocol {} to {}, {} {} to {}: update the older one",
        ours.software, ours.oldest, ours.version, theirs.software, theirs.oldest, theirs.version
    )
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
        let stop = pin!(self.entitlement.dismissed());
        let mut control = Control::new(Conversation::new(input, output), stop);
        let (end, speaker, tunnel) = match self.come_up(&mut control).await {
            Ok(up) => {
                let (conversation, stop) = control.into_parts();
                let counters = Arc::clone(&up.tunnel.counters);
                let mut link = StreamLink::start(
                    up.device,
                    conversation,
                    up.offload,
                    up.restrictions,
                    counters,
                );
                let end: StreamEnd = until_end(&mut link, stop).await;
                tracing::debug!(?end, device = %up.tunnel.device(), "a tunnel ends");
                (end, Speaker::of_link(link), Some(up.tunnel))
            }
            Err(end) => {
                tracing::debug!(?end, "a stream ends before its tunnel is up");
                (end, control.into_speaker(), None)
            }
        };
        let mut speaker = speaker.after(&end);
        if let Some((reason, text)) = end.close() {
            // An error is ignored: no other peer needs to know it.
            speaker.say(&Message::Close { reason, text }).await;
        }
        speaker.say(&Message::Closed { left: Vec::new() }).await;
        speaker.finish().await;
        if let Some(tunnel) = tunnel {
            tunnel.close(&self.session).await;
        }
    }

    /// Everything before packets flow.
    async fn come_up<R, W, S>(&self, control: &mut Control<R, W, S>) -> Result<Up, StreamEnd>
    where
        R: FrameSource,
        W: FrameSink,
        S: Future<Output = Dismissal> + Unpin,
    {
        let agreed = self.agree(control).await?;
        let opened = agreed.reserved.open(self.rates.clone()).await;
        let (tunnel, device, restrictions) =
            opened.map_err(|refusal| self.refuse(agreed.mode, refusal))?;
        tunnel.announce(&self.session);
        let ready = Message::Ready(Ready {
            device: tunnel.device().clone(),
            mtu: tunnel.mtu(),
        });
        if let Err(end) = control.say(&ready).await {
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
    async fn agree<R, W, S>(&self, control: &mut Control<R, W, S>) -> Result<Agreed, StreamEnd>
    where
        R: FrameSource,
        W: FrameSink,
        S: Future<Output = Dismissal> + Unpin,
    {
        let offload = control.greet(Hello::of_server()).await?;
        let ask = match control.hear().await? {
            Message::Ask(ask) => ask,
            Message::Look(_) | Message::SetUp(_) => {
                return Err(StreamEnd::Protocol(
                    "this is a server, which says itself what a tunnel is like: ask for one \
                     ('ask'; sshvpn up --via serve)"
                        .to_owned(),
                ));
            }
            other => return Err(StreamEnd::misplaced(&other, "before ask")),
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
        control.say(&Message::Offer(reserved.offer())).await?;
        match control.hear().await? {
            Message::Accept => Ok(Agreed {
                reserved,
                mode: ask.mode,
                offload,
            }),
            other => Err(StreamEnd::misplaced(&other, "before accept")),
        }
    }

    fn refuse(&self, mode: Mode, refusal: Refusal) -> StreamEnd {
        self.session
            .refused(Asked::tunnel(mode, UnitRequest::Any), &refusal.text);
        StreamEnd::Failed(refusal)
    }
}
