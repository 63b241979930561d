//! The agent stream: frames in a byte stream, each an SSH string (RFC 4251,
//! section 5: `u32 length ‖ bytes`), many to a write, cut anywhere on the way.
//!
//! ```text
//!   frame := u32 family ‖ packet
//!          | u32 (family | OFFLOAD) ‖ virtio_net_hdr ‖ packet    a super-packet, or an open checksum
//!          | u32 0 ‖ control message                             frame::control
//! ```
//!
//! Frames are read without a copy: a frame that arrived in several chunks is a list of
//! pieces.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

use super::control::MAX_CONTROL;
use super::waiting::Waiting;
use super::{AF_INET, AF_INET6, ETHERNET_HEADER, FAMILY_LEN, FrameError};
use crate::packet::offload::virtio::VIRTIO_HEADER_LEN;
use crate::packet::{IpVersion, MAX_PIECES};
use crate::types::Mode;

/// Bytes of the length in front of a frame.
const LENGTH_LEN: usize = 4;
/// Bytes of the length and the family word.
pub const FRONT_LEN: usize = LENGTH_LEN + FAMILY_LEN;

/// The family of a control message.
const CONTROL: u32 = 0;
/// The family of an Ethernet frame: the EtherType of bridged Ethernet.
pub(super) const ETHERNET: u32 = 0x6558;
/// In the family word: an offload header follows it.
pub(super) const OFFLOAD: u32 = 0x8000_0000;

/// The largest packet: the largest length in an IP header, and an Ethernet header with
/// two tags.
pub const MAX_PACKET: usize = 65535 + 22;
/// The largest frame of any kind.
const MAX_STREAM_FRAME: usize = FAMILY_LEN + MAX_CONTROL;
/// The first bytes of a packet are in one piece, so that its headers can be parsed.
pub const CONTIGUOUS: usize = 256;
/// Chunks held at most; more are joined, so that a peer that sends single bytes costs no
/// more memory than others.
const MAX_CHUNKS: usize = 512;

/// The stream cannot be read further: the start of the next frame is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a frame of {length} bytes in the stream; at most {MAX_STREAM_FRAME} are allowed")]
pub struct StreamError {
    /// The length that the peer claims.
    pub length: u32,
}

/// The content of one frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamFrame {
    /// A packet.
    Packet(StreamPacket),
    /// A control message, as JSON.
    Control(Bytes),
    /// An invalid frame.
    Bad(FrameError),
}

/// A received packet. Only its family has been checked, against the tunnel's mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamPacket {
    /// The offload header, if there is one.
    pub offload: Option<[u8; VIRTIO_HEADER_LEN]>,
    /// The IP version that the family names; `None` for an Ethernet frame.
    pub version: Option<IpVersion>,
    /// The packet's bytes; the first [`CONTIGUOUS`] of them are in the first piece.
    pub pieces: Vec<Bytes>,
}

/// The frame of a packet, made in place.
pub fn encode(mode: Mode, packet: Waiting) -> Result<BytesMut, FrameError> {
    let (word, header) = family_word(mode, &packet)?;
    let rest = packet.length() + if header { VIRTIO_HEADER_LEN } else { 0 };
    let length = u32::try_from(FAMILY_LEN + rest).map_err(|_| FrameError::TooLong)?;
    let front = (u64::from(length) << 32 | u64::from(word)).to_be_bytes();
    packet.into_frame(&front, header)
}

/// The family word of a packet, and whether its offload header follows.
pub(super) fn family_word(mode: Mode, packet: &Waiting) -> Result<(u32, bool), FrameError> {
    let family = family(mode, packet.packet(), packet.length())?;
    Ok(match packet.is_plain() {
        true => (family, false),
        false => (family | OFFLOAD, true),
    })
}

