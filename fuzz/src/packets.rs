//! Makes mostly valid packets, which random bytes seldom are, and parses packets by etherparse,
//! which is independent of the fuzzed code.

use bytes::{Bytes, BytesMut};
use etherparse::checksum::Sum16BitWords;
use etherparse::{
    IpHeaders, IpNumber, Ipv4Header, Ipv6Extensions, Ipv6Header, NetSlice, PacketBuilder,
    SlicedPacket, TcpHeader, TransportSlice,
};
use sshvpn_wire::packet::offload::coalesce::Unit;
use sshvpn_wire::packet::offload::segment::Segments;
use sshvpn_wire::packet::offload::virtio::VirtioHeader;
use sshvpn_wire::types::Mode;

use crate::Source;

/// The consecutive packets of one sender.
#[derive(Debug, Clone)]
pub struct Stream {
    mode: Mode,
    ipv6: bool,
    tcp: bool,
    host: u8,
    /// IPv4's identification of the next packet.
    pub identification: u16,
    /// TCP's header of the next packet.
    pub header: TcpHeader,
}

impl Stream {
    /// A stream from the host 10.0.0.`host`, of the kind that three bits of `kind` choose.
    pub fn new(mode: Mode, kind: u8, host: u8) -> Self {
        let mut header = TcpHeader::new(1000 + u16::from(host), 80, u32::MAX - 5000, 512);
        header.ack = true;
        if kind & 4 != 0 {
            header
                .set_options_raw(&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2])
                .expect("options of whole words");
        }
        Stream {
            mode,
            ipv6: kind & 1 != 0,
            tcp: kind & 2 == 0,
            host,
            identification: u16::MAX - 5,
            header,
        }
    }

    /// Whether it is TCP.
    pub fn is_tcp(&self) -> bool {
        self.tcp
    }

    /// The offset of the IP header in its packets, in bytes.
    pub fn ip(&self) -> usize {
        match self.mode {
            Mode::PointToPoint => 0,
            Mode::Ethernet => 14,
        }
    }

    /// The offset of the transport header in its packets, in bytes.
    pub fn transport(&self) -> usize {
        self.ip() + if self.ipv6 { 40 } else { 20 }
    }

    /// The gso_type of its super-packets in a virtio header.
    pub fn gso_type(&self) -> u8 {
        match (self.tcp, self.ipv6) {
            (true, false) => 1,
            (true, true) => 4,
            (false, _) => 5,
        }
    }

    /// The next packet, with `length` bytes of payload and right checksums.
    pub fn packet(&mut self, length: usize) -> Vec<u8> {
        let mut packet = Vec::new();
        if self.mode == Mode::Ethernet {
            packet.extend([2; 12]);
            packet.extend(if self.ipv6 {
                [0x86, 0xdd]
            } else {
                [0x08, 0x00]
            });
        }
        let payload: Vec<u8> = (0..length)
            .map(|index| (index as u8).wrapping_mul(7) ^ self.header.sequence_number as u8)
            .collect();
        let builder = PacketBuilder::ip(self.network());
        match self.tcp {
            true => builder
                .tcp_header(self.header.clone())
                .write(&mut packet, &payload),
            false => builder
                .udp(self.header.source_port, 80)
                .write(&mut packet, &payload),
        }
        .expect("a packet of a length that fits");
        self.identification = self.identification.wrapping_add(1);
        self.header.sequence_number = self.header.sequence_number.wrapping_add(length as u32);
        packet
    }

    fn network(&self) -> IpHeaders {
        if self.ipv6 {
            let mut source = [0xfd; 16];
            source[15] = self.host;
            let header = Ipv6Header {
                hop_limit: 64,
                source,
                destination: [0xfd; 16],
                ..Ipv6Header::default()
            };
            IpHeaders::Ipv6(header, Ipv6Extensions::default())
        } else {
            let mut header =
                Ipv4Header::new(0, 64, IpNumber(0), [10, 0, 0, self.host], [10, 0, 0, 254])
                    .expect("an empty packet");
            header.identification = self.identification;
            IpHeaders::Ipv4(header, Default::default())
        }
    }
}

