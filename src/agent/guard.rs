//! The guard's rules for an agent: packets from the client's agreed address to permitted
//! destinations. Pure.

use ipnetwork::IpNetwork;

use super::limits::Limits;
use crate::frame::control::SetUp;
use crate::packet::guard::{GuardRules, Reach, everywhere};
use crate::types::address_set::AddressSet;

/// The rules for a checked request. The agent's tunnel addresses are always reachable, other
/// addresses of its host only if the limits include them.
pub(crate) fn rules(wish: &SetUp, limits: &Limits) -> GuardRules {
    let client: AddressSet = wish.addresses.iter().map(|pair| pair.client).collect();
    let behind: &[IpNetwork] = limits.sources.as_deref().unwrap_or_default();
    // Requested networks may include special ones that `everywhere` lacks.
    let asked = wish.forward.iter().flat_map(|forward| &forward.networks);
    let networks = match &limits.routes {
        Some(allowed) => allowed.clone(),
        None => everywhere().chain(asked.copied()).collect(),
    };
    let reach = Reach {
        here: &wish.addresses.iter().map(|pair| pair.agent).collect(),
        networks: &networks,
        // The client has no reason to send packets to itself.
        clients: &client,
        peers: &AddressSet::EMPTY,
    };
    let sources = client.union(&behind.iter().copied().collect());
    GuardRules::new(sources, &reach, behind.is_empty())
}

#[cfg(test)]
mod tests;
