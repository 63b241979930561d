//! Messages of a tunnel channel between two sshvpn programs: an accepted message can be framed
//! again to the same message, and an ordinary IP packet is framed as OpenSSH expects.

use bytes::Bytes;
use sshvpn_fuzz::packets::mode;
use sshvpn_fuzz::{Source, target};
use sshvpn_wire::frame::waiting::Waiting;
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
    if packet.offload == Some([0; 10]) {
        return;
    }
    let waiting = Waiting::new(&packet.offload.unwrap_or_default(), [&piece[..]]);
    if let Ok(framed) = offload::encode(mode, waiting) {
        let framed = framed.freeze();
        // The family is the packet's, whatever the message said.
        match message[..4] == framed[..4] {
            true => assert_eq!(framed, message),
            false => assert!(offload::decode(mode, framed).is_ok()),
        }
    }
}
