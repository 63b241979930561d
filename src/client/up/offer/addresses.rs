//! Checks the addresses of a server's offer: valid, private or accepted, and free on this host.
//! Pure.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::error::OfferError;
use super::note::OfferNote;
use crate::client::up::acceptance::is_unicast;
use crate::client::up::plan::serve::{OfferInput, nonsense, without_host_bits};
use crate::frame::control::Addresses;
use crate::host::plan::addressing::AddressPair;
use crate::host::plan::facts::{AddressFacts, HostFacts};
use crate::types::family::{Family, is_within};
use crate::types::{Mode, Mtu};

/// Returns at most one pair per family that this host can have and the user accepts.
pub(in crate::client::up) fn addresses(
    input: &OfferInput<'_>,
    mtu: Mtu,
    notes: &mut Vec<OfferNote>,
) -> Result<Vec<AddressPair>, OfferError> {
    let mut pairs: Vec<AddressPair> = Vec::new();
    let mut families = Vec::new();
    for offered in &input.offer.addresses {
        let family = Family::of(offered.client);
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
        && !pairs.iter().any(|pair| pair.local == asked)
    {
        let same = |pair: &&AddressPair| pair.local.is_ipv4() == asked.is_ipv4();
        let given = pairs.iter().find(same);
        return Err(OfferError::OtherAddress {
            host: input.host.to_owned(),
            asked,
            given: given.map_or_else(|| "none".to_owned(), |pair| pair.local.to_string()),
        });
    }
    match (pairs.is_empty(), input.request.mode) {
        (false, _) => {}
        // Another host of that network may assign one (DHCP).
        (true, Mode::Ethernet) => notes.push(OfferNote::NoAddress),
        (true, Mode::PointToPoint) => {
            let host = input.host.to_owned();
            let reason = match families.is_empty() {
                true => "it offers none",
                false => "it offers only IPv6, which this tunnel or host lacks",
            };
            return Err(OfferError::NoAddress { host, reason });
        }
    }
    Ok(pairs)
}

fn ipv6_problem(input: &OfferInput<'_>, mtu: Mtu) -> Option<&'static str> {
    if !input.local_ipv6 {
        Some("IPv6 is disabled on this host")
    } else if mtu < Mtu::MIN_IPV6 {
        Some("IPv6 needs an MTU of at least 1280")
    } else {
        None
    }
}

fn check_pair(input: &OfferInput<'_>, offered: &Addresses) -> Result<AddressPair, OfferError> {
    let &Addresses {
        client: local,
        agent: remote,
        prefix,
    } = offered;
    let unsound = || {
        nonsense(
            input,
            &format!("the addresses {local}/{prefix} and {remote}"),
        )
    };
    let family = Family::of(local);
    let sound = family == Family::of(remote)
        && local != remote
        && is_unicast(local)
        && is_unicast(remote)
        && prefix <= family.bits();
    if !sound {
        return Err(unsound());
    }
    if let Some(device) = leads_to(input.local, remote) {
        return Err(second_tunnel(input.host, remote, device));
    }
    match input.request.mode {
        Mode::PointToPoint => {
            // Each becomes a host route, the remote one into the tunnel.
            for address in [local, remote] {
                let own = input.request.address == Some(address) && address == local;
                check_free(input, &IpNetwork::from(address), own)?;
            }
        }
        Mode::Ethernet => {
            let network = link_network(local, remote, prefix).ok_or_else(unsound)?;
            check_free(input, &network, false)?;
        }
    }
    Ok(AddressPair {
        local,
        remote,
        prefix,
    })
}

/// The tunnel device of this host at whose other end that address is.
fn leads_to(local: &HostFacts, server: IpAddr) -> Option<&str> {
    let has = |address: &&AddressFacts| {
        let on_link = || {
            address
                .network()
                .is_some_and(|network| network.contains(server))
        };
        address.peer.map_or_else(on_link, |peer| peer == server)
    };
    let tunnels = local.links.iter().filter(|link| link.is_tun());
    let mut tunnels = tunnels.filter(|link| {
        let mut own = local.addresses.iter().filter(|it| it.index == link.index);
        own.any(|address| has(&address))
    });
    tunnels.next().map(|link| link.name.as_str())
}

/// The error for a tunnel to a server to which `device` leads already.
pub(in crate::client::up) fn second_tunnel(host: &str, server: IpAddr, device: &str) -> OfferError {
    OfferError::SecondTunnel {
        host: host.to_owned(),
        server,
        device: device.to_owned(),
    }
}

/// The error for offered addresses of which another tunnel, that is being made, has `address`.
pub(in crate::client::up) fn claimed(
    host: &str,
    pairs: &[AddressPair],
    address: IpAddr,
) -> OfferError {
    if pairs.iter().any(|pair| pair.remote == address) {
        return second_tunnel(host, address, "another tunnel");
    }
    OfferError::InUse {
        host: host.to_owned(),
        network: address.into(),
        used: address.into(),
    }
}

/// The network of an ethernet tunnel; `None` unless both addresses are hosts in it.
fn link_network(local: IpAddr, remote: IpAddr, prefix: u8) -> Option<IpNetwork> {
    let network = IpNetwork::new(local, prefix).ok()?;
    let host = |address| match network {
        IpNetwork::V4(network) if prefix < 31 => {
            address != IpAddr::V4(network.network()) && address != IpAddr::V4(network.broadcast())
        }
        _ => true,
    };
    let sound = network.contains(remote) && host(local) && host(remote);
    sound.then(|| without_host_bits(&network)).flatten()
}

/// Checks that this host may use `network` for the tunnel: it is private or accepted, not in use
/// on this host, and does not contain the first hop. `asked`: the user named the address.
fn check_free(input: &OfferInput<'_>, network: &IpNetwork, asked: bool) -> Result<(), OfferError> {
    let host = || input.host.to_owned();
    let allowed = &input.request.acceptance;
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
    let own = input.local.addresses.iter().flat_map(|address| {
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
    match input.local.networks_in_use().into_iter().find(overlaps) {
        Some(used) => Err(OfferError::Routed {
            host: host(),
            network: *network,
            used,
        }),
        None => Ok(()),
    }
}
