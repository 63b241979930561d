//! Chooses the tunnel's addresses, for the carriers `agent` and `tun`. Pure.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use thiserror::Error;

use super::UpRequest;
use super::plan::error::PlanError;
use crate::host::change::sysctl;
use crate::host::plan::addressing::{self, AddressPair, AddressRequest};
use crate::host::plan::facts::HostFacts;
use crate::types::Mtu;

/// The inputs of the choice.
pub(super) struct Choice<'a> {
    /// The remote host's name.
    pub host: &'a str,
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

/// The tunnel's addresses.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Chosen {
    /// At most one pair per family.
    pub pairs: Vec<AddressPair>,
    /// Why there is no IPv6 pair, if one would have been chosen.
    pub without_ipv6: Option<NoIpv6>,
}

/// Why a tunnel has no IPv6.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoIpv6 {
    /// New devices of this host get none.
    #[error("it is disabled on this host")]
    Here,
    /// New devices of the remote host get none.
    #[error("it is disabled at {0}")]
    There(String),
    /// RFC 8200, section 5.
    #[error("it needs an MTU of at least 1280")]
    Mtu,
}

/// Whether this host's device of the tunnel has IPv6.
pub(super) fn local_ipv6(request: &UpRequest) -> bool {
    match request.device.name(request.mode) {
        Some(name) => sysctl::device_has_ipv6(&name),
        None => sysctl::has_ipv6(),
    }
}

/// Chooses the addresses; an error if the user requires IPv6 that is not possible.
pub(super) fn choose(choice: Choice<'_>) -> Result<Chosen, PlanError> {
    let request = choice.request;
    let problem = if !choice.local_ipv6 {
        Some(NoIpv6::Here)
    } else if !choice.remote_ipv6 {
        Some(NoIpv6::There(choice.host.to_owned()))
    } else if choice.mtu < Mtu::MIN_IPV6 {
        Some(NoIpv6::Mtu)
    } else {
        None
    };
    let route6 = request.routes.iter().find(|route| route.is_ipv6());
    let given = [request.address, request.peer_address];
    let address6 = given.into_iter().flatten().find(IpAddr::is_ipv6);
    let needed = route6
        .map(|route| format!("route {route}"))
        .or_else(|| address6.map(|address| format!("use the address {address}")));
    if let (Some(what), Some(problem)) = (needed, &problem) {
        return Err(PlanError::NoIpv6 {
            what,
            problem: problem.clone(),
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
            ipv6: problem.is_none(),
            in_use,
            local_networks,
            routes: request.routes.clone(),
            within: choice.within,
        },
        choice.seed,
    )?;
    Ok(Chosen {
        pairs: [chosen.ipv4, chosen.ipv6].into_iter().flatten().collect(),
        without_ipv6: problem,
    })
}
