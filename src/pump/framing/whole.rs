//! Turns offload packets into ordinary ones, for a device that takes no others.

use std::convert::Infallible;

use bytes::{Bytes, BytesMut};

use crate::packet::offload;
use crate::packet::offload::segment::Segments;
use crate::packet::offload::virtio::VirtioHeader;
use crate::pump::Dropped;
use crate::types::Mode;

/// The ordinary packets that an offload packet in pieces stands for.
pub(in crate::pump) fn divide(
    mode: Mode,
    header: &VirtioHeader,
    pieces: &[Bytes],
) -> Result<Vec<Bytes>, Dropped> {
    let mut packet = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    for piece in pieces {
        packet.extend_from_slice(piece);
    }
    if header.gso.is_none() {
        offload::finish_checksum(mode, header, &mut packet)?;
        return Ok(vec![packet.freeze()]);
    }
    let segments = Segments::new(mode, header, &packet)?;
    let mut made = Vec::with_capacity(segments.count());
    let Ok(_) = segments.divide(0, |segment| -> Result<(), Infallible> {
        made.push(segment.freeze());
        Ok(())
    });
    Ok(made)
}
