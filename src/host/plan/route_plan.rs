//! Plans a tunnel's routes: the requested networks less the excluded ones, checked against the SSH
//! connection and this host's networks. No I/O.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::facts::{HostFacts, RouteFacts, RouteKind, TABLE_MAIN};
use crate::types::address_set::AddressSet;
use crate::types::family::{Family, is_within};

pub use super::route_report::{RouteNote, RoutePlanError};

/// The limit of routes; a request for more is a mistake.
pub const MAX_ROUTES: usize = 1024;

/// The requested routes, and the addresses that must stay outside of the tunnel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteRequest {
    /// Networks to reach through the tunnel.
    pub routes: Vec<IpNetwork>,
    /// Networks to keep out of the tunnel.
    pub excludes: Vec<IpNetwork>,
    /// Addresses that the SSH connection itself goes to first: the server, or the first jump host.
    pub servers: Vec<IpAddr>,
}

/// The routes to install.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoutePlan {
    /// Sorted; no two routes overlap.
    pub routes: Vec<IpNetwork>,
    /// Remarks and warnings for the user.
    pub notes: Vec<RouteNote>,
}

/// The smallest list of networks that covers `routes` less `excludes`, sorted, IPv4 first.
///
/// The result contains a default route only if `routes` has one: users who keep their own default
/// route ask for its two halves.
pub fn subtract(
    routes: &[IpNetwork],
    excludes: &[IpNetwork],
) -> Result<Vec<IpNetwork>, RoutePlanError> {
    let mut cover = Vec::new();
    let rest = AddressSet::of(routes).minus(&AddressSet::of(excludes));
    for network in rest.to_networks() {
        if network.prefix() == 0 && !routes.contains(&network) {
            cover.extend(halves(Family::of(network.ip())));
        } else {
            cover.push(network);
        }
    }
    if cover.len() > MAX_ROUTES {
        return Err(RoutePlanError::TooMany(cover.len()));
    }
    Ok(cover)
}

fn halves(family: Family) -> impl Iterator<Item = IpNetwork> {
    let top = 1u128 << (family.bits() - 1);
    [0, top]
        .into_iter()
        .filter_map(move |first| IpNetwork::new(family.address(first), 1).ok())
}

/// Plans the routes through the interface `tunnel`, ignoring that interface's own addresses and
/// routes.
pub fn plan(
    request: &RouteRequest,
    facts: &HostFacts,
    tunnel: &str,
) -> Result<RoutePlan, RoutePlanError> {
    let routes = subtract(&request.routes, &request.excludes)?;
    if routes.is_empty() && !request.routes.is_empty() {
        return Err(RoutePlanError::Nothing);
    }
    let locals = local_networks(facts, tunnel);
    let mut notes = check_local(&routes, &locals)?;
    check_servers(&routes, &locals, &request.servers)?;
    notes.extend(check_existing(&routes, facts, tunnel)?);
    Ok(RoutePlan { routes, notes })
}

fn check_servers(
    routes: &[IpNetwork],
    locals: &BTreeSet<LocalNetwork>,
    servers: &[IpAddr],
) -> Result<(), RoutePlanError> {
    for server in servers {
        // A dual-stack socket reports an IPv4 peer as an IPv4-mapped address.
        let server = server.to_canonical();
        if let Some(route) = routes.iter().find(|route| route.contains(server)) {
            // Without the server alone, routes to parts of its local network would be left.
            let around = locals.iter().map(|local| local.network);
            let around = around.filter(|network| network.contains(server));
            let network = around
                .filter(|network| is_within(network, route))
                .min_by_key(IpNetwork::prefix)
                .unwrap_or(server.into());
            return Err(RoutePlanError::Server {
                route: *route,
                server,
                exclude: if_routes_are_left(routes, network),
            });
        }
    }
    Ok(())
}

/// The network, if it can be excluded: routes are left without it.
fn if_routes_are_left(routes: &[IpNetwork], network: IpNetwork) -> Option<IpNetwork> {
    let left = AddressSet::of(routes).minus(&AddressSet::of([&network]));
    (!left.is_empty()).then_some(network)
}

/// A network that is directly connected to this host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct LocalNetwork {
    network: IpNetwork,
    interface: String,
    /// Whether it is another tunnel's.
    tunnel: bool,
    /// Every host has it (loopback or link-local), so a route that contains it needs no warning.
    common: bool,
}

