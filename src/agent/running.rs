//! An agent while packets flow: it has nothing to say, and listens for the end.

use std::future::Future;

use super::end::{End, misplaced};
use super::error::AgentError;
use crate::frame::control::Message;
use crate::link::stream::{LinkEvent, StreamLink};
use crate::pump;

/// Waits for whatever ends the tunnel.
pub(crate) async fn until_end(
    link: &mut StreamLink,
    stop: &mut (impl Future<Output = i32> + Unpin),
) -> End {
    let event = tokio::select! {
        signal = stop => return End::Signal(signal),
        event = link.next() => event,
    };
    match event {
        LinkEvent::Said(Message::Close { .. }) => End::Requested,
        LinkEvent::Said(other) => misplaced(&other, "while the tunnel is up"),
        LinkEvent::Nonsense(error) => End::Protocol(error.to_string()),
        LinkEvent::Silent(_) => End::Silence,
        LinkEvent::Ended(pump::End::Channel) => End::StreamEnded,
        LinkEvent::Ended(pump::End::Stream(error)) => End::Protocol(error.to_string()),
        LinkEvent::Ended(pump::End::Device(error)) => AgentError::DeviceFailed(error).into(),
    }
}
