//! An agent while packets flow: it has nothing to say, and listens for the end.

use std::future::Future;

use super::end::{AgentEnd, misplaced};
use super::error::AgentError;
use crate::frame::control::Message;
use crate::link::stream::{LinkEvent, StreamLink};
use crate::pump;

/// Waits for whatever ends the tunnel.
pub(crate) async fn until_end(
    link: &mut StreamLink,
    stop: &mut (impl Future<Output = i32> + Unpin),
) -> AgentEnd {
    let event = tokio::select! {
        signal = stop => return AgentEnd::Signal(signal),
        event = link.next() => event,
    };
    match event {
        LinkEvent::Said(Message::Close { .. }) => AgentEnd::Requested,
        LinkEvent::Said(other) => misplaced(&other, "while the tunnel is up"),
        LinkEvent::Nonsense(error) => AgentEnd::Protocol(error.to_string()),
        LinkEvent::Silent(_) => AgentEnd::Silence,
        LinkEvent::Ended(pump::End::Channel) => AgentEnd::StreamEnded,
        LinkEvent::Ended(pump::End::Stream(error)) => AgentEnd::Protocol(error.to_string()),
        LinkEvent::Ended(pump::End::Device(error)) => AgentError::DeviceFailed(error).into(),
    }
}
