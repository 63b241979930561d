//! Determines the addresses of both ends of a tunnel: the user's, or free ones that collide with no
//! network in use at either end. No I/O.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use thiserror::Error;

use super::facts::is_default_like;
use super::private_space::{IPV4, IPV6, Numbers};
use crate::types::Mode;
use crate::types::address_set::AddressSet;
use crate::types::family::{Family, is_within, number};

/// The tunnel's requirements.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressRequest {
    /// A tun device needs a pair of addresses, a tap device a network.
    pub mode: Mode,
    /// The user's choice of the local address.
    pub local: Option<IpAddr>,
    /// The user's choice of the remote address.
    pub remote: Option<IpAddr>,
    /// Whether to choose an IPv6 pair if the user gave none.
    pub ipv6: bool,
    /// Networks in use at either end (addresses, routes). Default routes and their halves are
    /// ignored.
    pub in_use: Vec<IpNetwork>,
    /// Local addresses and directly connected networks, which the user's addresses must not be in.
    pub local_networks: Vec<IpNetwork>,
    /// Networks that the tunnel will route.
    pub routes: Vec<IpNetwork>,
    /// The only networks that the remote host permits for chosen addresses; no address is chosen in
    /// a family without one. `None` permits all.
    pub within: Option<Vec<IpNetwork>>,
}

/// The local and the remote address in one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressPair {
    /// The local address.
    pub local: IpAddr,
    /// The remote address, of the same family.
    pub remote: IpAddr,
    /// The prefix length of the network that contains both.
    pub prefix: u8,
}

impl AddressPair {
    /// The local address with the prefix length.
    pub fn local_network(&self) -> Option<IpNetwork> {
        IpNetwork::new(self.local, self.prefix).ok()
    }

    /// The remote address with the prefix length.
    pub fn remote_network(&self) -> Option<IpNetwork> {
        IpNetwork::new(self.remote, self.prefix).ok()
    }
}

/// The addresses of a tunnel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TunnelAddresses {
    /// The IPv4 pair; chosen if the user gave none.
    pub ipv4: Option<AddressPair>,
    /// The IPv6 pair, if requested.
    pub ipv6: Option<AddressPair>,
}

/// The reason why the tunnel has no addresses.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AddressError {
    /// The addresses are of different families.
    #[error("--address {local} and --peer-address {remote} must be of the same family")]
    Families {
        /// The local address.
        local: IpAddr,
        /// The remote address.
        remote: IpAddr,
    },
    /// Both addresses are the same.
    #[error("--address and --peer-address are both {0}; the ends need different addresses")]
    Equal(IpAddr),
    /// The address is not a unicast address.
    #[error("{0} cannot be the address of one end of a tunnel; give a unicast address")]
    NotUnicast(IpAddr),
    /// The address is in use on this host.
    #[error("{address} is in use on this host already, in {network}; choose another address")]
    InUse {
        /// The address.
        address: IpAddr,
        /// The network or address in use.
        network: IpNetwork,
    },
    /// On a tap device the address has no usable neighbour in its /30.
    #[error(
        "{0} is the first or last address of its /30, which a tap device cannot use; choose the one after or before it"
    )]
    NoNeighbour(IpAddr),
    /// On a tap device the addresses are too far apart.
    #[error(
        "{local} and {remote} fit in no network smaller than a /8 as host addresses; choose them closer together"
    )]
    Apart {
        /// The local address.
        local: IpAddr,
        /// The remote address.
        remote: IpAddr,
    },
    /// All private space is in use.
    #[error(
        "no free {0} addresses for the tunnel: all private space is in use at one of the ends; choose with --address and --peer-address"
    )]
    NothingFree(&'static str),
    /// All permitted networks are in use.
    #[error(
        "no free {0} addresses for the tunnel in the networks that the remote host permits ({1}); ask its administrator for others"
    )]
    NothingPermitted(&'static str, String),
}

