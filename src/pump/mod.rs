//! Moves packets between a device and a channel, until one of them ends. It knows packets
//! and frames, neither tun nor ssh: four traits stand for device and channel.
//!
//! ```text
//!   outbound   device ─► egress filter ─► fair queue ─► framer ─► channel
//!   inbound    device ◄─ merging, dividing ◄─ guard ◄─ deframer ◄─ channel
//!
//! Framer and deframer have one variant for each kind of peer:
//!
//!   datagrams               to software that takes ordinary packets: super-packets are
//!                           divided on the way out, packets merged on the way in
//!   datagrams with offload, between two sshvpn peers: super-packets are unchanged; packets
//!   stream                  that wait together for a stream are merged
//!
//!   flight                  limits the bytes on the way to those that fill the path
//!   guard                   in every role: the addresses that the peer may send from and to
//!   egress, rate            at a server: stations that a client does not hear; rate limits
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
pub use filter::Filtered;
pub use filter::egress::{EgressFilter, Hears};
pub use filter::ingress::{Guard, LinkClaims};
pub use filter::rate::{Limited, Rate, RateLimit};
pub use flight::Pong;
pub use flight::bounded::Pings;
pub use framing::Framing;
pub use framing::deframer::Deframer;
pub use framing::framer::Framer;
pub use inbound::inbound;
pub use outbound::outbound;
pub use queue::codel::CodelSettings;
pub use queue::fair_queue::{FairQueue, Packet, QueueDrops};
pub use queue::settings::QueueSettings;

/// The reading side of a device.
pub trait PacketSource {
    /// Waits for a packet and reads it, with its offload header, in place of what
    /// `packet` holds. Nothing is lost if the future is dropped.
    fn read(&self, packet: &mut Waiting) -> impl Future<Output = io::Result<()>> + Send;
    /// Reads a packet without waiting; whether there was one.
    fn try_read(&self, packet: &mut Waiting) -> io::Result<bool>;
    /// Waits until a read would yield a packet or an error; holds no memory meanwhile.
    fn readable(&self) -> impl Future<Output = io::Result<()>> + Send;
    /// Asks for only ordinary packets from now on, if the device supports that.
    fn decline_offload(&self);
}

/// Bytes of a packet from which on dividing and merging cost more than they save: both
/// touch all bytes, and save work for each packet.
const LARGE: usize = 4096;

/// Bytes sent in one go: one super-packet, or many small packets.
const SEND_AT_ONCE: usize = 64 * 1024;

/// The writing side of a device.
pub trait PacketSink {
    /// The offload packets that it takes besides ordinary ones.
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
    /// Sends all of `frames` in order, and leaves the vector empty: each as one message
    /// if messages are datagrams, concatenated if the channel is a byte stream. Waits
    /// while the peer takes no more. A future that is dropped may have sent some.
    fn send_all(
        &self,
        frames: &mut Vec<Bytes>,
    ) -> impl Future<Output = Result<(), SendFailure>> + Send;

    /// Sends one frame.
    fn send(&self, frame: Bytes) -> impl Future<Output = Result<(), SendFailure>> + Send {
        async move { self.send_all(&mut vec![frame]).await }
    }

    /// Bytes to send at once: no packet can overtake those that were sent.
    fn at_once(&self) -> usize {
        SEND_AT_ONCE
    }

    /// Sends a ping behind all frames so far. The receiver is ready once the answer came;
    /// `None` if the channel has no pings.
    fn ping(&self) -> impl Future<Output = Option<oneshot::Receiver<()>>> + Send {
        async { None }
    }

    /// Closes the channel, if dropping the sink does not.
    fn close(&self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// The receiving side of a channel.
pub trait FrameSource {
    /// The next message, or the next bytes of the stream; `None` once the peer has closed
    /// the channel or the connection is gone.
    fn receive(&mut self) -> impl Future<Output = Option<Bytes>> + Send;
    /// [`receive`](Self::receive) without waiting.
    fn try_receive(&mut self) -> Option<Bytes>;
}

/// Why a frame was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendFailure {
    /// One frame, of this many bytes, is larger than the peer takes, and is dropped; the
    /// channel still works.
    TooLarge(usize),
    /// The channel is gone.
    Closed,
}

/// Why a direction ended.
#[derive(Debug)]
pub enum End {
    /// The channel was closed by the peer, or the connection is gone.
    Channel,
    /// The peer sent something other than a stream of frames.
    Stream(StreamError),
    /// The device failed permanently.
    Device(io::Error),
}
