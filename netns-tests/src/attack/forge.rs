//! Builds frames byte by byte that an honest host does not send, and sends them through a device
//! unchanged.

use std::io::IoSlice;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;

use anyhow::{Context, Result, ensure};

use crate::lab::host::Host;
use crate::traffic::datagrams::{BATCH, VIRTIO_HEADER, packet_socket, send};

/// A MAC address.
pub type Mac = [u8; 6];

/// The broadcast MAC address.
pub const BROADCAST: Mac = [0xff; 6];

/// Parses a MAC address as `ip link` prints it.
pub fn parse_mac(text: &str) -> Result<Mac> {
    let octets: Vec<u8> = text
        .split(':')
        .map(|octet| u8::from_str_radix(octet, 16))
        .collect::<Result<_, _>>()
        .with_context(|| text.to_owned())?;
    octets.try_into().ok().context("not six octets")
}

/// An Ethernet frame; below 1536 `ethertype` is a length (IEEE 802.3).
pub fn ethernet(from: Mac, to: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &ethertype.to_be_bytes(), payload].concat()
}

/// An IP packet with a correct header.
#[derive(Debug, Clone)]
pub enum Packet {
    /// Of IPv4.
    V4 {
        /// The source.
        from: Ipv4Addr,
        /// The destination.
        to: Ipv4Addr,
        /// The protocol.
        protocol: u8,
        /// Fragment flags and offset.
        fragment: u16,
        /// Options; a multiple of four bytes.
        options: Vec<u8>,
        /// The payload.
        payload: Vec<u8>,
    },
    /// Of IPv6.
    V6 {
        /// The source.
        from: Ipv6Addr,
        /// The destination.
        to: Ipv6Addr,
        /// The next header.
        next: u8,
        /// The payload.
        payload: Vec<u8>,
    },
}

/// The upper byte of the identification or flow label that holds a label.
const MARK: u8 = 0x7a;

impl Packet {
    /// The packet in an Ethernet frame; `label` identifies it in a capture.
    pub fn frame(&self, sender: Mac, receiver: Mac, label: u8) -> Vec<u8> {
        let ethertype = match self {
            Packet::V4 { .. } => 0x0800,
            Packet::V6 { .. } => 0x86dd,
        };
        ethernet(sender, receiver, ethertype, &self.bytes(label))
    }

    /// The capture filter (pcap-filter(7)) for packets with this label.
    pub fn filter(label: u8) -> String {
        format!(
            "(ip and ip[4] == {MARK} and ip[5] == {label}) or \
             (ip6 and ip6[2] == {MARK} and ip6[3] == {label})"
        )
    }

    /// The packet's bytes, without a link header.
    pub fn bytes(&self, label: u8) -> Vec<u8> {
        match self {
            Packet::V4 {
                from,
                to,
                protocol,
                fragment,
                options,
                payload,
            } => {
                let length = 20 + options.len();
                let total = (length + payload.len()) as u16;
                let mut packet = vec![0x40 | (length / 4) as u8, 0];
                packet.extend(total.to_be_bytes());
                packet.extend([MARK, label]);
                packet.extend(fragment.to_be_bytes());
                packet.extend([64, *protocol, 0, 0]);
                packet.extend(from.octets());
                packet.extend(to.octets());
                packet.extend(options);
                let sum = checksum(&packet);
                packet[10..12].copy_from_slice(&sum.to_be_bytes());
                packet.extend(payload);
                packet
            }
            Packet::V6 {
                from,
                to,
                next,
                payload,
            } => {
                let length = (payload.len() as u16).to_be_bytes();
                let start = [0x60, 0, MARK, label, length[0], length[1], *next, 255];
                [&start[..], &from.octets(), &to.octets(), payload].concat()
            }
        }
    }
}

/// A UDP datagram without a checksum.
pub fn udp(ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let length = (8 + payload.len()) as u16;
    let words = [ports.0, ports.1, length, 0];
    let mut datagram = words.map(u16::to_be_bytes).concat();
    datagram.extend(payload);
    datagram
}

/// The internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

/// Sends `frames` out of `device` of `host`, in this order.
pub fn send_by(host: &Host, device: &str, frames: &[Vec<u8>]) -> Result<()> {
    let index = host.read(&format!("/sys/class/net/{device}/ifindex"))?;
    let index = index.trim().parse()?;
    let socket = host.in_network(|| Ok(packet_socket(index)?))?;
    for batch in frames.chunks(BATCH) {
        // After the virtio header of an ordinary packet.
        let behind_header = |frame: &Vec<u8>| [&[0; VIRTIO_HEADER][..], frame].concat();
        let framed: Vec<Vec<u8>> = batch.iter().map(behind_header).collect();
        let slices: Vec<IoSlice<'_>> = framed.iter().map(|frame| IoSlice::new(frame)).collect();
        let sent = send(socket.as_fd(), &slices)?;
        ensure!(sent == batch.len(), "{sent} of {} frames sent", batch.len());
    }
    Ok(())
}
