//! Parses an agent stream in random chunks: the result does not depend on the chunks, and an
//! accepted packet can be framed again.

use bytes::{Bytes, BytesMut};
use sshvpn_fuzz::packets::mode;
use sshvpn_fuzz::{Source, target};
use sshvpn_wire::frame::stream::{
    CONTIGUOUS, OFFLOAD_LEN, STREAM_HEADROOM, StreamError, StreamFrame, StreamReader, encode,
};
use sshvpn_wire::types::Mode;

target!(frame_stream, run);

fn run(input: &[u8]) {
    let mut source = Source::new(input);
    let mode = mode(source.byte());
    let cut = usize::from(source.byte()) + 1;
    let stream = source.rest();
    let (whole, whole_end) = read(mode, [stream].into_iter());
    let (cut, cut_end) = read(mode, stream.chunks(cut));
    assert_eq!(whole_end, cut_end);
    assert_eq!(whole.len(), cut.len());
    for (one, other) in whole.iter().zip(&cut) {
        assert_eq!(joined(one), joined(other));
        if let StreamFrame::Packet(packet) = other {
            let length: usize = packet.pieces.iter().map(Bytes::len).sum();
            let head = packet.pieces.first().map_or(0, Bytes::len);
            assert!(head >= length.min(CONTIGUOUS));
            again(mode, one);
        }
    }
}

fn read<'a>(
    mode: Mode,
    chunks: impl Iterator<Item = &'a [u8]>,
) -> (Vec<StreamFrame>, Result<usize, StreamError>) {
    let mut reader = StreamReader::new(mode);
    let mut frames = Vec::new();
    for chunk in chunks {
        reader.push(Bytes::copy_from_slice(chunk));
        loop {
            match reader.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Err(error)),
            }
        }
    }
    (frames, Ok(reader.held()))
}

/// A frame with its pieces joined.
fn joined(frame: &StreamFrame) -> StreamFrame {
    let mut frame = frame.clone();
    if let StreamFrame::Packet(packet) = &mut frame {
        let mut all = BytesMut::new();
        for piece in &packet.pieces {
            all.extend_from_slice(piece);
        }
        packet.pieces = vec![all.freeze()];
    }
    frame
}

/// Frames a packet again, if a device could have yielded it.
fn again(mode: Mode, frame: &StreamFrame) {
    let StreamFrame::Packet(packet) = frame else {
        return;
    };
    let mut buffer = vec![0; STREAM_HEADROOM - OFFLOAD_LEN];
    buffer.extend(packet.offload.unwrap_or_default());
    for piece in &packet.pieces {
        buffer.extend_from_slice(piece);
    }
    if let Ok(start) = encode(mode, &mut buffer) {
        let (frames, end) = read(mode, [&buffer[start..]].into_iter());
        assert_eq!((frames.len(), end), (1, Ok(0)));
    }
}
