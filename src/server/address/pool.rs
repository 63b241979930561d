//! The networks that clients get their addresses from: as configured, or unused
//! private ones. No I/O.

use std::net::IpAddr;

use aws_lc_rs::digest::{SHA256, digest};
use ipnetwork::IpNetwork;
use thiserror::Error;

use crate::config::serve::settings::ServeSettings;
use crate::host::plan::facts::{HostFacts, is_default_like};
use crate::host::plan::private_space::free_network;
use crate::types::Mtu;
use crate::types::family::{Family, number};

/// Prefix lengths of networks that are chosen here.
const CHOSEN_PREFIX: [(Family, u8); 2] = [(Family::V4, 24), (Family::V6, 64)];

/// Why there are no networks for clients.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PoolError {
    /// No room for a server and a client.
    #[error(
        "the pool {0} has no room for clients: give a network of at most /30, or /126 for IPv6"
    )]
    TooSmall(IpNetwork),
    /// Not for hosts.
    #[error("the pool {0} holds addresses that no client can have; give a unicast network")]
    NotUnicast(IpNetwork),
    /// Two of one family.
    #[error("the pools {0} and {1} are of the same family; give one of each at most")]
    TwoOfFamily(IpNetwork, IpNetwork),
    /// IPv6 over links that are too narrow for it.
    #[error(
        "the pool {pool} is IPv6, which needs an MTU of 1280, not {mtu}; raise it or leave the pool out"
    )]
    Mtu {
        /// The pool.
        pool: IpNetwork,
        /// The tunnels' MTU.
        mtu: Mtu,
    },
    /// Everything is in use.
    #[error("all private IPv{0} space is in use on this host: name a network for clients (--pool)")]
    NothingFree(u8),
}

/// A network that clients get addresses from. The server has its first host address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    network: IpNetwork,
    /// Numbers of the first and the last address that a client may have.
    clients: (u128, u128),
}

impl Pool {
    /// Takes a network with room for a client at least.
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
        // The first address names the network (RFC 4291, section 2.6.1: all of
        // its routers), and in IPv4 the last is broadcast.
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

    /// Whether a client may get that address from it.
    pub fn has(&self, address: IpAddr) -> bool {
        let (first, last) = self.clients;
        Family::of(address) == self.family() && (first..=last).contains(&number(address))
    }

    /// How many clients there is room for.
    pub fn room(&self) -> u128 {
        let (first, last) = self.clients;
        (last - first).saturating_add(1)
    }

    /// The address of client number `at`, modulo their count.
    pub fn client(&self, at: u128) -> IpAddr {
        let (first, _) = self.clients;
        self.family().address(first + at % self.room())
    }
}

/// The pools of a server, one a family at most.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pools {
    pools: Vec<Pool>,
    /// They were chosen here, not configured.
    chosen: bool,
}

impl Pools {
    /// Takes networks of different families.
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

    /// The configured pools; where there are none, those that are in use
    /// already (`current`, at a reload), else unused private networks, chosen
    /// by `seed`. `ipv6` says whether this host does IPv6.
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

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Pool> {
        self.pools.iter()
    }

    /// Pools that overlap a network in use on this host, for a warning: hosts
    /// there and clients could not reach each other.
    pub fn overlaps(&self, facts: &HostFacts) -> Vec<(IpNetwork, IpNetwork)> {
        let in_use = facts.networks_in_use();
        let pairs = self.iter().flat_map(|pool| {
            let overlap = in_use
                .iter()
                .filter(|network| overlap(network, &pool.network));
            overlap.map(|network| (pool.network, *network))
        });
        pairs.collect()
    }
}

/// A seed for [`Pools::choose`] from what tells this server from others.
pub fn seed(identity: &str) -> u64 {
    let hash = digest(&SHA256, identity.as_bytes());
    let first = hash.as_ref().iter().take(8);
    first.fold(0, |seed, byte| seed << 8 | u64::from(*byte))
}

/// What is in use here, or named in the settings as a network elsewhere.
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
