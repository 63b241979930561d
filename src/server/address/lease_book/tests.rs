//! No two holders of one address, whatever happens; the same address for the same holder
//! as long as that is possible.

use proptest::prelude::*;

use super::*;

fn pools(networks: &[&str]) -> Pools {
    let networks: Vec<_> = networks.iter().map(|text| text.parse().unwrap()).collect();
    Pools::new(&networks).unwrap()
}

fn book(networks: &[&str], reserved: &[&str]) -> Book {
    let reserved = reserved.iter().map(|text| text.parse().unwrap());
    Book::new(pools(networks), reserved.collect(), Vec::new())
}

fn key(name: &str) -> LeaseKey {
    LeaseKey::from_text(name)
}

fn take(book: &mut Book, name: &str) -> Vec<LeasedAddress> {
    book.take(&key(name), &[], &[]).unwrap()
}

fn wanting(book: &mut Book, name: &str, wanted: &str) -> Vec<LeasedAddress> {
    book.take(&key(name), &[], &[wanted.parse().unwrap()])
        .unwrap()
}

#[test]
fn a_key_gets_its_address_again_and_two_of_it_get_two() {
    let mut book = book(&["10.0.0.0/24", "fd00::/64"], &[]);
    let first = take(&mut book, "a");
    assert_eq!((first.len(), first[0].prefix, first[1].prefix), (2, 24, 64));
    assert_eq!(first[0].server.to_string(), "10.0.0.1");
    let second = take(&mut book, "a");
    assert!(first.iter().all(|one| !second.contains(one)));
    book.release(&first);
    for other in 0..100 {
        take(&mut book, &format!("other {other}"));
    }
    let again = Book::new(
        pools(&["10.0.0.0/24", "fd00::/64"]),
        BTreeSet::new(),
        book.remembered(),
    );
    assert_eq!(take(&mut book, "a"), first);
    // After a restart too, where the latest entry comes first.
    let mut book = again;
    assert_eq!(take(&mut book, "a"), first);
    assert_eq!(take(&mut book, "a"), second);
}

#[test]
fn the_place_in_a_pool_does_not_depend_on_who_came_before() {
    let alone = take(&mut book(&["fd00::/64"], &[]), "a");
    let mut crowded = book(&["fd00::/64"], &[]);
    for other in 0..50 {
        take(&mut crowded, &format!("other {other}"));
    }
    assert_eq!(take(&mut crowded, "a"), alone);
}

#[test]
fn of_an_exhausted_pool_the_longest_unused_is_taken() {
    let mut book = book(&["10.0.0.0/29"], &[]);
    let leases: Vec<_> = (0..5).map(|n| take(&mut book, &n.to_string())).collect();
    assert_eq!(
        book.take(&key("late"), &[], &[]),
        Err(LeaseError::Exhausted("10.0.0.0/29".parse().unwrap()))
    );
    for at in [3, 1, 4] {
        book.release(&leases[at]);
    }
    assert_eq!(take(&mut book, "late"), leases[3]);
    assert_eq!(take(&mut book, "4"), leases[4], "its own before the oldest");
    assert_eq!(take(&mut book, "3"), leases[1]);
}

#[test]
fn a_wish_is_granted_where_it_takes_nothing_from_others() {
    let mut book = book(&["10.0.0.0/24"], &["10.0.0.9"]);
    let a = wanting(&mut book, "a", "10.0.0.77");
    assert_eq!(a[0].client.to_string(), "10.0.0.77");
    let refused = |book: &mut Book, wanted: &str| {
        let lease = wanting(book, "b", wanted);
        assert_ne!(lease[0].client.to_string(), wanted);
        book.release(&lease);
    };
    refused(&mut book, "10.0.0.77");
    book.release(&a);
    for wanted in [
        "10.0.0.77",
        "10.0.0.9",
        "10.0.0.1",
        "10.0.0.255",
        "10.0.1.5",
        "fd00::5",
    ] {
        refused(&mut book, wanted);
    }
    assert_eq!(take(&mut book, "a"), a);
    book.release(&a);
    // A holder that requests another address each time is remembered with one.
    for last in 100..150 {
        let lease = wanting(&mut book, "a", &format!("10.0.0.{last}"));
        book.release(&lease);
    }
    let theirs = book
        .remembered()
        .into_iter()
        .filter(|it| it.key == key("a"));
    assert_eq!(theirs.count(), 1);
}

