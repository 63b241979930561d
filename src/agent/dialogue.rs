//! What an agent says and does, from the first hello until packets flow, in the
//! order of messages that `frame::control` draws.

use std::future::Future;
use std::sync::Arc;

use super::end::{self, AgentEnd};
use super::error::AgentError;
use super::host::Host;
use crate::frame::control::{Hello, Message, SetUp};
use crate::link::control::Conversation;
use crate::link::datagram::Restrictions;
use crate::link::dialogue::{ControlDialogue, Speaker, until_end};
use crate::link::stream::StreamLink;
use crate::packet::guard::GuardRules;
use crate::packet::offload::virtio::Offload;
use crate::pump::{FrameSink, FrameSource};
use crate::tun::Device;

/// One agent with one client.
pub(crate) struct Dialogue<R, W, H, S> {
    /// Stopped by the number of a signal.
    control: ControlDialogue<R, W, S, AgentError>,
    host: H,
    /// Which offload packets the client takes, once it has said so.
    peer: Offload,
    /// This host's name, for the client's user.
    name: String,
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
            control: ControlDialogue::new(conversation, stop),
            host,
            peer: Offload::NONE,
            name,
        }
    }

    /// All of it; everything is undone when this returns.
    pub(crate) async fn run(mut self) -> AgentEnd {
        let result = self.come_up().await;
        let Dialogue {
            control,
            mut host,
            peer,
            name,
        } = self;
        let (end, speaker) = match result {
            Ok((device, guard)) => {
                host.confine().await;
                let held = Restrictions::of_addresses(guard);
                let (conversation, stop) = control.into_parts();
                let mut link = StreamLink::start(device, conversation, peer, held, Arc::default());
                let end = until_end(&mut link, stop).await;
                (end, Speaker::of_link(link))
            }
            Err(end) => (end, control.into_speaker()),
        };
        end::close(&end, speaker, &mut host, &name).await;
        end
    }

    /// From the first message to the last before packets flow; yields the
    /// device for them, and what may come to it.
    async fn come_up(&mut self) -> Result<(Device, GuardRules), AgentEnd> {
        self.peer = self.control.greet(Hello::ours()).await?;
        self.host.prepare().await?;
        let wish = self.negotiate().await?;
        self.set_up(&wish).await
    }

    /// Answers questions until the client knows what it wants.
    async fn negotiate(&mut self) -> Result<SetUp, AgentEnd> {
        loop {
            match self.control.hear().await? {
                Message::Look(look) => {
                    let facts = self.host.look(&look).await?;
                    self.control.say(&Message::AgentFacts(facts)).await?;
                }
                Message::Claim { addresses } => {
                    let taken = self.host.claim(&addresses)?;
                    self.control.say(&Message::Claimed { taken }).await?;
                }
                Message::SetUp(wish) => return Ok(wish),
                Message::Ask(_) | Message::Accept => {
                    let what =
                        "this is an agent, which is told what to do: there is no tunnel to ask for";
                    return Err(AgentEnd::Protocol(what.to_owned()));
                }
                other => return Err(AgentEnd::misplaced(&other, "before set-up")),
            }
        }
    }

    /// A change that was begun is made to its end, so that it can be undone.
    async fn set_up(&mut self, wish: &SetUp) -> Result<(Device, GuardRules), AgentEnd> {
        let opened = self.host.open(wish).await?;
        for change in opened.changes {
            let what = self.host.apply(change).await?;
            let warning = false;
            self.control.say(&Message::Done { what, warning }).await?;
        }
        for what in opened.warnings {
            let warning = true;
            self.control.say(&Message::Done { what, warning }).await?;
        }
        self.control.say(&Message::Ready(opened.ready)).await?;
        Ok((opened.device, opened.guard))
    }
}

#[cfg(test)]
mod tests;
