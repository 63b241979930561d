//! IP packets as bytes: which version one is of and whether it is whole; and the
//! work that a kernel leaves undone on offload packets. Nothing here trusts a
//! length that a packet claims, and nothing does I/O.
//!
//! ```text
//!   virtio     the header that says what is left to do
//!   headers    where a packet's headers are        checksum   RFC 1071
//!   offload    whether the two agree; a checksum completed in place
//!   segment    one super-packet into packets       coalesce   packets into super-packets
//!   flow       which flow it belongs to, hashed        candidate, unit   which go together, and what they make
//!   guard      what the peer may send: IP, guard_icmp; on Ethernet guard_link (a host, with
//!              guard_dhcp), guard_lan; guard_datagram is what they read, types::address_set what they ask
//! ```

pub mod flow;
pub mod guard;
pub mod headers;
pub mod offload;

#[cfg(any(test, feature = "test-packets"))]
pub mod test_packets;

use etherparse::{Ipv4HeaderSlice, Ipv6HeaderSlice};
use thiserror::Error;

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
    /// Neither version 4 nor 6, or no byte at all.
    #[error("not an IP packet")]
    NotIp,
    /// Shorter than its header, or than the length its header gives.
    #[error("IP packet cut short")]
    Truncated,
}

impl IpVersion {
    /// The version that the first four bits claim.
    pub fn of(packet: &[u8]) -> Result<Self, PacketError> {
        match packet.first().map(|byte| byte >> 4) {
            Some(4) => Ok(IpVersion::V4),
            Some(6) => Ok(IpVersion::V6),
            _ => Err(PacketError::NotIp),
        }
    }
}

/// Checks that `packet` is one whole IP packet: a header that parses, and at
/// least as many bytes as it claims (RFC 791 section 3.1, RFC 8200 section 3).
/// Bytes behind the packet's own length are let pass, as the kernel does.
pub fn check(packet: &[u8]) -> Result<IpVersion, PacketError> {
    check_in(packet, packet.len())
}

/// The same for a packet of `available` bytes of which `packet` is the start,
/// with all of the IP header.
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
