//! Claims on a bridge with another host on it, each test in a fresh network namespace.

use super::*;
use crate::host::netlink::PortSettings;
use crate::host::plan::facts::LinkFacts;
use crate::host::test_namespace::{self, ip};
use crate::packet::guard::link::LinkAddresses;
use crate::server::address::lease::LeaseKey;

const FREE: MacAddress = MacAddress([2, 0, 0, 0, 0, 5]);
const OTHER: MacAddress = MacAddress([2, 0, 0, 0, 0, 6]);
const BRIDGE: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const CABLE: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
const NEIGHBOUR: MacAddress = MacAddress([2, 0, 0, 0, 0, 3]);

/// A bridge with a veth pair to another host.
fn furnish() {
    for command in [
        "link set lo up",
        "link add br0 type bridge",
        "link set br0 address 02:00:00:00:00:01 up",
        "addr add fe80::1/64 dev br0 nodad",
        "link add v0 type veth peer name v1",
        "link set v0 address 02:00:00:00:00:02 master br0 up",
        "link set v1 up",
    ] {
        ip(command);
    }
}

struct Lab {
    netlink: Netlink,
    stations: Arc<Stations>,
}

/// A client on a port of its own.
struct Client {
    claims: LinkClaims,
    place: BridgePlace,
}

impl Lab {
    fn new() -> Self {
        furnish();
        Lab {
            netlink: Netlink::open().unwrap(),
            stations: Arc::default(),
        }
    }

    async fn link(&self, name: &str) -> LinkFacts {
        self.netlink.link_by_name(name).await.unwrap()
    }

    async fn join(&self, number: u64, key: &str) -> Client {
        let name = format!("tap{number}");
        ip(&format!("tuntap add dev {name} mode tap"));
        ip(&format!("link set {name} master br0"));
        let port = self.link(&name).await;
        let guarded = PortSettings::guarded(true);
        self.netlink.set_bridge_port(&port, &guarded).await.unwrap();
        ip(&format!("link set {name} up"));
        let terms = StationTerms {
            key: LeaseKey::from_text(key),
            groups: Arc::default(),
            one_station: true,
            port: port.index,
        };
        let port = BridgedPort {
            bridge: port.master.unwrap(),
            link: port,
        };
        let id = ConnectionId::of_test(number);
        let (claims, _, place) = join(&self.stations, &self.netlink, id, terms, port);
        Client { claims, place }
    }
}

impl Client {
    /// The client's addresses after its claim is answered.
    async fn claim(&mut self, address: LinkAddress) -> LinkAddresses {
        self.claims.held.mark_unchanged();
        self.claims.wanted.send(address).await.unwrap();
        self.claims.held.changed().await.unwrap();
        LinkAddresses::clone(&self.claims.held.borrow())
    }

    async fn gets_station(&mut self, station: MacAddress) -> bool {
        let held = self.claim(LinkAddress::Station(station)).await;
        held.stations.contains(&station)
    }

    async fn gets_link_local(&mut self, address: &str) -> bool {
        let address = address.parse().unwrap();
        let held = self.claim(LinkAddress::LinkLocal(address)).await;
        held.link_local.contains(&address)
    }
}

