//! Turns the channel's messages into packets, each checked against its frame.

use bytes::Bytes;

use super::Framing;
use crate::frame;
use crate::frame::stream::{StreamError, StreamFrame, StreamPacket, StreamReader};
use crate::packet;
use crate::packet::offload;
use crate::packet::offload::virtio::VirtioHeader;
use crate::pump::Dropped;
use crate::types::Mode;

/// Takes the packets out of the messages, or the stream, of one channel.
#[derive(Debug)]
pub enum Deframer {
    /// For [`Framing::Datagrams`]: the next message.
    Datagrams(Option<Bytes>),
    /// For [`Framing::DatagramsWithOffload`]: the next message.
    DatagramsWithOffload(Option<Bytes>),
    /// For [`Framing::Stream`].
    Stream(StreamReader),
}

/// The content of one frame.
pub(in crate::pump) enum Content {
    Packet(Arrived),
    /// A frame that is dropped.
    Bad(Dropped),
    /// A control message, of a stream only.
    Control(Bytes),
}

/// A packet that fits its frame.
pub(in crate::pump) enum Arrived {
    /// An ordinary packet in one piece.
    Plain(Bytes),
    /// Any packet, in pieces, with its offload header.
    Offload(VirtioHeader, Vec<Bytes>),
}

impl Deframer {
    /// The deframer of this form.
    pub fn new(mode: Mode, framing: Framing) -> Self {
        match framing {
            Framing::Datagrams => Deframer::Datagrams(None),
            Framing::DatagramsWithOffload => Deframer::DatagramsWithOffload(None),
            Framing::Stream(_) => Deframer::Stream(StreamReader::new(mode)),
        }
    }

    /// Takes the next message, or the next bytes, when there is no frame left.
    pub(in crate::pump) fn push(&mut self, message: Bytes) {
        match self {
            Deframer::Datagrams(next) | Deframer::DatagramsWithOffload(next) => {
                *next = Some(message);
            }
            Deframer::Stream(reader) => reader.push(message),
        }
    }

    /// The next frame's content; `None` until more is pushed.
    pub(in crate::pump) fn next(&mut self, mode: Mode) -> Result<Option<Content>, StreamError> {
        let packet = match self {
            Deframer::Datagrams(next) => next.take().map(|message| plain(mode, &message)),
            Deframer::DatagramsWithOffload(next) => {
                (next.take()).map(|message| checked(mode, frame::offload::decode(mode, message)?))
            }
            Deframer::Stream(reader) => match reader.next_frame()? {
                Some(StreamFrame::Packet(packet)) => Some(checked(mode, packet)),
                Some(StreamFrame::Control(message)) => return Ok(Some(Content::Control(message))),
                Some(StreamFrame::Bad(error)) => Some(Err(error.into())),
                None => None,
            },
        };
        Ok(packet.map(|packet| packet.map_or_else(Content::Bad, Content::Packet)))
    }
}

impl Arrived {
    /// Its first bytes, with all headers.
    pub fn head(&self) -> &[u8] {
        match self {
            Arrived::Plain(packet) => packet,
            Arrived::Offload(_, pieces) => pieces.first().map_or(&[], |head| head),
        }
    }

    /// The ordinary packets that it stands for.
    pub fn packets(&self) -> u64 {
        match self {
            Arrived::Plain(_) => 1,
            Arrived::Offload(header, pieces) => header.packets(length(pieces)) as u64,
        }
    }
}

/// Bytes of a packet in pieces.
pub(in crate::pump) fn length(pieces: &[Bytes]) -> usize {
    pieces.iter().map(Bytes::len).sum()
}

/// The packet of one of OpenSSH's messages.
fn plain(mode: Mode, message: &Bytes) -> Result<Arrived, Dropped> {
    let packet = frame::decode(mode, message)?;
    Ok(Arrived::Plain(message.slice_ref(packet)))
}

/// The packet with its offload header, if both and the frame fit each other. The peer is
/// not trusted: family, version, lengths and offsets have to agree.
fn checked(mode: Mode, mut packet: StreamPacket) -> Result<Arrived, Dropped> {
    let length = length(&packet.pieces);
    let head: &[u8] = packet.pieces.first().map_or(&[], |head| head);
    match mode {
        Mode::Ethernet if length < frame::ETHERNET_HEADER => return Err(Dropped::TooShort),
        Mode::Ethernet => {}
        Mode::PointToPoint => {
            let version = packet::check_in(head, length)?;
            if Some(version) != packet.version {
                return Err(Dropped::WrongFamily);
            }
        }
    }
    let mut header = VirtioHeader::PLAIN;
    if let Some(offload) = &packet.offload {
        let parsed = VirtioHeader::from_bytes(offload).map_err(|_| Dropped::Malformed)?;
        header = offload::check_in(mode, &parsed, head, length)?;
    }
    if header == VirtioHeader::PLAIN && packet.pieces.len() == 1 {
        return Ok(Arrived::Plain(packet.pieces.remove(0)));
    }
    Ok(Arrived::Offload(header, packet.pieces))
}
