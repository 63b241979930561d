//! Classifies packets by flow: a keyed hash over addresses, protocol and ports, for a
//! queue that is fair between flows (RFC 8290, section 3.1).

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::net::IpAddr;

use etherparse::{EtherType, IpNumber, Ipv4HeaderSlice, Ipv6HeaderSlice};

use super::IpVersion;
use crate::types::Mode;

/// VLAN tags parsed at most: IEEE 802.1ad has two.
const MAX_VLAN_TAGS: usize = 2;

/// IPv6 extension headers parsed at most. RFC 8200 section 4.1 defines six before the
/// payload, of which one may come twice.
const MAX_EXTENSION_HEADERS: usize = 7;

/// A smaller ethertype is the length of an IEEE 802.3 frame.
const MIN_ETHER_TYPE: u16 = 0x600;

/// The hash of what the packets of a flow have in common. Different flows may have the
/// same key, but a peer cannot cause that on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowKey(u64);

impl FlowKey {
    /// The hash; all 64 bits are equally random.
    pub fn hash(self) -> u64 {
        self.0
    }

    /// The key with this hash.
    #[cfg(any(test, feature = "test-packets"))]
    pub fn from_hash(hash: u64) -> Self {
        FlowKey(hash)
    }
}

/// Computes flow keys with a random hash key, so that a sender cannot choose packets
/// whose key collides with another flow's.
#[derive(Debug, Clone, Default)]
pub struct FlowClassifier {
    hash_key: RandomState,
}

impl FlowClassifier {
    /// A classifier with a new random key; keys of different classifiers do not compare.
    pub fn new() -> Self {
        Self::default()
    }

    /// The flow of an IP packet or, in ethernet mode, of an Ethernet frame. All other
    /// bytes are one flow.
    pub fn classify(&self, mode: Mode, packet: &[u8]) -> FlowKey {
        let identity = match mode {
            Mode::PointToPoint => ip_identity(packet),
            Mode::Ethernet => ethernet_identity(packet),
        };
        FlowKey(match identity {
            Some(identity) => self.hash_key.hash_one(identity),
            None => self.hash_key.hash_one(()),
        })
    }
}

/// The fields that the packets of a flow have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Identity {
    Ip {
        source: IpAddr,
        destination: IpAddr,
        protocol: u8,
        discriminator: Discriminator,
    },
    Link {
        source: [u8; 6],
        destination: [u8; 6],
        ether_type: u16,
    },
}

/// One write, since each costs the keyed hash time: a tag for the form, then all that
/// differs between identities with that tag.
impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut bytes = [0; 6 + 16 + 16];
        let mut length = 0;
        let mut put = |part: &[u8]| {
            if let Some(place) = bytes.get_mut(length..length + part.len()) {
                place.copy_from_slice(part);
                length += part.len();
            }
        };
        match self {
            Identity::Ip {
                source,
                destination,
                protocol,
                discriminator,
            } => {
                let (tag, number) = discriminator.tagged();
                put(&[tag, *protocol]);
                put(&number);
                for address in [source, destination] {
                    match address {
                        IpAddr::V4(address) => put(&address.octets()),
                        IpAddr::V6(address) => put(&address.octets()),
                    }
                }
            }
            Identity::Link {
                source,
                destination,
                ether_type,
            } => {
                put(&[LINK_TAG]);
                put(source);
                put(destination);
                put(&ether_type.to_be_bytes());
            }
        }
        state.write(bytes.get(..length).unwrap_or_default());
    }
}

/// Begins the hashed form of [`Identity::Link`]; no discriminator has this tag.
const LINK_TAG: u8 = 4;

/// Distinguishes flows of one protocol between the same two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Discriminator {
    /// Source and destination port, the first four bytes of TCP, UDP and SCTP.
    Ports([u8; 4]),
    /// The security parameters index, the first four bytes of ESP (RFC 4303, section 2).
    SecurityParametersIndex([u8; 4]),
    /// A fragment: only the first has ports. The identification is not included: it would
    /// make each datagram a new flow.
    Fragment,
    None,
}

impl Discriminator {
    /// A number for the variant, and its fields.
    fn tagged(self) -> (u8, [u8; 4]) {
        match self {
            Discriminator::Ports(ports) => (0, ports),
            Discriminator::SecurityParametersIndex(index) => (1, index),
            Discriminator::Fragment => (2, [0; 4]),
            Discriminator::None => (3, [0; 4]),
        }
    }

