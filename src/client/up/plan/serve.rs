//! Plans a tunnel from a server's offer, checked against the user's request, the accepted pushes
//! and this host's state. Pure.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::client::up::UpRequest;
use crate::client::up::acceptance::is_unicast;
use crate::client::up::offer::addresses;
use crate::client::up::offer::error::OfferError;
use crate::client::up::offer::note::OfferNote;
use crate::client::up::remote_part::Pushed;
use crate::config::serve::settings::{MOST_DOMAINS, MOST_NAME_SERVERS};
use crate::frame::control::{Dns, Offer};
use crate::host::change::resolver::name_servers::NameServers;
use crate::host::plan::addressing::AddressPair;
use crate::host::plan::facts::{HostFacts, is_default_like};
use crate::host::plan::route_plan::{self, MAX_ROUTES, RouteRequest};
use crate::types::address_set::AddressSet;
use crate::types::family::is_within;
use crate::types::{Mode, Mtu};

/// The datagram size that every IPv4 host accepts (RFC 791, section 3.2), in bytes.
const LEAST_MTU: u32 = 576;
/// Networks listed in one line, at most.
const LISTED: usize = 8;

/// The inputs of the plan.
pub(in crate::client::up) struct OfferInput<'a> {
    /// The server's name.
    pub host: &'a str,
    /// The user's request.
    pub request: &'a UpRequest,
    /// This host's state.
    pub local: &'a HostFacts,
    /// Whether IPv6 is enabled on this host.
    pub local_ipv6: bool,
    /// The addresses to which the SSH connection's TCP goes.
    pub first_hop: &'a [IpAddr],
    /// The server's offer.
    pub offer: &'a Offer,
}

/// The plan.
pub(in crate::client::up) struct ServePlan {
    /// The tunnel's addresses.
    pub addresses: Vec<AddressPair>,
    /// Its MTU.
    pub mtu: Mtu,
    /// Accepted routes and name servers.
    pub pushed: Pushed,
    /// Notes for the user.
    pub notes: Vec<OfferNote>,
}

/// Makes the plan; an error says why the offer is rejected.
pub(in crate::client::up) fn decide(input: &OfferInput<'_>) -> Result<ServePlan, OfferError> {
    let mut notes = Vec::new();
    let mtu = mtu(input)?;
    let addresses = addresses::addresses(input, mtu, &mut notes)?;
    let offered = sound_routes(input, &mut notes)?;
    check_asked(input, &addresses, &offered)?;
    let routes = routes(input, &addresses, &offered, &mut notes);
    let name_servers = name_servers(input, &addresses, &routes, &mut notes)?;
    Ok(ServePlan {
        addresses,
        mtu,
        pushed: Pushed {
            routes,
            name_servers,
        },
        notes,
    })
}

fn mtu(input: &OfferInput<'_>) -> Result<Mtu, OfferError> {
    let host = || input.host.to_owned();
    let (offered, wanted) = (input.offer.mtu, input.request.mtu);
    Mtu::new(offered.get(), input.request.mode).map_err(|source| OfferError::Mtu {
        host: host(),
        source,
    })?;
    match wanted {
        Some(wanted) if offered > wanted => Err(OfferError::LargerMtu {
            host: host(),
            offered,
            wanted,
        }),
        Some(wanted) if offered == wanted => Ok(offered),
        _ if offered.get() < LEAST_MTU => Err(OfferError::SmallMtu {
            host: host(),
            offered,
        }),
        _ => Ok(offered),
    }
}

/// The valid offered routes as networks; a note lists the invalid ones.
fn sound_routes(
    input: &OfferInput<'_>,
    notes: &mut Vec<OfferNote>,
) -> Result<Vec<IpNetwork>, OfferError> {
    let count = input.offer.routes.len();
    if count > MAX_ROUTES {
        let text = format!("{count} routes, more than {MAX_ROUTES}");
        return Err(nonsense(input, &text));
    }
    let mut routes = Vec::new();
    let mut unsound = Vec::new();
    for offered in &input.offer.routes {
        // A default route begins at an address that no host has.
        let sound = |route: &IpNetwork| {
            is_unicast(route.ip()) || (is_default_like(route) && route.ip().is_unspecified())
        };
        match without_host_bits(offered).filter(sound) {
            Some(route) => routes.push(route),
            None => unsound.push(*offered),
        }
    }
    routes.sort();
    routes.dedup();
    if !unsound.is_empty() {
        notes.push(OfferNote::UnsoundRoutes(listed(&unsound)));
    }
    Ok(routes)
}

pub(in crate::client::up) fn without_host_bits(network: &IpNetwork) -> Option<IpNetwork> {
    IpNetwork::new(network.network(), network.prefix()).ok()
}

