//! Messages of a tunnel channel between two sshvpn programs: an accepted message can be framed
//! again to the same message, and an ordinary IP packet is framed as OpenSSH expects.

use bytes::Bytes;
use sshvpn_fuzz::packets::mode;
use sshvpn_fuzz::{Source, target};
use sshvpn_wire::frame::stream::{OFFLOAD_LEN, STREAM_HEADROOM};
use sshvpn_wire::frame::{self, offload};
use sshvpn_wire::types::Mode;

target!(offload_datagrams, run);

fn run(input: &[u8]) {
    let mut source = Source::new(input);
    let mode = mode(source.byte());
    let message = Bytes::copy_from_slice(source.rest());
    let plain = frame::decode(mode, &message);
    let Ok(packet) = offload::decode(mode, message.clone()) else {
        assert!(mode == Mode::Ethernet || plain.is_err());
        return;
    };
    let [piece] = &packet.pieces[..] else {
        panic!("a message in {} pieces", packet.pieces.len());
    };
    if mode == Mode::PointToPoint {
        let taken = plain.ok();
        assert!(taken.is_none_or(|taken| packet.offload.is_none() && taken == &piece[..]));
    }
    // An offload header of zeros is not sent.
    if packet.offload == Some([0; OFFLOAD_LEN]) {
        return;
    }
    let mut buffer = vec![0; STREAM_HEADROOM - OFFLOAD_LEN];
    buffer.extend(packet.offload.unwrap_or_default());
    buffer.extend_from_slice(piece);
    if let Ok(start) = offload::encode(mode, &mut buffer) {
        let again = offload::decode(mode, Bytes::copy_from_slice(&buffer[start..]));
        // The family is the packet's, whatever the message has.
        match message[..4] == buffer[start..start + 4] {
            true => assert_eq!(buffer[start..], message[..]),
            false => assert!(again.is_ok()),
        }
    }
}