#[test]
fn a_fixed_address_is_for_its_key_alone() {
    let fixed: IpAddr = "10.0.0.2".parse().unwrap();
    let outside: IpAddr = "192.168.7.7".parse().unwrap();
    let mut book = book(&["10.0.0.0/29"], &["10.0.0.2", "192.168.7.7"]);
    for n in 0..4 {
        assert_ne!(take(&mut book, &n.to_string())[0].client, fixed);
    }
    assert!(book.take(&key("late"), &[], &[fixed]).is_err());
    let lease = book.take(&key("f"), &[fixed], &[]).unwrap();
    assert_eq!((lease[0].client, lease[0].prefix), (fixed, 29));
    assert!(
        book.take(&key("f"), &[fixed], &[]).is_err(),
        "nothing else is free"
    );
    book.release(&lease);
    assert_eq!(book.take(&key("f"), &[fixed], &[]).unwrap(), lease);
    let lease = book.take(&key("g"), &[outside], &[]).unwrap();
    assert_eq!((lease[0].client, lease[0].prefix), (outside, 32));
    for (wrong, error) in [
        (
            "10.0.0.1",
            LeaseError::IsServer("10.0.0.1".parse().unwrap()),
        ),
        ("fd00::5", LeaseError::NoPool("fd00::5".parse().unwrap())),
    ] {
        assert_eq!(
            book.take(&key("h"), &[wrong.parse().unwrap()], &[]),
            Err(error)
        );
    }
}

#[test]
fn other_pools_leave_what_is_held() {
    let mut book = book(&["10.0.0.0/24", "fd00::/64"], &[]);
    let held = wanting(&mut book, "a", "10.0.0.65");
    let kept = wanting(&mut book, "b", "10.0.0.100");
    book.release(&kept);
    let lost = wanting(&mut book, "c", "10.0.0.200");
    book.release(&lost);
    // The server would get the address that a client holds.
    assert_eq!(
        book.replace(pools(&["10.0.0.64/26"]), BTreeSet::new()),
        Err(LeaseError::ServerAddressHeld(held[0].client))
    );
    book.replace(pools(&["10.0.0.0/25"]), BTreeSet::new())
        .unwrap();
    let addresses: Vec<IpAddr> = book.remembered().iter().map(|it| it.address).collect();
    for (leased, there) in [
        (&held[0], true),
        (&held[1], true),
        (&kept[0], true),
        (&lost[0], false),
    ] {
        assert_eq!(addresses.contains(&leased.client), there, "{leased:?}");
    }
    // An address outside of the new pools is forgotten when it is released.
    book.release(&held);
    assert_eq!(book.held(), 0);
    assert!(book.remembered().iter().all(|it| it.address.is_ipv4()));
    assert_eq!(take(&mut book, "a")[0].client, held[0].client);
    // An address that a rule reserves is not remembered either.
    let mine = [kept[0].client];
    book.replace(pools(&["10.0.0.0/25"]), mine.into()).unwrap();
    assert_ne!(take(&mut book, "b")[0].client, kept[0].client);
    assert_eq!(
        book.take(&key("d"), &mine, &[]).unwrap()[0].client,
        kept[0].client
    );
}

#[test]
fn no_pools_give_leases_without_addresses() {
    assert_eq!(take(&mut book(&[], &[]), "a"), []);
}

