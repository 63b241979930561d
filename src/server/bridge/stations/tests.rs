//! Tests of which client gets which address, and which clients hear each other.

use super::*;

fn terms(key: &str, groups: &[&str], port: u32) -> StationTerms {
    let groups = groups.iter().map(|name| Group((*name).to_owned()));
    StationTerms {
        key: LeaseKey::from_text(key),
        groups: Arc::new(groups.collect()),
        one_station: true,
        port: InterfaceIndex(port),
    }
}

fn id(number: u64) -> ConnectionId {
    ConnectionId::of_test(number)
}

fn mac(last: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, last])
}

fn station(last: u8) -> LinkAddress {
    LinkAddress::Station(mac(last))
}

fn link_local(last: u16) -> LinkAddress {
    LinkAddress::LinkLocal(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last))
}

fn take(stations: &Stations, id: ConnectionId, address: LinkAddress) {
    stations.reserve(id, address).unwrap();
    stations.confirm(id, address);
}

#[test]
fn an_address_is_one_clients() {
    let stations = Stations::default();
    let told = stations.join(id(1), terms("a", &[], 1));
    let _other = stations.join(id(2), terms("b", &[], 2));
    for address in [station(1), link_local(1)] {
        assert_eq!(stations.reserve(id(1), address), Ok(Reserved::New));
        // Also before it is confirmed.
        assert_eq!(stations.reserve(id(2), address), Err(NotYours::Taken));
        assert!(!stations.has(id(1), address));
        stations.confirm(id(1), address);
        assert!(stations.has(id(1), address));
        assert_eq!(stations.reserve(id(2), address), Err(NotYours::Taken));
        // A refusal takes nothing away from the holder.
        stations.refuse(id(2), address);
        assert_eq!(stations.reserve(id(2), address), Err(NotYours::Taken));
    }
    assert_eq!(told.held.borrow().stations, [mac(1)]);
    assert_eq!(told.held.borrow().link_local.len(), 1);
    stations.leave(id(1));
    for address in [station(1), link_local(1)] {
        assert_eq!(stations.reserve(id(2), address), Ok(Reserved::New));
    }
}

#[test]
fn what_is_refused_is_free_and_whoever_waits_hears_of_it() {
    let stations = Stations::default();
    let mut told = stations.join(id(1), terms("a", &[], 1));
    let _other = stations.join(id(2), terms("b", &[], 2));
    stations.reserve(id(1), station(1)).unwrap();
    told.held.mark_unchanged();
    stations.refuse(id(1), station(1));
    assert!(told.held.has_changed().unwrap());
    assert!(told.held.borrow().stations.is_empty());
    assert_eq!(stations.reserve(id(2), station(1)), Ok(Reserved::New));
}

#[test]
fn the_latest_connection_of_a_key_has_its_addresses() {
    let stations = Stations::default();
    let first = stations.join(id(1), terms("a", &[], 11));
    take(&stations, id(1), station(1));
    let second = stations.join(id(2), terms("a", &[], 12));
    let moves = Reserved::MovesFrom(InterfaceIndex(11));
    assert_eq!(stations.reserve(id(2), station(1)), Ok(moves));
    assert!(stations.has(id(1), station(1)));
    stations.confirm(id(2), station(1));
    assert!(first.held.borrow().stations.is_empty());
    assert_eq!(second.held.borrow().stations, [mac(1)]);
    // The earlier connection takes nothing with it when it leaves.
    stations.leave(id(1));
    assert!(stations.has(id(2), station(1)));
}

