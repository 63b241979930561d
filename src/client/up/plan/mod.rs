//! Plans a tunnel by the carrier `tun` from the user's request and both hosts' facts. Pure.

pub(super) mod agent;
pub(super) mod error;
pub(super) mod serve;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::{IpNetwork, Ipv4Network};

use super::UpRequest;
use super::addresses::{self, Choice, Chosen};
use crate::client::remote::shell::facts::{Device, Privilege, RemoteFacts};
use crate::client::remote::shell::steps::Forwarding;
use crate::host::plan::addressing::AddressPair;
use crate::host::plan::facts::HostFacts;
use crate::types::{InterfaceName, Mode, Mtu, Unit, UnitRequest};
use error::PlanError;

/// Hosts of a network for which the remote host reports its route.
const WAY_PROBES: usize = 3;

/// The first network after 0.0.0.0/8.
const BEHIND_THIS_NETWORK: Ipv4Network =
    match Ipv4Network::new_checked(Ipv4Addr::new(1, 0, 0, 0), 8) {
        Some(network) => network,
        None => unreachable!(),
    };

/// How the remote device is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteDevice {
    /// sshd, running as root, makes it when the channel opens.
    BySshd(UnitRequest),
    /// The client makes it for the login, with sudo, before the channel opens.
    MadeForLogin(Unit),
    /// It exists already, and belongs to the login.
    Premade(Unit),
}

impl RemoteDevice {
    /// The unit to request of sshd.
    pub fn unit(self) -> UnitRequest {
        match self {
            RemoteDevice::BySshd(request) => request,
            RemoteDevice::MadeForLogin(unit) | RemoteDevice::Premade(unit) => {
                UnitRequest::Unit(unit)
            }
        }
    }
}

/// Chooses the remote device.
pub fn remote_device(
    host: &str,
    request: &UpRequest,
    facts: &RemoteFacts,
) -> Result<RemoteDevice, PlanError> {
    let there = |unit: Unit| facts.device(unit, request.mode);
    if let Some(unit) = request.peer_unit {
        return match there(unit) {
            Some(device) if device.ours => Ok(RemoteDevice::Premade(unit)),
            Some(_) => Err(PlanError::ForeignDevice {
                host: host.to_owned(),
                device: unit.device_name(request.mode),
                login: facts.login.clone(),
            }),
            None => match facts.privilege {
                Privilege::Root => Ok(RemoteDevice::BySshd(UnitRequest::Unit(unit))),
                Privilege::Sudo => Ok(RemoteDevice::MadeForLogin(unit)),
                Privilege::None => Err(facts.no_privilege(host).into()),
            },
        };
    }
    match facts.privilege {
        Privilege::Root => Ok(RemoteDevice::BySshd(UnitRequest::Any)),
        Privilege::Sudo => Ok(RemoteDevice::MadeForLogin(facts.free_unit(request.mode))),
        Privilege::None => {
            let ours = |d: &&Device| d.ours && d.mode == request.mode;
            let lowest = facts.devices.iter().filter(ours).map(|d| d.unit).min();
            lowest
                .map(RemoteDevice::Premade)
                .ok_or_else(|| facts.no_privilege(host).into())
        }
    }
}

/// The remote device, if the login lacks the privilege to change it.
fn fixed(device: RemoteDevice, mode: Mode, facts: &RemoteFacts) -> Option<&Device> {
    match (device, facts.privilege) {
        (RemoteDevice::Premade(unit), Privilege::None) => facts.device(unit, mode),
        _ => None,
    }
}

/// The tunnel's MTU: the requested one; else that of a remote device that cannot be changed; else
/// 1500 if networks behind the remote host are routed, since their links have that; else the most
/// that sshd carries.
pub fn mtu(
    host: &str,
    request: &UpRequest,
    device: RemoteDevice,
    facts: &RemoteFacts,
) -> Result<Mtu, PlanError> {
    if let Some(mtu) = request.mtu {
        return Ok(mtu);
    }
    if let Some(fixed) = fixed(device, request.mode, facts) {
        return Mtu::new(fixed.mtu, request.mode).map_err(|source| PlanError::RemoteMtu {
            host: host.to_owned(),
            device: fixed.unit.device_name(request.mode),
            source,
        });
    }
    Ok(if request.routes.is_empty() {
        Mtu::max(request.mode)
    } else {
        Mtu::ETHERNET
    })
}

/// The inputs of the choice of addresses.
pub struct AddressInput<'a> {
    /// The remote host's name.
    pub host: &'a str,
    /// The user's request.
    pub request: &'a UpRequest,
    /// The remote device.
    pub device: RemoteDevice,
    /// The tunnel's MTU.
    pub mtu: Mtu,
    /// The local host's state.
    pub local: &'a HostFacts,
    /// Whether IPv6 is enabled on the local host.
    pub local_ipv6: bool,
    /// The remote host's facts.
    pub remote: &'a RemoteFacts,
    /// Varies the choice by user and destination.
    pub seed: u64,
}

/// The tunnel's addresses, at most one pair per family.
pub(super) fn addresses(input: &AddressInput<'_>) -> Result<Chosen, PlanError> {
    if let Some(device) = fixed(input.device, input.request.mode, input.remote) {
        return Ok(Chosen {
            pairs: fixed_addresses(input, device)?,
            without_ipv6: None,
        });
    }
    let premade = match input.device {
        RemoteDevice::Premade(unit) => input.remote.device(unit, input.request.mode),
        _ => None,
    };
    addresses::choose(Choice {
        host: input.host,
        request: input.request,
        mtu: input.mtu,
        local: input.local,
        local_ipv6: input.local_ipv6,
        remote_ipv6: premade.map_or(input.remote.ipv6, |device| device.ipv6),
        remote_networks: input.remote.networks(),
        within: None,
        seed: input.seed,
    })
}

