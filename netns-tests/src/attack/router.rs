//! A false router at one end of a tunnel: sends raw router advertisements (RFC 4861) with itself, a
//! prefix, an MTU and a route to the whole internet to the peer.

use std::io::IoSlice;
use std::net::Ipv6Addr;
use std::os::fd::AsFd;

use anyhow::{Context, Result, ensure};

use crate::lab::host::Host;
use crate::program::tunnel::Mode;
use crate::traffic::datagrams::{VIRTIO_HEADER, packet_socket, send};

/// The router's address.
pub const ROUTER: &str = "fe80::bad";
/// The prefix from which the peer would make itself an address.
pub const PREFIX: &str = "2001:db8:bad::";
/// An on-link prefix that would override the peer's default route.
const INTERNET: &str = "2000::";
const ALL_NODES: &str = "ff02::1";
/// The least MTU of IPv6, in bytes.
const SMALL_MTU: u32 = 1280;
const ICMPV6: u8 = 58;

/// Sends one router advertisement out of `device` of `host`.
pub fn advertise(host: &Host, device: &str, mode: Mode) -> Result<()> {
    let packet = advertisement()?;
    let ethernet: &[u8] = match mode {
        Mode::PointToPoint => &[],
        // To the group of all nodes, from an unknown station.
        Mode::Ethernet => b"\x33\x33\x00\x00\x00\x01\x02\x00\x00\x00\x0b\xad\x86\xdd",
    };
    let frame = [&[0; VIRTIO_HEADER][..], ethernet, &packet].concat();
    let index = host.read(&format!("/sys/class/net/{device}/ifindex"))?;
    let index = index.trim().parse().context("an ifindex")?;
    let socket = host.in_network(|| Ok(packet_socket(index)?))?;
    let sent = send(socket.as_fd(), &[IoSlice::new(&frame)])
        .with_context(|| format!("sending by {device} of {}", host.name()))?;
    ensure!(sent == 1, "not sent by {device} of {}", host.name());
    Ok(())
}

/// The IPv6 packet.
fn advertisement() -> Result<Vec<u8>> {
    // Hop limit 64, preference high, a default route for 1800 s.
    let mut message = vec![134, 0, 0, 0, 64, 0x08];
    message.extend(1800_u16.to_be_bytes());
    message.extend([0; 8]);
    // On-link and autonomous; on-link.
    for (prefix, length, flags) in [(PREFIX, 64, 0xc0), (INTERNET, 3, 0x80)] {
        message.extend([3, 4, length, flags]);
        message.extend(3600_u32.to_be_bytes());
        message.extend(3600_u32.to_be_bytes());
        message.extend([0; 4]);
        message.extend(prefix.parse::<Ipv6Addr>()?.octets());
    }
    message.extend([5, 1, 0, 0]);
    message.extend(SMALL_MTU.to_be_bytes());

    let source = ROUTER.parse::<Ipv6Addr>()?.octets();
    let destination = ALL_NODES.parse::<Ipv6Addr>()?.octets();
    let length = u16::try_from(message.len())?;
    let pseudo = [
        &source[..],
        &destination,
        &u32::from(length).to_be_bytes(),
        &[0, 0, 0, ICMPV6],
        &message,
    ]
    .concat();
    if let Some(field) = message.get_mut(2..4) {
        field.copy_from_slice(&checksum(&pseudo).to_be_bytes());
    }
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([ICMPV6, 255]);
    packet.extend(source);
    packet.extend(destination);
    packet.extend(message);
    Ok(packet)
}

/// The internet checksum (RFC 1071) of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2);
    let mut sum: u32 = words
        .map(|pair| {
            pair.iter()
                .fold(0, |word, byte| word << 8 | u32::from(*byte))
        })
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
