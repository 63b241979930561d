//! Private address space, and the choice of free networks in it. No I/O.

use ipnetwork::IpNetwork;

use super::address_range::{AddressSet, Family, is_within};
use super::facts::is_default_like;

/// Private IPv4 space in order of preference (RFC 1918), then the shared carrier space (RFC 6598).
pub(in crate::host) const IPV4: [&str; 4] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
];
/// Locally assigned unique local addresses (RFC 4193, section 3.1).
pub(in crate::host) const IPV6: [&str; 1] = ["fd00::/8"];

/// Whether the whole network is private space.
pub fn has(network: &IpNetwork) -> bool {
    let space = IPV4.iter().chain(&IPV6);
    let mut pools = space.filter_map(|pool| pool.parse().ok());
    pools.any(|pool| is_within(network, &pool))
}

/// The number of random networks to try before searching the free space.
const TRIES: usize = 64;

/// A private network with that prefix length that overlaps no network in use; `None` if all space
/// is in use. The same seed gives the same network for as long as that network is free, whatever
/// other networks come into use.
pub fn free_network(
    family: Family,
    prefix: u8,
    in_use: &[IpNetwork],
    seed: u64,
) -> Option<IpNetwork> {
    let space: &[&str] = match family {
        Family::V4 => &IPV4,
        Family::V6 => &IPV6,
    };
    let named = in_use.iter().filter(|network| !is_default_like(network));
    let taken = AddressSet::of(family, named);
    let mut numbers = Numbers::new(seed);
    space.iter().find_map(|pool| {
        let pool: IpNetwork = pool.parse().ok()?;
        let all = AddressSet::of(family, [&pool]);
        let block = |set: &AddressSet, number: u128| {
            set.block(prefix, number.checked_rem(set.block_count(prefix))?)
        };
        let is_free =
            |network: &IpNetwork| AddressSet::of(family, [network]).within(&taken).is_empty();
        let drawn = (0..TRIES).find_map(|_| block(&all, numbers.next_wide()).filter(is_free));
        drawn.or_else(|| block(&all.without(&taken), numbers.next_wide()))
    })
}

/// SplitMix64 (Steele, Lea, Flood, 2014): well-spread numbers from a seed. Tunnels need different
/// numbers, not unpredictable ones.
pub(in crate::host) struct Numbers(u64);

impl Numbers {
    pub(in crate::host) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(in crate::host) fn next_wide(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(list: &[&str]) -> Vec<IpNetwork> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_network_stays_while_it_is_free() {
        for family in [Family::V4, Family::V6] {
            let prefix = if family == Family::V4 { 24 } else { 64 };
            let first = free_network(family, prefix, &[], 7).unwrap();
            let elsewhere = networks(&["172.17.0.0/16", "fdff:ffff::/32", "0.0.0.0/0"]);
            assert_eq!(free_network(family, prefix, &elsewhere, 7), Some(first));
            let other = free_network(family, prefix, &[first], 7).unwrap();
            assert_ne!(other, first);
            assert_ne!(free_network(family, prefix, &[], 8), Some(first));
        }
    }

    #[test]
    fn the_last_free_network_is_found() {
        let taken = AddressSet::of(Family::V4, &networks(&IPV4));
        let left = networks(&["172.20.7.0/24"]);
        let taken = taken.without(&AddressSet::of(Family::V4, &left));
        let taken = taken.to_networks();
        assert_eq!(free_network(Family::V4, 24, &taken, 1), Some(left[0]));
        assert_eq!(free_network(Family::V4, 23, &taken, 1), None);
        assert_eq!(free_network(Family::V4, 24, &networks(&IPV4), 1), None);
    }
}
