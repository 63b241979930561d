//! Packets for tests, built and verified by etherparse, an implementation independent of
//! ours.

#![allow(missing_docs)]

use std::convert::Infallible;
use std::num::NonZeroU16;

use bytes::Bytes;
use etherparse::checksum::Sum16BitWords;
use etherparse::{
    IpFragOffset, IpHeaders, IpNumber, Ipv4Header, Ipv4Options, Ipv6Extensions, Ipv6FlowLabel,
    Ipv6Header, Ipv6RawExtHeader, NetSlice, PacketBuilder, PacketBuilderStep, SlicedPacket,
    TcpHeader, TransportSlice,
};
use proptest::prelude::*;

use super::IpVersion;
use super::offload::coalesce::Unit;
use super::offload::finish_checksum;
use super::offload::segment::Segments;
use super::offload::virtio::{Gso, GsoKind, PartialChecksum, VirtioHeader};
use crate::types::Mode;

/// The headers of a packet.
#[derive(Debug, Clone)]
pub struct Template {
    pub mode: Mode,
    pub version: IpVersion,
    pub tcp: bool,
    /// 802.1Q tags, in ethernet mode.
    pub tags: usize,
    /// The last byte of the source address.
    pub host: u8,
    pub port: u16,
    pub identification: u16,
    pub dont_fragment: bool,
    /// DSCP and ECN.
    pub class: u8,
    pub hops: u8,
    pub flow_label: u32,
    /// An IPv4 option, or an IPv6 extension header.
    pub extended: bool,
    pub sequence: u32,
    pub acknowledgment: u32,
    pub window: u16,
    pub options: Vec<u8>,
    /// TCP flags beside ACK: PSH, FIN, CWR, ECE.
    pub psh: bool,
    pub fin: bool,
    pub cwr: bool,
    pub ece: bool,
}

impl Template {
    /// Headers without options, tags or flags.
    pub fn new(version: IpVersion, tcp: bool) -> Self {
        Template {
            mode: Mode::PointToPoint,
            version,
            tcp,
            tags: 0,
            host: 1,
            port: 5001,
            identification: 100,
            dont_fragment: true,
            class: 0,
            hops: 64,
            flow_label: 0x12345,
            extended: false,
            sequence: 1000,
            acknowledgment: 2000,
            window: 500,
            options: vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
            psh: false,
            fin: false,
            cwr: false,
            ece: false,
        }
    }

    /// Ordinary headers for both versions and both protocols.
    pub fn all() -> [Self; 4] {
        [
            (IpVersion::V4, true),
            (IpVersion::V6, true),
            (IpVersion::V4, false),
            (IpVersion::V6, false),
        ]
        .map(|(version, tcp)| Template::new(version, tcp))
    }

    pub fn link_len(&self) -> usize {
        match self.mode {
            Mode::PointToPoint => 0,
            Mode::Ethernet => 14 + 4 * self.tags,
        }
    }

    pub fn transport(&self) -> usize {
        let ip = match (self.version, self.extended) {
            (IpVersion::V4, false) => 20,
            (IpVersion::V4, true) => 24,
            (IpVersion::V6, false) => 40,
            (IpVersion::V6, true) => 48,
        };
        self.link_len() + ip
    }

    pub fn head_len(&self) -> usize {
        self.transport() + if self.tcp { 20 + self.options.len() } else { 8 }
    }

    fn ip(&self) -> PacketBuilderStep<IpHeaders> {
        PacketBuilder::ip(match self.version {
            IpVersion::V4 => {
                let mut header = Ipv4Header::new(
                    0,
                    self.hops,
                    IpNumber(0),
                    [10, 0, 0, self.host],
                    [10, 0, 0, 254],
                )
                .unwrap();
                header.dscp = (self.class >> 2).try_into().unwrap();
                header.ecn = (self.class & 3).try_into().unwrap();
                header.identification = self.identification;
                header.dont_fragment = self.dont_fragment;
                header.fragment_offset = IpFragOffset::ZERO;
                if self.extended {
                    header.options = Ipv4Options::try_from(&[1, 1, 1, 0][..]).unwrap();
                }
                IpHeaders::Ipv4(header, Default::default())
            }
            IpVersion::V6 => {
                let mut source = [0xfd; 16];
                source[15] = self.host;
                let mut extensions = Ipv6Extensions::default();
                if self.extended {
                    let padding = Ipv6RawExtHeader::new_raw(IpNumber(0), &[1, 4, 0, 0, 0, 0]);
                    extensions.destination_options = Some(padding.unwrap());
                }
                let header = Ipv6Header {
                    traffic_class: self.class,
                    flow_label: Ipv6FlowLabel::try_new(self.flow_label).unwrap(),
                    hop_limit: self.hops,
                    source,
                    destination: [0xfd; 16],
                    ..Ipv6Header::default()
                };
                IpHeaders::Ipv6(header, extensions)
            }
        })
    }

