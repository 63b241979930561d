//! Turns the client's request into changes of this host, after it has checked the whole request
//! against the limits. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::error::AgentError;
use super::limits::Limits;
use crate::frame::control::{Addresses, Forward, SetUp};
use crate::host::change::firewall::{FirewallTable, TUNNEL_GROUP};
use crate::host::change::iptables::FirewallRules;
use crate::host::change::legacy_accept::{Accepted, LegacyAccept};
use crate::host::change::protection::Ipv6;
use crate::host::change::sysctl::SysctlKey;
use crate::host::change::{Change, GSO_MAX_SIZE, InterfaceAddress, TX_QUEUE_LENGTH};
use crate::host::forward_path::{Device, Named, Obstacles, Tunnel};
use crate::host::plan::surroundings::{Onward, Surroundings};
use crate::types::family::Family;
use crate::types::{InterfaceName, Mode, Mtu};

/// Networks in one request, at most.
const MOST_NETWORKS: usize = 10_000;

/// Refuses an invalid request, or one that the limits do not permit.
pub(crate) fn check(wish: &SetUp, limits: &Limits) -> Result<(), AgentError> {
    let nonsense = |text: String| Err(AgentError::Nonsense(text));
    if let Err(error) = Mtu::new(wish.mtu.get(), wish.mode) {
        return nonsense(error.to_string());
    }
    if let Some(max) = limits.max_mtu.filter(|max| wish.mtu > *max) {
        let asked = wish.mtu;
        return Err(AgentError::Mtu { asked, max });
    }
    if let Some(name) = wish
        .device
        .as_ref()
        .filter(|name| !limits.allows_device(name))
    {
        return Err(AgentError::Device(name.clone()));
    }
    check_addresses(wish, limits)?;
    let Some(forward) = &wish.forward else {
        return Ok(());
    };
    if forward.networks.len() > MOST_NETWORKS {
        return nonsense(format!("more than {MOST_NETWORKS} networks"));
    }
    let refused = forward
        .networks
        .iter()
        .find(|network| !limits.allows_route(network));
    match refused {
        Some(network) => Err(AgentError::Route(*network)),
        None if forward.nat && limits.no_nat => Err(AgentError::Nat),
        None => Ok(()),
    }
}

fn check_addresses(wish: &SetUp, limits: &Limits) -> Result<(), AgentError> {
    let mut families = BTreeSet::new();
    for pair in &wish.addresses {
        if !is_sound(pair, wish) {
            let (client, agent, prefix) = (pair.client, pair.agent, pair.prefix);
            return Err(AgentError::Nonsense(format!(
                "the addresses {client} and {agent} with prefix {prefix}"
            )));
        }
        if !families.insert(Family::of(pair.client)) {
            return Err(AgentError::Nonsense(
                "two pairs of addresses in one family".to_owned(),
            ));
        }
        // The client's address becomes a route here, so it could replace another host.
        let both = [pair.client, pair.agent];
        if let Some(address) = both.into_iter().find(|it| !limits.allows_address(*it)) {
            return Err(AgentError::Address(address));
        }
    }
    match families.is_empty() {
        true => Err(AgentError::Nonsense("no addresses".to_owned())),
        false => Ok(()),
    }
}

/// Whether both are host addresses of one family, and, on an ethernet link, of one network.
fn is_sound(pair: &Addresses, wish: &SetUp) -> bool {
    let usable = |address: IpAddr| {
        let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
        !(address.is_unspecified() || address.is_multicast() || address.is_loopback() || broadcast)
    };
    let one_family = pair.client.is_ipv4() == pair.agent.is_ipv4();
    let carried = pair.client.is_ipv4() || wish.mtu >= Mtu::MIN_IPV6;
    let one_network = match wish.mode {
        Mode::PointToPoint => true,
        Mode::Ethernet => IpNetwork::new(pair.agent, pair.prefix)
            .is_ok_and(|network| network.contains(pair.client)),
    };
    one_family
        && carried
        && one_network
        && pair.client != pair.agent
        && [pair.client, pair.agent].into_iter().all(usable)
}

