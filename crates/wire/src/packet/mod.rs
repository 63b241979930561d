//! Parses and checks IP packets, and does the work that a kernel leaves undone on
//! offload packets. Trusts no length that a packet claims, and does no I/O.
//!
//! ```text
//!   headers    locates a packet's headers
//!   flow       hashes a packet's flow
//!   offload    checks an offload header, completes a checksum
//!     virtio     the offload header             checksum         RFC 1071
//!     segment    a super-packet into packets    coalesce         packets into super-packets
//!                                               candidate, unit  what may be merged, the result
//!   guard      what the peer may send: IP, icmp; on Ethernet link (a host, with dhcp), lan;
//!              datagram parses, types::address_set is looked up
//! ```

pub mod flow;
pub mod guard;
pub mod headers;
pub mod offload;

#[cfg(any(test, feature = "test-packets"))]
pub mod test_packets;

use etherparse::{Ipv4HeaderSlice, Ipv6HeaderSlice};
use thiserror::Error;

use self::offload::coalesce::MAX_SEGMENTS;

/// Pieces of one packet at most: the headers and the payloads of a super-packet. The
/// reader of a stream joins more. A device writes them in one call, behind the offload
/// header; the kernel takes 1024 (UIO_MAXIOV).
pub const MAX_PIECES: usize = 1 + MAX_SEGMENTS;

/// The IP version of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IpVersion {
    /// RFC 791.
    V4,
    /// RFC 8200.
    V6,
}

/// Why some bytes are not an IP packet that can be carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum PacketError {
    /// Neither version 4 nor 6, or empty.
    #[error("not an IP packet")]
    NotIp,
    /// Shorter than its header, or than the length its header gives.
    #[error("IP packet cut short")]
    Truncated,
}

impl IpVersion {
    /// The version in the first four bits.
    pub fn of(packet: &[u8]) -> Result<Self, PacketError> {
        match packet.first().map(|byte| byte >> 4) {
            Some(4) => Ok(IpVersion::V4),
            Some(6) => Ok(IpVersion::V6),
            _ => Err(PacketError::NotIp),
        }
    }
}

/// Checks that `packet` is one whole IP packet: its header parses, and it has at least as
/// many bytes as the header claims (RFC 791 section 3.1, RFC 8200 section 3). Trailing
/// bytes are allowed, as in the kernel.
pub fn check(packet: &[u8]) -> Result<IpVersion, PacketError> {
    check_in(packet, packet.len())
}

/// Checks a packet of `available` bytes that begins with `packet`, which holds the whole
/// IP header.
pub fn check_in(packet: &[u8], available: usize) -> Result<IpVersion, PacketError> {
    let version = IpVersion::of(packet)?;
    let length = match version {
        IpVersion::V4 => {
            let header = Ipv4HeaderSlice::from_slice(packet).map_err(|_| PacketError::Truncated)?;
            let length = usize::from(header.total_len());
            if length < header.slice().len() {
                return Err(PacketError::Truncated);
            }
            length
        }
        IpVersion::V6 => {
            let header = Ipv6HeaderSlice::from_slice(packet).map_err(|_| PacketError::Truncated)?;
            header.slice().len() + usize::from(header.payload_length())
        }
    };
    if length > available {
        Err(PacketError::Truncated)
    } else {
        Ok(version)
    }
}

#[cfg(test)]
mod tests {
    use super::test_packets::udp;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn whole_packets_pass_and_cut_ones_do_not() {
        for version in [IpVersion::V4, IpVersion::V6] {
            let packet = udp(version, 100);
            assert_eq!(check(&packet), Ok(version));
            for length in 1..packet.len() {
                assert_eq!(
                    check(&packet[..length]),
                    Err(PacketError::Truncated),
                    "{length}"
                );
            }
        }
        assert_eq!(check(&[]), Err(PacketError::NotIp));
        assert_eq!(check(&[0x50; 64]), Err(PacketError::NotIp));
    }

    #[test]
    fn header_longer_than_the_packet_claims_is_refused() {
        let mut packet = udp(IpVersion::V4, 0);
        packet[2] = 0;
        packet[3] = 10;
        assert_eq!(check(&packet), Err(PacketError::Truncated));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            let _ = check(&bytes);
        }
    }
}