/// Chooses the addresses. The same request and seed give the same addresses; another seed gives
/// others.
pub fn choose(request: &AddressRequest, seed: u64) -> Result<TunnelAddresses, AddressError> {
    let given = given_pair(request)?;
    let family = given.map(|pair| Family::of(pair.local));
    let mut numbers = Numbers::new(seed);
    let mut addresses = TunnelAddresses::default();
    match family {
        Some(Family::V4) => addresses.ipv4 = given,
        Some(Family::V6) => addresses.ipv6 = given,
        None => {}
    }
    if addresses.ipv4.is_none() && permitted(request, Family::V4) {
        addresses.ipv4 = Some(free_ipv4(request, &mut numbers)?);
    }
    if addresses.ipv6.is_none() && request.ipv6 && permitted(request, Family::V6) {
        addresses.ipv6 = Some(free_ipv6(request, &mut numbers)?);
    }
    Ok(addresses)
}

fn permitted(request: &AddressRequest, family: Family) -> bool {
    let of_family = |network: &IpNetwork| Family::of(network.ip()) == family;
    let within = request.within.as_ref();
    within.is_none_or(|within| within.iter().any(of_family))
}

/// The user's pair, or the user's address and its neighbour.
fn given_pair(request: &AddressRequest) -> Result<Option<AddressPair>, AddressError> {
    let (local, remote) = match (request.local, request.remote) {
        (None, None) => return Ok(None),
        (Some(local), Some(remote)) => (local, remote),
        (Some(local), None) => (local, neighbour(local, request.mode)?),
        (None, Some(remote)) => (neighbour(remote, request.mode)?, remote),
    };
    let pair = pair_of(local, remote, request.mode)?;
    for address in [local, remote] {
        let taken = |network: &&IpNetwork| !is_default_like(network) && network.contains(address);
        if let Some(network) = request.local_networks.iter().find(taken) {
            return Err(AddressError::InUse {
                address,
                network: *network,
            });
        }
    }
    Ok(Some(pair))
}

/// The addresses as those of a tunnel, if they can be.
pub fn pair_of(local: IpAddr, remote: IpAddr, mode: Mode) -> Result<AddressPair, AddressError> {
    if Family::of(local) != Family::of(remote) {
        return Err(AddressError::Families { local, remote });
    }
    if local == remote {
        return Err(AddressError::Equal(local));
    }
    for address in [local, remote] {
        if !is_unicast(address) {
            return Err(AddressError::NotUnicast(address));
        }
    }
    let prefix = common_prefix(local, remote, mode)?;
    Ok(AddressPair {
        local,
        remote,
        prefix,
    })
}

/// Whether a host can have the address.
pub fn is_unicast(address: IpAddr) -> bool {
    let odd = address.is_unspecified() || address.is_multicast() || address.is_loopback();
    !odd && match address {
        IpAddr::V4(address) => !address.is_broadcast() && address.octets()[0] != 0,
        IpAddr::V6(address) => address.to_ipv4_mapped().is_none(),
    }
}

/// The neighbour of an address: the other address of the /31 on a tun device (RFC 3021), of the /30
/// on a tap device; for IPv6 the other of the pairs 1 and 2, 3 and 4, …, since 0 is the
/// subnet-router anycast address (RFC 4291, section 2.6.1).
fn neighbour(address: IpAddr, mode: Mode) -> Result<IpAddr, AddressError> {
    let value = number(address);
    let other = match (Family::of(address), mode) {
        (Family::V4, Mode::PointToPoint) => value ^ 1,
        (Family::V4, Mode::Ethernet) => match value & 3 {
            1 | 2 => value ^ 3,
            _ => return Err(AddressError::NoNeighbour(address)),
        },
        (Family::V6, _) => match value as u64 {
            0 => return Err(AddressError::NotUnicast(address)),
            u64::MAX => value - 1,
            host if host & 1 == 1 => value + 1,
            _ => value - 1,
        },
    };
    Ok(Family::of(address).address(other))
}

