//! sshvpn: a userspace VPN over SSH with TUN and TAP devices.
//!
//! The modules, each above those that it uses:
//!
//! ```text
//!                cli                    parses the command line
//!     ┌───────────┼───────────┐
//!   client      agent       server      the three roles
//!     └───────────┼───────────┘
//!               link                    joins a device's pump to an SSH channel
//!         ┌───────┴───────┐
//!       pump             ssh            packets ⇄ frames; the SSH protocol (russh)
//!         │               │
//!   tun  host  process  sandbox         the device; this host's state; this process and its rights
//!         └───────┬───────┘
//!              config                   settings: ssh_config, keys, serve.toml, the invoker
//!                 │
//!   frame   packet   types              wire formats, headers, parsed values; pure
//! ```
//!
//! The pipeline of packets, outbound from left to right and inbound from right to left:
//!
//! ```text
//!   kernel ⇄ tun ⇄ pump (filter, queue, framing, flight) ⇄ link ⇄ ssh channel ⇄ kernel TCP
//! ```
//!
//! # Glossary
//!
//! Roles:
//! - **client**: the program that dials; **server**: the program that is dialled, and in the code
//!   mostly `sshvpn serve`, the project's own SSH server.
//! - **agent**: an sshvpn that a stock sshd starts for one tunnel, and that sets up its host.
//! - **local**, **remote**: as in ssh(1): of this host, of the host that the connection leads to.
//! - **peer**: the other end of a link, where roles do not matter.
//! - **invoker**: the user who runs sshvpn, also under sudo or with file capabilities.
//!
//! The tunnel:
//! - **unit**: the number in a device's name (`tun3`), as `-w` and `tun@openssh.com` use it.
//! - **mode**: point-to-point (tun, IP packets) or ethernet (tap, Ethernet frames).
//! - **carrier**: how packets travel inside SSH: `serve` (stream of an sshvpn server), `agent`
//!   (stream of an agent) or `tun` (datagrams of the channel `tun@openssh.com`).
//! - **link**: a device and a channel, joined by a pump; by datagrams or by a stream.
//! - **first hop**: the addresses that the SSH connection's TCP goes to; never routed into the tunnel.
//! - **hold**, **holder**: the remote shell (`hold.sh`) that sets up a remote host, and undoes it.
//!
//! Packets:
//! - **packet**: one IP packet (layer 3).
//! - **frame**: one Ethernet frame (layer 2), or the framed content of one channel message.
//! - **outbound**: from this host's device to the channel; **inbound**: from the channel to it.
//! - **headroom**: bytes kept free in front of a packet, where headers are written in place.
//! - **super-packet**: one packet that stands for many segments, its checksum left open; devices
//!   with segmentation offload read and write it.
//! - **segment**: to divide a super-packet into packets; one of these packets.
//! - **coalesce**: to merge packets of a flow into a super-packet.
//! - **gso_size**: payload bytes of each segment but the last.
//! - **open checksum**: a checksum that the reader has to complete (`VIRTIO_NET_HDR_F_NEEDS_CSUM`).
//! - **flight**: the bytes that are on their way to the peer; the pump bounds them.
//! - **window credit**: bytes that the peer still lets this end send on a channel (RFC 4254, 5.2).
//!
//! Trust:
//! - **guard**: the filter that judges each packet of the peer by its source and destination.
//! - **entitlement**, **grant**: what a login may use at a server, settled when it logs in.
//! - **revocation**: a server takes back a login's entitlement, and disconnects the client.
//! - **lease**: an address of a server's pool, lent to one connection and remembered for its key.
//! - **offer**: the addresses, MTU, routes and name servers that a server proposes to a client.
//!
//! Host state:
//! - **change**: one alteration of a host (address, route, sysctl, firewall) with its undoing.
//! - **journal**: the file that lists the changes of a tunnel, so that they can be undone later.
//! - **recovery**: undoing the changes in the journal of a process that ended without doing so.

#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]

pub mod agent;
pub mod cli;
pub mod client;
pub mod config;
pub mod host;
pub mod link;
pub mod process;
pub mod pump;
pub mod sandbox;
pub mod server;
pub mod ssh;
pub mod tun;

pub use sshvpn_wire::{frame, packet, types};
