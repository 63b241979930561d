//! Encodes and decodes channel messages: an IP packet behind its address family, or a
//! bare Ethernet frame. No I/O.
//!
//! OpenSSH PROTOCOL, section 2.3: in point-to-point mode each message is `uint32 address
//! family ‖ packet`, in ethernet mode only the frame. The "packet length" in front in
//! that document is the length of the CHANNEL_DATA string itself.

pub mod control;
pub mod offload;
pub mod stream;
pub mod waiting;
pub mod window;

use bytes::BytesMut;
use thiserror::Error;

use self::waiting::Waiting;
use crate::packet::{self, IpVersion, PacketError};
use crate::types::Mode;

/// Bytes in front of a packet in point-to-point mode: the address family.
pub const FAMILY_LEN: usize = 4;

/// The largest frame, family included, that OpenSSH reads from its own device
/// (channels.c, `CHAN_RBUF`); sshvpn sends no larger one.
pub const MAX_FRAME: usize = 16 * 1024;

/// The smallest Ethernet frame that the kernel accepts on a tap device (linux/if_ether.h,
/// `ETH_HLEN`).
pub const ETHERNET_HEADER: usize = 14;

/// `SSH_TUN_AF_INET`: OpenBSD's AF_INET, on the wire on every system.
pub const AF_INET: u32 = 2;
/// `SSH_TUN_AF_INET6`: OpenBSD's AF_INET6.
pub const AF_INET6: u32 = 24;

/// The length of an IPv4 packet without payload: OpenSSH closes its read side permanently
/// when its device yields one, so none is sent.
const BARE_IPV4_HEADER: usize = 20;

/// Why a frame was dropped. Each reason has a counter; none ends the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum FrameError {
    /// Too short for a packet.
    #[error("too short")]
    TooShort,
    /// Larger than [`MAX_FRAME`].
    #[error("too long")]
    TooLong,
    /// The address family is neither IPv4 nor IPv6, or contradicts the packet.
    #[error("wrong address family")]
    WrongFamily,
    /// Not a whole IP packet.
    #[error("not a whole IP packet")]
    Malformed,
}

impl From<PacketError> for FrameError {
    fn from(error: PacketError) -> Self {
        match error {
            PacketError::NotIp => FrameError::WrongFamily,
            PacketError::Truncated => FrameError::Malformed,
        }
    }
}

/// The headroom in front of a packet of `mode`, in bytes.
pub const fn headroom(mode: Mode) -> usize {
    match mode {
        Mode::PointToPoint => FAMILY_LEN,
        Mode::Ethernet => 0,
    }
}

/// The frame of an ordinary packet, made in place. Fails for packets that must not be
/// sent.
pub fn encode(mode: Mode, packet: Waiting) -> Result<BytesMut, FrameError> {
    let length = packet.length();
    if headroom(mode) + length > MAX_FRAME {
        return Err(FrameError::TooLong);
    }
    match mode {
        Mode::Ethernet if length < ETHERNET_HEADER => Err(FrameError::TooShort),
        Mode::Ethernet => packet.into_frame(&[], false),
        Mode::PointToPoint => {
            let family = match IpVersion::of(packet.packet())? {
                IpVersion::V4 if length <= BARE_IPV4_HEADER => return Err(FrameError::TooShort),
                IpVersion::V4 => AF_INET,
                IpVersion::V6 => AF_INET6,
            };
            packet.into_frame(&family.to_be_bytes(), false)
        }
    }
}

/// Decodes one message; yields the packet to write to the device. The peer is not
/// trusted: family, version and lengths have to agree.
pub fn decode(mode: Mode, frame: &[u8]) -> Result<&[u8], FrameError> {
    match mode {
        Mode::Ethernet if frame.len() < ETHERNET_HEADER => Err(FrameError::TooShort),
        Mode::Ethernet => Ok(frame),
        Mode::PointToPoint => {
            let (family, packet) = frame.split_first_chunk().ok_or(FrameError::TooShort)?;
            let family: &[u8; FAMILY_LEN] = family;
            match (u32::from_be_bytes(*family), packet::check(packet)?) {
                (AF_INET, IpVersion::V4) | (AF_INET6, IpVersion::V6) => Ok(packet),
                _ => Err(FrameError::WrongFamily),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::test_packets::udp;
    use proptest::prelude::*;

    fn encode(mode: Mode, packet: &[u8]) -> Result<BytesMut, FrameError> {
        super::encode(mode, Waiting::new(&[0; 10], [packet]))
    }

    #[test]
    fn packets_come_back_as_they_went() {
        for (version, family) in [(IpVersion::V4, 2), (IpVersion::V6, 24)] {
            let packet = udp(version, 77);
            let frame = encode(Mode::PointToPoint, &packet).unwrap();
            assert_eq!(frame[..4], [0, 0, 0, family]);
            assert_eq!(decode(Mode::PointToPoint, &frame), Ok(&packet[..]));
        }
    }

    #[test]
    fn what_would_close_the_remote_end_is_not_sent() {
        let encode_ip = |packet: &[u8]| encode(Mode::PointToPoint, packet);
        let bare = &udp(IpVersion::V4, 0)[..20];
        assert_eq!(encode_ip(bare), Err(FrameError::TooShort));
        let most = MAX_FRAME - FAMILY_LEN - 48;
        let huge = udp(IpVersion::V6, most + 1);
        assert_eq!(encode_ip(&huge), Err(FrameError::TooLong));
        assert!(encode_ip(&udp(IpVersion::V6, most)).is_ok());
        assert_eq!(encode_ip(&[]), Err(FrameError::WrongFamily));
        let cut = encode(Mode::Ethernet, &[0; 13]);
        assert_eq!(cut, Err(FrameError::TooShort));
    }

    #[test]
    fn family_and_version_have_to_agree() {
        let packet = udp(IpVersion::V4, 5);
        let mut frame = [&[0; FAMILY_LEN], &packet[..]].concat();
        for family in [0_u32, 1, 10, 24, 0x8000_0002, u32::MAX] {
            frame[..4].copy_from_slice(&family.to_be_bytes());
            assert_eq!(
                decode(Mode::PointToPoint, &frame),
                Err(FrameError::WrongFamily),
                "{family}"
            );
        }
        assert_eq!(
            decode(Mode::PointToPoint, &[0, 0, 2]),
            Err(FrameError::TooShort)
        );
        assert_eq!(decode(Mode::Ethernet, &[0; 13]), Err(FrameError::TooShort));
        assert_eq!(decode(Mode::Ethernet, &[0; 14]), Ok(&[0_u8; 14][..]));
    }

    proptest! {
        #[test]
        fn nothing_the_remote_end_sends_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for mode in [Mode::PointToPoint, Mode::Ethernet] {
                if let Ok(packet) = decode(mode, &bytes) {
                    prop_assert!(packet.len() <= bytes.len());
                }
            }
        }

        #[test]
        fn nothing_the_device_yields_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for mode in [Mode::PointToPoint, Mode::Ethernet] {
                let _ = encode(mode, &bytes);
            }
        }
    }
}