/// Checks that the offer covers the requested routes.
fn check_asked(
    input: &OfferInput<'_>,
    addresses: &[AddressPair],
    offered: &[IpNetwork],
) -> Result<(), OfferError> {
    let request = input.request;
    let own = addresses.iter().flat_map(|pair| {
        let link = pair
            .local_network()
            .filter(|_| request.mode == Mode::Ethernet);
        [Some(IpNetwork::from(pair.remote)), link]
    });
    let there: Vec<IpNetwork> = own.flatten().chain(offered.iter().copied()).collect();
    let covered = AddressSet::of(&there).union(&AddressSet::of(&request.excludes));
    let is_missing = |route: &&IpNetwork| !covered.includes(&AddressSet::of([*route]));
    let missing: Vec<IpNetwork> = request.routes.iter().filter(is_missing).copied().collect();
    if !missing.is_empty() {
        let offered = match offered.is_empty() {
            true => "no routes".to_owned(),
            false => listed(offered),
        };
        return Err(OfferError::NotOffered {
            host: input.host.to_owned(),
            missing: listed(&missing),
            offered,
        });
    }
    let without = |route: &&IpNetwork| !has_family(addresses, route.ip());
    match request.routes.iter().find(without) {
        Some(route) => Err(OfferError::NoFamily {
            host: input.host.to_owned(),
            route: *route,
        }),
        None => Ok(()),
    }
}

/// Whether the tunnel has an address of this family. Without any address, other hosts of the link
/// give them, so every family is taken to be there.
fn has_family(addresses: &[AddressPair], address: IpAddr) -> bool {
    let same = |pair: &AddressPair| pair.local.is_ipv4() == address.is_ipv4();
    addresses.is_empty() || addresses.iter().any(same)
}

/// The accepted routes, besides the requested ones.
fn routes(
    input: &OfferInput<'_>,
    addresses: &[AddressPair],
    offered: &[IpNetwork],
    notes: &mut Vec<OfferNote>,
) -> Vec<IpNetwork> {
    let request = input.request;
    let divided = request.acceptance.divide(offered);
    let asked = |route: &IpNetwork| request.routes.iter().any(|wanted| is_within(route, wanted));
    let left: Vec<IpNetwork> = divided.left.into_iter().filter(|it| !asked(it)).collect();
    if !left.is_empty() {
        notes.push(match divided.too_wide {
            true => OfferNote::Everything(listed(&left)),
            false => OfferNote::RoutesLeft(listed(&left)),
        });
    }
    let mut taken = Vec::new();
    for route in divided.taken {
        if !has_family(addresses, route.ip()) {
            notes.push(OfferNote::RouteWithoutFamily(route));
            continue;
        }
        let alone = RouteRequest {
            routes: vec![route],
            excludes: request.excludes.clone(),
            servers: input.first_hop.to_vec(),
        };
        match route_plan::plan(&alone, input.local, "") {
            Ok(_) => taken.push(route),
            Err(error) => notes.push(OfferNote::RouteRefused(route, error.to_string())),
        }
    }
    taken
}

/// The name servers, if the user accepts them.
fn name_servers(
    input: &OfferInput<'_>,
    addresses: &[AddressPair],
    routes: &[IpNetwork],
    notes: &mut Vec<OfferNote>,
) -> Result<Option<NameServers>, OfferError> {
    let Dns { servers, search } = &input.offer.dns;
    if servers.len() > MOST_NAME_SERVERS || search.len() > MOST_DOMAINS {
        let (names, domains) = (servers.len(), search.len());
        let text = format!("{names} name servers and {domains} search domains");
        return Err(nonsense(input, &text));
    }
    if let Some(odd) = servers.iter().find(|server| !is_unicast(**server)) {
        return Err(nonsense(input, &format!("the name server {odd}")));
    }
    let mut domains = Vec::new();
    for text in search {
        let domain = text.parse().map_err(|source| OfferError::Domain {
            host: input.host.to_owned(),
            source,
        })?;
        domains.push(domain);
    }
    if servers.is_empty() {
        return Ok(None);
    }
    let found = NameServers {
        servers: servers.clone(),
        domains,
    };
    if !input.request.acceptance.name_servers {
        notes.push(OfferNote::NameServersLeft(found));
        return Ok(None);
    }
    let inside = |server: &IpAddr| {
        let mut ways = input.request.routes.iter().chain(routes);
        ways.any(|route| route.contains(*server))
            || addresses.iter().any(|pair| pair.remote == *server)
            || addresses.is_empty()
    };
    let outside = found.servers.iter().filter(|server| !inside(server));
    notes.extend(outside.map(|server| OfferNote::NameServerOutside(*server)));
    Ok(Some(found))
}

pub(in crate::client::up) fn nonsense(input: &OfferInput<'_>, reason: &str) -> OfferError {
    OfferError::Nonsense {
        host: input.host.to_owned(),
        reason: reason.to_owned(),
    }
}

/// The networks in one line.
fn listed(networks: &[IpNetwork]) -> String {
    let texts: Vec<String> = networks
        .iter()
        .take(LISTED)
        .map(ToString::to_string)
        .collect();
    let more = networks.len().saturating_sub(LISTED);
    match more {
        0 => texts.join(", "),
        more => format!("{} and {more} more", texts.join(", ")),
    }
}

#[cfg(test)]
mod tests;
