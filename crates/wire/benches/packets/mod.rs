//! Packets for benchmarks: of TCP connections and UDP sockets, and the super-packets that
//! they merge into.

use bytes::Bytes;
use etherparse::{
    IpHeaders, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, PacketBuilder, PacketBuilderStep,
    TcpHeader,
};
use sshvpn_wire::packet::IpVersion;
use sshvpn_wire::packet::offload::coalesce::{Coalescer, Limits, Unit};
use sshvpn_wire::packet::offload::virtio::VirtioHeader;
use sshvpn_wire::types::Mode;

/// The mode of all benchmarks.
pub const MODE: Mode = Mode::PointToPoint;

/// The MTU of the packets.
const MTU: usize = 1500;
/// The largest payload of a super-packet; with any headers it fits an IP packet.
const SUPER_PAYLOAD: usize = 65_000;

/// One direction of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    pub version: IpVersion,
    pub tcp: bool,
    /// Its source port.
    pub port: u16,
}

impl Flow {
    /// A TCP connection over IPv4.
    pub const TCP4: Flow = Flow {
        version: IpVersion::V4,
        tcp: true,
        port: 40_000,
    };
    /// A TCP connection over IPv6.
    pub const TCP6: Flow = Flow {
        version: IpVersion::V6,
        ..Flow::TCP4
    };
    /// UDP over IPv4.
    pub const UDP4: Flow = Flow {
        tcp: false,
        ..Flow::TCP4
    };

    /// Its name in the results.
    pub fn name(self) -> &'static str {
        match (self.tcp, self.version) {
            (true, IpVersion::V4) => "tcp4",
            (true, IpVersion::V6) => "tcp6",
            (false, IpVersion::V4) => "udp4",
            (false, IpVersion::V6) => "udp6",
        }
    }

    /// Bytes of all headers; TCP has the timestamp option, as Linux sends it.
    fn headers(self) -> usize {
        let ip = match self.version {
            IpVersion::V4 => 20,
            IpVersion::V6 => 40,
        };
        ip + if self.tcp { 32 } else { 8 }
    }

    /// `count` consecutive packets of the MTU's length.
    pub fn packets(self, count: usize) -> Vec<Bytes> {
        let payload = vec![0x5a; MTU - self.headers()];
        let packets = (0..count).map(|index| self.packet(index, &payload));
        packets.collect()
    }

    /// The packets of one super-packet of 64 KiB.
    pub fn packets_of_a_super_packet(self) -> Vec<Bytes> {
        self.packets(SUPER_PAYLOAD / (MTU - self.headers()))
    }

    /// A super-packet of 64 KiB that divides into packets of the MTU's length.
    pub fn super_packet(self) -> (VirtioHeader, Vec<u8>) {
        let limits = Limits {
            unit_bytes: usize::from(u16::MAX),
            udp: true,
        };
        let mut coalescer = Coalescer::new(MODE, limits);
        for packet in self.packets_of_a_super_packet() {
            coalescer.push(packet).expect("fewer than a batch");
        }
        let mut units: Vec<Unit> = coalescer.flush().collect();
        match (units.pop(), units.pop()) {
            (Some(Unit::Super(merged)), None) => {
                let packet = [&merged.head[..], &merged.payloads.concat()].concat();
                (merged.header, packet)
            }
            _ => panic!("packets of a flow did not merge"),
        }
    }

    fn packet(self, index: usize, payload: &[u8]) -> Bytes {
        let mut packet = Vec::with_capacity(self.headers() + payload.len());
        if self.tcp {
            let sequence = (index * payload.len()) as u32;
            let mut header = TcpHeader::new(self.port, 5201, sequence, 501);
            header.ack = true;
            header.acknowledgment_number = 1;
            header
                .set_options_raw(&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2])
                .expect("twelve bytes of options");
            self.ip(index)
                .tcp_header(header)
                .write(&mut packet, payload)
        } else {
            self.ip(index)
                .udp(self.port, 5201)
                .write(&mut packet, payload)
        }
        .expect("a packet of the MTU");
        packet.into()
    }

    fn ip(self, index: usize) -> PacketBuilderStep<IpHeaders> {
        PacketBuilder::ip(match self.version {
            IpVersion::V4 => {
                let (source, destination) = ([10, 0, 0, 1], [10, 0, 0, 2]);
                let mut header = Ipv4Header::new(0, 64, IpNumber(0), source, destination)
                    .expect("a payload of zero bytes");
                header.identification = index as u16;
                IpHeaders::Ipv4(header, Default::default())
            }
            IpVersion::V6 => {
                let header = Ipv6Header {
                    flow_label: Ipv6FlowLabel::ZERO,
                    hop_limit: 64,
                    source: [0xfd; 16],
                    destination: [0xfe; 16],
                    ..Ipv6Header::default()
                };
                IpHeaders::Ipv6(header, Default::default())
            }
        })
    }
}

/// Packets of `flows` flows with consecutive source ports from that of `flow`, one of
/// each in turn.
pub fn interleaved(flow: Flow, flows: u16, each: usize) -> Vec<Bytes> {
    let flows: Vec<Vec<Bytes>> = (0..flows)
        .map(|number| {
            let port = flow.port + number;
            Flow { port, ..flow }.packets(each)
        })
        .collect();
    (0..each)
        .flat_map(|turn| flows.iter().map(move |packets| packets[turn].clone()))
        .collect()
}

/// The number of bytes in all.
pub fn total(packets: &[Bytes]) -> u64 {
    packets.iter().map(|packet| packet.len() as u64).sum()
}
