//! Frames of a tunnel channel between two sshvpn peers, one to a message: OpenSSH's, and
//! with an offload header for packets that have open work.
//!
//! ```text
//!   frame := u32 family ‖ packet
//!          | u32 (family | OFFLOAD) ‖ virtio_net_hdr ‖ packet    a super-packet, or an open checksum
//! ```
//!
//! Ethernet mode, in which OpenSSH has no family word, uses that of the agent stream.
//! Both ends use these frames only if both identify themselves as sshvpn; see
//! [`spoken_by`].

use bytes::{Bytes, BytesMut};

use super::stream::{self, ETHERNET, MAX_PACKET, OFFLOAD, StreamPacket};
use super::waiting::Waiting;
use super::{AF_INET, AF_INET6, FAMILY_LEN, FrameError};
use crate::packet::IpVersion;
use crate::packet::offload::virtio::VIRTIO_HEADER_LEN;
use crate::types::Mode;

/// The largest message that sshvpn accepts on a channel, in bytes.
pub const MAX_MESSAGE: usize = 65535;

/// The start of sshvpn's identification string (RFC 4253, section 4.2).
const SOFTWARE: &[u8] = b"SSH-2.0-sshvpn_";

/// Whether the peer with this identification string is sshvpn, and accepts such frames.
pub fn spoken_by(identification: &[u8]) -> bool {
    identification.starts_with(SOFTWARE)
}

/// Whether a super-packet of `packet` bytes fits one message.
pub fn fits(packet: usize) -> bool {
    packet <= MAX_MESSAGE - FAMILY_LEN - VIRTIO_HEADER_LEN
}

/// The message of a packet, made in place.
pub fn encode(mode: Mode, packet: Waiting) -> Result<BytesMut, FrameError> {
    let (word, header) = stream::family_word(mode, &packet)?;
    let message = packet.into_frame(&word.to_be_bytes(), header)?;
    match message.len() {
        ..=MAX_MESSAGE => Ok(message),
        _ => Err(FrameError::TooLong),
    }
}

/// Decodes one message. Checks only that its family fits the tunnel's mode.
pub fn decode(mode: Mode, mut message: Bytes) -> Result<StreamPacket, FrameError> {
    let word = message.first_chunk().ok_or(FrameError::TooShort)?;
    let word = u32::from_be_bytes(*word);
    let version = match (word & !OFFLOAD, mode) {
        (AF_INET, Mode::PointToPoint) => Some(IpVersion::V4),
        (AF_INET6, Mode::PointToPoint) => Some(IpVersion::V6),
        (ETHERNET, Mode::Ethernet) => None,
        _ => return Err(FrameError::WrongFamily),
    };
    let mut packet = message.split_off(FAMILY_LEN);
    let mut offload = None;
    if word & OFFLOAD != 0 {
        offload = Some(*packet.first_chunk().ok_or(FrameError::TooShort)?);
        packet = packet.split_off(VIRTIO_HEADER_LEN);
    }
    if packet.len() > MAX_PACKET {
        return Err(FrameError::TooLong);
    }
    Ok(StreamPacket {
        offload,
        version,
        pieces: vec![packet],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::offload::virtio::VirtioHeader;
    use crate::packet::test_packets::{self, Template};
    use proptest::prelude::*;

    fn encode(mode: Mode, header: &VirtioHeader, packet: &[u8]) -> Result<Bytes, FrameError> {
        super::encode(mode, Waiting::new(&header.to_bytes(), [packet])).map(BytesMut::freeze)
    }

    #[test]
    fn packets_come_back_as_they_went() {
        for mode in [Mode::PointToPoint, Mode::Ethernet] {
            let template = Template {
                mode,
                ..Template::new(IpVersion::V6, true)
            };
            let payload = test_packets::payload(60_000);
            for (header, packet) in [
                template.super_packet(&payload, 1400),
                template.partial(&payload[..100]),
                (VirtioHeader::PLAIN, template.packet(&payload[..100])),
            ] {
                let message = encode(mode, &header, &packet).unwrap();
                let plain = header == VirtioHeader::PLAIN;
                let family = if mode == Mode::Ethernet { 0x6558 } else { 24 };
                let flag = if plain { 0 } else { 0x8000_0000_u32 };
                assert_eq!(message[..4], (family | flag).to_be_bytes());
                let came = decode(mode, message).unwrap();
                assert_eq!(came.offload, (!plain).then(|| header.to_bytes()));
                assert_eq!(came.pieces, [packet]);
            }
        }
    }

    #[test]
    fn ordinary_ip_packets_look_as_openssh_has_them() {
        let packet = Template::new(IpVersion::V4, false).packet(&[7; 50]);
        let ours = encode(Mode::PointToPoint, &VirtioHeader::PLAIN, &packet).unwrap();
        let decoded = crate::frame::decode(Mode::PointToPoint, &ours);
        assert_eq!(decoded, Ok(&packet[..]));
    }

    #[test]
    fn what_fits_no_message_is_refused() {
        let header = VirtioHeader {
            data_valid: true,
            ..VirtioHeader::PLAIN
        };
        let most = MAX_MESSAGE - FAMILY_LEN - VIRTIO_HEADER_LEN;
        let mut packet = vec![0x45; most];
        assert!(fits(most) && !fits(most + 1));
        let mode = Mode::PointToPoint;
        assert!(encode(mode, &header, &packet).is_ok());
        packet.push(0);
        let encoded = encode(mode, &header, &packet);
        assert_eq!(encoded, Err(FrameError::TooLong));
        // Without an offload header there is room for it.
        assert!(encode(mode, &VirtioHeader::PLAIN, &packet).is_ok());
    }

    #[test]
    fn only_sshvpn_is_taken_for_sshvpn() {
        assert!(spoken_by(b"SSH-2.0-sshvpn_0.1.0"));
        for other in [
            "SSH-2.0-OpenSSH_9.2p1",
            "SSH-2.0-sshvpnd",
            "SSH-1.99-sshvpn_1",
            "",
        ] {
            assert!(!spoken_by(other.as_bytes()), "{other}");
        }
    }

    proptest! {
        #[test]
        fn nothing_the_remote_end_sends_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            for mode in [Mode::PointToPoint, Mode::Ethernet] {
                if let Ok(packet) = decode(mode, Bytes::copy_from_slice(&bytes)) {
                    prop_assert!(packet.pieces.len() == 1);
                }
            }
        }
    }
}
