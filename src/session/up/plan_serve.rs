//! What of a server's offer becomes the tunnel: it is held to what was asked
//! for, to what the user lets a server push, and to what this host has. Pure.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::UpRequest;
use super::allowance::is_unicast;
use super::far_part::Pushed;
use super::offer_error::OfferError;
use super::offer_note::OfferNote;
use crate::config::types::{Mode, Mtu};
use crate::frame::control::{Addresses, Dns, Offer};
use crate::net::address_range::{AddressSet, Family, is_within};
use crate::net::addressing::AddressPair;
use crate::net::facts::{HostFacts, is_default_like};
use crate::net::name_servers::NameServers;
use crate::net::route_plan::{self, MAX_ROUTES, RouteRequest};

/// The least that every IPv4 host takes in (RFC 791, section 3.2).
const LEAST_MTU: u32 = 576;
/// Name servers that a server may offer; resolvers ask three at most (resolv.conf(5)).
const MOST_NAME_SERVERS: usize = 8;
/// Search domains that it may offer.
const MOST_DOMAINS: usize = 32;
/// Networks that a line lists.
const LISTED: usize = 8;

/// What the decision depends on.
pub(super) struct OfferInput<'a> {
    /// The server's name.
    pub host: &'a str,
    /// What was asked for.
    pub request: &'a UpRequest,
    /// This host.
    pub near: &'a HostFacts,
    /// Whether IPv6 is enabled on it.
    pub near_ipv6: bool,
    /// Where the SSH connection leads first.
    pub first_hop: &'a [IpAddr],
    /// What the server says.
    pub offer: &'a Offer,
}

/// What was decided.
pub(super) struct ServePlan {
    /// The tunnel's addresses.
    pub addresses: Vec<AddressPair>,
    /// Its MTU.
    pub mtu: Mtu,
    /// What else is taken.
    pub pushed: Pushed,
    /// What the user should know.
    pub notes: Vec<OfferNote>,
}

