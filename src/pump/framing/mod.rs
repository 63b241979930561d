//! The forms in which packets travel, one for each kind of peer: the framer makes the
//! channel's messages of queued packets, the deframer makes packets of messages.

pub(super) mod deframer;
pub(super) mod framer;
mod stream;

use crate::packet::offload::virtio::Offload;

/// The form in which packets travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// One ordinary packet for each message (OpenSSH PROTOCOL, section 2.3).
    Datagrams,
    /// One packet for each message, which may be a super-packet behind its offload
    /// header: between two sshvpn peers ([`crate::frame::offload`]).
    DatagramsWithOffload,
    /// The agent stream, to a peer that takes these offload packets.
    Stream(Offload),
}
