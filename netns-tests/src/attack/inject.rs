//! Sends packets with any addresses out of a host's tunnel device, as its kernel would: the
//! packets of a hostile peer.

use std::io::IoSlice;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Result, bail, ensure};
use etherparse::{PacketBuilder, PacketBuilderStep};
use nix::net::if_::if_nametoindex;

use crate::lab::host::Host;
use crate::traffic::datagrams::{self, VIRTIO_HEADER};

/// The MAC address that frames come from.
const STATION: [u8; 6] = [2, 0, 0, 0, 0xba, 0xd0];

/// Sends through one device.
pub struct Injector {
    socket: OwnedFd,
    /// Whether the device takes Ethernet frames.
    ethernet: bool,
}

/// The payload of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload<'a> {
    /// A UDP datagram to the discard port.
    Udp,
    /// A UDP datagram from this port to the next one.
    UdpFrom(u16),
    /// An ICMP error that quotes a UDP datagram between these addresses.
    Unreachable(&'a str, &'a str),
    /// An ICMP redirect, of either family.
    Redirect,
    /// A router advertisement with a default route and a prefix (RFC 4861, section 4.2).
    RouterAdvertisement,
}

impl Injector {
    /// `device` is a tun or tap device of `host`.
    pub fn open(host: &Host, device: &str) -> Result<Self> {
        let socket = host.in_network(|| {
            let index = if_nametoindex(device)?;
            Ok(datagrams::packet_socket(index.try_into()?)?)
        })?;
        let address = host.sh(&format!("cat /sys/class/net/{device}/addr_len"))?;
        Ok(Self {
            socket,
            ethernet: address.trim() == "6",
        })
    }

    /// Sends `payload` from one address to another.
    pub fn send(&self, from: &str, to: &str, payload: Payload<'_>) -> Result<()> {
        let packet = packet(self.ethernet, from, to, payload)?;
        self.send_raw(&packet)
    }

    /// Sends these bytes as a packet, or as a frame.
    pub fn send_raw(&self, packet: &[u8]) -> Result<()> {
        let whole = [&[0; VIRTIO_HEADER][..], packet].concat();
        let sent = datagrams::send(self.socket.as_fd(), &[IoSlice::new(&whole)])?;
        ensure!(sent == 1, "a packet was not sent");
        Ok(())
    }
}

fn packet(ethernet: bool, from: &str, to: &str, payload: Payload<'_>) -> Result<Vec<u8>> {
    let (mut packet, mut content) = (Vec::new(), vec![0; 40]);
    let builder = step(ethernet, from, to)?;
    let ipv6 = from.contains(':');
    let (kind, code, rest) = match payload {
        Payload::Udp | Payload::UdpFrom(_) => {
            let port = match payload {
                Payload::UdpFrom(port) => port,
                _ => 40000,
            };
            let to = if port == 40000 { 9 } else { port + 1 };
            builder.udp(port, to).write(&mut packet, &content)?;
            return Ok(packet);
        }
        Payload::Unreachable(from, to) => {
            content = self::packet(false, from, to, Payload::Udp)?;
            if ipv6 { (1, 4, [0; 4]) } else { (3, 3, [0; 4]) }
        }
        Payload::Redirect if ipv6 => {
            // The new target, and the destination that the redirect is for.
            let (target, destination): (Ipv6Addr, Ipv6Addr) =
                ("fe80::bad".parse()?, "2001:db8:bad::1".parse()?);
            content = [target.octets(), destination.octets()].concat();
            (137, 0, [0; 4])
        }
        Payload::Redirect => {
            content = self::packet(false, to, "203.0.113.66", Payload::Udp)?;
            (5, 1, [10, 66, 66, 66])
        }
        Payload::RouterAdvertisement if ipv6 => {
            content = vec![0; 8];
            // 64 bits, on-link and autonomous, infinite lifetime.
            content.extend([3, 4, 64, 0xc0]);
            content.extend([0xff; 8]);
            content.extend([0; 4]);
            content.extend("2001:db8:bad::".parse::<Ipv6Addr>()?.octets());
            (134, 0, [64, 8, 0x07, 0x08])
        }
        Payload::RouterAdvertisement => bail!("not of IPv4"),
    };
    match ipv6 {
        true => builder
            .icmpv6_raw(kind, code, rest)
            .write(&mut packet, &content)?,
        false => builder
            .icmpv4_raw(kind, code, rest)
            .write(&mut packet, &content)?,
    }
    Ok(packet)
}

/// IP headers, after an Ethernet header if the device needs one. Neighbour discovery requires the
/// hop limit 255.
fn step(ethernet: bool, from: &str, to: &str) -> Result<PacketBuilderStep<etherparse::IpHeaders>> {
    use etherparse::{IpHeaders, IpNumber, Ipv4Header, Ipv6Header};
    let ip = match (from.parse()?, to.parse()?) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let header = Ipv4Header::new(0, 255, IpNumber(0), from.octets(), to.octets())?;
            IpHeaders::Ipv4(header, Default::default())
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let header = Ipv6Header {
                hop_limit: 255,
                source: from.octets(),
                destination: to.octets(),
                ..Ipv6Header::default()
            };
            IpHeaders::Ipv6(header, Default::default())
        }
        _ => bail!("{from} and {to} are of two families"),
    };
    Ok(match ethernet {
        true => PacketBuilder::ethernet2(STATION, [0xff; 6]).ip(ip),
        false => PacketBuilder::ip(ip),
    })
}