/// Decides; an error says why the offer cannot be taken.
pub(super) fn decide(input: &OfferInput<'_>) -> Result<ServePlan, OfferError> {
    let mut notes = Vec::new();
    let mtu = mtu(input)?;
    let addresses = addresses(input, mtu, &mut notes)?;
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

/// The pairs, one a family at most, that this host can have and the user allows.
fn addresses(
    input: &OfferInput<'_>,
    mtu: Mtu,
    notes: &mut Vec<OfferNote>,
) -> Result<Vec<AddressPair>, OfferError> {
    let mut pairs: Vec<AddressPair> = Vec::new();
    let mut families = Vec::new();
    for offered in &input.offer.addresses {
        let family = Family::of(offered.near);
        if families.contains(&family) {
            return Err(nonsense(input, "two pairs of addresses in one family"));
        }
        families.push(family);
        let pair = check_pair(input, offered)?;
        match ipv6_problem(input, mtu).filter(|_| family == Family::V6) {
            Some(problem) => notes.push(OfferNote::WithoutIpv6(problem)),
            None => pairs.push(pair),
        }
    }
    if let Some(asked) = input.request.address
        && !pairs.iter().any(|pair| pair.near == asked)
    {
        let same = |pair: &&AddressPair| pair.near.is_ipv4() == asked.is_ipv4();
        let given = pairs.iter().find(same);
        return Err(OfferError::OtherAddress {
            host: input.host.to_owned(),
            asked,
            given: given.map_or_else(|| "none".to_owned(), |pair| pair.near.to_string()),
        });
    }
    match (pairs.is_empty(), input.request.mode) {
        (false, _) => {}
        // Another host of that network may give it one.
        (true, Mode::Ethernet) => notes.push(OfferNote::NoAddress),
        (true, Mode::PointToPoint) => {
            let host = input.host.to_owned();
            let reason = match families.is_empty() {
                true => "there is none",
                false => "it is of IPv6 alone, which this tunnel or host has not",
            };
            return Err(OfferError::NoAddress { host, reason });
        }
    }
    Ok(pairs)
}

fn ipv6_problem(input: &OfferInput<'_>, mtu: Mtu) -> Option<&'static str> {
    if !input.near_ipv6 {
        Some("IPv6 is disabled on this host")
    } else if mtu < Mtu::MIN_IPV6 {
        Some("IPv6 needs an MTU of at least 1280")
    } else {
        None
    }
}

fn check_pair(input: &OfferInput<'_>, offered: &Addresses) -> Result<AddressPair, OfferError> {
    let &Addresses {
        near,
        agent: far,
        prefix,
    } = offered;
    let unsound = || nonsense(input, &format!("the addresses {near}/{prefix} and {far}"));
    let family = Family::of(near);
    let sound = family == Family::of(far)
        && near != far
        && is_unicast(near)
        && is_unicast(far)
        && prefix <= family.bits();
    if !sound {
        return Err(unsound());
    }
    match input.request.mode {
        Mode::PointToPoint => {
            // Either becomes a route of its own, the far one to the tunnel.
            for address in [near, far] {
                let own = input.request.address == Some(address) && address == near;
                check_free(input, &IpNetwork::from(address), own)?;
            }
        }
        Mode::Ethernet => {
            let network = link_network(near, far, prefix).ok_or_else(unsound)?;
            check_free(input, &network, false)?;
        }
    }
    Ok(AddressPair { near, far, prefix })
}

/// The network of an ethernet tunnel with both addresses as hosts in it.
fn link_network(near: IpAddr, far: IpAddr, prefix: u8) -> Option<IpNetwork> {
    let network = IpNetwork::new(near, prefix).ok()?;
    let host = |address| match network {
        IpNetwork::V4(network) if prefix < 31 => {
            address != IpAddr::V4(network.network()) && address != IpAddr::V4(network.broadcast())
        }
        _ => true,
    };
    let sound = network.contains(far) && host(near) && host(far);
    sound.then(|| without_host_bits(&network)).flatten()
}

/// Whether this host may have `network` on the tunnel: it belongs to nobody
/// else, it is in use nowhere here, and the SSH connection does not lead there.
/// `asked` is for the address that the user named.
fn check_free(input: &OfferInput<'_>, network: &IpNetwork, asked: bool) -> Result<(), OfferError> {
    let host = || input.host.to_owned();
    let allowed = &input.request.allowance;
    if !asked && !allowed.has_addresses(network) {
        return Err(OfferError::PublicAddress {
            host: host(),
            network: *network,
        });
    }
    let to_server = |server: &&IpAddr| network.contains(server.to_canonical());
    if let Some(server) = input.first_hop.iter().find(to_server) {
        return Err(OfferError::CutsOff {
            host: host(),
            network: *network,
            server: server.to_canonical(),
        });
    }
    let overlaps = |used: &IpNetwork| is_within(used, network) || is_within(network, used);
    let own = input.near.addresses.iter().flat_map(|address| {
        let peer = address.peer.map(IpNetwork::from);
        [
            Some(IpNetwork::from(address.address)),
            peer,
            address.network(),
        ]
    });
    if let Some(used) = own.flatten().find(overlaps) {
        return Err(OfferError::InUse {
            host: host(),
            network: *network,
            used,
        });
    }
    if asked || allowed.names(network) {
        return Ok(());
    }
    match input.near.networks_in_use().into_iter().find(overlaps) {
        Some(used) => Err(OfferError::Routed {
            host: host(),
            network: *network,
            used,
        }),
        None => Ok(()),
    }
}

/// The offered routes as networks; those that are none are named.
fn sound_routes(
    input: &OfferInput<'_>,
    notes: &mut Vec<OfferNote>,
) -> Result<Vec<IpNetwork>, OfferError> {
    let count = input.offer.routes.len();
    if count > MAX_ROUTES {
        let text = format!("{count} routes, and {MAX_ROUTES} are the most");
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

fn without_host_bits(network: &IpNetwork) -> Option<IpNetwork> {
    IpNetwork::new(network.network(), network.prefix()).ok()
}

/// What the user wants to reach has to lie behind the server.
fn check_asked(
    input: &OfferInput<'_>,
    addresses: &[AddressPair],
    offered: &[IpNetwork],
) -> Result<(), OfferError> {
    let request = input.request;
    for family in [Family::V4, Family::V6] {
        let own = addresses.iter().map(|pair| IpNetwork::from(pair.far));
        let there: Vec<IpNetwork> = own.chain(offered.iter().copied()).collect();
        let missing = AddressSet::of(family, &request.routes)
            .without(&AddressSet::of(family, &request.excludes))
            .without(&AddressSet::of(family, &there));
        if !missing.is_empty() {
            let offered = match offered.is_empty() {
                true => "no routes".to_owned(),
                false => listed(offered),
            };
            return Err(OfferError::NotOffered {
                host: input.host.to_owned(),
                missing: listed(&missing.to_networks()),
                offered,
            });
        }
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

/// On a link without any address everything is somebody else's business.
fn has_family(addresses: &[AddressPair], address: IpAddr) -> bool {
    let same = |pair: &AddressPair| pair.near.is_ipv4() == address.is_ipv4();
    addresses.is_empty() || addresses.iter().any(same)
}

/// The offered routes that are taken besides those that were asked for.
fn routes(
    input: &OfferInput<'_>,
    addresses: &[AddressPair],
    offered: &[IpNetwork],
    notes: &mut Vec<OfferNote>,
) -> Vec<IpNetwork> {
    let request = input.request;
    let divided = request.allowance.divide(offered);
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
        match route_plan::plan(&alone, input.near, "") {
            Ok(_) => taken.push(route),
            Err(error) => notes.push(OfferNote::RouteRefused(route, error.to_string())),
        }
    }
    taken
}

/// The name servers, if the user lets them be taken.
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
    if !input.request.allowance.name_servers {
        notes.push(OfferNote::NameServersLeft(found));
        return Ok(None);
    }
    let inside = |server: &IpAddr| {
        let mut ways = input.request.routes.iter().chain(routes);
        ways.any(|route| route.contains(*server))
            || addresses.iter().any(|pair| pair.far == *server)
            || addresses.is_empty()
    };
    let outside = found.servers.iter().filter(|server| !inside(server));
    notes.extend(outside.map(|server| OfferNote::NameServerOutside(*server)));
    Ok(Some(found))
}

fn nonsense(input: &OfferInput<'_>, reason: &str) -> OfferError {
    OfferError::Nonsense {
        host: input.host.to_owned(),
        reason: reason.to_owned(),
    }
}

/// Networks in one line.
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
#[path = "plan_serve_tests.rs"]
mod tests;