/// The changes for a checked request, in order; the firewall comes before any packet can pass.
pub(crate) fn changes(
    wish: &SetUp,
    device: &InterfaceName,
    around: &Surroundings,
    limits: &Limits,
) -> Result<Vec<Change>, AgentError> {
    let onward = onward(wish, around);
    let obstacles = obstacles(wish, device, &onward, around);
    let mut changes = vec![
        Change::AddressGenerationNone,
        Change::TxQueueLength(TX_QUEUE_LENGTH),
        Change::GsoMaxSize(GSO_MAX_SIZE),
        Change::Mtu(wish.mtu),
        Change::Protection(Ipv6::agreed(
            wish.addresses.iter().any(|pair| pair.agent.is_ipv6()),
        )),
        Change::Group(TUNNEL_GROUP),
    ];
    changes.extend(firewall(wish, &onward, &obstacles, around, limits)?);
    // The link first: an IPv6 peer address given to a link that is down loses
    // the route to its peer when the link comes up (net/ipv6/addrconf.c,
    // fixup_permanent_addr).
    changes.push(Change::LinkUp);
    for pair in &wish.addresses {
        changes.push(Change::Address(address(wish.mode, pair)));
    }
    if onward.has(Family::V4) {
        changes.push(Change::Sysctl {
            key: SysctlKey::ipv4(device, "forwarding")
                .map_err(crate::host::error::NetError::from)?,
            value: "1".to_owned(),
        });
        changes.extend(onward.to_forward_ipv4().into_iter().map(Change::Shared));
    }
    if onward.has(Family::V6) {
        changes.extend(
            around
                .to_forward_ipv6(Some(device))
                .into_iter()
                .map(Change::Shared),
        );
    }
    if around.nft {
        let accept = obstacles.iptables.iter().copied();
        changes.extend(accept.map(Change::ForwardAccept));
    }
    let inbound = inbound(wish);
    changes.extend(obstacles.legacy.into_iter().map(|family| {
        Change::LegacyAccept(LegacyAccept {
            family,
            packets: Accepted::OfTunnel(inbound.clone()),
        })
    }));
    Ok(changes)
}

/// Chains of this host that drop the tunnel's packets and that are left to the administrator.
pub(crate) fn warnings(wish: &SetUp, device: &InterfaceName, around: &Surroundings) -> Vec<String> {
    obstacles(wish, device, &onward(wish, around), around).warnings
}

fn obstacles(
    wish: &SetUp,
    device: &InterfaceName,
    onward: &Onward,
    around: &Surroundings,
) -> Obstacles {
    let networks = wish.forward.iter().flat_map(|forward| &forward.networks);
    let networks: Vec<IpNetwork> = networks.copied().collect();
    let tunnel = Tunnel {
        device: Device::Named(device.as_str()),
        named: Named::Device(device.as_str()),
        networks: &networks,
        inbound: !inbound(wish).is_empty(),
        among_clients: &[],
    };
    around.obstacles(onward, &tunnel)
}

fn inbound(wish: &SetUp) -> Vec<IpNetwork> {
    let inbound = wish.forward.iter().flat_map(Forward::inbound);
    inbound.copied().collect()
}

fn onward(wish: &SetUp, around: &Surroundings) -> Onward {
    let networks = wish.forward.iter().flat_map(|forward| &forward.networks);
    Onward::to(&around.facts, networks)
}

/// The firewall's changes: an nft table, or iptables rules.
fn firewall(
    wish: &SetUp,
    onward: &Onward,
    obstacles: &Obstacles,
    around: &Surroundings,
    limits: &Limits,
) -> Result<Vec<Change>, AgentError> {
    let nat = matches!(wish.forward, Some(Forward { nat: true, .. }));
    let inbound = inbound(wish);
    let sources = wish.addresses.iter().map(|pair| pair.client);
    let masquerade: Vec<IpAddr> = sources
        .filter(|client| nat && onward.has(Family::of(*client)))
        .collect();
    if around.nft {
        return Ok(vec![Change::FirewallTable(FirewallTable {
            inbound,
            tunnels: limits.tunnels,
            masquerade,
            mark_replies: !obstacles.iptables.is_empty(),
            limit: limits.routes.clone(),
        })]);
    }
    let mut changes = Vec::new();
    for family in [Family::V4, Family::V6] {
        let rules = FirewallRules {
            family,
            inbound: inbound.clone(),
            tunnels: limits.tunnels,
            masquerade: of_family(family, &masquerade),
            accept: obstacles.iptables.contains(&family),
            limit: limits.routes.clone(),
        };
        changes.extend(by_iptables(rules, onward, around)?);
    }
    Ok(changes)
}

