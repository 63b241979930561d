//! Plans a tunnel by an agent from the user's request, both hosts' facts and the agent's
//! permissions. Pure.

use ipnetwork::IpNetwork;

use super::error::PlanError;
use super::way_probes;
use crate::client::up::UpRequest;
use crate::client::up::addresses::{self, Choice, Chosen, NoIpv6};
use crate::frame::control::{Addresses, AgentFacts, Forward, Permissions, SetUp};
use crate::host::plan::addressing::AddressPair;
use crate::host::plan::facts::HostFacts;
use crate::types::family::is_within;
use crate::types::{InterfaceName, Mtu};

/// Networks listed in an error, at most.
const LISTED: usize = 8;

/// The inputs of the plan.
pub(in crate::client::up) struct AgentInput<'a> {
    /// The remote host's name.
    pub host: &'a str,
    /// The user's request.
    pub request: &'a UpRequest,
    /// The local host's state.
    pub local: &'a HostFacts,
    /// Whether IPv6 is enabled on the local host.
    pub local_ipv6: bool,
    /// The remote host's facts, from the agent.
    pub remote: &'a AgentFacts,
    /// Varies the choice of addresses by user and destination.
    pub seed: u64,
}

/// The plan.
pub(in crate::client::up) struct AgentPlan {
    /// The message to the agent.
    pub set_up: SetUp,
    /// The tunnel's addresses.
    pub addresses: Vec<AddressPair>,
    /// Why there is no IPv6 pair among them, if one would have been chosen.
    pub without_ipv6: Option<NoIpv6>,
    /// Requested routes that the remote host cannot reach.
    pub without_way: Vec<IpNetwork>,
}

/// Makes the plan; an error names the part of the request that the agent does not permit.
pub(in crate::client::up) fn decide(input: &AgentInput<'_>) -> Result<AgentPlan, PlanError> {
    let request = input.request;
    let permissions = &input.remote.permissions;
    let (forward, without_way) = forward(input)?;
    let mtu = mtu(input.host, request, permissions)?;
    let Chosen {
        pairs: addresses,
        without_ipv6,
    } = addresses::choose(Choice {
        host: input.host,
        request,
        mtu,
        local: input.local,
        local_ipv6: input.local_ipv6,
        remote_ipv6: input.remote.ipv6,
        remote_networks: input.remote.networks.clone(),
        within: permissions.addresses.clone(),
        seed: input.seed,
    })?;
    for pair in &addresses {
        let remote = IpNetwork::from(pair.remote);
        if let Some(permitted) = forbidden_by(&remote, permissions.addresses.as_deref()) {
            return Err(PlanError::AddressNotPermitted {
                host: input.host.to_owned(),
                address: pair.remote,
                permitted,
            });
        }
    }
    let device = request
        .peer_unit
        .and_then(|unit| unit.device_name(request.mode).parse::<InterfaceName>().ok());
    let on_wire = |pair: &AddressPair| Addresses {
        client: pair.local,
        agent: pair.remote,
        prefix: pair.prefix,
    };
    Ok(AgentPlan {
        set_up: SetUp {
            mode: request.mode,
            mtu,
            device,
            addresses: addresses.iter().map(on_wire).collect(),
            forward,
        },
        addresses,
        without_ipv6,
        without_way,
    })
}

/// The networks to which the agent's host has to forward, if any, and the routes that it cannot
/// reach.
fn forward(input: &AgentInput<'_>) -> Result<(Option<Forward>, Vec<IpNetwork>), PlanError> {
    let (request, remote) = (input.request, input.remote);
    let host = || input.host.to_owned();
    let mut networks: Vec<IpNetwork> = Vec::new();
    let mut without_way = Vec::new();
    for route in &request.routes {
        let mut ways = way_probes(route)
            .filter_map(|address| remote.ways.get(&address))
            .peekable();
        if ways.peek().is_none() {
            without_way.push(*route);
        } else if ways.any(|way| !way.local) {
            // A probed address that is the host's own says nothing about the rest of the network.
            networks.push(*route);
        }
    }
    let Some(first) = networks.first().copied() else {
        return Ok((None, without_way));
    };
    for route in &networks {
        if let Some(permitted) = forbidden_by(route, remote.permissions.routes.as_deref()) {
            return Err(PlanError::RouteNotPermitted {
                host: host(),
                route: *route,
                permitted,
            });
        }
    }
    let nat = request.nat.unwrap_or(true);
    if nat && !remote.permissions.nat {
        return Err(PlanError::NatNotPermitted {
            host: host(),
            route: first,
        });
    }
    let forward = Forward {
        networks,
        nat,
        inbound: request.inbound,
    };
    Ok((Some(forward), without_way))
}

/// The tunnel's MTU: the requested one, else Ethernet's, which networks behind the remote host
/// have. A larger one gains nothing, since packets travel as super-packets.
fn mtu(host: &str, request: &UpRequest, permissions: &Permissions) -> Result<Mtu, PlanError> {
    let most = permissions.max_mtu;
    let permitted = |mtu: &Mtu| most.is_none_or(|most| mtu.get() <= most);
    let largest = most.and_then(|most| Mtu::new(most, request.mode).ok());
    let wanted = match request.mtu {
        Some(mtu) => mtu,
        None => largest.unwrap_or(Mtu::ETHERNET).min(Mtu::ETHERNET),
    };
    match most {
        Some(most) if !permitted(&wanted) => Err(PlanError::MtuNotPermitted {
            host: host.to_owned(),
            most,
            wanted,
        }),
        _ => Ok(wanted),
    }
}

/// If `network` is not permitted, the text that lists what is permitted.
fn forbidden_by(network: &IpNetwork, permitted: Option<&[IpNetwork]>) -> Option<String> {
    let list = permitted?;
    if list.iter().any(|outer| is_within(network, outer)) {
        return None;
    }
    let listed: Vec<String> = list.iter().take(LISTED).map(ToString::to_string).collect();
    Some(match list.len() {
        0 => "none".to_owned(),
        count if count > LISTED => format!("{} and others", listed.join(", ")),
        _ => listed.join(", "),
    })
}

#[cfg(test)]
mod tests;
