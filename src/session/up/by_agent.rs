//! The far end's part of a tunnel by an sshvpn there: it is told what its host
//! is to look like, makes it so, and puts it back.

use std::time::Duration;

use anyhow::anyhow;
use tokio::time::timeout;

use super::Reporter;
use super::far_part::{Agreed, FarPart, Start, report_undone};
use super::plan_agent::{self, AgentInput};
use super::plan_error::PlanError;
use crate::config::types::Mode;
use crate::frame::control::{CloseReason, FEATURE_ETHERNET, Facts, Message, SetUp};
use crate::net::sysctl;
use crate::pump::End;
use crate::session::failure::Failure;
use crate::session::far_agent::{FarAgent, LastWords, Started, reason_text, shown};
use crate::session::stream_link::{LinkEvent, StreamLink};
use crate::ssh::connect::Connection;
use crate::tun::Device;

/// How long the agent may take to undo its part before we leave it to do so by
/// itself.
const UNDO_TIMEOUT: Duration = Duration::from_secs(10);

/// What it holds so far.
pub(super) struct ByAgent {
    facts: Facts,
    /// Until packets flow.
    agent: Option<FarAgent>,
    /// From then on.
    running: Option<Running>,
}

/// A tunnel that is up.
struct Running {
    link: StreamLink,
    last_words: LastWords,
    /// Whether the agent has said that it ends the tunnel.
    closing: bool,
}

impl ByAgent {
    /// With an agent that has looked at its host.
    pub(super) fn new(Started { agent, facts }: Started) -> Self {
        ByAgent {
            facts,
            agent: Some(agent),
            running: None,
        }
    }
}

impl FarPart for ByAgent {
    type Plan = SetUp;

    async fn agree(&mut self, start: &Start<'_>) -> Result<Agreed<SetUp>, Failure> {
        let (host, request) = (start.connection.host(), start.request);
        let ethernet = self.agent.as_ref().map(|agent| agent.has(FEATURE_ETHERNET));
        if request.mode == Mode::Ethernet && ethernet == Some(false) {
            let host = host.to_owned();
            return Err(Failure::ssh(PlanError::NoEthernet { host }));
        }
        start.reporter.step(format_args!(
            "{host}: connected, the agent runs as {}",
            self.facts.login
        ));
        let decided = plan_agent::decide(&AgentInput {
            host,
            request,
            near: &start.near,
            near_ipv6: sysctl::has_ipv6(),
            far: &self.facts,
            seed: start.seed,
        })
        .map_err(Failure::local)?;
        for route in decided.without_way {
            start
                .reporter
                .warning(format_args!("{host} itself has no route to {route}"));
        }
        Ok(Agreed {
            addresses: decided.addresses,
            mtu: decided.set_up.mtu,
            far: decided.set_up,
        })
    }

    async fn open(
        &mut self,
        start: &Start<'_>,
        agreed: &Agreed<SetUp>,
        tun: Device,
    ) -> Result<String, Failure> {
        let (host, reporter) = (start.connection.host(), start.reporter);
        let step = |what: &str| reporter.step(format_args!("{host}: {what}"));
        let agent = self.agent.as_mut().ok_or_else(gone)?;
        let ready = agent.set_up(agreed.far.clone(), step).await;
        let far_device = ready.map_err(Failure::ssh)?.device;
        let near_name = tun.name().clone();
        let agent = self.agent.take().ok_or_else(gone)?;
        let takes = agent.offload();
        let (conversation, last_words) = agent.into_stream();
        // From here on the stream is read, though our device is still down, so
        // that nothing else on the connection waits for it.
        self.running = Some(Running {
            link: StreamLink::start(tun, conversation, takes),
            last_words,
            closing: false,
        });
        reporter.step(format_args!(
            "tunnel open: {near_name} here, {far_device} at {host}"
        ));
        Ok(far_device.to_string())
    }

