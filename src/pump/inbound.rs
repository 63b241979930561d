//! From the channel to the device.

use std::io;

use nix::errno::Errno;

use super::{Counters, Dropped, End, FrameSource, PacketSink};
use crate::config::types::Mode;
use crate::frame;

/// Receives frames, checks them, writes their packets to the device; until the
/// channel or the device ends.
pub async fn inbound<C, S>(mode: Mode, channel: &mut C, device: &S, counters: &Counters) -> End
where
    C: FrameSource,
    S: PacketSink + Sync,
{
    while let Some(message) = channel.receive().await {
        match frame::decode(mode, &message) {
            Ok(packet) => match device.write(packet).await {
                Ok(()) => counters.passed(packet.len()),
                Err(error) => match write_failure(&error) {
                    Some(reason) => counters.dropped(reason),
                    None => return End::Device(error),
                },
            },
            Err(error) => counters.dropped(error.into()),
        }
    }
    End::Channel
}

/// What a failed write costs: a packet, or (nothing) the device.
fn write_failure(error: &io::Error) -> Option<Dropped> {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EIO) => Some(Dropped::DeviceDown),
        Some(Errno::EBADFD) | None => None,
        Some(_) => Some(Dropped::Refused),
    }
}