/// The longest prefix length that puts both addresses in one network, on a tap device with IPv4
/// both of them as host addresses.
fn common_prefix(local: IpAddr, remote: IpAddr, mode: Mode) -> Result<u8, AddressError> {
    let family = Family::of(local);
    let (a, b) = (number(local), number(remote));
    let bits = u32::from(family.bits());
    let same = (a ^ b).leading_zeros() - (128 - bits);
    match (family, mode) {
        (Family::V4, Mode::Ethernet) => (8..=30u32.min(same))
            .rev()
            .find(|prefix| {
                let host = (1u128 << (bits - prefix)) - 1;
                [a, b].iter().all(|ip| ip & host != 0 && ip & host != host)
            })
            .map(|prefix| prefix as u8)
            .ok_or(AddressError::Apart { local, remote }),
        (Family::V6, _) if same >= 64 => Ok(64),
        // Without a common network each end is a single host to the other.
        (Family::V4, Mode::PointToPoint) if same < 31 => Ok(32),
        (Family::V4, Mode::PointToPoint) => Ok(31),
        (Family::V6, Mode::PointToPoint) => Ok(128),
        (Family::V6, Mode::Ethernet) => Err(AddressError::Apart { local, remote }),
    }
}

fn free_ipv4(request: &AddressRequest, numbers: &mut Numbers) -> Result<AddressPair, AddressError> {
    let (prefix, first_host) = match request.mode {
        Mode::PointToPoint => (31, 0),
        Mode::Ethernet => (30, 1),
    };
    let block = free_block(&IPV4, Family::V4, prefix, request, numbers);
    pair_in(block, first_host).ok_or_else(|| nothing_free(request, "IPv4"))
}

fn free_ipv6(request: &AddressRequest, numbers: &mut Numbers) -> Result<AddressPair, AddressError> {
    let block = free_block(&IPV6, Family::V6, 64, request, numbers);
    pair_in(block, 1).ok_or_else(|| nothing_free(request, "IPv6"))
}

fn nothing_free(request: &AddressRequest, family: &'static str) -> AddressError {
    match &request.within {
        Some(within) => {
            let within: Vec<String> = within.iter().take(8).map(ToString::to_string).collect();
            AddressError::NothingPermitted(family, within.join(", "))
        }
        None => AddressError::NothingFree(family),
    }
}

fn pair_in(block: Option<IpNetwork>, first_host: u128) -> Option<AddressPair> {
    let block = block?;
    let family = Family::of(block.ip());
    let local = number(block.network()) + first_host;
    Some(AddressPair {
        local: family.address(local),
        remote: family.address(local + 1),
        prefix: block.prefix(),
    })
}

/// A free block with that prefix length, from the first pool that has one.
fn free_block(
    pools: &[&str],
    family: Family,
    prefix: u8,
    request: &AddressRequest,
    numbers: &mut Numbers,
) -> Option<IpNetwork> {
    let given = [request.local, request.remote]
        .into_iter()
        .flatten()
        .map(IpNetwork::from);
    let taken: Vec<IpNetwork> = request
        .in_use
        .iter()
        .chain(&request.local_networks)
        .chain(&request.routes)
        .copied()
        .chain(given)
        .filter(|network| !is_default_like(network))
        .collect();
    let taken = AddressSet::of(&taken);
    let number = numbers.next_wide();
    let pools = pools.iter().filter_map(|pool| pool.parse().ok()).collect();
    permitted_pools(pools, family, request.within.as_deref())
        .into_iter()
        .find_map(|pool| {
            let free = AddressSet::of([&pool]).minus(&taken);
            let count = free.block_count(family, prefix);
            let block = free.block(family, prefix, number.checked_rem(count)?)?;
            is_within(&block, &pool).then_some(block)
        })
}

/// The permitted parts of the pools in the pools' order, then the permitted networks outside of the
/// pools.
fn permitted_pools(
    pools: Vec<IpNetwork>,
    family: Family,
    within: Option<&[IpNetwork]>,
) -> Vec<IpNetwork> {
    let Some(within) = within else { return pools };
    let common = |pool: &IpNetwork, permitted: &IpNetwork| {
        let whole = is_within(pool, permitted).then_some(*pool);
        whole.or_else(|| is_within(permitted, pool).then_some(*permitted))
    };
    let mut both: Vec<IpNetwork> = pools
        .iter()
        .flat_map(|pool| {
            within
                .iter()
                .filter_map(move |permitted| common(pool, permitted))
        })
        .collect();
    let elsewhere = within.iter().filter(|permitted| {
        let mut pools = pools.iter();
        Family::of(permitted.ip()) == family && pools.all(|pool| common(pool, permitted).is_none())
    });
    both.extend(elsewhere);
    both
}

#[cfg(test)]
mod tests;
