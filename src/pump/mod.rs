//! Moves packets between a device and a channel, until one of them ends. Knows
//! packets and frames, neither tun nor ssh: what it reads from and writes to
//! are the four traits here.
//!
//! ```text
//!   outbound   device ─► fair queue ─► framing ─► channel
//!   inbound    channel ─► frames ─► device
//!              by datagram: to and from a peer that knows single packets alone, so
//!                           super-packets are divided here, and packets are merged
//!              by stream, by datagram with offload:
//!                           between two of us, super-packets as they are; packets
//!                           that wait together for a stream are merged into such
//!              of all: no more is on its way than fills the path (flight)
//!   inbound, in every role:   guard (what the peer may send)
//!   at a server, in addition: rate (how much), strangers (whom a client does not
//!                             hear on a bridge)
//! ```

mod counters;
pub(crate) mod filter;
mod flight;
mod framing;
mod inbound;
mod outbound;
pub(crate) mod queue;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::io::{self, IoSlice};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::frame::stream::StreamError;
use crate::frame::waiting::Waiting;
use crate::packet::offload::virtio::{Offload, VirtioHeader};

pub use counters::{Counters, Dropped, Snapshot};
pub use filter::egress::{EgressFilter, Heard, Hears};
pub use filter::guard::{Guard, LinkClaims};
pub use filter::rate::{Limited, Rate, RateLimit};
pub use flight::Pong;
pub use flight::bounded::Pings;
pub use framing::Framing;
pub use inbound::{inbound_datagrams, inbound_stream};
pub use outbound::outbound;
pub use queue::codel::CodelSettings;
pub use queue::fair_queue::{FairQueue, Packet, QueueDrops};
pub use queue::settings::QueueSettings;

/// The reading side of a device.
pub trait PacketSource {
    /// Waits for a packet and reads it, with its offload header, in place of what
    /// `packet` holds. Nothing is lost if the future is dropped.
    fn read(&self, packet: &mut Waiting) -> impl Future<Output = io::Result<()>> + Send;
    /// Reads a packet that is there already; whether there was one.
    fn try_read(&self, packet: &mut Waiting) -> io::Result<bool>;
    /// Waits until there is a packet, or an error, to be read; takes no memory
    /// meanwhile.
    fn readable(&self) -> impl Future<Output = io::Result<()>> + Send;
    /// Asks for ordinary packets alone from now on, if that can be had.
    fn decline_offload(&self);
}

/// Bytes of a packet from which on dividing and merging cost more than they
/// save: each is a pass over all of its bytes, and what is saved is the work that
/// there is for each packet.
const LARGE: usize = 4096;

/// Bytes sent in one go: one super-packet, or many small packets.
const SEND_AT_ONCE: usize = 64 * 1024;

/// The writing side of a device.
pub trait PacketSink {
    /// What it takes besides whole ordinary packets.
    fn takes(&self) -> Offload;
    /// Writes one packet, given in pieces.
    fn write(
        &self,
        header: &VirtioHeader,
        pieces: &[IoSlice<'_>],
    ) -> impl Future<Output = io::Result<()>> + Send;
}

/// The sending side of a channel.
pub trait FrameSink: Sync {
    /// Sends all of `frames`, in order, and leaves the vector empty: each as one
    /// message where messages are datagrams, one behind the other where the
    /// channel is a byte stream. Waits while the peer takes no more. A future that
    /// is dropped may have sent a part.
    fn send_all(
        &self,
        frames: &mut Vec<Bytes>,
    ) -> impl Future<Output = Result<(), SendFailure>> + Send;

    /// Sends one frame.
    fn send(&self, frame: Bytes) -> impl Future<Output = Result<(), SendFailure>> + Send {
        async move { self.send_all(&mut vec![frame]).await }
    }

    /// Bytes that are worth handing over at once: what was handed over cannot be
    /// overtaken any more.
    fn at_once(&self) -> usize {
        SEND_AT_ONCE
    }

    /// Asks the peer for an answer, behind what was sent so far. What is yielded
    /// is ready once the answer came; nothing, where that cannot be asked.
    fn ping(&self) -> impl Future<Output = Option<oneshot::Receiver<()>>> + Send {
        async { None }
    }

    /// Ends the channel, where that takes more than dropping this.
    fn close(&self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// The receiving side of a channel.
pub trait FrameSource {
    /// The next message, or the next bytes of the stream; nothing once the far
    /// end has closed the channel or the connection is gone.
    fn receive(&mut self) -> impl Future<Output = Option<Bytes>> + Send;
    /// The same, if it is there already.
    fn try_receive(&mut self) -> Option<Bytes>;
}

/// Why a frame was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendFailure {
    /// One frame, of this many bytes, is larger than the peer takes, and is
    /// dropped; the channel is as it was.
    TooLarge(usize),
    /// The channel is gone.
    Closed,
}

/// Why a direction ended.
#[derive(Debug)]
pub enum End {
    /// The channel was closed by the peer, or the connection is gone.
    Channel,
    /// The peer sent what is no stream of frames.
    Stream(StreamError),
    /// The device failed for good.
    Device(io::Error),
}
