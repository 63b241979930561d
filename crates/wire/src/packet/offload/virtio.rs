//! `struct virtio_net_hdr` (linux/virtio_net.h), parsed: what is still to be
//! done to a packet that the kernel did not segment or checksum.

use std::num::NonZeroU16;

use thiserror::Error;

/// Bytes of the header: `struct virtio_net_hdr` without `num_buffers`, as a tun
/// device has it unless TUNSETVNETHDRSZ says otherwise.
pub const VIRTIO_HEADER_LEN: usize = 10;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
const NEEDS_CSUM: u8 = 1;
/// `VIRTIO_NET_HDR_F_DATA_VALID`.
const DATA_VALID: u8 = 2;

/// `VIRTIO_NET_HDR_GSO_NONE`.
const GSO_NONE: u8 = 0;
/// `VIRTIO_NET_HDR_GSO_TCPV4`.
const GSO_TCPV4: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_TCPV6`.
const GSO_TCPV6: u8 = 4;
/// `VIRTIO_NET_HDR_GSO_UDP_L4`.
const GSO_UDP_L4: u8 = 5;
/// `VIRTIO_NET_HDR_GSO_ECN`, a bit beside one of the others.
const GSO_ECN: u8 = 0x80;

/// What stands in front of a packet whose segmentation or checksum was left to
/// its reader. It says nothing about whether it fits that packet: see
/// [`offload::check`](super::check).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VirtioHeader {
    /// The checksum that is still to be completed, if any.
    pub needs_checksum: Option<PartialChecksum>,
    /// Somebody verified the checksum already.
    pub data_valid: bool,
    /// How a super-packet is to be divided; an ordinary packet has none.
    pub gso: Option<Gso>,
}

/// A checksum field that holds the folded sum of the pseudo header only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PartialChecksum {
    /// Where the sum starts: the transport header, in bytes from the first of the packet.
    pub start: u16,
    /// Where the checksum goes, in bytes from `start`.
    pub offset: u16,
}

/// Generic segmentation offload: a super-packet stands for many packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Gso {
    /// The protocol whose packets it stands for.
    pub kind: GsoKind,
    /// TCP with CWR set, which belongs to the first segment only. Never with UDP.
    pub ecn: bool,
    /// Payload bytes of each packet but the last, which may have less.
    pub size: NonZeroU16,
    /// Bytes of all headers; a hint, which Linux does not fill in reliably.
    pub header_length: u16,
}

/// What a super-packet is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GsoKind {
    /// TCP over IPv4 (TSO).
    Tcp4,
    /// TCP over IPv6 (TSO).
    Tcp6,
    /// UDP datagrams over either (USO, Linux 6.2).
    Udp,
}

/// Why ten bytes are not a header that is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum VirtioError {
    /// A flag other than NEEDS_CSUM and DATA_VALID.
    #[error("offload header with unknown flags {0:#04x}")]
    Flags(u8),
    /// A kind of segmentation that is not done here, such as UFO (3), which
    /// divides a datagram into fragments; or one that contradicts itself.
    #[error("offload header with unknown segmentation type {0:#04x}")]
    GsoType(u8),
    /// Segments of no payload.
    #[error("offload header with segments of zero bytes")]
    ZeroSize,
}

/// Which packets with work left to do somebody takes, or hands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offload {
    /// Open checksums, and TCP super-packets of either family.
    pub tcp: bool,
    /// UDP super-packets.
    pub udp: bool,
}

impl Offload {
    /// Everything.
    pub const ALL: Offload = Offload {
        tcp: true,
        udp: true,
    };
    /// Ordinary packets alone.
    pub const NONE: Offload = Offload {
        tcp: false,
        udp: false,
    };

    /// Whether a packet with this header is among them.
    pub fn includes(self, header: &VirtioHeader) -> bool {
        match header.gso.map(|gso| gso.kind) {
            None => self.tcp || header.needs_checksum.is_none(),
            Some(GsoKind::Tcp4 | GsoKind::Tcp6) => self.tcp,
            Some(GsoKind::Udp) => self.udp,
        }
    }
}

impl VirtioHeader {
    /// Of a packet to which nothing is left to do.
    pub const PLAIN: VirtioHeader = VirtioHeader {
        needs_checksum: None,
        data_valid: false,
        gso: None,
    };

    /// Parses a header whose numbers are little-endian. So they are between two
    /// sshvpn ends; a tun device uses the host's order until TUNSETVNETLE is set.
    /// Fields that its flags do not give a meaning are not looked at.
    pub fn from_bytes(bytes: &[u8; VIRTIO_HEADER_LEN]) -> Result<Self, VirtioError> {
        let [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1] = *bytes;
        if flags & !(NEEDS_CSUM | DATA_VALID) != 0 {
            return Err(VirtioError::Flags(flags));
        }
        let needs_checksum = (flags & NEEDS_CSUM != 0).then(|| PartialChecksum {
            start: u16::from_le_bytes([s0, s1]),
            offset: u16::from_le_bytes([o0, o1]),
        });
        let ecn = gso_type & GSO_ECN != 0;
        let kind = match gso_type & !GSO_ECN {
            GSO_NONE if !ecn => None,
            GSO_TCPV4 => Some(GsoKind::Tcp4),
            GSO_TCPV6 => Some(GsoKind::Tcp6),
            GSO_UDP_L4 if !ecn => Some(GsoKind::Udp),
            _ => return Err(VirtioError::GsoType(gso_type)),
        };
        let gso = match kind {
            None => None,
            Some(kind) => Some(Gso {
                kind,
                ecn,
                size: NonZeroU16::new(u16::from_le_bytes([g0, g1])).ok_or(VirtioError::ZeroSize)?,
                header_length: u16::from_le_bytes([h0, h1]),
            }),
        };
        Ok(VirtioHeader {
            needs_checksum,
            data_valid: flags & DATA_VALID != 0,
            gso,
        })
    }

    /// How many packets one of `length` bytes, headers included, stands for.
    pub fn packets(&self, length: usize) -> usize {
        match self.gso {
            Some(gso) => length
                .saturating_sub(usize::from(gso.header_length))
                .div_ceil(usize::from(gso.size.get()))
                .max(1),
            None => 1,
        }
    }

    /// The header as [`from_bytes`](Self::from_bytes) reads it, little-endian.
    pub fn to_bytes(&self) -> [u8; VIRTIO_HEADER_LEN] {
        let mut flags = 0;
        let (mut start, mut offset) = (0, 0);
        if let Some(partial) = self.needs_checksum {
            flags |= NEEDS_CSUM;
            (start, offset) = (partial.start, partial.offset);
        }
        if self.data_valid {
            flags |= DATA_VALID;
        }
        let (mut gso_type, mut size, mut header_length) = (GSO_NONE, 0, 0);
        if let Some(gso) = self.gso {
            gso_type = match gso.kind {
                GsoKind::Tcp4 => GSO_TCPV4,
                GsoKind::Tcp6 => GSO_TCPV6,
                GsoKind::Udp => GSO_UDP_L4,
            };
            if gso.ecn {
                gso_type |= GSO_ECN;
            }
            (size, header_length) = (gso.size.get(), gso.header_length);
        }
        let ([h0, h1], [g0, g1]) = (header_length.to_le_bytes(), size.to_le_bytes());
        let ([s0, s1], [o0, o1]) = (start.to_le_bytes(), offset.to_le_bytes());
        [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_are_where_linux_has_them() {
        // struct virtio_net_hdr: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset.
        let bytes = [1, 0x81, 66, 0, 0xa8, 5, 20, 1, 16, 0];
        let header = VirtioHeader {
            needs_checksum: Some(PartialChecksum {
                start: 0x114,
                offset: 16,
            }),
            data_valid: false,
            gso: Some(Gso {
                kind: GsoKind::Tcp4,
                ecn: true,
                size: NonZeroU16::new(1448).unwrap(),
                header_length: 66,
            }),
        };
        assert_eq!(VirtioHeader::from_bytes(&bytes), Ok(header));
        assert_eq!(header.to_bytes(), bytes);
        assert_eq!(VirtioHeader::PLAIN.to_bytes(), [0; VIRTIO_HEADER_LEN]);
        assert_eq!(
            VirtioHeader::from_bytes(&[0; VIRTIO_HEADER_LEN]),
            Ok(VirtioHeader::PLAIN)
        );
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let parse = |flags, gso_type, size| {
            VirtioHeader::from_bytes(&[flags, gso_type, 0, 0, size, 0, 0, 0, 0, 0])
        };
        for flags in [4, 8, 0x81] {
            assert_eq!(parse(flags, 0, 0), Err(VirtioError::Flags(flags)));
        }
        for gso_type in [2, 3, 6, 0x20, 0x41, 0x80, 0x83, 0x85] {
            assert_eq!(
                parse(0, gso_type, 9),
                Err(VirtioError::GsoType(gso_type)),
                "{gso_type:#x}"
            );
        }
        for gso_type in [1, 4, 5, 0x84] {
            assert_eq!(parse(1, gso_type, 0), Err(VirtioError::ZeroSize));
            assert!(parse(1, gso_type, 1).is_ok());
        }
    }

    proptest! {
        #[test]
        fn what_is_understood_comes_back(bytes: [u8; VIRTIO_HEADER_LEN]) {
            if let Ok(header) = VirtioHeader::from_bytes(&bytes) {
                prop_assert_eq!(VirtioHeader::from_bytes(&header.to_bytes()), Ok(header));
            }
        }

        #[test]
        fn kinds_and_flags_come_back(flags in 0..4_u8, kind in prop::sample::select(vec![0, 1, 4, 5, 0x81, 0x84]), rest: [u8; 8]) {
            let mut bytes = [flags, kind, 0, 0, 0, 0, 0, 0, 0, 0];
            bytes[2..].copy_from_slice(&rest);
            bytes[4] |= 1;
            let header = VirtioHeader::from_bytes(&bytes).unwrap();
            prop_assert_eq!(VirtioHeader::from_bytes(&header.to_bytes()), Ok(header));
        }
    }
}