fn local_networks(facts: &HostFacts, tunnel: &str) -> BTreeSet<LocalNetwork> {
    let on = |network: IpNetwork, link: &super::facts::LinkFacts| {
        (link.up && link.name != tunnel).then(|| LocalNetwork {
            network,
            interface: link.name.clone(),
            tunnel: link.is_tun() || link.kind.as_deref() == Some("wireguard"),
            common: link.loopback || is_link_scoped(network.ip()),
        })
    };
    let link_of = |index| facts.links.iter().find(|link| Some(link.index) == index);
    let addresses = facts
        .addresses
        .iter()
        .filter_map(|address| on(address.network()?, link_of(Some(address.index))?));
    let routes = facts
        .routes
        .iter()
        .filter(|route| {
            route.table == TABLE_MAIN && route.is_on_link() && route.destination.prefix() > 0
        })
        .flat_map(|route| {
            route
                .hops
                .iter()
                .map(move |hop| (route.destination, hop.device))
        })
        .filter_map(|(network, device)| on(network, link_of(device)?));
    addresses.chain(routes).collect()
}

fn is_link_scoped(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_multicast(),
        IpAddr::V6(address) => address.is_unicast_link_local() || address.is_multicast(),
    }
}

fn check_local(
    routes: &[IpNetwork],
    locals: &BTreeSet<LocalNetwork>,
) -> Result<Vec<RouteNote>, RoutePlanError> {
    let mut notes = Vec::new();
    for route in routes {
        for local in locals {
            let (network, interface) = (local.network, local.interface.clone());
            if is_within(route, &network) {
                let (route, exclude) = (*route, if_routes_are_left(routes, network));
                return Err(match local.tunnel {
                    true => RoutePlanError::Tunnel {
                        route,
                        network,
                        interface,
                        exclude,
                    },
                    false => RoutePlanError::Local {
                        route,
                        network,
                        interface,
                        exclude,
                    },
                });
            }
            if is_within(&network, route) && !local.common {
                notes.push(RouteNote::ContainsLocal {
                    route: *route,
                    network,
                    interface,
                    tunnel: local.tunnel,
                });
            }
        }
    }
    Ok(notes)
}

fn check_existing(
    routes: &[IpNetwork],
    facts: &HostFacts,
    tunnel: &str,
) -> Result<Vec<RouteNote>, RoutePlanError> {
    let others: Vec<&RouteFacts> = facts
        .routes
        .iter()
        .filter(|found| concerns_us(found, facts, tunnel))
        .collect();
    let mut notes = Vec::new();
    for &route in routes {
        for found in &others {
            let existing = found.destination;
            let way = way(found, facts);
            if existing == route && (!found.is_on_link() || existing.prefix() == 0) {
                return Err(RoutePlanError::Taken { route, way });
            }
            if found.is_on_link() || existing.prefix() == 0 {
                continue;
            }
            if is_within(&existing, &route) {
                notes.push(RouteNote::ContainsRoute {
                    route,
                    existing,
                    way,
                });
            } else if is_within(&route, &existing) {
                notes.push(RouteNote::InsideRoute {
                    route,
                    existing,
                    way,
                });
            }
        }
    }
    Ok(notes)
}

/// Whether packets of this host may follow that route now, other than into the tunnel.
fn concerns_us(found: &RouteFacts, facts: &HostFacts, tunnel: &str) -> bool {
    found.table == TABLE_MAIN
        && matches!(found.kind, RouteKind::Unicast | RouteKind::Reject)
        && !found
            .hops
            .iter()
            .filter_map(|hop| facts.link_name(hop.device?))
            .any(|name| name == tunnel)
}

pub(super) fn way(found: &RouteFacts, facts: &HostFacts) -> String {
    let Some(hop) = found
        .hops
        .first()
        .filter(|_| found.kind == RouteKind::Unicast)
    else {
        return "that refuses packets".to_owned();
    };
    let interface = hop.device.and_then(|device| facts.link_name(device));
    match (hop.gateway, interface) {
        (Some(gateway), Some(interface)) => format!("via {gateway} on {interface}"),
        (Some(gateway), None) => format!("via {gateway}"),
        (None, Some(interface)) => format!("on {interface}"),
        (None, None) => "of unknown way".to_owned(),
    }
}

#[cfg(test)]
mod tests;
