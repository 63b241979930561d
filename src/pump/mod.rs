//! Moves packets between a device and a channel, until one of them ends. Knows
//! packets and frames, neither tun nor ssh: what it reads from and writes to
//! are the four traits here.

mod codel;
mod counters;
mod fair_queue;
mod fifo;
mod inbound;
mod outbound;
mod queue_settings;

use std::future::Future;
use std::io;

use bytes::Bytes;

pub use codel::CodelSettings;
pub use counters::{Counters, Dropped, Snapshot};
pub use fair_queue::{FairQueue, QueueDrops};
pub use inbound::inbound;
pub use outbound::outbound;
pub use queue_settings::QueueSettings;

/// The reading side of a device.
pub trait PacketSource {
    /// Waits for a packet and reads it into `buffer`; its length in bytes.
    fn read(&self, buffer: &mut [u8]) -> impl Future<Output = io::Result<usize>> + Send;
    /// Reads a packet that is there already.
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>>;
}

/// The writing side of a device.
pub trait PacketSink {
    /// Writes one packet.
    fn write(&self, packet: &[u8]) -> impl Future<Output = io::Result<()>> + Send;
}

/// The sending side of a channel whose messages are frames.
pub trait FrameSink {
    /// Sends one frame as one message; waits while the peer's window is full.
    fn send(&self, frame: Bytes) -> impl Future<Output = Result<(), SendFailure>> + Send;
}

/// The receiving side of a channel whose messages are frames.
pub trait FrameSource {
    /// The next frame; nothing once the far end has closed the channel or the
    /// connection is gone.
    fn receive(&mut self) -> impl Future<Output = Option<Bytes>> + Send;
}

/// Why a frame was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendFailure {
    /// It is larger than the peer takes; the channel is as it was.
    TooLarge,
    /// The channel is gone.
    Closed,
}

/// Why a direction ended.
#[derive(Debug)]
pub enum End {
    /// The channel was closed by the far end, or the connection is gone.
    Channel,
    /// The device failed for good.
    Device(io::Error),
}

#[cfg(test)]
mod tests;
