//! The networks from which clients get addresses: the configured ones, or unused private
//! ones. No I/O.

use std::net::IpAddr;

use aws_lc_rs::digest::{SHA256, digest};
use ipnetwork::IpNetwork;
use thiserror::Error;

use crate::config::serve::settings::ServeSettings;
use crate::host::plan::facts::{
    AddressFacts, HostFacts, InterfaceIndex, RouteKind, is_default_like,
};
use crate::host::plan::private_space::free_network;
use crate::types::family::{Family, is_within, number};
use crate::types::{InterfaceName, Mtu};

/// Prefix lengths of automatically chosen networks.
const CHOSEN_PREFIX: [(Family, u8); 2] = [(Family::V4, 24), (Family::V6, 64)];

/// Why there are no networks for clients.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PoolError {
    /// The network has no room for a server and a client.
    #[error(
        "the pool {0} has no room for clients: give a network of at most /30, or /126 for IPv6"
    )]
    TooSmall(IpNetwork),
    /// The network does not hold unicast addresses.
    #[error("the pool {0} holds addresses that no client can have; give a unicast network")]
    NotUnicast(IpNetwork),
    /// Two pools of one family.
    #[error("the pools {0} and {1} are of the same family; give one of each at most")]
    TwoOfFamily(IpNetwork, IpNetwork),
    /// An IPv6 pool with an MTU below the minimum of IPv6.
    #[error(
        "the pool {pool} is IPv6, which needs an MTU of 1280, not {mtu}; raise it or leave the pool out"
    )]
    Mtu {
        /// The pool.
        pool: IpNetwork,
        /// The tunnels' MTU.
        mtu: Mtu,
    },
    /// No unused private network is left.
    #[error("all private IPv{0} space is in use on this host: name a network for clients (--pool)")]
    NothingFree(u8),
}

/// A pool and a network of this host that overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "the pool {pool} overlaps {used}, which this host uses: clients and the hosts there cannot reach each other; choose another pool"
)]
pub struct PoolOverlap {
    /// The pool.
    pub pool: IpNetwork,
    /// The network in use.
    pub used: IpNetwork,
}

/// A network that gives clients addresses. The server has its first host address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    network: IpNetwork,
    /// The first and the last client address, as numbers.
    clients: (u128, u128),
}

impl Pool {
    /// Checks that the network has room for at least one client.
    pub fn new(network: IpNetwork) -> Result<Self, PoolError> {
        let (first, last) = (number(network.network()), number(network.broadcast()));
        let is_unicast = |address: IpAddr| match address {
            IpAddr::V4(address) => {
                let first = address.octets()[0];
                !(first == 0 || first == 127 || first >= 224)
            }
            IpAddr::V6(address) => {
                let odd = address.is_unspecified() || address.is_loopback();
                !odd && !address.is_multicast() && !address.is_unicast_link_local()
            }
        };
        if is_default_like(&network)
            || ![network.network(), network.broadcast()]
                .into_iter()
                .all(is_unicast)
        {
            return Err(PoolError::NotUnicast(network));
        }
        // The first address names the network (RFC 4291, section 2.6.1: all of its
        // routers), and in IPv4 the last is broadcast.
        let clients = match Family::of(network.ip()) {
            Family::V4 => (first + 2, last.saturating_sub(1)),
            Family::V6 => (first + 2, last),
        };
        if clients.0 > clients.1 {
            return Err(PoolError::TooSmall(network));
        }
        let network = IpNetwork::new(network.network(), network.prefix())
            .map_err(|_| PoolError::NotUnicast(network))?;
        Ok(Self { network, clients })
    }

    /// The network.
    pub fn network(&self) -> IpNetwork {
        self.network
    }

    /// Its family.
    pub fn family(&self) -> Family {
        Family::of(self.network.ip())
    }

    /// The server's address.
    pub fn server(&self) -> IpAddr {
        self.family().address(number(self.network.network()) + 1)
    }

    /// Whether the pool can give this address to a client.
    pub fn has(&self, address: IpAddr) -> bool {
        let (first, last) = self.clients;
        Family::of(address) == self.family() && (first..=last).contains(&number(address))
    }

    /// The number of client addresses.
    pub fn room(&self) -> u128 {
        let (first, last) = self.clients;
        (last - first).saturating_add(1)
    }

    /// The client address number `at`, modulo their count.
    pub fn client(&self, at: u128) -> IpAddr {
        let (first, _) = self.clients;
        self.family().address(first + at % self.room())
    }
}

/// The pools of a server, at most one per family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pools {
    pools: Vec<Pool>,
    /// Whether the pools were chosen automatically.
    chosen: bool,
}