    /// A packet with this payload and complete checksums.
    pub fn packet(&self, payload: &[u8]) -> Vec<u8> {
        let mut packet = self.link();
        if self.tcp {
            let mut header = TcpHeader::new(self.port, 80, self.sequence, self.window);
            header.ack = true;
            header.acknowledgment_number = self.acknowledgment;
            (header.psh, header.fin) = (self.psh, self.fin);
            (header.cwr, header.ece) = (self.cwr, self.ece);
            header.set_options_raw(&self.options).unwrap();
            self.ip().tcp_header(header).write(&mut packet, payload)
        } else {
            self.ip().udp(self.port, 80).write(&mut packet, payload)
        }
        .unwrap();
        packet
    }

    fn link(&self) -> Vec<u8> {
        let mut link = Vec::new();
        if self.mode == Mode::Ethernet {
            link.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, self.host]);
            for tag in 0..self.tags {
                link.extend(
                    [
                        if tag + 1 < self.tags {
                            0x88a8_u16
                        } else {
                            0x8100
                        },
                        7,
                    ]
                    .map(u16::to_be_bytes)
                    .concat(),
                );
            }
            link.extend(match self.version {
                IpVersion::V4 => [0x08, 0x00],
                IpVersion::V6 => [0x86, 0xdd],
            });
        }
        link
    }

    /// The packets that a super-packet with this payload stands for.
    pub fn packets(&self, payload: &[u8], size: usize) -> Vec<Vec<u8>> {
        let count = payload.len().div_ceil(size).max(1);
        (0..count)
            .map(|index| {
                let start = index * size;
                let one = Template {
                    sequence: self.sequence.wrapping_add(start as u32),
                    identification: self.identification.wrapping_add(index as u16),
                    psh: self.psh && index + 1 == count,
                    fin: self.fin && index + 1 == count,
                    cwr: self.cwr && index == 0,
                    ..self.clone()
                };
                one.packet(&payload[start..payload.len().min(start + size)])
            })
            .collect()
    }

    /// A super-packet as the kernel yields it, and its offload header.
    pub fn super_packet(&self, payload: &[u8], size: u16) -> (VirtioHeader, Vec<u8>) {
        let (header, packet) = self.partial(payload);
        let kind = match (self.tcp, self.version) {
            (true, IpVersion::V4) => GsoKind::Tcp4,
            (true, IpVersion::V6) => GsoKind::Tcp6,
            (false, _) => GsoKind::Udp,
        };
        let gso = Gso {
            kind,
            ecn: false,
            size: NonZeroU16::new(size).unwrap(),
            header_length: self.head_len() as u16,
        };
        let gso = Some(gso);
        (VirtioHeader { gso, ..header }, packet)
    }

    /// A packet whose checksum is open.
    pub fn partial(&self, payload: &[u8]) -> (VirtioHeader, Vec<u8>) {
        let mut packet = self.packet(payload);
        let transport = self.transport();
        let offset = if self.tcp { 16 } else { 6 };
        let length = (packet.len() - transport) as u32;
        let (first, bytes) = match self.version {
            IpVersion::V4 => (self.link_len() + 12, 8),
            IpVersion::V6 => (self.link_len() + 8, 32),
        };
        let mut sum = length + if self.tcp { 6 } else { 17 };
        for pair in packet[first..first + bytes].chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        packet[transport + offset..][..2].copy_from_slice(&(sum as u16).to_be_bytes());
        let header = VirtioHeader {
            needs_checksum: Some(PartialChecksum {
                start: transport as u16,
                offset: offset as u16,
            }),
            ..VirtioHeader::PLAIN
        };
        (header, packet)
    }
}