fn bridge(arguments: &str) -> String {
    let output = std::process::Command::new("bridge")
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    assert!(output.status.success(), "bridge {arguments}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_station_that_nobody_has_is_told_to_the_bridge() {
    test_namespace::run(async {
        let lab = Lab::new();
        let mut client = lab.join(1, "a").await;
        assert!(client.gets_station(FREE).await);
        let table = bridge("fdb show br br0");
        let entry = format!("{FREE} dev tap1 extern_learn master br0");
        assert!(table.contains(&entry), "{table}");
        let port = lab.link("tap1").await;
        let settings = lab.netlink.bridge_port(&port).await.unwrap();
        assert_eq!(settings, Some(PortSettings::guarded(true)));
        client.place.leave().await;
        let table = bridge("fdb show br br0");
        assert!(!table.contains(&FREE.to_string()), "{table}");
    });
}

#[test]
fn stations_of_others_are_refused() {
    test_namespace::run(async {
        let lab = Lab::new();
        bridge("fdb add 02:00:00:00:00:03 dev v0 master dynamic");
        let mut first = lab.join(1, "a").await;
        assert!(first.gets_station(FREE).await);
        for (number, station) in [(2, BRIDGE), (3, CABLE), (4, NEIGHBOUR), (5, FREE)] {
            let mut client = lab.join(number, "b").await;
            assert!(!client.gets_station(station).await, "{station}");
        }
        let table = bridge("fdb show br br0");
        for there in [
            format!("{NEIGHBOUR} dev v0 master br0"),
            format!("{FREE} dev tap1 extern_learn master br0"),
        ] {
            assert!(table.contains(&there), "{there} in {table}");
        }
        // A later connection of the same key is at another port.
        let mut again = lab.join(6, "a").await;
        assert!(again.gets_station(FREE).await);
        first.place.leave().await;
        let table = bridge("fdb show br br0");
        let entry = format!("{FREE} dev tap6 extern_learn master br0");
        assert!(table.contains(&entry), "{table}");
    });
}

#[test]
fn link_local_addresses_of_others_are_refused() {
    test_namespace::run(async {
        let lab = Lab::new();
        // A router that is silent, and a manual entry.
        ip("-6 neigh add fe80::2 dev br0 lladdr 02:00:00:00:00:03 router nud stale");
        ip("-6 neigh add fe80::3 dev br0 lladdr 02:00:00:00:00:03 nud permanent");
        ip("-6 neigh add fe80::4 dev br0 lladdr 02:00:00:00:00:03 router nud stale");
        ip("-6 neigh replace fe80::4 dev br0 nud failed");
        let mut first = lab.join(1, "a").await;
        assert!(first.gets_station(FREE).await);
        assert!(first.gets_link_local("fe80::5").await);
        let mut second = lab.join(2, "b").await;
        assert!(second.gets_station(OTHER).await);
        for taken in ["fe80::1", "fe80::2", "fe80::3", "fe80::4", "fe80::5"] {
            assert!(!second.gets_link_local(taken).await, "{taken}");
        }
        first.place.leave().await;
        assert!(second.gets_link_local("fe80::5").await);
    });
}

#[test]
fn whoever_had_an_address_once_loses_it_to_the_next_unless_it_answers() {
    test_namespace::run(async {
        let lab = Lab::new();
        ip("-6 neigh add fe80::7 dev br0 lladdr 02:00:00:00:00:03 nud stale");
        let mut client = lab.join(1, "a").await;
        assert!(client.gets_station(FREE).await);
        assert!(client.gets_link_local("fe80::7").await);
    });
}

#[test]
fn what_the_link_knew_of_a_client_is_forgotten_with_it() {
    test_namespace::run(async {
        let lab = Lab::new();
        let mut client = lab.join(1, "a").await;
        assert!(client.gets_station(FREE).await);
        assert!(client.gets_link_local("fe80::5").await);
        ip("-6 neigh replace fe80::5 dev br0 lladdr 02:00:00:00:00:05 nud reachable");
        client.place.leave().await;
        let neighbours = ip("-6 neigh show dev br0");
        assert!(!neighbours.contains("fe80::5"), "{neighbours}");
    });
}

#[test]
fn without_ipv6_on_the_bridge_nobody_gets_a_link_local_address() {
    test_namespace::run(async {
        let lab = Lab::new();
        let mut client = lab.join(1, "a").await;
        assert!(client.gets_station(FREE).await);
        ip("link set br0 addrgenmode none");
        ip("-6 addr flush dev br0");
        assert!(!client.gets_link_local("fe80::5").await);
        ip("addr add 2001:db8::1/64 dev br0 nodad");
        assert!(!client.gets_link_local("fe80::5").await);
        ip("addr add fe80::1/64 dev br0 nodad");
        assert!(client.gets_link_local("fe80::5").await);
    });
}

/// A client that has [`FREE`], and its claims, which the test renews itself.
async fn client_with_station(lab: &Lab) -> (Client, Claims) {
    let mut client = lab.join(1, "a").await;
    assert!(client.gets_station(FREE).await);
    let link = lab.link("tap1").await;
    let claims = Claims {
        stations: Arc::clone(&lab.stations),
        netlink: lab.netlink.clone(),
        id: ConnectionId::of_test(1),
        port: BridgedPort {
            bridge: link.master.unwrap(),
            link,
        },
    };
    (client, claims)
}

/// The ports where the bridge has [`FREE`].
fn port_of_free() -> Option<String> {
    let table = bridge("fdb show br br0");
    let line = table.lines().find(|line| line.contains(&FREE.to_string()));
    line.map(|line| line.split_whitespace().nth(2).unwrap().to_owned())
}

#[test]
fn the_bridge_is_told_again_of_what_it_has_forgotten() {
    test_namespace::run(async {
        let lab = Lab::new();
        let (client, claims) = client_with_station(&lab).await;
        bridge(&format!("fdb del {FREE} dev tap1 master"));
        claims.renew().await.unwrap();
        assert_eq!(port_of_free().as_deref(), Some("tap1"));
        client.place.leave().await;
    });
}

#[test]
fn a_station_that_turns_up_elsewhere_has_to_be_claimed_anew() {
    test_namespace::run(async {
        let lab = Lab::new();
        let (mut client, claims) = client_with_station(&lab).await;
        bridge(&format!("fdb del {FREE} dev tap1 master"));
        bridge(&format!("fdb add {FREE} dev v0 master dynamic"));
        claims.renew().await.unwrap();
        assert!(claims.stations.held(claims.id).stations.is_empty());
        assert!(!client.gets_station(FREE).await);
        assert_eq!(port_of_free().as_deref(), Some("v0"));
        bridge(&format!("fdb del {FREE} dev v0 master"));
        claims.renew().await.unwrap();
        assert_eq!(port_of_free(), None);
        assert!(client.gets_station(FREE).await);
        assert_eq!(port_of_free().as_deref(), Some("tap1"));
        client.place.leave().await;
    });
}