impl Pools {
    /// Checks that the networks are of different families.
    pub fn new(networks: &[IpNetwork]) -> Result<Self, PoolError> {
        let mut pools: Vec<Pool> = Vec::new();
        for network in networks {
            let pool = Pool::new(*network)?;
            if let Some(other) = pools.iter().find(|other| other.family() == pool.family()) {
                return Err(PoolError::TwoOfFamily(other.network, pool.network));
            }
            pools.push(pool);
        }
        Ok(Self {
            pools,
            chosen: false,
        })
    }

    /// The configured pools; if there are none, those in use (`current`, at a reload), else
    /// unused private networks that `seed` selects. `ipv6` says whether this host supports
    /// IPv6.
    pub fn choose(
        settings: &ServeSettings,
        current: Option<&Pools>,
        facts: &HostFacts,
        ipv6: bool,
        seed: u64,
    ) -> Result<Self, PoolError> {
        let network = &settings.network;
        if !network.assign {
            return Ok(Self::default());
        }
        let narrow = network.mtu < Mtu::MIN_IPV6;
        if !network.pools.is_empty() {
            let pools = Self::new(&network.pools)?;
            return match pools.of(Family::V6) {
                Some(pool) if narrow => Err(PoolError::Mtu {
                    pool: pool.network,
                    mtu: network.mtu,
                }),
                _ => Ok(pools),
            };
        }
        if let Some(current) = current.filter(|current| current.chosen) {
            return Ok(current.clone());
        }
        let avoid = networks_to_avoid(settings, facts);
        let mut pools = Vec::new();
        for (family, prefix) in CHOSEN_PREFIX {
            if family == Family::V6 && (narrow || !ipv6) {
                continue;
            }
            let free = free_network(family, prefix, &avoid, seed);
            let free = free.ok_or(PoolError::NothingFree(match family {
                Family::V4 => 4,
                Family::V6 => 6,
            }))?;
            pools.push(Pool::new(free)?);
        }
        Ok(Self {
            pools,
            chosen: true,
        })
    }

    /// The pool of a family.
    pub fn of(&self, family: Family) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.family() == family)
    }

    /// All pools.
    pub fn iter(&self) -> impl Iterator<Item = &Pool> {
        self.pools.iter()
    }

    /// Configured pools that overlap a network of this host: clients and the hosts of that network
    /// could not reach each other. A route to a wider network is not one, nor is the network of
    /// `bridge`, which clients join, nor one of a tunnel.
    pub fn overlaps(&self, facts: &HostFacts, bridge: Option<&InterfaceName>) -> Vec<PoolOverlap> {
        if self.chosen {
            return Vec::new();
        }
        let is_apart = |index: InterfaceIndex| {
            let link = facts.links.iter().find(|link| link.index == index);
            link.is_some_and(|link| {
                link.is_tun() || bridge.is_some_and(|bridge| bridge.as_str() == link.name)
            })
        };
        let addresses = facts.addresses.iter().filter(|it| !is_apart(it.index));
        let networks: Vec<IpNetwork> = addresses.filter_map(AddressFacts::network).collect();
        let routes = facts.routes.iter().filter(|route| {
            let mut devices = route.hops.iter().filter_map(|hop| hop.device);
            route.kind == RouteKind::Unicast && !devices.any(is_apart)
        });
        let routes: Vec<IpNetwork> = routes.map(|route| route.destination).collect();
        let found = self.iter().filter_map(|pool| {
            let of_network = networks.iter().find(|it| overlap(it, &pool.network));
            let within = || routes.iter().find(|route| is_within(route, &pool.network));
            Some(PoolOverlap {
                pool: pool.network,
                used: *of_network.or_else(within)?,
            })
        });
        found.collect()
    }
}

/// A seed for [`Pools::choose`] from a text that identifies this server.
pub fn seed(identity: &str) -> u64 {
    let hash = digest(&SHA256, identity.as_bytes());
    let first = hash.as_ref().iter().take(8);
    first.fold(0, |seed, byte| seed << 8 | u64::from(*byte))
}

/// Networks in use on this host, and networks elsewhere that the settings name.
fn networks_to_avoid(settings: &ServeSettings, facts: &HostFacts) -> Vec<IpNetwork> {
    let network = &settings.network;
    let mut avoid = facts.networks_in_use();
    avoid.extend(&network.routes);
    avoid.extend(network.dns_servers.iter().copied().map(IpNetwork::from));
    for rule in &settings.clients {
        avoid.extend(&rule.sources);
        avoid.extend(rule.routes.iter().flatten());
        avoid.extend(rule.addresses.iter().copied().map(IpNetwork::from));
    }
    avoid
}

fn overlap(one: &IpNetwork, other: &IpNetwork) -> bool {
    let one_family = Family::of(one.ip()) == Family::of(other.ip());
    one_family && (one.contains(other.network()) || other.contains(one.network()))
}

#[cfg(test)]
mod tests;
