//! Tests of which packets pass between clients, through the guards themselves.

use std::net::Ipv4Addr;

use etherparse::PacketBuilder;

use super::*;
use crate::packet::guard::Refused;
use crate::packet::guard::link::Sender;
use crate::types::Mode;

fn addresses(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

fn networks(list: &[&str]) -> Vec<IpNetwork> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

fn terms(own: &[&str], groups: &[&str]) -> Terms {
    Terms {
        addresses: addresses(own),
        routes: networks(&["192.0.2.0/24", "0.0.0.0/0"]),
        groups: groups
            .iter()
            .map(|name| Group((*name).to_owned()))
            .collect(),
        ..Terms::default()
    }
}

fn server() -> Arc<Reachability> {
    let reach = Arc::new(Reachability::default());
    reach.set_networks(addresses(&["10.9.0.1"]), networks(&["10.9.0.0/24"]));
    reach
}

fn udp_between(from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = PacketBuilder::ipv4(from.octets(), to.octets(), 64).udp(4000, 5000);
    builder.write(&mut packet, b"data").unwrap();
    packet
}

/// The verdict of a tunnel's current rules on a packet.
fn judged(reach: &Reachability, id: ConnectionId, from: &str, to: &str) -> Result<(), Refused> {
    let rules = Arc::clone(&reach.lock().members[&id].rules.borrow());
    let packet = udp_between(from.parse().unwrap(), to.parse().unwrap());
    rules.check(Mode::PointToPoint, &mut Sender::default(), &packet)
}

#[test]
fn clients_reach_the_server_and_beyond_but_not_each_other() {
    let reach = server();
    let (first, second) = (ConnectionId::of_test(1), ConnectionId::of_test(2));
    let _one = reach.join(first, terms(&["10.9.0.2"], &[]));
    let _two = reach.join(second, terms(&["10.9.0.3"], &[]));
    assert_eq!(judged(&reach, first, "10.9.0.2", "10.9.0.1"), Ok(()));
    assert_eq!(judged(&reach, first, "10.9.0.2", "192.0.2.7"), Ok(()));
    let other = judged(&reach, first, "10.9.0.2", "10.9.0.3");
    assert_eq!(other, Err(Refused::Destination));
    let spoofed = judged(&reach, first, "10.9.0.3", "10.9.0.1");
    assert_eq!(spoofed, Err(Refused::Source));
}

#[test]
fn a_group_opens_its_members_to_each_other_while_they_are_there() {
    let reach = server();
    let [first, second, third] = [1, 2, 3].map(ConnectionId::of_test);
    let _one = reach.join(first, terms(&["10.9.0.2"], &["lab", "all"]));
    let two = reach.join(second, terms(&["10.9.0.3"], &["lab"]));
    let _three = reach.join(third, terms(&["10.9.0.4"], &["office"]));
    assert_eq!(judged(&reach, first, "10.9.0.2", "10.9.0.3"), Ok(()));
    assert_eq!(judged(&reach, second, "10.9.0.3", "10.9.0.2"), Ok(()));
    let stranger = judged(&reach, third, "10.9.0.4", "10.9.0.2");
    assert_eq!(stranger, Err(Refused::Destination));
    drop(two);
    let gone = judged(&reach, first, "10.9.0.2", "10.9.0.3");
    assert_eq!(gone, Err(Refused::Destination));
}

#[test]
fn networks_behind_a_client_are_its_own() {
    let reach = server();
    let (site, other) = (ConnectionId::of_test(1), ConnectionId::of_test(2));
    let behind = Terms {
        sources: networks(&["172.16.5.0/24"]),
        ..terms(&["10.9.0.2"], &["site"])
    };
    let _site = reach.join(site, behind);
    let _other = reach.join(other, terms(&["10.9.0.3"], &[]));
    assert_eq!(judged(&reach, site, "172.16.5.9", "10.9.0.1"), Ok(()));
    // A wide route of the other client does not lead there.
    let into = judged(&reach, other, "10.9.0.3", "172.16.5.9");
    assert_eq!(into, Err(Refused::Destination));
}

#[test]
fn other_networks_are_taken_up_by_live_tunnels() {
    let reach = server();
    let first = ConnectionId::of_test(1);
    let _one = reach.join(first, terms(&["10.9.0.2"], &[]));
    reach.set_networks(addresses(&["10.8.0.1"]), networks(&["10.8.0.0/24"]));
    assert_eq!(judged(&reach, first, "10.9.0.2", "10.8.0.1"), Ok(()));
    let neighbour = judged(&reach, first, "10.9.0.2", "10.8.0.5");
    assert_eq!(neighbour, Err(Refused::Destination));
}

#[test]
fn connections_from_here_reach_no_client_that_packets_do_not() {
    let reach = server();
    let ids: Vec<ConnectionId> = (1..4).map(ConnectionId::of_test).collect();
    let office = terms(&["10.9.0.2", "fd09::2"], &["office"]);
    let groups = office.groups.clone();
    let _joined = [
        reach.join(ids[0], office),
        reach.join(ids[1], terms(&["10.9.0.3"], &["office"])),
        reach.join(ids[2], terms(&["10.9.0.4", "192.0.2.9"], &[])),
    ];
    for (to, expected) in [
        ("10.9.0.1", true),
        ("10.9.0.2", true),
        ("10.9.0.3", true),
        ("10.9.0.4", false),
        ("::ffff:10.9.0.4", false),
        ("192.0.2.9", false),
        // Not assigned to a client yet.
        ("10.9.0.77", false),
        ("192.0.2.8", true),
        ("127.0.0.1", true),
    ] {
        let lets = reach.lets_connect(ids[0], &groups, to.parse().unwrap());
        assert_eq!(lets, expected, "{to}");
    }
}

#[test]
fn what_a_live_tunnel_may_reach_can_change() {
    let reach = server();
    let [first, second] = [1, 2].map(ConnectionId::of_test);
    let _one = reach.join(first, terms(&["10.9.0.2"], &["lab"]));
    let _two = reach.join(second, terms(&["10.9.0.3"], &["office"]));
    let between = || {
        [
            judged(&reach, first, "10.9.0.2", "10.9.0.3"),
            judged(&reach, second, "10.9.0.3", "10.9.0.2"),
        ]
    };
    assert_eq!(between(), [Err(Refused::Destination); 2]);
    let other = terms(&[], &["office", "more"]);
    reach.change(first, networks(&["198.51.100.0/24"]), other.groups);
    assert_eq!(between(), [Ok(()); 2]);
    for (to, expected) in [
        ("198.51.100.2", Ok(())),
        ("192.0.2.7", Err(Refused::Destination)),
        ("10.9.0.1", Ok(())),
    ] {
        assert_eq!(judged(&reach, first, "10.9.0.2", to), expected, "{to}");
    }
    reach.change(first, Vec::new(), BTreeSet::new());
    assert_eq!(between(), [Err(Refused::Destination); 2]);
    // A change of a member that has left does nothing.
    reach.change(ConnectionId::of_test(3), Vec::new(), BTreeSet::new());
}

/// Adds a client as `join` does; returns the number of clients whose rules are rebuilt.
fn told(state: &mut State, number: u64, terms: Terms) -> usize {
    let concerned = state.come(ConnectionId::of_test(number), Member::new(terms));
    state.tell(&concerned);
    concerned.len()
}

#[test]
fn who_comes_or_goes_concerns_its_groups_alone() {
    let server = server();
    let mut state = server.lock();
    let mut updates = 0;
    for number in 0..200 {
        let own = format!("10.9.0.{}", number + 2);
        let groups: &[&str] = if number % 10 == 0 { &["lab"] } else { &[] };
        updates += told(&mut state, number, terms(&[&own], groups));
    }
    // 20 clients of one group update 1 + 2 + … + 20; the others update only themselves.
    assert_eq!(updates, 210 + 180);
    assert_eq!(state.go(ConnectionId::of_test(1)).len(), 0);
    assert_eq!(state.go(ConnectionId::of_test(10)).len(), 19);
    assert_eq!(state.go(ConnectionId::of_test(10)).len(), 0, "it is gone");
    // An unassigned address is closed to all clients, until it is unassigned again.
    let behind = Terms {
        sources: networks(&["172.16.5.0/24"]),
        ..terms(&["10.9.0.250"], &[])
    };
    assert_eq!(told(&mut state, 300, behind), 199);
    assert_eq!(state.go(ConnectionId::of_test(300)).len(), 198);
    assert_eq!(state.clients, state.pools);
}

/// Incremental updates give each client the same verdicts as a full rebuild,
/// whatever the order in which clients came and went.
#[test]
fn what_is_not_told_again_is_as_it_would_be() {
    let reach = server();
    let mut joined = BTreeMap::new();
    for step in 0_u64..60 {
        let number = step * 7 % 20;
        let id = ConnectionId::of_test(number);
        if joined.remove(&id).is_none() {
            let groups = [["lab", "office"], ["lab", "lab"], ["site", "office"]];
            let sources = match number % 5 {
                0 => networks(&[&format!("172.16.{number}.0/24")]),
                _ => Vec::new(),
            };
            let terms = Terms {
                sources,
                ..terms(
                    &[&format!("10.9.0.{}", number + 2)],
                    &groups[step as usize % 3],
                )
            };
            joined.insert(id, reach.join(id, terms).1);
        }
        let state = reach.lock();
        let rules = |state: &State| -> Vec<Arc<GuardRules>> {
            let members = state.members.values();
            members
                .map(|member| member.rules.borrow().clone())
                .collect()
        };
        let before = rules(&state);
        state.tell(&state.everybody());
        assert_eq!(rules(&state), before, "step {step}");
        assert_eq!(state.clients, state.all_clients(), "step {step}");
    }
}