/// The addresses of the remote device, each with a local one that fits it.
fn fixed_addresses(
    input: &AddressInput<'_>,
    device: &Device,
) -> Result<Vec<AddressPair>, PlanError> {
    let name = device.unit.device_name(device.mode);
    let mut pairs: Vec<AddressPair> = Vec::new();
    for there in input
        .remote
        .addresses
        .iter()
        .filter(|a| a.interface.as_str() == name)
    {
        let remote = there.address;
        let link_local = matches!(remote, IpAddr::V6(remote) if remote.is_unicast_link_local());
        let second = pairs
            .iter()
            .any(|pair| pair.remote.is_ipv4() == remote.is_ipv4());
        let asked_peer = input
            .request
            .peer_address
            .filter(|peer| peer.is_ipv4() == remote.is_ipv4());
        let other = asked_peer.is_some_and(|peer| peer != remote);
        if link_local || second || other || (remote.is_ipv6() && !input.local_ipv6) {
            continue;
        }
        let asked = input
            .request
            .address
            .filter(|local| local.is_ipv4() == remote.is_ipv4());
        let network = there.network;
        let is_peer =
            network.prefix() == IpNetwork::from(remote).prefix() && network.ip() != remote;
        let local = match asked {
            Some(local) => Some(local),
            None if is_peer => Some(network.ip()),
            None => network
                .iter()
                .take(4)
                .find(|local| *local != remote && *local != network.network()),
        };
        if let Some(local) = local {
            pairs.push(AddressPair {
                local,
                remote,
                prefix: network.prefix(),
            });
        }
    }
    if pairs.is_empty() {
        return Err(PlanError::NoRemoteAddress {
            host: input.host.to_owned(),
            device: name,
        });
    }
    Ok(pairs)
}

/// The forwarding that the remote host has to do, if any, and the routes that it cannot reach.
pub fn forwarding(
    host: &str,
    request: &UpRequest,
    facts: &RemoteFacts,
) -> Result<(Option<Forwarding>, Vec<IpNetwork>), PlanError> {
    let mut ways4: BTreeSet<InterfaceName> = BTreeSet::new();
    let mut ipv6 = false;
    let mut without_way = Vec::new();
    let mut inbound = Vec::new();
    for route in &request.routes {
        let mut ways = way_probes(route)
            .filter_map(|address| facts.ways.get(&address))
            .peekable();
        let any = ways.peek().copied();
        // A probed address that is the host's own says nothing about the rest of the network.
        match ways.find(|way| way.as_str() != "lo").or(any) {
            // The remote host itself.
            Some(way) if way.as_str() == "lo" => continue,
            Some(way) if route.is_ipv4() => {
                ways4.insert(way.clone());
            }
            Some(_) => ipv6 = true,
            None => {
                without_way.push(*route);
                continue;
            }
        }
        inbound.push(*route);
    }
    let Some(route) = inbound.first().copied() else {
        return Ok((None, without_way));
    };
    if facts.privilege == Privilege::None {
        let source = facts.no_privilege(host);
        return Err(PlanError::CannotForward {
            host: host.to_owned(),
            route,
            source,
        });
    }
    let nat = request.nat.unwrap_or(true);
    let lacking = match (ways4.is_empty(), ipv6) {
        (false, _) if !facts.iptables => Some("iptables"),
        (_, true) if !facts.ip6tables => Some("ip6tables"),
        _ => None,
    };
    if let Some(iptables) = lacking.filter(|_| nat && !facts.nft) {
        return Err(PlanError::NoFirewall {
            host: host.to_owned(),
            iptables,
        });
    }
    let inbound = match request.inbound || !nat {
        true => inbound,
        false => Vec::new(),
    };
    let forwarding = Forwarding {
        nat,
        inbound,
        ways4,
        ipv6,
    };
    Ok((Some(forwarding), without_way))
}

/// The addresses for which the remote host reports its route: the network's first hosts, of which
/// the remote host itself may be one.
pub fn way_probes(route: &IpNetwork) -> impl Iterator<Item = IpAddr> {
    // 0.0.0.0/8 is no destination (RFC 791, section 3.2), so a wide route that
    // begins there is probed after it.
    let probed = match route {
        IpNetwork::V4(wide) if wide.network().is_unspecified() && wide.prefix() < 8 => {
            IpNetwork::V4(BEHIND_THIS_NETWORK)
        }
        other => *other,
    };
    let network_address = usize::from(probed.prefix() < IpNetwork::from(probed.ip()).prefix() - 1);
    let hosts: Vec<IpAddr> = probed
        .iter()
        .skip(network_address)
        .take(WAY_PROBES)
        .collect();
    hosts.into_iter()
}

/// A seed that is the same for the same user, host and destination, so that a tunnel gets the
/// same addresses again while they are free.
pub fn seed(machine: &str, user: &str, destination: &str, port: u16) -> u64 {
    let mut hasher = DefaultHasher::new();
    (machine, user, destination, port).hash(&mut hasher);
    hasher.finish()
}
