//! Tests that chosen addresses collide with no network in use, and that the user's addresses are
//! checked.

use proptest::prelude::*;

use super::*;

fn networks(list: &[&str]) -> Vec<IpNetwork> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn given(local: Option<&str>, remote: Option<&str>, mode: Mode) -> AddressRequest {
    AddressRequest {
        mode,
        local: local.map(ip),
        remote: remote.map(ip),
        ..AddressRequest::default()
    }
}

/// The pair for the given addresses, as text.
fn pair(local: Option<&str>, remote: Option<&str>, mode: Mode) -> Result<String, AddressError> {
    let addresses = choose(&given(local, remote, mode), 1)?;
    let family = local.or(remote).map(ip).map(Family::of);
    let pair = match family {
        Some(Family::V6) => addresses.ipv6.unwrap(),
        _ => addresses.ipv4.unwrap(),
    };
    Ok(format!("{} {} {}", pair.local, pair.remote, pair.prefix))
}

#[test]
fn a_seed_decides_and_10_comes_first() {
    let request = AddressRequest {
        ipv6: true,
        ..AddressRequest::default()
    };
    let one = choose(&request, 1).unwrap();
    assert_eq!(one, choose(&request, 1).unwrap());
    assert_ne!(one, choose(&request, 2).unwrap());
    let (v4, v6) = (one.ipv4.unwrap(), one.ipv6.unwrap());
    assert!(networks(&["10.0.0.0/8"])[0].contains(v4.local));
    assert_eq!((v4.prefix, v6.prefix), (31, 64));
    assert!(networks(&["fd00::/8"])[0].contains(v6.local));
    assert_eq!(number(v6.local) as u64, 1);
    assert_eq!(number(v6.remote) as u64, 2);
}

#[test]
fn falls_back_from_pool_to_pool_and_then_says_so() {
    let mut request = AddressRequest::default();
    for (taken, next) in [
        ("10.0.0.0/8", "172.16.0.0/12"),
        ("172.16.0.0/12", "192.168.0.0/16"),
        ("192.168.0.0/16", "100.64.0.0/10"),
    ] {
        request.in_use.extend(networks(&[taken]));
        let local = choose(&request, 7).unwrap().ipv4.unwrap().local;
        assert!(
            networks(&[next])[0].contains(local),
            "{local} after {taken}"
        );
    }
    request.in_use.extend(networks(&["100.64.0.0/10"]));
    assert_eq!(choose(&request, 7), Err(AddressError::NothingFree("IPv4")));
}

