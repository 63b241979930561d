//! How an agent ends: for which reason, what the client is told of it, and in
//! what order everything is given up.

use super::error::AgentError;
use super::host::Host;
use super::refusals;
use crate::frame::control::{CloseReason, Hello, Message, OLDEST_VERSION, VERSION};
use crate::link::dialogue::{DialogueEnd, SILENCE, Speaker};
use crate::process::message::say;
use crate::pump::{FrameSink, FrameSource};

/// Why an agent ended; it is stopped by the number of a signal.
pub(crate) type AgentEnd = DialogueEnd<i32, AgentError>;

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
            AgentEnd::Requested | AgentEnd::StreamEnded | AgentEnd::Stopped(_)
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
            AgentEnd::Stopped(number) => (
                CloseReason::Requested,
                format!("the agent was ended by signal {number}"),
            ),
            AgentEnd::Protocol(what) => (CloseReason::Protocol, what.clone()),
            AgentEnd::Version(theirs) => (CloseReason::Version, version_advice(theirs)),
            AgentEnd::Failed(error) => (error.reason(), error.to_string()),
            AgentEnd::Device(error) => (
                CloseReason::Failed,
                format!("the tunnel device there failed or was removed: {error}"),
            ),
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

/// Tells the client why, undoes everything, and tells it so. What it could not
/// be told is told on standard error.
pub(crate) async fn close<R: FrameSource, W: FrameSink>(
    end: &AgentEnd,
    speaker: Speaker<R, W>,
    host: &mut impl Host,
    name: &str,
) {
    let mut speaker = speaker.after(end);
    if let Some((reason, text)) = end.close() {
        let text = format!("{name}: {text}");
        let told = text.clone();
        if !speaker.say(&Message::Close { reason, text }).await {
            say(format_args!("sshvpn: agent: {told}"));
        }
    }
    let left = host.undo().await;
    speaker.say(&Message::Closed { left }).await;
    if let Some(counters) = speaker.finish().await {
        if let Some(refused) = counters.inbound.snapshot().refused() {
            refusals::report(&refused);
        }
        tracing::debug!(
            outbound = %counters.outbound.snapshot(),
            inbound = %counters.inbound.snapshot(),
            "tunnel closed"
        );
    }
    host.finish().await;
}
