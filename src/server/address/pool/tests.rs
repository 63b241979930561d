//! Tests of the configured and of the automatically chosen pools.

use super::*;
use crate::host::plan::facts::{AddressFacts, InterfaceIndex};

fn network(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn host(addresses: &[&str]) -> HostFacts {
    let addresses = addresses.iter().map(|text| AddressFacts {
        index: InterfaceIndex(2),
        address: network(text).ip(),
        prefix: network(text).prefix(),
        peer: None,
        no_dad: false,
    });
    HostFacts {
        addresses: addresses.collect(),
        ..HostFacts::default()
    }
}

fn names(pools: &Pools) -> Vec<String> {
    pools
        .iter()
        .map(|pool| pool.network().to_string())
        .collect()
}

#[test]
fn the_server_is_the_first_host_and_clients_come_behind_it() {
    let pool = Pool::new(network("10.1.2.77/24")).unwrap();
    assert_eq!(pool.network(), network("10.1.2.0/24"));
    assert_eq!(pool.server().to_string(), "10.1.2.1");
    assert_eq!(pool.room(), 253);
    assert_eq!(pool.client(0).to_string(), "10.1.2.2");
    assert_eq!(pool.client(252).to_string(), "10.1.2.254");
    assert_eq!(pool.client(253).to_string(), "10.1.2.2");
    for outside in ["10.1.2.0", "10.1.2.1", "10.1.2.255", "10.1.3.2", "fd00::2"] {
        assert!(!pool.has(outside.parse().unwrap()), "{outside}");
    }
    let pool = Pool::new(network("fd00:1::/64")).unwrap();
    assert_eq!(pool.server().to_string(), "fd00:1::1");
    assert_eq!(
        pool.client(u128::MAX).to_string().split("::").next(),
        Some("fd00:1")
    );
    assert!(pool.has("fd00:1::ffff:ffff:ffff:ffff".parse().unwrap()));
    assert_eq!(Pool::new(network("10.0.0.0/30")).unwrap().room(), 1);
    assert_eq!(Pool::new(network("fd00::/126")).unwrap().room(), 2);
}

#[test]
fn networks_that_cannot_hold_clients_are_refused() {
    for small in ["10.0.0.0/31", "10.0.0.0/32", "fd00::/127", "fd00::/128"] {
        assert_eq!(
            Pool::new(network(small)),
            Err(PoolError::TooSmall(network(small)))
        );
    }
    for odd in [
        "0.0.0.0/0",
        "224.0.0.0/8",
        "127.0.0.0/16",
        "ff02::/64",
        "fe80::/64",
        "::/96",
    ] {
        assert_eq!(
            Pool::new(network(odd)),
            Err(PoolError::NotUnicast(network(odd))),
            "{odd}"
        );
    }
    let two = [network("10.0.0.0/24"), network("10.1.0.0/24")];
    assert_eq!(
        Pools::new(&two),
        Err(PoolError::TwoOfFamily(two[0], two[1]))
    );
}

#[test]
fn unused_networks_are_chosen_and_stay() {
    let mut settings = ServeSettings::default();
    let seed = seed("SHA256:abc 2222");
    let pools = Pools::choose(&settings, None, &HostFacts::default(), true, seed).unwrap();
    let chosen = names(&pools);
    assert!(
        chosen[0].starts_with("10.") && chosen[0].ends_with("/24"),
        "{chosen:?}"
    );
    assert!(
        chosen[1].starts_with("fd") && chosen[1].ends_with("/64"),
        "{chosen:?}"
    );
    // Another network comes into use: the choice after a restart stays the same.
    let elsewhere = host(&["172.17.0.1/16"]);
    assert_eq!(
        Pools::choose(&settings, None, &elsewhere, true, seed),
        Ok(pools.clone())
    );
    // If the chosen networks are in use, others are chosen, unless this server uses them.
    let taken = host(&[&chosen[0]]);
    let other = Pools::choose(&settings, None, &taken, true, seed).unwrap();
    assert_ne!(names(&other)[0], chosen[0]);
    assert!(other.overlaps(&taken, None).is_empty());
    assert_eq!(
        Pools::choose(&settings, Some(&pools), &taken, true, seed),
        Ok(pools.clone())
    );
    // A network behind a client is avoided too.
    settings.network.routes = vec![network("10.0.0.0/8")];
    let other = Pools::choose(&settings, None, &HostFacts::default(), true, seed).unwrap();
    assert!(names(&other)[0].starts_with("172."), "{other:?}");
}

#[test]
fn ipv6_is_left_out_where_it_cannot_be() {
    let mut settings = ServeSettings::default();
    let choose = |settings: &ServeSettings, ipv6| {
        Pools::choose(settings, None, &HostFacts::default(), ipv6, 1)
    };
    assert_eq!(choose(&settings, false).unwrap().iter().count(), 1);
    settings.network.mtu = Mtu::MIN;
    assert_eq!(choose(&settings, true).unwrap().iter().count(), 1);
    settings.network.pools = vec![network("fd00::/64")];
    assert!(matches!(
        choose(&settings, true),
        Err(PoolError::Mtu { .. })
    ));
    settings.network.assign = false;
    assert_eq!(choose(&settings, true), Ok(Pools::default()));
}

#[test]
fn configured_pools_are_taken_as_they_are() {
    let mut settings = ServeSettings::default();
    settings.network.pools = vec![network("192.168.1.0/24")];
    let facts = host(&["192.168.1.10/24"]);
    let pools = Pools::choose(&settings, None, &facts, true, 1).unwrap();
    assert_eq!(names(&pools), ["192.168.1.0/24"]);
    let used = network("192.168.1.0/24");
    assert_eq!(
        pools.overlaps(&facts, None),
        [PoolOverlap { pool: used, used }]
    );
    assert!(pools.overlaps(&host(&["192.168.2.10/24"]), None).is_empty());
}
