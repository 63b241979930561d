//! Parses `struct virtio_net_hdr` (linux/virtio_net.h): the segmentation and the checksum
//! that the kernel left undone on a packet.

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
/// `VIRTIO_NET_HDR_GSO_ECN`, a flag combined with one of the types.
const GSO_ECN: u8 = 0x80;

/// The offload header in front of a packet whose segmentation or checksum is left to its
/// reader. Whether it fits the packet, [`offload::check`](super::check) decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VirtioHeader {
    /// The checksum to be completed, if one is open.
    pub needs_checksum: Option<PartialChecksum>,
    /// The checksum has been verified.
    pub data_valid: bool,
    /// How to divide a super-packet; `None` for an ordinary packet.
    pub gso: Option<Gso>,
}

/// A checksum field that holds the folded sum of the pseudo header only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PartialChecksum {
    /// Where the sum starts: the offset of the transport header in the packet, in bytes.
    pub start: u16,
    /// Offset of the checksum field from `start`, in bytes.
    pub offset: u16,
}

/// Generic segmentation offload: a super-packet stands for many packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Gso {
    /// The protocol of the packets that it stands for.
    pub kind: GsoKind,
    /// TCP with CWR set, which only the first segment keeps. Never with UDP.
    pub ecn: bool,
    /// Payload bytes of each packet; the last may have fewer.
    pub size: NonZeroU16,
    /// Bytes of all headers; a hint, which Linux does not fill in reliably.
    pub header_length: u16,
}

/// The kind of packets in a super-packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GsoKind {
    /// TCP over IPv4 (TSO).
    Tcp4,
    /// TCP over IPv6 (TSO).
    Tcp6,
    /// UDP datagrams over either (USO, Linux 6.2).
    Udp,
}

/// Why an offload header is not supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum VirtioError {
    /// A flag other than NEEDS_CSUM and DATA_VALID.
    #[error("offload header with unknown flags {0:#04x}")]
    Flags(u8),
    /// A segmentation type that is not supported, such as UFO (3), which divides a
    /// datagram into fragments; or a contradiction.
    #[error("offload header with unknown segmentation type {0:#04x}")]
    GsoType(u8),
    /// Segments of zero bytes.
    #[error("offload header with segments of zero bytes")]
    ZeroSize,
}

/// The kinds of offload packets that a device or a peer takes or yields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offload {
    /// Open checksums, and TCP super-packets of either family.
    pub tcp: bool,
    /// UDP super-packets.
    pub udp: bool,
}

impl Offload {
    /// All kinds.
    pub const ALL: Offload = Offload {
        tcp: true,
        udp: true,
    };
    /// Ordinary packets only.
    pub const NONE: Offload = Offload {
        tcp: false,
        udp: false,
    };

    /// Whether it includes packets with this header.
    pub fn includes(self, header: &VirtioHeader) -> bool {
        match header.gso.map(|gso| gso.kind) {
            None => self.tcp || header.needs_checksum.is_none(),
            Some(GsoKind::Tcp4 | GsoKind::Tcp6) => self.tcp,
            Some(GsoKind::Udp) => self.udp,
        }
    }
}

impl VirtioHeader {
    /// The header of a packet without open work.
    pub const PLAIN: VirtioHeader = VirtioHeader {
        needs_checksum: None,
        data_valid: false,
        gso: None,
    };

    /// Parses a header in little-endian order, which two sshvpn peers use; a tun device
    /// uses the host's order until TUNSETVNETLE is set. Ignores fields that the flags
    /// give no meaning.
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

    /// The number of packets that a packet of `length` bytes, headers included, stands
    /// for.
    pub fn packets(&self, length: usize) -> usize {
        match self.gso {
            Some(gso) => length
                .saturating_sub(usize::from(gso.header_length))
                .div_ceil(usize::from(gso.size.get()))
                .max(1),
            None => 1,
        }
    }

    /// The header in the form that [`from_bytes`](Self::from_bytes) reads, little-endian.
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