    fn of(protocol: IpNumber, payload: &[u8]) -> Self {
        let Some(start) = payload.first_chunk() else {
            return Discriminator::None;
        };
        match protocol {
            IpNumber::TCP | IpNumber::UDP | IpNumber::SCTP => Discriminator::Ports(*start),
            IpNumber::ENCAPSULATING_SECURITY_PAYLOAD => {
                Discriminator::SecurityParametersIndex(*start)
            }
            _ => Discriminator::None,
        }
    }
}

fn ethernet_identity(frame: &[u8]) -> Option<Identity> {
    let (destination, rest) = frame.split_first_chunk()?;
    let (source, rest) = rest.split_first_chunk()?;
    let (ether_type, payload) = behind_vlan_tags(rest)?;
    let ip = match ether_type {
        EtherType::IPV4 | EtherType::IPV6 => ip_identity(payload),
        _ => None,
    };
    ip.or(Some(Identity::Link {
        source: *source,
        destination: *destination,
        ether_type: match ether_type.0 {
            0..MIN_ETHER_TYPE => 0,
            ether_type => ether_type,
        },
    }))
}

/// The ethertype of a frame and the bytes behind it; `rest` is the frame without its
/// addresses.
fn behind_vlan_tags(mut rest: &[u8]) -> Option<(EtherType, &[u8])> {
    for _ in 0..MAX_VLAN_TAGS {
        let (ether_type, payload) = split_ether_type(rest)?;
        match ether_type {
            EtherType::VLAN_TAGGED_FRAME
            | EtherType::PROVIDER_BRIDGING
            | EtherType::VLAN_DOUBLE_TAGGED_FRAME => rest = payload.get(2..)?,
            _ => return Some((ether_type, payload)),
        }
    }
    split_ether_type(rest)
}

fn split_ether_type(bytes: &[u8]) -> Option<(EtherType, &[u8])> {
    let (ether_type, payload) = bytes.split_first_chunk()?;
    Some((EtherType(u16::from_be_bytes(*ether_type)), payload))
}

fn ip_identity(packet: &[u8]) -> Option<Identity> {
    match IpVersion::of(packet).ok()? {
        IpVersion::V4 => ipv4_identity(packet),
        IpVersion::V6 => ipv6_identity(packet),
    }
}

fn ipv4_identity(packet: &[u8]) -> Option<Identity> {
    let header = Ipv4HeaderSlice::from_slice(packet).ok()?;
    let payload = packet.get(header.slice().len()..)?;
    Some(Identity::Ip {
        source: header.source_addr().into(),
        destination: header.destination_addr().into(),
        protocol: header.protocol().0,
        discriminator: if header.is_fragmenting_payload() {
            Discriminator::Fragment
        } else {
            Discriminator::of(header.protocol(), payload)
        },
    })
}

fn ipv6_identity(packet: &[u8]) -> Option<Identity> {
    let header = Ipv6HeaderSlice::from_slice(packet).ok()?;
    let payload = packet.get(header.slice().len()..)?;
    let (protocol, discriminator) = behind_extension_headers(header.next_header(), payload);
    Some(Identity::Ip {
        source: header.source_addr().into(),
        destination: header.destination_addr().into(),
        protocol: protocol.0,
        discriminator,
    })
}

/// Parses the extension headers up to the payload (RFC 8200, section 4), as far as they
/// are whole.
fn behind_extension_headers(mut protocol: IpNumber, mut rest: &[u8]) -> (IpNumber, Discriminator) {
    for _ in 0..MAX_EXTENSION_HEADERS {
        let Some([next, length, offset_high, offset_low, ..]) = rest.first_chunk::<8>() else {
            break;
        };
        let length = match protocol {
            IpNumber::IPV6_HEADER_HOP_BY_HOP
            | IpNumber::IPV6_ROUTE_HEADER
            | IpNumber::IPV6_DESTINATION_OPTIONS => (usize::from(*length) + 1) * 8,
            // RFC 4302, section 2.2: in units of four bytes, minus two.
            IpNumber::AUTHENTICATION_HEADER => (usize::from(*length) + 2) * 4,
            IpNumber::IPV6_FRAGMENTATION_HEADER => {
                // RFC 6946: offset 0 without more fragments is a whole packet.
                if u16::from_be_bytes([*offset_high, *offset_low]) & !FRAGMENT_RESERVED != 0 {
                    return (IpNumber(*next), Discriminator::Fragment);
                }
                8
            }
            _ => break,
        };
        protocol = IpNumber(*next);
        rest = rest.get(length..).unwrap_or_default();
    }
    (protocol, Discriminator::of(protocol, rest))
}

/// The two bits between offset and more-fragments flag (RFC 8200, section 4.5).
const FRAGMENT_RESERVED: u16 = 0b110;

#[cfg(test)]
mod tests;
