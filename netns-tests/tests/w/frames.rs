//! Frames of every size cross `-w` unchanged, at Ethernet's MTU and at a jumbo MTU, and invalid
//! packets do not end the tunnel.
//!
//! ```text
//!   laptop wan 192.0.2.1 ──────────── 192.0.2.2 wan bastion
//!   client tun3 10.99.0.1/30 ═ SSH ═ 10.99.0.2/30 tun7 sshd
//! ```

use anyhow::{Result, ensure};
use netns_tests::lab::topology;
use netns_tests::program::tunnel::{LOCAL, Mode, REMOTE, Tunnel};
use netns_tests::{Client, traffic, with_each_client};

with_each_client!(
    every_size_at_mtu_1500,
    every_size_at_mtu_16000,
    every_size_over_ipv6,
    every_size_in_ethernet_frames,
);

/// The bytes of an IPv4 and a UDP header.
const IPV4_UDP: usize = 28;
/// The bytes of an IPv6 and a UDP header.
const IPV6_UDP: usize = 48;

/// Sends every payload size that makes one packet, up to the MTU.
fn every_size(client: Client, mode: Mode, mtu: u32, family: usize, headers: usize) -> Result<()> {
    let lab = topology::direct()?;
    let open = Tunnel {
        client,
        mode,
        mtu,
        ..Tunnel::default()
    }
    .open(&lab.laptop, &lab.bastion)?;
    traffic::ping(&lab.laptop, REMOTE[family])?;
    let largest = usize::try_from(mtu)? - headers;
    traffic::echo_every_size(
        (&lab.laptop, LOCAL[family]),
        (&lab.bastion, REMOTE[family]),
        0..=largest,
    )?;
    ensure!(open.is_running(), "the client has ended");
    Ok(())
}

fn every_size_at_mtu_1500(client: Client) -> Result<()> {
    every_size(client, Mode::PointToPoint, 1500, 0, IPV4_UDP)
}

fn every_size_at_mtu_16000(client: Client) -> Result<()> {
    every_size(client, Mode::PointToPoint, 16000, 0, IPV4_UDP)
}

fn every_size_over_ipv6(client: Client) -> Result<()> {
    every_size(client, Mode::PointToPoint, 1500, 1, IPV6_UDP)
}

fn every_size_in_ethernet_frames(client: Client) -> Result<()> {
    every_size(client, Mode::Ethernet, 1500, 0, IPV4_UDP)
}

/// Frames from one byte on that are no whole IP packet, among them the IPv4 packet of 20 bytes at
/// which OpenSSH closes the tunnel: they are dropped, and the tunnel stays up.
#[test]
fn frames_that_are_no_packet_end_nothing() -> Result<()> {
    let lab = topology::direct()?;
    let tunnel = Tunnel {
        client: Client::Sshvpn,
        ..Tunnel::default()
    };
    let open = tunnel.open(&lab.laptop, &lab.bastion)?;
    traffic::ping(&lab.laptop, REMOTE[0])?;
    lab.laptop.run(&["python3", "-c", SHORT_FRAMES])?.ok()?;
    traffic::ping(&lab.laptop, REMOTE[0])?;
    traffic::ping(&lab.laptop, REMOTE[1])?;
    traffic::ping(&lab.bastion, LOCAL[0])?;
    ensure!(open.is_running(), "the client has ended");
    Ok(())
}

/// Sends frames of 1 to 60 bytes into tun3, as IPv4, as IPv6 and as neither.
const SHORT_FRAMES: &str = r#"
import socket
sender = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
for size in range(1, 61):
    for first, ethertype in (0x45, 0x0800), (0x60, 0x86dd), (0x00, 0x0800), (0xff, 0x88b5):
        sender.sendto(bytes([first]) + bytes(size - 1), ("tun3", ethertype))
header = bytes([0x45, 0, 0, 20, 0, 0, 0, 0, 64, 253, 0, 0, 10, 99, 0, 1, 10, 99, 0, 2])
sender.sendto(header, ("tun3", 0x0800))
"#;
