//! What a tunnel by an agent is to look like at both ends, decided from what was
//! asked for, what both hosts are like, and what the agent may do. Pure.

use ipnetwork::IpNetwork;

use super::error::PlanError;
use super::way_probes;
use crate::client::up::UpRequest;
use crate::client::up::addresses::{self, Choice};
use crate::frame::control::{Addresses, AgentFacts, Forward, Permissions, SetUp};
use crate::host::plan::addressing::AddressPair;
use crate::host::plan::facts::HostFacts;
use crate::types::family::is_within;
use crate::types::{InterfaceName, Mtu};

/// Networks that an error lists.
const LISTED: usize = 8;

/// What the decision depends on.
pub(in crate::client::up) struct AgentInput<'a> {
    /// The remote end's name.
    pub host: &'a str,
    /// What was asked for.
    pub request: &'a UpRequest,
    /// The local end.
    pub local: &'a HostFacts,
    /// Whether IPv6 is enabled at the local end.
    pub local_ipv6: bool,
    /// The remote end.
    pub remote: &'a AgentFacts,
    /// Makes the choice of addresses another one for another user or destination.
    pub seed: u64,
}

/// What was decided.
pub(in crate::client::up) struct AgentPlan {
    /// What the agent is told.
    pub set_up: SetUp,
    /// The tunnel's addresses.
    pub addresses: Vec<AddressPair>,
    /// Routes to which the remote end has no way.
    pub without_way: Vec<IpNetwork>,
}

/// Decides; an error says which wish the agent does not permit.
pub(in crate::client::up) fn decide(input: &AgentInput<'_>) -> Result<AgentPlan, PlanError> {
    let request = input.request;
    let permissions = &input.remote.permissions;
    let (forward, without_way) = forward(input)?;
    let mtu = mtu(input.host, request, permissions)?;
    let addresses = addresses::choose(Choice {
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
        without_way,
    })
}

/// Where the agent's host has to forward to, if anywhere; and what it has no
/// way to.
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
            // An address of the remote end's own in the network says nothing of the rest.
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

/// The tunnel's MTU: what was asked for, else Ethernet's: packets travel in
/// bunches anyway, and networks behind the remote end have that.
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

/// What is permitted instead, where `network` is not.
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
