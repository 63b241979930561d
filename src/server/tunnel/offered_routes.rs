//! The routes that a server offers to a client: its grant's networks, and those of the clients that
//! it may reach. The guard of its tunnel holds it to them.

use ipnetwork::IpNetwork;

use crate::config::serve::settings::MOST_ROUTES;
use crate::server::address::lease::LeasedAddress;
use crate::server::login::grant::TunnelGrant;
use crate::types::Mode;
use crate::types::family::is_within;

/// The inputs.
pub(super) struct Routes<'a> {
    /// What the client may reach.
    pub granted: &'a TunnelGrant,
    /// What its tunnel carries.
    pub mode: Mode,
    /// Its addresses.
    pub leased: &'a [LeasedAddress],
    /// The networks from which clients get addresses.
    pub pools: &'a [IpNetwork],
    /// Fixed addresses and networks of the clients of its groups.
    pub places: &'a [IpNetwork],
}

impl Routes<'_> {
    /// The networks to offer, at most [`MOST_ROUTES`].
    pub fn offered(&self) -> Vec<IpNetwork> {
        let mut routes = self.granted.routes.clone();
        if !self.granted.groups.is_empty() {
            // On an Ethernet link the pool is the link's own network.
            if self.mode == Mode::PointToPoint {
                routes.extend(self.pools.iter().filter(|pool| self.has_family(pool)));
            }
            let places = self.places.iter();
            routes.extend(places.filter(|place| self.has_family(place) && !self.is_own(place)));
        }
        let mut offered: Vec<IpNetwork> = Vec::new();
        for route in routes {
            if !offered.iter().any(|wider| is_within(&route, wider)) {
                offered.push(route);
            }
        }
        offered.truncate(MOST_ROUTES);
        offered
    }

    fn has_family(&self, network: &IpNetwork) -> bool {
        let mut leased = self.leased.iter();
        leased.any(|leased| leased.client.is_ipv4() == network.is_ipv4())
    }

    /// Whether the client itself has the address, or the network is behind it.
    fn is_own(&self, place: &IpNetwork) -> bool {
        let mut leased = self.leased.iter();
        leased.any(|leased| IpNetwork::from(leased.client) == *place)
            || self.granted.sources.contains(place)
            || (self.mode == Mode::Ethernet && self.pools.iter().any(|it| is_within(place, it)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::server::login::grant::Group;

    fn networks(list: &[&str]) -> Vec<IpNetwork> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn offered(groups: &[&str], mode: Mode) -> Vec<IpNetwork> {
        let granted = TunnelGrant {
            modes: vec![mode],
            unit: None,
            addresses: Vec::new(),
            sources: networks(&["10.7.0.0/16"]),
            routes: networks(&["198.51.100.0/24"]),
            groups: groups
                .iter()
                .map(|it| Group((*it).to_owned()))
                .collect::<BTreeSet<_>>(),
        };
        let leased = [LeasedAddress {
            client: "10.99.0.2".parse().unwrap(),
            server: "10.99.0.1".parse().unwrap(),
            prefix: 24,
        }];
        Routes {
            granted: &granted,
            mode,
            leased: &leased,
            pools: &networks(&["10.99.0.0/24", "fd99::/64"]),
            places: &networks(&[
                "10.99.0.7/32",
                "10.98.0.7/32",
                "10.7.0.0/16",
                "10.8.0.0/16",
                "fd08::/64",
            ]),
        }
        .offered()
    }

    #[test]
    fn without_a_group_other_clients_are_not_offered() {
        for mode in [Mode::PointToPoint, Mode::Ethernet] {
            assert_eq!(offered(&[], mode), networks(&["198.51.100.0/24"]));
        }
    }

    #[test]
    fn in_a_group_the_other_clients_are_offered_and_its_own_networks_are_not() {
        let behind = ["10.98.0.7/32", "10.8.0.0/16"];
        let mut expected = networks(&["198.51.100.0/24", "10.99.0.0/24"]);
        expected.extend(networks(&behind));
        assert_eq!(offered(&["office"], Mode::PointToPoint), expected);
        expected.remove(1);
        assert_eq!(offered(&["office"], Mode::Ethernet), expected);
    }
}
