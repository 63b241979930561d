//! Why the requested tunnel is not possible, and what to do about it.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use thiserror::Error;

use crate::client::remote::shell::facts::FactsError;
use crate::client::up::addresses::NoIpv6;
use crate::host::plan::addressing::AddressError;
use crate::types::{Mtu, ParseError};

/// Why the request cannot be met.
#[derive(Debug, Error)]
pub enum PlanError {
    /// The remote host cannot be used.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// No addresses can be chosen.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The remote device has an MTU that the tunnel cannot carry.
    #[error("{host}: the remote device {device} has an unusable MTU: {source}")]
    RemoteMtu {
        /// The remote end.
        host: String,
        /// The device.
        device: String,
        /// The fault.
        source: ParseError,
    },
    /// The premade device has no address.
    #[error(
        "{host}: the premade device {device} has no usable address: add one on that host (ip addr add \
         A peer B dev {device}) and set the device up (ip link set {device} up)"
    )]
    NoRemoteAddress {
        /// The remote end.
        host: String,
        /// The device.
        device: String,
    },
    /// The requested unit belongs to another user.
    #[error(
        "{host}: the device {device} exists and does not belong to {login}; choose another with --peer-unit"
    )]
    ForeignDevice {
        /// The remote end.
        host: String,
        /// The device.
        device: String,
        /// The login there.
        login: String,
    },
    /// A requested IPv6 route or address, without IPv6.
    #[error("cannot {what} without IPv6: {problem}")]
    NoIpv6 {
        /// The action that needs IPv6.
        what: String,
        /// Why IPv6 is not possible.
        problem: NoIpv6,
    },
    /// The host has neither nft nor iptables.
    #[error(
        "{host}: neither nft nor {iptables} is installed, for NAT and TCP's segment size: install \
         nftables, or use --no-nat"
    )]
    NoFirewall {
        /// The remote end.
        host: String,
        /// `iptables` or `ip6tables`.
        iptables: &'static str,
    },
    /// The agent does not permit forwarding to the network.
    #[error(
        "{host}: its agent does not permit forwarding to {route}; permitted: {permitted} (--allow-route of \
         'sshvpn agent' on that host)"
    )]
    RouteNotPermitted {
        /// The remote end.
        host: String,
        /// The network.
        route: IpNetwork,
        /// The permitted networks.
        permitted: String,
    },
    /// The agent does not permit NAT.
    #[error(
        "{host}: its agent does not permit NAT: use --no-nat, and give {route} a route back to the \
         tunnel's address"
    )]
    NatNotPermitted {
        /// The remote end.
        host: String,
        /// The first network.
        route: IpNetwork,
    },
    /// The agent does not permit the address.
    #[error(
        "{host}: its agent does not permit the tunnel address {address}; permitted: {permitted} \
         (--allow-address of 'sshvpn agent' on that host)"
    )]
    AddressNotPermitted {
        /// The remote end.
        host: String,
        /// The chosen address.
        address: IpAddr,
        /// The permitted networks.
        permitted: String,
    },
    /// The agent does not permit the MTU.
    #[error("{host}: its agent permits an MTU of at most {most}, not {wanted}")]
    MtuNotPermitted {
        /// The remote end.
        host: String,
        /// The largest permitted MTU.
        most: u32,
        /// The requested MTU.
        wanted: Mtu,
    },
    /// The remote sshvpn does not support Ethernet.
    #[error("{host}: its sshvpn does not support --tap: leave out --tap, or update sshvpn there")]
    NoEthernet {
        /// The remote end.
        host: String,
    },
    /// The login lacks the privilege to set up forwarding.
    #[error("{host}: cannot set up forwarding to {route} and NAT: {source}")]
    CannotForward {
        /// The remote end.
        host: String,
        /// The first network.
        route: IpNetwork,
        /// The cause.
        source: FactsError,
    },
}
