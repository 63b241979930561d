//! The guard's rules for a client: packets from the peer and from the networks routed through the
//! tunnel, to the tunnel's own address. Pure.

use std::collections::BTreeMap;

use ipnetwork::IpNetwork;

use crate::host::plan::addressing::AddressPair;
use crate::host::plan::facts::{AddressFacts, HostFacts, TABLE_MAIN};
use crate::packet::guard::{ClientTerms, GuardRules, opened};
use crate::types::Mode;
use crate::types::address_set::AddressSet;

/// The inputs of the rules.
pub(super) struct GuardInput<'a> {
    pub mode: Mode,
    /// The tunnel's addresses; none on an ethernet link whose other hosts give them (DHCP).
    pub addresses: &'a [AddressPair],
    /// The routes through the tunnel.
    pub routes: &'a [IpNetwork],
    /// Networks behind this host to which the peer may send.
    pub behind: &'a [IpNetwork],
    /// This host's state before the tunnel.
    pub local: &'a HostFacts,
}

/// The rules for a tunnel.
pub(super) fn rules(input: &GuardInput<'_>) -> GuardRules {
    if input.addresses.is_empty() {
        return GuardRules::without_addresses();
    }
    let remote = input.addresses.iter().map(|pair| pair.remote);
    let remote: AddressSet = remote.collect();
    let on_link: Vec<IpNetwork> = match input.mode {
        Mode::PointToPoint => Vec::new(),
        Mode::Ethernet => {
            let networks = input.addresses.iter().map(AddressPair::local_network);
            networks.flatten().collect()
        }
    };
    let broadcast = on_link.iter().filter(|network| network.is_ipv4());
    GuardRules::of_client(&ClientTerms {
        own: input.addresses.iter().map(|pair| pair.local).collect(),
        routed: reached(input)
            .union(&on_link.iter().copied().collect())
            .union(&remote),
        behind: opened(input.behind),
        host: input
            .local
            .addresses
            .iter()
            .map(|own| own.address)
            .collect(),
        broadcast: broadcast.map(|network| network.broadcast()).collect(),
    })
}

/// The addresses reached by the tunnel's routes. Where this host has a longer route of its own,
/// packets take that one, so none may come from there. As in the kernel, the longest prefix
/// decides; of two equal prefixes, the tunnel's wins.
fn reached(input: &GuardInput<'_>) -> AddressSet {
    let mut by_length: BTreeMap<u8, (Vec<IpNetwork>, Vec<IpNetwork>)> = BTreeMap::new();
    let main = input
        .local
        .routes
        .iter()
        .filter(|route| route.table == TABLE_MAIN);
    let on_link = input
        .local
        .addresses
        .iter()
        .filter_map(AddressFacts::network);
    for other in on_link.chain(main.map(|route| route.destination)) {
        by_length.entry(other.prefix()).or_default().0.push(other);
    }
    for route in input.routes {
        by_length.entry(route.prefix()).or_default().1.push(*route);
    }
    let mut reached = AddressSet::EMPTY;
    for (others, routes) in by_length.into_values() {
        reached = reached
            .minus(&others.into_iter().collect())
            .union(&opened(&routes));
    }
    reached
}

#[cfg(test)]
mod tests;
