//! A tunnel that is up, by the stream of an sshvpn at the remote end, be it an agent
//! or a server: how it is lost, and how it is ended.

use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use tokio::time::timeout;

use super::Reporter;
use super::remote_part::{LocalDevice, report_undone};
use crate::client::remote::agent::{LastWords, RemoteAgent, Role, reason_text, shown};
use crate::frame::control::{CloseReason, Message};
use crate::link::stream::{LinkEvent, StreamLink};
use crate::process::failure::Failure;
use crate::pump::End;
use crate::ssh::client::connect::Connection;

/// How long the remote end may take to undo its part before we leave it to do so by
/// itself.
const UNDO_TIMEOUT: Duration = Duration::from_secs(10);

/// A tunnel that is up.
pub(super) struct Running {
    link: StreamLink,
    role: Role,
    last_words: LastWords,
    /// Whether the remote end has said that it ends the tunnel.
    closing: bool,
}

impl Running {
    /// Starts to carry packets between the `local` device and the stream of `remote`,
    /// which is ready. Reads the stream from here on, though the device is still down:
    /// everything else on the connection would wait for it.
    pub(super) fn start(local: LocalDevice, remote: RemoteAgent) -> Self {
        let (role, takes) = (remote.role(), remote.offload());
        let (conversation, last_words) = remote.into_stream();
        Running {
            link: StreamLink::start(local.tun, conversation, takes, local.held, Arc::default()),
            role,
            last_words,
            closing: false,
        }
    }

    /// Waits until the tunnel is lost; yields why.
    pub(super) async fn lost(&mut self, connection: &Connection) -> Failure {
        let failure = self.lost_to(connection.host()).await;
        match connection.end_reason() {
            Some(reason) => Failure::ssh(anyhow!("{reason}")),
            None => failure,
        }
    }

    async fn lost_to(&mut self, host: &str) -> Failure {
        let event = self.link.next().await;
        self.closing = matches!(event, LinkEvent::Said(Message::Close { .. }));
        why_lost(host, self.role, event, &self.last_words)
    }

    /// Has the remote end undo its part, stops the packets, and says what went
    /// through.
    pub(super) async fn stop(mut self, connection: &Connection, reporter: Reporter) {
        let undone = timeout(UNDO_TIMEOUT, self.close()).await;
        let counters = self.link.stop().await;
        reporter.step(format_args!("sent {}", counters.outbound.snapshot()));
        reporter.step(format_args!("received {}", counters.inbound.snapshot()));
        match undone.ok().flatten() {
            None if self.role == Role::Agent && self.last_words.has_ended() => {
                let host = connection.host();
                reporter.warning(format_args!(
                    "{host}: the agent ended without undoing its part: 'sshvpn cleanup' there does it, or \
                     the next 'sshvpn up'"
                ));
            }
            left => report_undone(reporter, connection.host(), left),
        }
    }

    /// Has the remote end undo its part; yields what it could not undo, or
    /// nothing if it is gone without a word of that.
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
fn why_lost(host: &str, role: Role, event: LinkEvent, last_words: &LastWords) -> Failure {
    match event {
        LinkEvent::Said(Message::Close { reason, text }) => Failure::ssh(anyhow!(
            "{host} ended the tunnel: {}",
            reason_text(reason, &text)
        )),
        LinkEvent::Said(other) => Failure::ssh(anyhow!(
            "{host}: the {role} there does not keep to the protocol: it says '{}' while the tunnel is up",
            other.name()
        )),
        LinkEvent::Nonsense(error) => Failure::ssh(anyhow!(
            "{host}: the {role} there does not keep to the protocol: {error}"
        )),
        LinkEvent::Silent(time) => Failure::ssh(anyhow!(
            "{host}: no word from the {role} there in {} seconds",
            time.as_secs()
        )),
        LinkEvent::Ended(End::Channel) => {
            Failure::ssh(anyhow!("{host}: the {role} there is gone: {last_words}"))
        }
        LinkEvent::Ended(End::Stream(error)) => Failure::ssh(anyhow!(
            "{host}: the {role} there does not keep to the protocol: {error}"
        )),
        LinkEvent::Ended(End::Device(error)) => {
            Failure::local(anyhow!("the tunnel device here failed: {error}"))
        }
    }
}

/// There is nothing to talk to any more.
pub(super) fn gone() -> Failure {
    Failure::ssh(anyhow!("the connection is gone"))
}

#[cfg(test)]
mod tests;