fn of_family(family: Family, addresses: &[IpAddr]) -> Vec<IpAddr> {
    let addresses = addresses.iter().copied();
    addresses
        .filter(|address| Family::of(*address) == family)
        .collect()
}

/// One family's iptables rules; `None` if there is no such program and none is needed; an error if
/// it is needed.
fn by_iptables(
    rules: FirewallRules,
    onward: &Onward,
    around: &Surroundings,
) -> Result<Option<Change>, AgentError> {
    let family = rules.family;
    let known = family == Family::V4 || around.ipv6;
    if around.iptables.contains(&family) && known {
        return Ok(Some(Change::FirewallRules(rules)));
    }
    let limited = rules.limit.is_some() && known;
    if !onward.has(family) && !limited {
        return Ok(None);
    }
    let program = match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    };
    let needed_for = if limited {
        "limiting the tunnel to the allowed routes"
    } else if !rules.masquerade.is_empty() {
        "NAT (or use --no-nat)"
    } else {
        tracing::debug!(
            "no {program}: this host does not block connections to the client, nor clamp TCP's \
             segment size to the path's MTU"
        );
        return Ok(None);
    };
    Err(AgentError::NoFirewall {
        program,
        needed_for,
    })
}

fn address(mode: Mode, pair: &Addresses) -> InterfaceAddress {
    match (mode, IpNetwork::new(pair.agent, pair.prefix)) {
        (Mode::Ethernet, Ok(network)) => InterfaceAddress::Network(network),
        _ => InterfaceAddress::PointToPoint {
            local: pair.agent,
            peer: pair.client,
        },
    }
}

/// Whether the tunnel fails without a change. The client blocks connections to itself as well, so
/// rules that do only that are optional.
pub(crate) fn is_needed(change: &Change) -> bool {
    match change {
        Change::FirewallTable(table) => table.is_needed(),
        Change::FirewallRules(rules) => rules.is_needed(),
        _ => true,
    }
}

/// The description of a change, for the client's output.
pub(crate) fn described(change: &Change) -> String {
    match change {
        Change::LinkUp => "link up".to_owned(),
        Change::Mtu(mtu) => format!("MTU {mtu}"),
        Change::GsoMaxSize(bytes) => format!("super-packets of at most {bytes} bytes"),
        Change::TxQueueLength(packets) => format!("transmit queue of {packets} packets"),
        Change::AddressGenerationNone => "no IPv6 address of the kernel's own".to_owned(),
        Change::Protection(Ipv6::On) => {
            "no router advertisements, redirects or source routes".to_owned()
        }
        Change::Protection(Ipv6::Off) => "no redirects, source routes or IPv6".to_owned(),
        Change::Bridge(bridge) => format!("port of {bridge}"),
        Change::GuardedPort { .. } => "guarded port of its bridge".to_owned(),
        Change::Group(TUNNEL_GROUP) => "group of tunnels".to_owned(),
        Change::Group(group) => format!("link group {group}"),
        Change::Address(address) => format!("address {address}"),
        Change::Route(route) => format!("route {route}"),
        Change::Sysctl { key, value } => format!("{key} = {value}"),
        Change::Shared(setting) => setting.to_string(),
        Change::FirewallTable(table) if table.masquerade.is_empty() => "firewall table".to_owned(),
        Change::FirewallTable(_) => "firewall table with NAT".to_owned(),
        Change::FirewallRules(rules) => {
            let program = match rules.family {
                Family::V4 => "iptables",
                Family::V6 => "ip6tables",
            };
            let nat = if rules.masquerade.is_empty() {
                ""
            } else {
                " with NAT"
            };
            format!("rules by {program}{nat}")
        }
        Change::LegacyAccept(accept) => match accept.family {
            Family::V4 => "rules in iptables-legacy's forward chain".to_owned(),
            Family::V6 => "rules in ip6tables-legacy's forward chain".to_owned(),
        },
        Change::ServerTable(_) => "a server's firewall table".to_owned(),
        Change::ClientFirewall(..) => "a client's firewall table".to_owned(),
        Change::ForwardAccept(family) | Change::ForwardPassed(family) => match family {
            Family::V4 => "rules in the IPv4 forward chain".to_owned(),
            Family::V6 => "rules in the IPv6 forward chain".to_owned(),
        },
        Change::NameServers(change) => change.to_string(),
    }
}

#[cfg(test)]
mod tests;
