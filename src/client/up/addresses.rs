//! Chooses the tunnel's addresses, for the carriers `agent` and `tun`. Pure.

use ipnetwork::IpNetwork;

use super::UpRequest;
use super::plan::error::PlanError;
use crate::host::plan::addressing::{self, AddressPair, AddressRequest};
use crate::host::plan::facts::HostFacts;
use crate::types::Mtu;

/// The inputs of the choice.
pub(super) struct Choice<'a> {
    /// The user's request.
    pub request: &'a UpRequest,
    /// The tunnel's MTU.
    pub mtu: Mtu,
    /// The local host.
    pub local: &'a HostFacts,
    /// Whether IPv6 is enabled on the local host.
    pub local_ipv6: bool,
    /// Whether IPv6 is enabled on the remote host.
    pub remote_ipv6: bool,
    /// Networks in use on the remote host.
    pub remote_networks: Vec<IpNetwork>,
    /// Networks that the remote host permits; `None` permits all.
    pub within: Option<Vec<IpNetwork>>,
    /// Varies the choice by user and destination.
    pub seed: u64,
}

/// Returns at most one pair per family.
pub(super) fn choose(choice: Choice<'_>) -> Result<Vec<AddressPair>, PlanError> {
    let request = choice.request;
    let ipv6_problem = if !choice.local_ipv6 {
        Some("IPv6 is disabled on this host")
    } else if !choice.remote_ipv6 {
        Some("IPv6 is disabled at the remote end")
    } else if choice.mtu < Mtu::MIN_IPV6 {
        Some("IPv6 needs an MTU of at least 1280")
    } else {
        None
    };
    let route6 = request.routes.iter().find(|route| route.is_ipv6());
    if let (Some(route), Some(problem)) = (route6, ipv6_problem) {
        return Err(PlanError::NoIpv6 {
            route: *route,
            problem,
        });
    }
    let local_addresses = choice.local.addresses.iter();
    let local_networks = local_addresses
        .flat_map(|a| [Some(IpNetwork::from(a.address)), a.network()])
        .flatten()
        .collect();
    let mut in_use = choice.local.networks_in_use();
    in_use.extend(choice.remote_networks);
    let chosen = addressing::choose(
        &AddressRequest {
            mode: request.mode,
            local: request.address,
            remote: request.peer_address,
            ipv6: ipv6_problem.is_none(),
            in_use,
            local_networks,
            routes: request.routes.clone(),
            within: choice.within,
        },
        choice.seed,
    )?;
    Ok([chosen.ipv4, chosen.ipv6].into_iter().flatten().collect())
}