/// Changes up to three bytes of `packet`, as `source` says.
pub fn damage(packet: &mut [u8], source: &mut Source<'_>) {
    for _ in 0..source.byte() % 4 {
        let (at, byte) = (usize::from(source.byte()), source.byte());
        if let Some(place) = packet.get_mut(at) {
            *place = byte;
        }
    }
}

/// The mode that a bit chooses.
pub fn mode(bits: u8) -> Mode {
    match bits & 1 {
        0 => Mode::PointToPoint,
        _ => Mode::Ethernet,
    }
}

/// All segments of a super-packet, if it is one.
pub fn divide(mode: Mode, header: &VirtioHeader, packet: &[u8]) -> Option<Vec<Bytes>> {
    let mut segments = Segments::new(mode, header, packet).ok()?;
    let mut out = BytesMut::with_capacity(segments.segment_len());
    let mut packets = Vec::new();
    while segments.append_next(&mut out).is_some() {
        packets.push(out.split().freeze());
    }
    assert_eq!(packets.len(), segments.count());
    Some(packets)
}

/// The packets of a unit; a super-packet has to be divisible.
pub fn divide_unit(mode: Mode, unit: &Unit) -> Vec<Bytes> {
    match unit {
        Unit::Plain(packet) | Unit::Offload(_, packet) => vec![packet.clone()],
        Unit::Super(whole) => {
            let packet = [&whole.head[..], &whole.payloads.concat()].concat();
            divide(mode, &whole.header, &packet).expect("a super-packet that can be divided")
        }
    }
}

fn sliced(mode: Mode, packet: &[u8]) -> Option<SlicedPacket<'_>> {
    match mode {
        Mode::PointToPoint => SlicedPacket::from_ip(packet),
        Mode::Ethernet => SlicedPacket::from_ethernet(packet),
    }
    .ok()
}

/// The addresses and ports of a TCP or UDP packet; `None` for others.
pub fn flow(mode: Mode, packet: &[u8]) -> Option<Vec<u8>> {
    let packet = sliced(mode, packet)?;
    let (protocol, ports) = match packet.transport? {
        TransportSlice::Tcp(tcp) => (6, tcp.slice().first_chunk::<4>()?.to_vec()),
        TransportSlice::Udp(udp) => (17, udp.slice().first_chunk::<4>()?.to_vec()),
        _ => return None,
    };
    let addresses = match packet.net? {
        NetSlice::Ipv4(ip) => [ip.header().source(), ip.header().destination()].concat(),
        NetSlice::Ipv6(ip) => [ip.header().source(), ip.header().destination()].concat(),
        _ => return None,
    };
    Some([&[protocol][..], &addresses, &ports].concat())
}

/// Whether the checksums of a TCP or UDP packet are right.
pub fn verifies(mode: Mode, packet: &[u8]) -> bool {
    let packet = sliced(mode, packet).expect("a whole packet");
    let (protocol, datagram) = match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => (6, tcp.slice()),
        Some(TransportSlice::Udp(udp)) => (17, udp.slice()),
        other => panic!("{other:?}"),
    };
    let mut sum = Sum16BitWords::new()
        .add_slice(datagram)
        .add_2bytes([0, protocol])
        .add_4bytes((datagram.len() as u32).to_be_bytes());
    match &packet.net {
        Some(NetSlice::Ipv4(ip)) => {
            let addresses = [ip.header().source(), ip.header().destination()].concat();
            let header = Sum16BitWords::new().add_slice(ip.header().slice());
            sum = sum.add_slice(&addresses);
            header.ones_complement() == 0 && sum.ones_complement() == 0
        }
        Some(NetSlice::Ipv6(ip)) => {
            let addresses = [ip.header().source(), ip.header().destination()].concat();
            sum.add_slice(&addresses).ones_complement() == 0
        }
        other => panic!("{other:?}"),
    }
}
