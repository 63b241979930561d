//! sshvpn: a userspace VPN over SSH with TUN/TAP devices.
//!
//! ```text
//!   cli ──► session ──► ssh   one SSH connection: who we are, who they are, channels
//!                  ├──► tun   the tun or tap device of this host
//!                  ├──► pump  packets from one to the other: outbound, inbound
//!                  ├──► net   addresses, routes, sysctls of this host; the journal that undoes them
//!                  └──► sandbox   what this process may still do once it is set up
//!   cli ──► server ──► the same, at the other end: who may come in, what each gets and may send
//!                        all of them stand on: config (settings, parsed), packet, frame, message
//!
//!   kernel ⇄ tun ⇄ pump ⇄ frame ⇄ ssh channel ⇄ kernel TCP
//! ```
//!
//! # Glossary
//! - **packet**: one IP packet (layer 3).
//! - **frame**: one Ethernet frame (layer 2), or what goes into one channel message.
//! - **outbound**: from our tun device to the SSH channel; **inbound**: the other way.
//! - **unit**: the number in a device's name, `tun3`; what `-w` and `tun@openssh.com` ask for.
//! - **mode**: point-to-point (tun, IP packets) or ethernet (tap, Ethernet frames).
//! - **carrier**: the way in which frames travel inside SSH: `serve`, the stream of a server of ours,
//!   `agent`, that of an sshvpn which a stock sshd started, or `tun`, the channel `tun@openssh.com`.
//! - **server**: `sshvpn serve`, our own SSH server; **client**: whoever is logged in to it.
//! - **grant**: what a login may do at a server, settled when it logs in.
//! - **lease**: an address of a server's pool, lent to one connection and remembered for its key.
//! - **guard**: what judges each packet of the remote end, in every role, by where it comes from and goes to.
//! - **local end, remote end**: this host, and the host that the SSH connection leads to.
//! - **peer**: the remote end of the tunnel, as an address or as a party to the protocol.
//! - **headroom**: bytes kept free in front of a packet, where a header is written in place.
//! - **super-packet**: one packet that stands for many, with its checksum left open, as a
//!   device with segmentation offload takes and gives it.
//! - **segment**: to divide a super-packet into packets, and one of these; **coalesce**: to
//!   merge packets into a super-packet.
//! - **gso_size**: payload bytes of each segment but the last.
//! - **window credit**: how many bytes the peer lets us send on a channel, by its own count.
//! - **journal**: the file that lists what was changed on a host, and how to undo it.
//! - **invoker**: the person who runs sshvpn, also when that is under sudo.

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
