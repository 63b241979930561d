//! IPv6 between clients whose Ethernet tunnels are on no bridge. To such a client the
//! others look like stations of its own link, so the kernel has to answer its neighbour
//! solicitations for them. A sysctl does that for IPv4; IPv6 needs a proxy entry for each
//! address on each link.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::host::error::NetError;
use crate::host::netlink::Netlink;
use crate::host::plan::facts::InterfaceIndex;
use crate::server::login::grant::Group;
use crate::server::report::registry::ConnectionId;

/// The tunnels whose packets this host routes.
#[derive(Debug, Default)]
pub(in crate::server) struct Neighbours {
    tunnels: Mutex<BTreeMap<ConnectionId, Routed>>,
    /// Serialises the changes in the kernel, so that a joining tunnel does not add an answer
    /// for one that leaves.
    turn: tokio::sync::Mutex<()>,
}

/// One such tunnel.
#[derive(Debug, Clone)]
pub(in crate::server) struct Routed {
    /// The index of its device, if that is an Ethernet link.
    pub link: Option<InterfaceIndex>,
    /// The client's IPv6 addresses.
    pub addresses: Vec<Ipv6Addr>,
    /// Groups whose clients it may reach.
    pub groups: BTreeSet<Group>,
}

/// A proxy entry: the link on which the kernel answers, and the address.
type Answer = (InterfaceIndex, Ipv6Addr);

/// A tunnel's membership among the others.
#[derive(Debug)]
pub(in crate::server) struct Neighbour {
    neighbours: Arc<Neighbours>,
    netlink: Netlink,
    id: ConnectionId,
}

impl Routed {
    /// A tunnel whose client has these addresses.
    pub(in crate::server) fn new(
        link: Option<InterfaceIndex>,
        addresses: &[IpAddr],
        groups: &BTreeSet<Group>,
    ) -> Self {
        let ipv6 = addresses.iter().filter_map(|address| match address {
            IpAddr::V6(address) => Some(*address),
            IpAddr::V4(_) => None,
        });
        Routed {
            link,
            addresses: ipv6.collect(),
            groups: groups.clone(),
        }
    }
}

impl Neighbours {
    /// Adds a tunnel, and the proxy entries for its addresses and on its link.
    pub(in crate::server) async fn join(
        self: &Arc<Self>,
        netlink: &Netlink,
        id: ConnectionId,
        routed: Routed,
    ) -> Neighbour {
        let neighbour = Neighbour {
            neighbours: Arc::clone(self),
            netlink: netlink.clone(),
            id,
        };
        let _turn = self.turn.lock().await;
        self.lock().insert(id, routed);
        for (link, address) in self.answers(id) {
            tolerate(netlink.answer_for(link, address).await);
        }
        neighbour
    }

    /// The proxy entries that one tunnel needs.
    fn answers(&self, id: ConnectionId) -> Vec<Answer> {
        let tunnels = self.lock();
        let Some(own) = tunnels.get(&id) else {
            return Vec::new();
        };
        let others = tunnels
            .iter()
            .filter(|(other, routed)| **other != id && !routed.groups.is_disjoint(&own.groups));
        let pairs = others.flat_map(|(_, other)| [(own, other), (other, own)]);
        pairs
            .filter_map(|(at, of)| Some((at.link?, &of.addresses)))
            .flat_map(|(link, addresses)| addresses.iter().map(move |address| (link, *address)))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ConnectionId, Routed>> {
        self.tunnels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Neighbour {
    /// Removes the tunnel, while the device still exists.
    pub(in crate::server) async fn leave(self) {
        let _turn = self.neighbours.turn.lock().await;
        let answers = self.neighbours.answers(self.id);
        self.neighbours.lock().remove(&self.id);
        for (link, address) in answers {
            tolerate(self.netlink.answer_no_more(link, address).await);
        }
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.neighbours.lock().remove(&self.id);
    }
}

/// The other tunnel may have ended meanwhile. A wrong entry gives no access, since every
/// packet is checked by itself.
fn tolerate(result: Result<(), NetError>) {
    if let Err(error) = result {
        tracing::debug!(%error, "answers for neighbours");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::test_namespace::{self, ip};

    fn routed(link: Option<InterfaceIndex>, address: &str, group: &str) -> Routed {
        let groups = [Group(group.to_owned())].into();
        Routed::new(link, &[address.parse().unwrap()], &groups)
    }

    #[test]
    fn the_kernel_answers_for_clients_of_the_same_group_while_they_are_there() {
        test_namespace::run(async {
            let netlink = Netlink::open().unwrap();
            let mut links = Vec::new();
            for name in ["tap1", "tap2", "tap3"] {
                ip(&format!("tuntap add dev {name} mode tap"));
                ip(&format!("link set {name} up"));
                links.push(netlink.link_by_name(name).await.unwrap().index);
            }
            let neighbours = Arc::<Neighbours>::default();
            let mut joined = Vec::new();
            for (number, link, address, group) in [
                (1, Some(links[0]), "fd09::1", "lab"),
                (2, Some(links[1]), "fd09::2", "lab"),
                (3, Some(links[2]), "fd09::3", "office"),
                // Not on an Ethernet link, but reachable from them.
                (4, None, "fd09::4", "lab"),
            ] {
                let id = ConnectionId::of_test(number);
                let routed = routed(link, address, group);
                joined.push(neighbours.join(&netlink, id, routed).await);
            }
            let answers = || {
                let shown = ip("-6 neigh show proxy");
                let mut lines: Vec<String> = shown
                    .lines()
                    .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
                    .collect();
                lines.sort();
                lines
            };
            assert_eq!(
                answers(),
                [
                    "fd09::1 dev tap2 proxy",
                    "fd09::2 dev tap1 proxy",
                    "fd09::4 dev tap1 proxy",
                    "fd09::4 dev tap2 proxy",
                ]
            );
            joined.remove(0).leave().await;
            assert_eq!(answers(), ["fd09::4 dev tap2 proxy"]);
            for neighbour in joined {
                neighbour.leave().await;
            }
            assert!(answers().is_empty());
            assert!(neighbours.lock().is_empty());
        });
    }
}
