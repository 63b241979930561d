//! What the user lets a server push: by default only the tunnel's addresses and MTU.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::host::plan::private_space;
use crate::types::address_set::AddressSet;
use crate::types::family::{Family, is_within};

/// Routes that together cover more than 1/2^6 of a family's addresses count as "everything".
const EVERYTHING: u8 = 6;

/// The parts of an offer that the client may take.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acceptance {
    /// Every route, except those that together cover everything.
    pub routes: bool,
    /// Routes and addresses in these networks.
    pub networks: Vec<IpNetwork>,
    /// Name servers.
    pub name_servers: bool,
}

impl Acceptance {
    /// Whether it accepts nothing beyond the default.
    pub fn is_empty(&self) -> bool {
        *self == Acceptance::default()
    }

    /// Whether `network` is one of the named networks or lies in one.
    pub(super) fn names(&self, network: &IpNetwork) -> bool {
        self.networks.iter().any(|named| is_within(network, named))
    }

    /// Whether addresses of this network may be the tunnel's own.
    pub(super) fn has_addresses(&self, network: &IpNetwork) -> bool {
        private_space::has(network) || self.names(network)
    }

    /// Divides offered routes into accepted and rejected ones.
    pub(super) fn divide(&self, offered: &[IpNetwork]) -> Divided {
        let too_wide = |family| self.routes && is_everything(family, offered);
        let (wide4, wide6) = (too_wide(Family::V4), too_wide(Family::V6));
        let mut divided = Divided {
            too_wide: wide4 || wide6,
            ..Divided::default()
        };
        for route in offered {
            let wide = if route.is_ipv4() { wide4 } else { wide6 };
            match self.names(route) || (self.routes && !wide) {
                true => divided.taken.push(*route),
                false => divided.left.push(*route),
            }
        }
        divided
    }
}

/// Offered routes, divided by whether the user accepts them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Divided {
    /// Taken.
    pub taken: Vec<IpNetwork>,
    /// Not taken.
    pub left: Vec<IpNetwork>,
    /// Whether a family's routes were rejected because together they cover everything.
    pub too_wide: bool,
}

/// Whether the routes of a family, singly or together, cover more than any one network has.
fn is_everything(family: Family, routes: &[IpNetwork]) -> bool {
    let counted = family.bits().min(64);
    let taken = AddressSet::of(routes).block_count(family, counted);
    taken > 1 << (counted - EVERYTHING)
}

/// Whether the address is unicast and of more than link scope.
pub(super) fn is_unicast(address: IpAddr) -> bool {
    let odd = address.is_unspecified() || address.is_multicast() || address.is_loopback();
    !odd && match address {
        IpAddr::V4(address) => {
            let [first, ..] = address.octets();
            // 0.0.0.0/8 and 240.0.0.0/4 are no hosts' (RFC 6890).
            !address.is_link_local() && first != 0 && first < 240
        }
        IpAddr::V6(address) => {
            !address.is_unicast_link_local() && address.to_ipv4_mapped().is_none()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(list: &[&str]) -> Vec<IpNetwork> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn acceptance(routes: bool, list: &[&str]) -> Acceptance {
        Acceptance {
            routes,
            networks: networks(list),
            name_servers: false,
        }
    }

    #[test]
    fn nothing_is_taken_that_was_not_allowed() {
        let offered = networks(&["10.1.0.0/16", "fd12::/48", "0.0.0.0/0"]);
        let divided = acceptance(false, &[]).divide(&offered);
        assert_eq!((divided.taken.len(), divided.too_wide), (0, false));
        let divided = acceptance(false, &["10.0.0.0/8", "10.1.2.0/24"]).divide(&offered);
        assert_eq!(divided.taken, offered[..1]);
        assert_eq!(divided.left, offered[1..]);
        let divided = acceptance(false, &["0.0.0.0/0"]).divide(&offered);
        assert_eq!(divided.taken, networks(&["10.1.0.0/16", "0.0.0.0/0"]));
    }

    #[test]
    fn all_routes_do_not_mean_everything_however_it_is_cut() {
        let sevenths: Vec<IpNetwork> = (1..127)
            .map(|n| format!("{}.0.0.0/8", n * 2).parse().unwrap())
            .collect();
        for everything in [
            networks(&["0.0.0.0/0"]),
            networks(&["0.0.0.0/1", "128.0.0.0/1"]),
            networks(&["64.0.0.0/5"]),
            sevenths,
        ] {
            let offered = [everything.clone(), networks(&["fd12::/48"])].concat();
            let divided = acceptance(true, &[]).divide(&offered);
            assert_eq!(divided.taken, networks(&["fd12::/48"]), "{everything:?}");
            assert!(divided.too_wide);
        }
        let six = networks(&["::/0"]);
        assert_eq!(acceptance(true, &[]).divide(&six).left, six);
        let usual = networks(&[
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "203.0.113.7/32",
            "fc00::/7",
            "2001:db8::/32",
            "2001:db8::1/128",
        ]);
        assert_eq!(acceptance(true, &[]).divide(&usual).taken, usual);
        // A named network is taken, whatever is offered beside it.
        let mixed = networks(&["0.0.0.0/0", "10.1.0.0/16"]);
        let divided = acceptance(true, &["10.0.0.0/8"]).divide(&mixed);
        assert_eq!(divided.taken, mixed[1..]);
    }

    #[test]
    fn addresses_are_private_or_named() {
        let plain = acceptance(true, &["203.0.113.0/24"]);
        for (network, may) in [
            ("10.9.0.1/32", true),
            ("172.31.0.0/24", true),
            ("172.32.0.1/32", false),
            ("100.64.0.1/32", true),
            ("100.128.0.1/32", false),
            ("192.168.7.7/32", true),
            ("8.8.8.8/32", false),
            ("203.0.113.9/32", true),
            ("10.0.0.0/7", false),
            ("fd00::1/128", true),
            ("2001:db8::1/128", false),
            ("fe80::1/128", false),
        ] {
            assert_eq!(
                plain.has_addresses(&networks(&[network])[0]),
                may,
                "{network}"
            );
        }
    }
}