/// Appends the frame of a packet in parts; the first, `head`, has all headers.
pub fn append(
    mode: Mode,
    offload: &[u8; VIRTIO_HEADER_LEN],
    head: &[u8],
    rest: &[Bytes],
    frames: &mut BytesMut,
) -> Result<(), FrameError> {
    let packet = head.len() + rest.iter().map(Bytes::len).sum::<usize>();
    let family = family(mode, head, packet)?;
    let (family, offload): (u32, &[u8]) = if offload.iter().all(|byte| *byte == 0) {
        (family, &[])
    } else {
        (family | OFFLOAD, offload)
    };
    let length = u32::try_from(FAMILY_LEN + offload.len() + packet);
    let length = length.map_err(|_| FrameError::TooLong)?;
    frames.extend_from_slice(&length.to_be_bytes());
    frames.extend_from_slice(&family.to_be_bytes());
    frames.extend_from_slice(offload);
    frames.extend_from_slice(head);
    for part in rest {
        frames.extend_from_slice(part);
    }
    Ok(())
}

/// The family of a packet of `length` bytes that begins with `head`.
fn family(mode: Mode, head: &[u8], length: usize) -> Result<u32, FrameError> {
    if length > MAX_PACKET {
        return Err(FrameError::TooLong);
    }
    match mode {
        Mode::Ethernet if length < ETHERNET_HEADER => Err(FrameError::TooShort),
        Mode::Ethernet => Ok(ETHERNET),
        Mode::PointToPoint => Ok(match IpVersion::of(head)? {
            IpVersion::V4 => AF_INET,
            IpVersion::V6 => AF_INET6,
        }),
    }
}

/// A control message as a frame.
pub fn encode_control(json: &[u8]) -> Result<Bytes, FrameError> {
    if json.len() > MAX_CONTROL {
        return Err(FrameError::TooLong);
    }
    let length = u32::try_from(FAMILY_LEN + json.len()).map_err(|_| FrameError::TooLong)?;
    let mut frame = BytesMut::with_capacity(LENGTH_LEN + FAMILY_LEN + json.len());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&CONTROL.to_be_bytes());
    frame.extend_from_slice(json);
    Ok(frame.freeze())
}

/// Splits a stream into frames. It holds at most one unfinished frame and the last chunk.
#[derive(Debug)]
pub struct StreamReader {
    mode: Mode,
    chunks: VecDeque<Bytes>,
    held: usize,
}

impl StreamReader {
    /// A reader for a tunnel of `mode`.
    pub fn new(mode: Mode) -> Self {
        StreamReader {
            mode,
            chunks: VecDeque::new(),
            held: 0,
        }
    }

    /// Sets the mode, if it becomes known after the first messages.
    pub fn set_mode(&mut self, mode: Mode) {
        self.mode = mode;
    }

    /// Adds the next bytes of the stream.
    pub fn push(&mut self, chunk: Bytes) {
        if chunk.is_empty() {
            return;
        }
        self.held += chunk.len();
        self.chunks.push_back(chunk);
        if self.chunks.len() > MAX_CHUNKS {
            let held = self.held;
            let joined = self.take_joined(held);
            self.held = joined.len();
            self.chunks.push_back(joined);
        }
    }

    /// Bytes that are held.
    pub fn held(&self) -> usize {
        self.held
    }

    /// The next whole frame; `None` until more bytes are pushed.
    pub fn next_frame(&mut self) -> Result<Option<StreamFrame>, StreamError> {
        let Some(length) = self.peek_length() else {
            return Ok(None);
        };
        let size = length as usize;
        if size > MAX_STREAM_FRAME {
            return Err(StreamError { length });
        }
        if self.held < LENGTH_LEN + size {
            return Ok(None);
        }
        self.skip(LENGTH_LEN);
        Ok(Some(self.frame(size)))
    }