#[test]
fn default_routes_and_their_halves_leave_room() {
    let request = AddressRequest {
        ipv6: true,
        in_use: networks(&["0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "::/0", "8000::/1"]),
        ..AddressRequest::default()
    };
    assert!(choose(&request, 3).is_ok());
}

#[test]
fn a_taken_ipv6_pool_is_an_error_only_where_ipv6_is_wanted() {
    let mut request = AddressRequest {
        in_use: networks(&["fc00::/7"]),
        ..AddressRequest::default()
    };
    assert_eq!(choose(&request, 3).unwrap().ipv6, None);
    request.ipv6 = true;
    assert_eq!(choose(&request, 3), Err(AddressError::NothingFree("IPv6")));
}

#[test]
fn the_last_free_block_is_found() {
    let all = AddressSet::of(
        Family::V4,
        &networks(&["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]),
    );
    let hole = AddressSet::of(Family::V4, &networks(&["172.20.1.4/30"]));
    let mut request = AddressRequest {
        mode: Mode::Ethernet,
        in_use: all.without(&hole).to_networks(),
        ..AddressRequest::default()
    };
    request.in_use.extend(networks(&["100.64.0.0/10"]));
    let pair = choose(&request, 99).unwrap().ipv4.unwrap();
    assert_eq!(pair.local_network().unwrap().to_string(), "172.20.1.5/30");
    assert_eq!(pair.remote_network().unwrap().to_string(), "172.20.1.6/30");
}

#[test]
fn one_given_address_gets_its_neighbour() {
    use Mode::{Ethernet, PointToPoint};
    for (local, remote, mode, expected) in [
        (Some("10.9.0.0"), None, PointToPoint, "10.9.0.0 10.9.0.1 31"),
        (Some("10.9.0.1"), None, PointToPoint, "10.9.0.1 10.9.0.0 31"),
        (None, Some("10.9.0.7"), PointToPoint, "10.9.0.6 10.9.0.7 31"),
        (Some("10.9.0.2"), None, Ethernet, "10.9.0.2 10.9.0.1 30"),
        (Some("10.9.0.1"), None, Ethernet, "10.9.0.1 10.9.0.2 30"),
        (Some("fd00::1"), None, PointToPoint, "fd00::1 fd00::2 64"),
        (None, Some("fd00::1"), PointToPoint, "fd00::2 fd00::1 64"),
        (Some("fd00::3"), None, Ethernet, "fd00::3 fd00::4 64"),
    ] {
        assert_eq!(pair(local, remote, mode).unwrap(), expected);
    }
    assert!(pair(Some("10.9.0.0"), None, Ethernet).is_err());
    assert!(pair(Some("10.9.0.3"), None, Ethernet).is_err());
    assert!(pair(Some("fd00::"), None, PointToPoint).is_err());
}

#[test]
fn two_given_addresses_get_the_network_that_holds_them() {
    use Mode::{Ethernet, PointToPoint};
    let both = |local, remote, mode| pair(Some(local), Some(remote), mode);
    assert_eq!(
        both("10.9.0.1", "10.9.0.2", PointToPoint).unwrap(),
        "10.9.0.1 10.9.0.2 32"
    );
    assert_eq!(
        both("10.9.0.1", "10.9.0.2", Ethernet).unwrap(),
        "10.9.0.1 10.9.0.2 30"
    );
    assert_eq!(
        both("10.9.0.1", "10.9.0.4", Ethernet).unwrap(),
        "10.9.0.1 10.9.0.4 29"
    );
    assert_eq!(
        both("10.9.0.1", "192.168.1.1", PointToPoint).unwrap(),
        "10.9.0.1 192.168.1.1 32"
    );
    assert_eq!(
        both("fd00:1::1", "fd00:2::1", PointToPoint).unwrap(),
        "fd00:1::1 fd00:2::1 128"
    );
    assert!(both("10.9.0.1", "192.168.1.1", Ethernet).is_err());
    assert!(both("fd00:1::1", "fd00:2::1", Ethernet).is_err());
}

#[test]
fn given_addresses_are_checked() {
    use Mode::PointToPoint;
    let both = |local, remote| pair(Some(local), Some(remote), PointToPoint).unwrap_err();
    assert!(matches!(
        both("10.9.0.1", "fd00::1"),
        AddressError::Families { .. }
    ));
    assert_eq!(
        both("10.9.0.1", "10.9.0.1"),
        AddressError::Equal(ip("10.9.0.1"))
    );
    for odd in [
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "224.0.0.1",
        "255.255.255.255",
    ] {
        assert_eq!(both("10.9.0.1", odd), AddressError::NotUnicast(ip(odd)));
    }
    for odd in ["::", "::1", "ff02::1", "::ffff:10.0.0.1"] {
        assert_eq!(both("fd00::1", odd), AddressError::NotUnicast(ip(odd)));
    }
    let mut request = given(Some("192.168.1.9"), None, PointToPoint);
    request.local_networks = networks(&["0.0.0.0/0", "192.168.1.0/24"]);
    assert!(matches!(
        choose(&request, 1),
        Err(AddressError::InUse { .. })
    ));
}

#[test]
fn a_given_pair_leaves_the_other_family_to_be_chosen() {
    let mut request = given(Some("10.9.0.1"), None, Mode::PointToPoint);
    request.ipv6 = true;
    let addresses = choose(&request, 5).unwrap();
    assert_eq!(addresses.ipv4.unwrap().local, ip("10.9.0.1"));
    assert!(addresses.ipv6.is_some());
}

fn network_in_use() -> impl Strategy<Value = IpNetwork> {
    let v4 = (any::<u32>(), 0u8..=32, 0u8..4).prop_map(|(bits, prefix, pool)| {
        // Mostly in private space, where they can collide.
        let first = [10u32 << 24, 0xac10_0000, 0xc0a8_0000, bits][usize::from(pool)];
        let address = std::net::Ipv4Addr::from(first | (bits & 0x000f_ffff));
        IpNetwork::new(address.into(), prefix).unwrap()
    });
    let v6 = (any::<u128>(), 0u8..=128).prop_map(|(bits, prefix)| {
        let address = std::net::Ipv6Addr::from(bits >> 8 | 0xfd << 120);
        IpNetwork::new(address.into(), prefix).unwrap()
    });
    prop_oneof![v4, v6]
}

proptest! {
    #[test]
    fn chosen_addresses_are_in_no_network_in_use(
        in_use in proptest::collection::vec(network_in_use(), 0..40),
        routes in proptest::collection::vec(network_in_use(), 0..5),
        seed in any::<u64>(),
        tap in any::<bool>(),
    ) {
        let mode = if tap { Mode::Ethernet } else { Mode::PointToPoint };
        let request = AddressRequest { mode, ipv6: true, in_use, routes, ..AddressRequest::default() };
        if let Ok(addresses) = choose(&request, seed) {
            for pair in [addresses.ipv4.unwrap(), addresses.ipv6.unwrap()] {
                prop_assert_ne!(pair.local, pair.remote);
                let own = pair.local_network().unwrap();
                prop_assert!(own.contains(pair.remote));
                for network in request.in_use.iter().chain(&request.routes) {
                    if !is_default_like(network) {
                        let own = IpNetwork::new(own.network(), own.prefix()).unwrap();
                        let network = IpNetwork::new(network.network(), network.prefix()).unwrap();
                        prop_assert!(!is_within(&own, &network) && !is_within(&network, &own));
                    }
                }
            }
        }
    }

    #[test]
    fn a_neighbours_neighbour_is_the_address_itself(bits in any::<u128>(), v4 in any::<bool>()) {
        let family = if v4 { Family::V4 } else { Family::V6 };
        let address = family.address(bits);
        for mode in [Mode::PointToPoint, Mode::Ethernet] {
            if let Ok(other) = neighbour(address, mode) {
                prop_assert_ne!(other, address);
                if bits as u64 != u64::MAX {
                    prop_assert_eq!(neighbour(other, mode), Ok(address));
                }
            }
        }
    }
}

#[test]
fn the_remote_end_may_permit_some_networks_only() {
    let pair = |within: &[&str], in_use: &[&str]| {
        let request = AddressRequest {
            ipv6: true,
            in_use: networks(in_use),
            within: Some(networks(within)),
            ..AddressRequest::default()
        };
        choose(&request, 7)
    };
    let only = pair(&["10.99.0.0/24"], &[]).unwrap();
    let v4 = only.ipv4.unwrap();
    assert!(networks(&["10.99.0.0/24"])[0].contains(v4.remote) && only.ipv6.is_none());
    // The permitted networks reach beyond private space, lie outside of it, or lack one family.
    let wide = pair(&["0.0.0.0/0", "2001:db8::/48"], &["10.0.0.0/8"]).unwrap();
    assert!(networks(&["172.16.0.0/12"])[0].contains(wide.ipv4.unwrap().remote));
    assert!(networks(&["2001:db8::/48"])[0].contains(wide.ipv6.unwrap().remote));
    assert_eq!(pair(&["fd00:1::/64"], &[]).unwrap().ipv4, None);
    let error = pair(&["10.99.0.0/24"], &["10.96.0.0/12"]).unwrap_err();
    assert!(error.to_string().contains("10.99.0.0/24"), "{error}");
}
