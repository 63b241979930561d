//! Ends an agent: tells the client the reason, undoes the host's changes and closes the stream.

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
    /// Whether this is a normal end.
    pub(crate) fn is_orderly(&self) -> bool {
        matches!(
            self,
            AgentEnd::Requested | AgentEnd::StreamEnded | AgentEnd::Stopped(_)
        )
    }

    /// The reason to send to the client; `None` if the client knows it.
    fn close(&self) -> Option<(CloseReason, String)> {
        Some(match self {
            AgentEnd::Requested | AgentEnd::StreamEnded => return None,
            AgentEnd::Silence => {
                let seconds = SILENCE.as_secs();
                (
                    CloseReason::Silence,
                    format!("nothing from the client in {seconds} seconds"),
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
                format!("the agent's tunnel device failed or was removed: {error}"),
            ),
        })
    }
}

/// Says which program to update.
fn version_advice(theirs: &Hello) -> String {
    let ours = Hello::ours();
    let end = match theirs.version < OLDEST_VERSION {
        true => "the client",
        false => "the agent's host",
    };
    format!(
        "{} speaks the agent protocol {OLDEST_VERSION} to {VERSION}, {} {} to {}: update sshvpn at {end}",
        ours.software, theirs.software, theirs.oldest, theirs.version
    )
}

/// Sends the reason to the client, undoes everything, and confirms that. A reason that cannot be
/// sent goes to standard error.
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