/// Whether etherparse finds all checksums of a TCP or UDP packet right.
pub fn verifies(mode: Mode, packet: &[u8]) -> bool {
    let parsed = match mode {
        Mode::PointToPoint => SlicedPacket::from_ip(packet),
        Mode::Ethernet => SlicedPacket::from_ethernet(packet),
    }
    .unwrap();
    let (number, datagram) = match parsed.transport.unwrap() {
        TransportSlice::Tcp(tcp) => (6, tcp.slice().to_vec()),
        TransportSlice::Udp(udp) if udp.checksum() == 0 => return false,
        TransportSlice::Udp(udp) => (17, udp.slice().to_vec()),
        other => panic!("{other:?}"),
    };
    let mut sum = Sum16BitWords::new()
        .add_slice(&datagram)
        .add_2bytes([0, number])
        .add_4bytes((datagram.len() as u32).to_be_bytes());
    match parsed.net.unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            let sum = sum
                .add_4bytes(header.source())
                .add_4bytes(header.destination());
            let header = Sum16BitWords::new().add_slice(header.slice());
            sum.ones_complement() == 0 && header.ones_complement() == 0
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            let sum = sum
                .add_16bytes(header.source())
                .add_16bytes(header.destination());
            sum.ones_complement() == 0
        }
        other => panic!("{other:?}"),
    }
}

/// All segments of a super-packet.
pub fn divide(mode: Mode, header: &VirtioHeader, packet: &[u8]) -> Vec<Vec<u8>> {
    let segments = Segments::new(mode, header, packet).unwrap();
    let mut packets = Vec::with_capacity(segments.count());
    let Ok(_) = segments.divide(0, |segment| -> Result<(), Infallible> {
        packets.push(segment.to_vec());
        Ok(())
    });
    packets
}

/// The packets that a unit stands for.
pub fn divide_unit(mode: Mode, unit: &Unit) -> Vec<Vec<u8>> {
    match unit {
        Unit::Plain(packet) => vec![packet.to_vec()],
        Unit::Offload(header, packet) if header.gso.is_none() => {
            let mut packet = packet.to_vec();
            finish_checksum(mode, header, &mut packet).unwrap();
            vec![packet]
        }
        Unit::Offload(header, packet) => divide(mode, header, packet),
        Unit::Super(whole) => {
            let payload: Vec<&[u8]> = whole.payloads.iter().map(Bytes::as_ref).collect();
            divide(
                mode,
                &whole.header,
                &[&whole.head[..], &payload.concat()].concat(),
            )
        }
    }
}

/// This many bytes, without a short period.
pub fn payload(length: usize) -> Vec<u8> {
    (0..length)
        .map(|index| (index * 7 + index / 256) as u8)
        .collect()
}

prop_compose! {
    /// Any template; if not `odd`, only packets that a coalescer merges.
    pub fn templates(odd: bool)(
        (mode, tags) in prop::sample::select(vec![(Mode::PointToPoint, 0), (Mode::Ethernet, 0), (Mode::Ethernet, 1), (Mode::Ethernet, 2)]),
        version in prop::sample::select(vec![IpVersion::V4, IpVersion::V6]),
        tcp: bool,
        (host, port, hops, class) in any::<(u8, u16, u8, u8)>(),
        (identification, window, dont_fragment) in any::<(u16, u16, bool)>(),
        flow_label in 0..1_u32 << 20,
        (sequence, acknowledgment) in any::<(u32, u32)>(),
        options in prop::collection::vec(any::<u8>(), 0..=10).prop_map(|words| words.repeat(4)),
        (psh, flags) in any::<(bool, [bool; 4])>(),
    ) -> Template {
        let [extended, fin, cwr, ece] = flags.map(|flag| flag && odd);
        Template {
            mode, version, tcp, tags, host, port, identification, dont_fragment, class, hops,
            flow_label, extended, sequence, acknowledgment, window, options,
            psh: psh && tcp, fin: fin && tcp, cwr: cwr && tcp, ece: ece && tcp,
        }
    }
}

/// A UDP packet with `payload` bytes behind its headers.
pub fn udp(version: IpVersion, payload: usize) -> Vec<u8> {
    let builder = match version {
        IpVersion::V4 => PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64),
        IpVersion::V6 => PacketBuilder::ipv6([1; 16], [2; 16], 64),
    }
    .udp(1000, 2000);
    let mut packet = Vec::new();
    builder.write(&mut packet, &vec![0x5a; payload]).unwrap();
    packet
}