    /// Takes a frame of `size` bytes, all of which are held.
    fn frame(&mut self, size: usize) -> StreamFrame {
        let Some(left) = size.checked_sub(FAMILY_LEN) else {
            self.skip(size);
            return StreamFrame::Bad(FrameError::TooShort);
        };
        let word = u32::from_be_bytes(self.take_array());
        if word == CONTROL {
            return StreamFrame::Control(self.take_joined(left));
        }
        let version = match (word & !OFFLOAD, self.mode) {
            (AF_INET, Mode::PointToPoint) => Some(IpVersion::V4),
            (AF_INET6, Mode::PointToPoint) => Some(IpVersion::V6),
            (ETHERNET, Mode::Ethernet) => None,
            _ => {
                self.skip(left);
                return StreamFrame::Bad(FrameError::WrongFamily);
            }
        };
        let header = if word & OFFLOAD == 0 {
            0
        } else {
            VIRTIO_HEADER_LEN
        };
        let Some(packet) = left.checked_sub(header) else {
            self.skip(left);
            return StreamFrame::Bad(FrameError::TooShort);
        };
        if packet > MAX_PACKET {
            self.skip(left);
            return StreamFrame::Bad(FrameError::TooLong);
        }
        let offload = (header > 0).then(|| self.take_array());
        StreamFrame::Packet(StreamPacket {
            offload,
            version,
            pieces: self.take_pieces(packet),
        })
    }

    fn peek_length(&self) -> Option<u32> {
        if let Some(bytes) = self.chunks.front()?.first_chunk() {
            return Some(u32::from_be_bytes(*bytes));
        }
        let mut bytes = self.chunks.iter().flatten();
        let mut length = 0;
        for _ in 0..LENGTH_LEN {
            length = length << 8 | u32::from(*bytes.next()?);
        }
        Some(length)
    }

    /// The next piece, of at most `most` bytes; empty only if nothing is held.
    fn take_piece(&mut self, most: usize) -> Bytes {
        let Some(front) = self.chunks.front_mut() else {
            return Bytes::new();
        };
        let piece = if front.len() > most {
            front.split_to(most)
        } else {
            self.chunks.pop_front().unwrap_or_default()
        };
        self.held -= piece.len();
        piece
    }

    fn skip(&mut self, mut bytes: usize) {
        while bytes > 0 {
            let piece = self.take_piece(bytes);
            if piece.is_empty() {
                return;
            }
            bytes -= piece.len();
        }
    }

    fn take_array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let mut filled = 0;
        while let Some(rest) = array.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let mut piece = self.take_piece(rest.len());
            if piece.is_empty() {
                break;
            }
            let length = piece.len().min(rest.len());
            piece.copy_to_slice(rest.get_mut(..length).unwrap_or_default());
            filled += length;
        }
        array
    }

    /// Takes bytes as one piece; without a copy if they are in one chunk.
    fn take_joined(&mut self, bytes: usize) -> Bytes {
        if bytes == 0 {
            return Bytes::new();
        }
        if self
            .chunks
            .front()
            .is_some_and(|front| front.len() >= bytes)
        {
            return self.take_piece(bytes);
        }
        let mut joined = BytesMut::with_capacity(bytes);
        while joined.len() < bytes {
            let piece = self.take_piece(bytes - joined.len());
            if piece.is_empty() {
                break;
            }
            joined.extend_from_slice(&piece);
        }
        joined.freeze()
    }

    fn take_pieces(&mut self, bytes: usize) -> Vec<Bytes> {
        let mut left = bytes;
        let mut pieces = Vec::with_capacity(1);
        let first = self.chunks.front().map_or(0, Bytes::len);
        if first < left.min(CONTIGUOUS) {
            let head = self.take_joined(left.min(CONTIGUOUS));
            left -= head.len();
            pieces.push(head);
        }
        while left > 0 {
            let piece = if pieces.len() + 1 < MAX_PIECES {
                self.take_piece(left)
            } else {
                self.take_joined(left)
            };
            if piece.is_empty() {
                break;
            }
            left -= piece.len();
            pieces.push(piece);
        }
        pieces
    }
}

#[cfg(test)]
mod tests;
