//! Checks between settings that need no client.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use thiserror::Error;

use super::settings::{
    ClientRule, MOST_DOMAINS, MOST_NAME_SERVERS, MOST_ROUTES, NetworkSettings, ServeSettings,
};

/// The setting that a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    /// The settings as a whole.
    Settings,
    /// The pools.
    Pool,
    /// The rule with this index.
    Client(usize),
}

/// Why settings contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CheckError {
    /// No address to listen at.
    #[error("listen is empty: give an address and a port, such as \"[::]:2222\"")]
    NoListener,
    /// A port that the kernel would choose.
    #[error("listen has port 0, which clients could not find: give a port")]
    PortZero,
    /// No host key.
    #[error("host-key is empty: name a file, which is generated if it is missing")]
    NoHostKey,
    /// No file of keys or authorities.
    #[error(
        "authorized-keys and trusted-user-ca-keys are both empty: no client could log in; name a file in one of them"
    )]
    NobodyMayEnter,
    /// More entries than clients accept.
    #[error("{found} entries in {key}: clients accept at most {most}")]
    TooMany {
        /// The key.
        key: &'static str,
        /// The number of entries.
        found: usize,
        /// The limit.
        most: usize,
    },
    /// Two pools of one family.
    #[error("{0} and {1} are two pools of one family: give one for IPv4 and one for IPv6")]
    TwoPools(IpNetwork, IpNetwork),
    /// Pools although addresses are off.
    #[error("pool and assign = false contradict each other: remove one of them")]
    PoolWithoutAssign,
    /// A pool without room for a client.
    #[error(
        "pool {0} is too small for the server and a client: use a /30 or a /126, or a larger network"
    )]
    PoolTooSmall(IpNetwork),
    /// A network or address that is not for hosts.
    #[error("{0} cannot be used: it is not a network or address of hosts")]
    NotForHosts(IpNetwork),
    /// Several addresses of one family.
    #[error("{0} and {1} are two addresses of one family: give one for IPv4 and one for IPv6")]
    TwoAddresses(IpAddr, IpAddr),
    /// An address in two rules.
    #[error("address {0} is in another [[client]] too")]
    AddressTwice(IpAddr),
    /// An address in a rule that can match many clients.
    #[error(
        "address needs key, user or certificate beside it: otherwise all clients would share it"
    )]
    AddressForAll,
    /// An address of the server, or one that no host can have.
    #[error("address {address} is {what} of the pool {pool}: give another")]
    AddressReserved {
        /// The address.
        address: IpAddr,
        /// What the address is.
        what: &'static str,
        /// The pool.
        pool: IpNetwork,
    },
    /// A unit in two rules.
    #[error("unit {0} is in another [[client]] too")]
    UnitTwice(u32),
    /// A unit in a rule that can match many clients.
    #[error("unit needs key, user or certificate beside it: otherwise all clients would share it")]
    UnitForAll,
    /// Overlapping networks behind two clients.
    #[error("source {0} overlaps {1}, which is {2}")]
    SourceOverlap(IpNetwork, IpNetwork, &'static str),
    /// An address of one client in a network behind another.
    #[error("address {0} lies in source {1} of another [[client]]: only one of them can have it")]
    AddressInSource(IpAddr, IpNetwork),
    /// An invalid name.
    #[error("{0} \"{1}\" is empty or contains spaces or control characters")]
    Name(&'static str, String),
    /// An empty key id or user name.
    #[error("{0} is empty: give a name, or remove it")]
    EmptyMatch(&'static str),
}

type Finding = (Subject, CheckError);

/// Finds the first contradiction.
pub(super) fn check(settings: &ServeSettings) -> Result<(), Finding> {
    check_doors(settings).map_err(|error| (Subject::Settings, error))?;
    check_pools(&settings.network).map_err(|error| (Subject::Pool, error))?;
    for (index, rule) in settings.clients.iter().enumerate() {
        let (before, _) = settings.clients.split_at_checked(index).unwrap_or_default();
        let found = check_rule(rule, &settings.network)
            .and_then(|()| before.iter().try_for_each(|other| check_pair(rule, other)));
        found.map_err(|error| (Subject::Client(index), error))?;
    }
    Ok(())
}

fn check_doors(settings: &ServeSettings) -> Result<(), CheckError> {
    if settings.listen.is_empty() {
        return Err(CheckError::NoListener);
    }
    if settings.listen.iter().any(|address| address.port() == 0) {
        return Err(CheckError::PortZero);
    }
    if settings.host_keys.is_empty() {
        return Err(CheckError::NoHostKey);
    }
    if settings.authorized_keys.is_empty() && settings.user_authorities.is_empty() {
        return Err(CheckError::NobodyMayEnter);
    }
    let network = &settings.network;
    check_count("route", network.routes.len(), MOST_ROUTES)?;
    check_count("dns-server", network.dns_servers.len(), MOST_NAME_SERVERS)?;
    check_count("dns-search", network.dns_search.len(), MOST_DOMAINS)?;
    let mut domains = network.dns_search.iter();
    domains.try_for_each(|domain| check_name("dns-search", domain))
}

fn check_count(key: &'static str, found: usize, most: usize) -> Result<(), CheckError> {
    match found > most {
        true => Err(CheckError::TooMany { key, found, most }),
        false => Ok(()),
    }
}

fn check_pools(network: &NetworkSettings) -> Result<(), CheckError> {
    if !network.assign && !network.pools.is_empty() {
        return Err(CheckError::PoolWithoutAssign);
    }
    let mut seen: Vec<&IpNetwork> = Vec::new();
    for pool in &network.pools {
        if let Some(other) = seen.iter().find(|other| other.is_ipv4() == pool.is_ipv4()) {
            return Err(CheckError::TwoPools(**other, *pool));
        }
        let largest = if pool.is_ipv4() { 30 } else { 126 };
        if pool.prefix() > largest {
            return Err(CheckError::PoolTooSmall(*pool));
        }
        check_for_hosts(pool)?;
        seen.push(pool);
    }
    Ok(())
}

fn check_rule(rule: &ClientRule, network: &NetworkSettings) -> Result<(), CheckError> {
    for (name, value) in [
        ("user", &rule.who.user),
        ("certificate", &rule.who.certificate),
    ] {
        if value.as_ref().is_some_and(String::is_empty) {
            return Err(CheckError::EmptyMatch(name));
        }
    }
    let who = &rule.who;
    // An authority signs for many clients.
    let for_all = who.key.is_none() && who.user.is_none() && who.certificate.is_none();
    if for_all && !rule.addresses.is_empty() {
        return Err(CheckError::AddressForAll);
    }
    if for_all && rule.unit.is_some() {
        return Err(CheckError::UnitForAll);
    }
    let routes = rule.routes.as_ref().map_or(0, Vec::len);
    check_count("route", routes, MOST_ROUTES)?;
    for group in &rule.groups {
        check_name("group", group)?;
    }
    check_addresses(rule, network)?;
    for source in &rule.sources {
        if let Some(pool) = network.pools.iter().find(|pool| overlap(pool, source)) {
            return Err(CheckError::SourceOverlap(*source, *pool, "the pool"));
        }
        check_for_hosts(source)?;
    }
    Ok(())
}

fn check_addresses(rule: &ClientRule, network: &NetworkSettings) -> Result<(), CheckError> {
    for (index, address) in rule.addresses.iter().enumerate() {
        let mut before = rule.addresses.iter().take(index);
        if let Some(other) = before.find(|other| other.is_ipv4() == address.is_ipv4()) {
            return Err(CheckError::TwoAddresses(*other, *address));
        }
        check_for_hosts(&IpNetwork::from(*address))?;
        for pool in network.pools.iter().filter(|pool| pool.contains(*address)) {
            let what = match *address {
                address if address == pool.network() => "the first address",
                address if Some(address) == server_address(pool) => "the server's address",
                address if pool.is_ipv4() && address == pool.broadcast() => "the broadcast address",
                _ => continue,
            };
            return Err(CheckError::AddressReserved {
                address: *address,
                what,
                pool: *pool,
            });
        }
    }
    Ok(())
}

/// Checks that two rules do not assign the same thing.
fn check_pair(rule: &ClientRule, other: &ClientRule) -> Result<(), CheckError> {
    let mut addresses = rule.addresses.iter();
    if let Some(address) = addresses.find(|address| other.addresses.contains(address)) {
        return Err(CheckError::AddressTwice(*address));
    }
    if let Some(unit) = rule.unit.filter(|unit| other.unit == Some(*unit)) {
        return Err(CheckError::UnitTwice(unit.get()));
    }
    for source in &rule.sources {
        if let Some(taken) = other.sources.iter().find(|taken| overlap(taken, source)) {
            let whose = "behind another [[client]]";
            return Err(CheckError::SourceOverlap(*source, *taken, whose));
        }
    }
    check_apart(rule, other).and_then(|()| check_apart(other, rule))
}

/// Checks that no address of one rule lies in a network behind the other's client.
fn check_apart(rule: &ClientRule, other: &ClientRule) -> Result<(), CheckError> {
    for address in &rule.addresses {
        let mut sources = other.sources.iter();
        if let Some(source) = sources.find(|source| source.contains(*address)) {
            return Err(CheckError::AddressInSource(*address, *source));
        }
    }
    Ok(())
}

/// The server's address: the first host address of the pool.
fn server_address(pool: &IpNetwork) -> Option<IpAddr> {
    match pool.network() {
        IpAddr::V4(first) => u32::from(first)
            .checked_add(1)
            .map(|next| IpAddr::V4(next.into())),
        IpAddr::V6(first) => u128::from(first)
            .checked_add(1)
            .map(|next| IpAddr::V6(next.into())),
    }
}

fn overlap(one: &IpNetwork, other: &IpNetwork) -> bool {
    one.contains(other.network()) || other.contains(one.network())
}

/// Checks that a network is not unspecified (except as a whole family), loopback, multicast
/// or broadcast.
fn check_for_hosts(network: &IpNetwork) -> Result<(), CheckError> {
    let whole = network.prefix() == 0;
    let address = network.network();
    let wrong = address.is_loopback()
        || address.is_multicast()
        || (address.is_unspecified() && !whole)
        || matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    match wrong {
        true => Err(CheckError::NotForHosts(*network)),
        false => Ok(()),
    }
}

fn check_name(what: &'static str, name: &str) -> Result<(), CheckError> {
    let sound = |c: char| !c.is_control() && !c.is_whitespace();
    match !name.is_empty() && name.chars().all(sound) {
        true => Ok(()),
        false => Err(CheckError::Name(what, name.to_owned())),
    }
}