#[test]
fn a_client_has_a_bounded_number() {
    let stations = Stations::default();
    let _one = stations.join(id(1), terms("a", &[], 1));
    take(&stations, id(1), station(1));
    assert_eq!(stations.reserve(id(1), station(2)), Err(NotYours::TooMany));
    for last in 0..MOST_LINK_LOCAL as u16 {
        take(&stations, id(1), link_local(last));
    }
    let more = stations.reserve(id(1), link_local(99));
    assert_eq!(more, Err(NotYours::TooMany));
    let behind = StationTerms {
        one_station: false,
        ..terms("b", &[], 2)
    };
    let _site = stations.join(id(2), behind);
    for last in 10..10 + MOST_STATIONS as u8 {
        take(&stations, id(2), station(last));
    }
    let more = stations.reserve(id(2), station(9));
    assert_eq!(more, Err(NotYours::TooMany));
    assert_eq!(stations.reserve(id(3), station(9)), Err(NotYours::Gone));
}

#[test]
fn clients_without_a_common_group_do_not_hear_each_other() {
    let stations = Stations::default();
    let alice = stations.join(id(1), terms("a", &["lab", "all"], 1));
    let bob = stations.join(id(2), terms("b", &["lab"], 2));
    let carol = stations.join(id(3), terms("c", &[], 3));
    for client in 1..4 {
        take(&stations, id(u64::from(client)), station(client));
    }
    let heard = |told: &Told| [1, 2, 3].map(|other| told.hearing.hears(mac(other)));
    assert_eq!(heard(&alice), [true, true, false]);
    assert_eq!(heard(&bob), [true, true, false]);
    assert_eq!(heard(&carol), [false, false, true]);
    stations.leave(id(1));
    assert_eq!(heard(&carol), [true, false, true]);
    // A client that joins later as well.
    let dave = stations.join(id(4), terms("d", &["all"], 4));
    assert_eq!(heard(&dave), [true, false, false]);
    // Of the same key, but without a group.
    let eve = stations.join(id(5), terms("c", &[], 5));
    assert!(!eve.hearing.hears(mac(3)));
    take(&stations, id(5), station(3));
    assert!(eve.hearing.hears(mac(3)) && !carol.hearing.hears(mac(3)));
}

#[test]
fn a_claim_alone_makes_nobody_deaf() {
    let stations = Stations::default();
    let _claims = stations.join(id(1), terms("a", &[], 1));
    let bob = stations.join(id(2), terms("b", &[], 2));
    stations.reserve(id(1), station(1)).unwrap();
    // Whatever happens meanwhile.
    let carol = stations.join(id(3), terms("c", &[], 3));
    take(&stations, id(2), station(2));
    stations.leave(id(2));
    for told in [&bob, &carol] {
        assert!(told.hearing.hears(mac(1)));
    }
    stations.refuse(id(1), station(1));
    assert!(carol.hearing.hears(mac(1)));
    take(&stations, id(1), station(1));
    assert!(!carol.hearing.hears(mac(1)));
}

#[test]
fn a_station_that_is_lost_is_free_and_heard_by_all() {
    let stations = Stations::default();
    let first = stations.join(id(1), terms("a", &[], 1));
    let other = stations.join(id(2), terms("b", &[], 2));
    take(&stations, id(1), station(1));
    take(&stations, id(1), link_local(1));
    // Another client cannot lose it, and a reserved address cannot be lost.
    stations.lose(id(2), mac(1));
    stations.reserve(id(2), station(2)).unwrap();
    stations.lose(id(2), mac(2));
    assert_eq!(stations.reserve(id(1), station(2)), Err(NotYours::TooMany));
    assert!(stations.has(id(1), station(1)));
    assert!(!other.hearing.hears(mac(1)));
    stations.lose(id(1), mac(1));
    assert!(!stations.has(id(1), station(1)));
    assert!(first.held.borrow().stations.is_empty());
    assert_eq!(first.held.borrow().link_local.len(), 1);
    assert!(other.hearing.hears(mac(1)));
    // The client has to claim it again.
    assert_eq!(stations.reserve(id(1), station(2)), Err(NotYours::Taken));
    assert_eq!(stations.reserve(id(1), station(1)), Ok(Reserved::New));
}
