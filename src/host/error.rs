//! Errors of reading and changing the network state of this host.

use std::fmt;
use std::io;

use nix::errno::Errno;
use thiserror::Error;

use super::change::iptables::IptablesError;
use super::change::nft::NftError;
use super::change::resolver::ResolverError;
use super::change::sysctl::SysctlError;
use super::journal::JournalError;

/// A failure to read or to change the network state of this host.
#[derive(Debug, Error)]
pub enum NetError {
    /// The netlink socket cannot be opened, so nothing can be read or changed.
    #[error("cannot open a netlink socket: {0}")]
    NoNetlink(#[source] io::Error),
    /// The kernel refused; nothing was changed.
    #[error("cannot {operation} {object}: {refusal}")]
    Refused {
        /// The attempted operation.
        operation: Operation,
        /// The object of the operation.
        object: String,
        /// The kernel's reason.
        refusal: Refusal,
    },
    /// The kernel sent no answer, or not one to this request; the change may have been made.
    #[error("cannot {operation} {object}: the kernel gave no usable answer ({detail})")]
    NoAnswer {
        /// The attempted operation.
        operation: Operation,
        /// The object of the operation.
        object: String,
        /// The unexpected answer.
        detail: String,
    },
    /// There is no interface of that name.
    #[error("there is no interface '{0}' on this host")]
    NoInterface(String),
    /// The change reaches beyond the device, and the capability is from the program file.
    #[error(
        "this needs root: with file capabilities (setcap) sshvpn changes only the tunnel device itself, not forwarding, firewall, bridges or name servers"
    )]
    Borrowed,
    /// The device is another user's, and the capability is from the program file.
    #[error(
        "the device '{0}' belongs to another user; with file capabilities (setcap) sshvpn changes only the user's own devices, so run it as root"
    )]
    NotOwn(String),
    /// The interface is not a tun or tap device, so it cannot be used for a tunnel.
    #[error("the interface '{0}' is not a tun or tap device; choose another name for the tunnel")]
    NotTunnel(String),
    /// The interface is not a bridge.
    #[error(
        "the interface '{0}' is not a bridge; name a bridge, or create one: ip link add {0} type bridge"
    )]
    NotBridge(String),
    /// The object exists already, and this tunnel did not add it.
    #[error(
        "{object} exists already and does not belong to this tunnel; remove it or choose another"
    )]
    Exists {
        /// The address or the route.
        object: String,
    },
    /// With this MTU the kernel removes the IPv6 addresses of the link.
    #[error(
        "an MTU of {mtu} on '{interface}' would remove its IPv6 addresses, which need 1280; remove them first or choose a larger MTU"
    )]
    MtuUnderIpv6 {
        /// The interface.
        interface: String,
        /// The requested MTU, in bytes.
        mtu: u32,
    },
    /// The sysctl does not belong to the tunnel's interface.
    #[error("the setting {key} does not belong to the interface '{interface}'")]
    ForeignSysctl {
        /// The setting.
        key: String,
        /// The tunnel's interface.
        interface: String,
    },
    /// A file below /proc/sys.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// The nft program.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// The iptables programs.
    #[error(transparent)]
    Iptables(#[from] IptablesError),
    /// The host's name servers.
    #[error(transparent)]
    Resolver(#[from] ResolverError),
    /// The journal could not be written, so the change was not made.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl NetError {
    /// Whether it is certain that nothing was changed.
    pub fn nothing_changed(&self) -> bool {
        match self {
            NetError::NoAnswer { .. } => false,
            NetError::Nft(error) => error.nothing_changed(),
            NetError::Iptables(error) => error.nothing_changed(),
            NetError::Resolver(error) => error.nothing_changed(),
            _ => true,
        }
    }

    /// The kernel's reason, if it gave one.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            NetError::Refused { refusal, .. } => Some(*refusal),
            _ => None,
        }
    }
}

/// A netlink operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Read links, addresses, routes or rules.
    Read,
    /// Ask by which route the kernel would send a packet.
    LookUp,
    /// Bring a link up.
    BringUp,
    /// Bring a link down.
    BringDown,
    /// Set the MTU.
    SetMtu,
    /// Set the length of the transmit queue.
    SetTxQueueLength,
    /// Limit the size of super-packets.
    SetGsoMaxSize,
    /// Set how the kernel generates a link's IPv6 addresses.
    SetAddressGeneration,
    /// Make a link a port of a bridge.
    SetMaster,
    /// Set the group of a link.
    SetGroup,
    /// Add an address.
    AddAddress,
    /// Remove an address.
    RemoveAddress,
    /// Add a route.
    AddRoute,
    /// Remove a route.
    RemoveRoute,
    /// Set how a bridge treats a port.
    SetBridgePort,
    /// Set the MAC address of a link.
    SetStation,
    /// Add a station to a bridge's forwarding database.
    AddStation,
    /// Remove a station from a bridge's forwarding database.
    RemoveStation,
    /// Resolve a neighbour's address, or proxy for a neighbour.
    AddNeighbour,
    /// Remove a neighbour.
    RemoveNeighbour,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operation::Read => "read",
            Operation::LookUp => "look up",
            Operation::BringUp => "bring up",
            Operation::BringDown => "bring down",
            Operation::SetMtu => "set the MTU of",
            Operation::SetTxQueueLength => "set the transmit queue length of",
            Operation::SetGsoMaxSize => "limit the size of super-packets of",
            Operation::SetAddressGeneration => "set the IPv6 address generation mode of",
            Operation::SetMaster => "change the bridge of",
            Operation::SetGroup => "set the group of",
            Operation::AddAddress => "add the address",
            Operation::RemoveAddress => "remove the address",
            Operation::AddRoute => "add the route",
            Operation::RemoveRoute => "remove the route",
            Operation::SetBridgePort => "set how the bridge treats",
            Operation::SetStation => "set the MAC address of",
            Operation::AddStation => "tell the bridge of the station",
            Operation::RemoveStation => "let the bridge forget the station",
            Operation::AddNeighbour => "add the neighbour",
            Operation::RemoveNeighbour => "remove the neighbour",
        })
    }
}

