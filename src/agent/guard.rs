//! What the client of an agent's tunnel may send: packets from its agreed address,
//! to where the limits let it. Pure.

use ipnetwork::IpNetwork;

use super::limits::Limits;
use crate::frame::control::SetUp;
use crate::packet::guard::{GuardRules, Reach, everywhere};
use crate::types::address_set::AddressSet;

/// The rules for a request that was checked. The agent's tunnel addresses can always
/// be reached, other addresses of its host only if the limits include them.
pub(crate) fn rules(wish: &SetUp, limits: &Limits) -> GuardRules {
    let client: AddressSet = wish.addresses.iter().map(|pair| pair.client).collect();
    let behind: &[IpNetwork] = limits.sources.as_deref().unwrap_or_default();
    // Of the networks that were asked for some may be special.
    let asked = wish.forward.iter().flat_map(|forward| &forward.networks);
    let networks = match &limits.routes {
        Some(allowed) => allowed.clone(),
        None => everywhere().chain(asked.copied()).collect(),
    };
    let reach = Reach {
        here: &wish.addresses.iter().map(|pair| pair.agent).collect(),
        networks: &networks,
        // What it sends to itself has no business here.
        clients: &client,
        peers: &AddressSet::EMPTY,
    };
    let sources = client.union(&behind.iter().copied().collect());
    GuardRules::new(sources, &reach, behind.is_empty())
}

#[cfg(test)]
mod tests;