#[test]
fn what_is_remembered_is_bounded() {
    let pools = pools(&["fd00::/64"]);
    let pool = *pools.of(Family::V6).unwrap();
    let many = (0..MOST_REMEMBERED + SLACK).map(|n| Remembered {
        address: pool.client(n as u128),
        key: key(&n.to_string()),
    });
    let mut book = Book::new(pools, BTreeSet::new(), many.collect());
    let oldest = take(&mut book, "0");
    assert_eq!(oldest[0].client, pool.client(0));
    for new in ["a", "b", "c"] {
        let lease = take(&mut book, new);
        book.release(&lease);
    }
    let remembered = book.remembered();
    assert!(
        remembered.len() <= MOST_REMEMBERED + 2,
        "{}",
        remembered.len()
    );
    let has = |at: u128| remembered.iter().any(|it| it.address == pool.client(at));
    assert!(has(0), "it is held");
    assert!(!has(1) && has(2000), "the oldest go first");
}

/// One event in the life of a server's addresses.
#[derive(Debug, Clone)]
enum Event {
    Take {
        key: u8,
        fixed: Option<u8>,
        wanted: Option<u8>,
    },
    Release(usize),
    Replace {
        prefix: u8,
        offset: u8,
        reserved: Vec<u8>,
    },
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    let host = 0..40u8;
    prop_oneof![
        6 => (0..6u8, proptest::option::weighted(0.2, host.clone()), proptest::option::weighted(0.3, host.clone()))
            .prop_map(|(key, fixed, wanted)| Event::Take { key, fixed, wanted }),
        4 => any::<usize>().prop_map(Event::Release),
        1 => (27..31u8, 0..40u8, proptest::collection::vec(host, 0..4))
            .prop_map(|(prefix, offset, reserved)| Event::Replace { prefix, offset, reserved }),
        1 => Just(Event::Restart),
    ]
}

fn host(last: u8) -> IpAddr {
    format!("10.0.0.{last}").parse().unwrap()
}

proptest! {
    #[test]
    fn no_address_has_two_holders(events in proptest::collection::vec(event(), 0..120)) {
        let mut current = (pools(&["10.0.0.0/28", "fd00::/64"]), BTreeSet::new());
        let mut book = Book::new(current.0.clone(), current.1.clone(), Vec::new());
        let mut leases: Vec<Vec<LeasedAddress>> = Vec::new();
        for event in events {
            match event {
                Event::Take { key: of, fixed, wanted } => {
                    let (fixed, wanted) = (fixed.map(host), wanted.map(host));
                    let taken = book.take(&key(&of.to_string()), fixed.as_slice(), wanted.as_slice());
                    if let Ok(lease) = taken {
                        let (pools, reserved) = &current;
                        for one in &lease {
                            let pool = pools.of(Family::of(one.client)).unwrap();
                            prop_assert_eq!(one.server, pool.server());
                            prop_assert!(Some(one.client) == fixed || pool.has(one.client));
                            prop_assert!(Some(one.client) == fixed || !reserved.contains(&one.client));
                        }
                        leases.push(lease);
                    }
                }
                Event::Release(at) if !leases.is_empty() => {
                    let lease = leases.swap_remove(at % leases.len());
                    book.release(&lease);
                }
                Event::Release(_) => {}
                Event::Replace { prefix, offset, reserved } => {
                    let network = format!("10.0.0.{offset}/{prefix}");
                    let reserved: BTreeSet<IpAddr> = reserved.into_iter().map(host).collect();
                    let next = (pools(&[&network, "fd00::/64"]), reserved);
                    if book.replace(next.0.clone(), next.1.clone()).is_ok() {
                        current = next;
                    }
                }
                Event::Restart => {
                    leases.clear();
                    book = Book::new(current.0.clone(), current.1.clone(), book.remembered());
                }
            }
            let held: Vec<IpAddr> = leases.iter().flatten().map(|one| one.client).collect();
            let distinct: HashSet<IpAddr> = held.iter().copied().collect();
            prop_assert_eq!(held.len(), distinct.len(), "{:?}", held);
            prop_assert_eq!(book.held(), held.len());
            for pool in current.0.iter() {
                prop_assert!(!distinct.contains(&pool.server()));
            }
        }
    }
}
