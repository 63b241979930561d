//! Why a tunnel cannot be had as it was asked for, and what to do about it.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use thiserror::Error;

use crate::client::remote::shell::facts::FactsError;
use crate::host::plan::addressing::AddressError;
use crate::types::{Mtu, ParseError};

/// Why what was asked for cannot be had.
#[derive(Debug, Error)]
pub enum PlanError {
    /// The remote end cannot be used.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// There are no addresses.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The remote end's device has an MTU that the tunnel cannot carry.
    #[error("{host}: the device {device} there has an MTU that does not fit: {source}")]
    RemoteMtu {
        /// The remote end.
        host: String,
        /// The device.
        device: String,
        /// Why not.
        source: ParseError,
    },
    /// The device made beforehand has no address.
    #[error(
        "{host}: the device {device}, made beforehand, has no usable address: have one given to it \
         there (ip addr add A peer B dev {device}) and the device set up (ip link set {device} up)"
    )]
    NoRemoteAddress {
        /// The remote end.
        host: String,
        /// The device.
        device: String,
    },
    /// The unit asked for belongs to somebody else.
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
    /// IPv6 networks without IPv6.
    #[error("cannot route {route}: {problem}")]
    NoIpv6 {
        /// The first of them.
        route: IpNetwork,
        /// Why.
        problem: &'static str,
    },
    /// Neither nft nor iptables.
    #[error(
        "{host}: neither nft nor {iptables} is there for NAT and TCP's segment size: install nftables, or use --no-nat"
    )]
    NoFirewall {
        /// The remote end.
        host: String,
        /// Which iptables would do.
        iptables: &'static str,
    },
    /// The agent may not forward there.
    #[error(
        "{host}: its sshvpn may not forward to {route}; it permits {permitted} (--allow-route of \
         'sshvpn agent' there)"
    )]
    RouteNotPermitted {
        /// The remote end.
        host: String,
        /// The network.
        route: IpNetwork,
        /// What it may forward to.
        permitted: String,
    },
    /// The agent does no NAT.
    #[error(
        "{host}: its sshvpn may not do NAT: use --no-nat, and see that {route} has a route back to \
         the tunnel's address"
    )]
    NatNotPermitted {
        /// The remote end.
        host: String,
        /// The first network.
        route: IpNetwork,
    },
    /// The agent may not have that address.
    #[error(
        "{host}: its sshvpn may not have the tunnel address {address}; it permits {permitted} \
         (--allow-address of 'sshvpn agent' there)"
    )]
    AddressNotPermitted {
        /// The remote end.
        host: String,
        /// Its address.
        address: IpAddr,
        /// Where it may be.
        permitted: String,
    },
    /// The agent may not have that MTU.
    #[error("{host}: its sshvpn permits an MTU of {most} at most, not {wanted}")]
    MtuNotPermitted {
        /// The remote end.
        host: String,
        /// The largest.
        most: u32,
        /// What would be needed.
        wanted: Mtu,
    },
    /// The agent knows no Ethernet.
    #[error("{host}: its sshvpn cannot carry Ethernet frames: leave out --tap, or update it there")]
    NoEthernet {
        /// The remote end.
        host: String,
    },
    /// Forwarding without privilege.
    #[error("{host}: cannot make it forward to {route} and do NAT: {source}")]
    CannotForward {
        /// The remote end.
        host: String,
        /// The first network.
        route: IpNetwork,
        /// Why.
        source: FactsError,
    },
}
