//! From the device to the channel.

use std::io;

use bytes::{Bytes, BytesMut};
use nix::errno::Errno;

use super::{Counters, Dropped, End, FrameSink, PacketSource, SendFailure};
use crate::config::types::Mode;
use crate::frame::{self, MAX_FRAME};

/// Packets read from the device in one go before the scheduler gets a turn.
const BATCH: usize = 64;

/// Bytes allocated at a time. Frames are cut off its front without a copy and
/// it is freed when the last of them is sent, so at most the channel's queue
/// and one slab are alive.
const SLAB: usize = 256 * 1024;

/// Room for one read: one byte more than a frame may have, so that a packet
/// that the kernel had to cut is seen to be too long.
const READ: usize = MAX_FRAME + 1;

/// Reads packets, puts their headers in front in place, sends them; until the
/// channel or the device ends.
pub async fn outbound<S, C>(mode: Mode, device: &S, channel: &C, counters: &Counters) -> End
where
    S: PacketSource + Sync,
    C: FrameSink + Sync,
{
    let mut slab = Slab::new(mode);
    loop {
        match device.read(slab.space()).await {
            Ok(length) => {
                if forward(slab.take(length), mode, channel, counters)
                    .await
                    .is_err()
                {
                    return End::Channel;
                }
            }
            Err(error) => match read_failure(error, counters) {
                Some(end) => return end,
                None => continue,
            },
        }
        for _ in 1..BATCH {
            match device.try_read(slab.space()) {
                Ok(Some(length)) => {
                    if forward(slab.take(length), mode, channel, counters)
                        .await
                        .is_err()
                    {
                        return End::Channel;
                    }
                }
                Ok(None) => break,
                Err(error) => match read_failure(error, counters) {
                    Some(end) => return end,
                    None => break,
                },
            }
        }
    }
}

struct Closed;

async fn forward<C: FrameSink>(
    mut frame: BytesMut,
    mode: Mode,
    channel: &C,
    counters: &Counters,
) -> Result<(), Closed> {
    if let Err(error) = frame::encode(mode, &mut frame) {
        counters.dropped(error.into());
        return Ok(());
    }
    let length = frame.len() - frame::headroom(mode);
    let frame: Bytes = frame.freeze();
    match channel.send(frame).await {
        Ok(()) => counters.passed(length),
        Err(SendFailure::TooLarge) => counters.dropped(Dropped::TooLong),
        Err(SendFailure::Closed) => return Err(Closed),
    }
    Ok(())
}

/// A device that is gone (EBADFD: the interface was deleted) ends the
/// direction; anything else costs a packet.
fn read_failure(error: io::Error, counters: &Counters) -> Option<End> {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EIO | Errno::EINTR | Errno::EFAULT) => {
            counters.dropped(Dropped::Refused);
            None
        }
        _ => Some(End::Device(error)),
    }
}

/// The buffer that packets are read into, headroom in front of each.
struct Slab {
    buffer: BytesMut,
    headroom: usize,
}

impl Slab {
    fn new(mode: Mode) -> Self {
        Slab {
            buffer: BytesMut::zeroed(SLAB),
            headroom: frame::headroom(mode),
        }
    }

    /// Where the next packet goes, behind its headroom.
    fn space(&mut self) -> &mut [u8] {
        if self.buffer.len() < self.headroom + READ {
            self.buffer = BytesMut::zeroed(SLAB);
        }
        let end = self.headroom + READ;
        self.buffer.get_mut(self.headroom..end).unwrap_or_default()
    }

    /// The packet of `length` bytes that was just read, headroom included.
    fn take(&mut self, length: usize) -> BytesMut {
        let end = (self.headroom + length).min(self.buffer.len());
        self.buffer.split_to(end)
    }
}