/// The kernel's reason, interpreted for the operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// EPERM, EACCES: not privileged.
    NotPermitted,
    /// EEXIST: the same object exists already.
    Exists,
    /// ESRCH, ENOENT, EADDRNOTAVAIL: the object to be removed does not exist.
    Absent,
    /// ENODEV, ENXIO: no such interface.
    NoDevice,
    /// ENETDOWN: the interface is down.
    DeviceDown,
    /// ENETUNREACH, EHOSTUNREACH: there is no route to the destination or the gateway.
    Unreachable,
    /// IPv6 is switched off on the host or on the interface.
    Ipv6Disabled,
    /// EINVAL: the kernel does not accept the value for this interface.
    Invalid,
    /// Any other.
    Other(Errno),
}

impl Refusal {
    /// Interprets `errno` as the answer to `operation` on an object that is IPv6 or not.
    pub fn new(errno: Errno, operation: Operation, ipv6: bool) -> Self {
        match errno {
            // inet6_addr_add() answers EACCES where disable_ipv6 is set.
            Errno::EACCES if ipv6 && operation == Operation::AddAddress => Refusal::Ipv6Disabled,
            Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT if ipv6 => Refusal::Ipv6Disabled,
            Errno::EPERM | Errno::EACCES => Refusal::NotPermitted,
            Errno::EEXIST => Refusal::Exists,
            Errno::ESRCH | Errno::ENOENT | Errno::EADDRNOTAVAIL => Refusal::Absent,
            Errno::ENODEV | Errno::ENXIO => Refusal::NoDevice,
            Errno::ENETDOWN => Refusal::DeviceDown,
            Errno::ENETUNREACH | Errno::EHOSTUNREACH => Refusal::Unreachable,
            Errno::EINVAL => Refusal::Invalid,
            other => Refusal::Other(other),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::NotPermitted => {
                "permission denied; this needs root or CAP_NET_ADMIN: run it with sudo, or give the program to a group: chgrp vpn, chmod 0750, setcap cap_net_admin+ep (sshvpn(1), SUDO AND CAPABILITIES)"
            }
            Refusal::Exists => "it exists already; remove it first or choose another",
            Refusal::Absent => "it does not exist",
            Refusal::NoDevice => "the interface is gone",
            Refusal::DeviceDown => "the interface is down",
            Refusal::Unreachable => "the destination or its gateway cannot be reached",
            Refusal::Ipv6Disabled => {
                "IPv6 is disabled on this host or interface; enable it (sysctl net.ipv6.conf.all.disable_ipv6=0) or use IPv4 only"
            }
            Refusal::Invalid => "the kernel does not accept this value for this interface",
            Refusal::Other(errno) => errno.desc(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_number_means_different_things() {
        let read = |errno, ipv6| Refusal::new(errno, Operation::AddAddress, ipv6);
        assert_eq!(read(Errno::EACCES, true), Refusal::Ipv6Disabled);
        assert_eq!(read(Errno::EACCES, false), Refusal::NotPermitted);
        assert_eq!(read(Errno::EPERM, true), Refusal::NotPermitted);
        assert_eq!(read(Errno::EOPNOTSUPP, true), Refusal::Ipv6Disabled);
        assert_eq!(
            read(Errno::EOPNOTSUPP, false),
            Refusal::Other(Errno::EOPNOTSUPP)
        );
        assert_eq!(read(Errno::EEXIST, false), Refusal::Exists);
        assert_eq!(read(Errno::ENODEV, false), Refusal::NoDevice);
    }

    #[test]
    fn the_text_says_what_failed_and_what_to_do() {
        let error = NetError::Refused {
            operation: Operation::AddAddress,
            object: "10.1.1.0 on sshvpn0".to_owned(),
            refusal: Refusal::NotPermitted,
        };
        let text = error.to_string();
        assert!(text.starts_with("cannot add the address 10.1.1.0 on sshvpn0: permission denied"));
        assert!(text.contains("setcap cap_net_admin+ep"));
        assert!(error.nothing_changed());
    }
}
