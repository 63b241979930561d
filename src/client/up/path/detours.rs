//! The destinations of a tunnel whose packets the kernel sends elsewhere, as it says itself
//! (RTM_GETROUTE).

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::Path;
use super::finding::{Destination, Finding};
use crate::client::up::plan::way_probes;
use crate::host::error::NetError;
use crate::host::netlink::Netlink;
use crate::host::plan::detour::Detour;
use crate::host::plan::facts::{HostFacts, InterfaceIndex};
use crate::host::plan::route_plan::RouteNote;
use crate::types::address_set::AddressSet;

impl Path<'_> {
    /// The destinations whose packets the kernel sends elsewhere.
    pub(super) async fn detours(&self, netlink: &Netlink) -> Result<Vec<Finding>, NetError> {
        let device = netlink.link_by_name(self.device).await?.index;
        let known: AddressSet = self.plan.notes.iter().filter_map(overlapped).collect();
        let own = self.local.addresses.iter().map(|own| own.address).collect();
        let remote = self.addresses.iter().map(|pair| {
            let destination = Destination::Remote(self.host.to_owned());
            (destination, Some(pair.remote))
        });
        let routes = self.plan.routes.iter().map(|route| {
            let address = first_outside(route, &known.union(&own));
            (Destination::Route(*route), address)
        });
        let mut rules = None;
        let mut findings = Vec::new();
        for (destination, address) in remote.chain(routes) {
            let Some(address) = address else { continue };
            let Some(detour) = detour(netlink, address, device, self.local, &mut rules).await?
            else {
                continue;
            };
            findings.push(Finding::Detour {
                destination,
                address,
                detour: detour.known,
            });
        }
        Ok(findings)
    }
}

/// The network that a note leaves out of the tunnel.
pub(super) fn overlapped(note: &RouteNote) -> Option<IpNetwork> {
    match note {
        RouteNote::ContainsLocal { network, .. } => Some(*network),
        RouteNote::ContainsRoute { existing, .. } => Some(*existing),
        RouteNote::InsideRoute { .. } => None,
    }
}

/// The first host of a route that is not in `other`, of which the user knows that it goes
/// elsewhere.
fn first_outside(route: &IpNetwork, other: &AddressSet) -> Option<IpAddr> {
    let rest = AddressSet::of([route]).minus(other).to_networks();
    rest.iter().find_map(|network| way_probes(network).next())
}

/// A detour, with its cause if that is known.
struct Found {
    known: Option<Detour>,
}

async fn detour(
    netlink: &Netlink,
    address: IpAddr,
    device: InterfaceIndex,
    local: &HostFacts,
    rules: &mut Option<HostFacts>,
) -> Result<Option<Found>, NetError> {
    let chosen = netlink.chosen_route(address).await;
    if let Ok(chosen) = &chosen
        && chosen.leaves_by(device)
    {
        return Ok(None);
    }
    // Others may have added rules since the plan was made.
    let facts = match rules {
        Some(facts) => facts,
        None => rules.insert(HostFacts {
            rules: netlink.rules().await?,
            ..local.clone()
        }),
    };
    Ok(Some(match chosen {
        Ok(chosen) => Found {
            known: Detour::of(address, &chosen, device, facts),
        },
        Err(NetError::Refused { .. }) => Found {
            known: Detour::of_refused(address, facts),
        },
        Err(error) => return Err(error),
    }))
}