    async fn lost(&mut self, connection: &Connection) -> Failure {
        let Some(running) = &mut self.running else {
            return gone();
        };
        let failure = running.lost(connection.host()).await;
        match connection.end_reason() {
            Some(reason) => Failure::ssh(anyhow!("{reason}")),
            None => failure,
        }
    }

    async fn stop(&mut self, connection: &Connection, reporter: Reporter) {
        let Some(mut running) = self.running.take() else {
            return;
        };
        let undone = timeout(UNDO_TIMEOUT, running.close()).await;
        let counters = running.link.stop().await;
        reporter.step(format_args!("sent {}", counters.outbound.snapshot()));
        reporter.step(format_args!("received {}", counters.inbound.snapshot()));
        match undone.ok().flatten() {
            None if running.last_words.has_ended() => {
                let host = connection.host();
                reporter.warning(format_args!(
                    "{host}: the agent ended without undoing its part: 'sshvpn cleanup' there does it, or \
                     the next 'sshvpn up'"
                ));
            }
            left => report_undone(reporter, connection.host(), left),
        }
    }

    async fn finish(self, connection: &Connection, reporter: Reporter) {
        if let Some(agent) = self.agent {
            report_undone(reporter, connection.host(), agent.close().await);
        }
    }
}

impl Running {
    /// Waits until the tunnel is lost; yields why.
    async fn lost(&mut self, host: &str) -> Failure {
        let event = self.link.next().await;
        self.closing = matches!(event, LinkEvent::Said(Message::Close { .. }));
        why_lost(host, event, &self.last_words)
    }

    /// Has the agent undo its part; yields what it could not undo, or nothing
    /// if it is gone without a word of that.
    async fn close(&mut self) -> Option<Vec<String>> {
        if !self.closing {
            let close = Message::Close {
                reason: CloseReason::Requested,
                text: String::new(),
            };
            self.link.say(&close).await.ok()?;
        }
        let mut ended = 0;
        // Both directions end, and what was said before is heard between them.
        while ended < 2 {
            match self.link.next().await {
                LinkEvent::Said(Message::Closed { left }) => {
                    return Some(left.iter().map(|what| shown(what)).collect());
                }
                LinkEvent::Ended(_) => ended += 1,
                LinkEvent::Said(_) | LinkEvent::Nonsense(_) | LinkEvent::Silent(_) => {}
            }
        }
        None
    }
}

/// What has become of a tunnel on which this happens.
fn why_lost(host: &str, event: LinkEvent, last_words: &LastWords) -> Failure {
    match event {
        LinkEvent::Said(Message::Close { reason, text }) => Failure::ssh(anyhow!(
            "{host} ended the tunnel: {}",
            reason_text(reason, &text)
        )),
        LinkEvent::Said(other) => Failure::ssh(anyhow!(
            "{host}: the agent there does not keep to the protocol: it says '{}' while the tunnel is up",
            other.name()
        )),
        LinkEvent::Nonsense(error) => Failure::ssh(anyhow!(
            "{host}: the agent there does not keep to the protocol: {error}"
        )),
        LinkEvent::Silent(time) => Failure::ssh(anyhow!(
            "{host}: no word from the agent there in {} seconds",
            time.as_secs()
        )),
        LinkEvent::Ended(End::Channel) => {
            Failure::ssh(anyhow!("{host}: the agent there is gone: {last_words}"))
        }
        LinkEvent::Ended(End::Stream(error)) => Failure::ssh(anyhow!(
            "{host}: the agent there does not keep to the protocol: {error}"
        )),
        LinkEvent::Ended(End::Device(error)) => {
            Failure::local(anyhow!("the tunnel device here failed: {error}"))
        }
    }
}

fn gone() -> Failure {
    Failure::ssh(anyhow!("the connection is gone"))
}

#[cfg(test)]
#[path = "by_agent_tests.rs"]
mod tests;
