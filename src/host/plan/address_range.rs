//! Sets of addresses of one family as sorted ranges: union, difference, covering networks and
//! aligned blocks. No I/O.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    /// `V6` if `ipv6`, else `V4`.
    pub fn of_ipv6(ipv6: bool) -> Self {
        match ipv6 {
            true => Family::V6,
            false => Family::V4,
        }
    }

    /// The length of an address, in bits.
    pub fn bits(self) -> u8 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }

    /// The address with this number; IPv4 uses the low 32 bits.
    pub fn address(self, number: u128) -> IpAddr {
        match self {
            Family::V4 => Ipv4Addr::from(number as u32).into(),
            Family::V6 => Ipv6Addr::from(number).into(),
        }
    }
}

/// An address as a number.
pub fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// Whether `inner` equals `outer` or lies within it.
pub fn is_within(inner: &IpNetwork, outer: &IpNetwork) -> bool {
    Family::of(inner.ip()) == Family::of(outer.ip())
        && outer.prefix() <= inner.prefix()
        && outer.contains(inner.network())
}

/// The first and the last address of a range, both inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Range {
    first: u128,
    last: u128,
}

impl Range {
    /// The number of whole aligned blocks of `1 << host` addresses in the range, and the number of
    /// the first block.
    fn blocks(self, host: u8) -> (u128, u128) {
        let host = u32::from(host);
        let mask = (1u128 << host) - 1;
        let Some(first) = self.first.checked_add(mask) else {
            return (0, 0);
        };
        let first = first >> host;
        // One beyond the last whole block.
        let end = match self.last.checked_add(1) {
            Some(end) => end >> host,
            None => (u128::MAX >> host).saturating_add(1),
        };
        (end.saturating_sub(first), first)
    }
}

/// A set of addresses of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressSet {
    family: Family,
    /// Sorted, neither overlapping nor adjacent.
    ranges: Vec<Range>,
}

impl AddressSet {
    /// The addresses of all networks of `family`; other networks are ignored.
    pub fn of<'a>(family: Family, networks: impl IntoIterator<Item = &'a IpNetwork>) -> Self {
        let mut ranges: Vec<Range> = networks
            .into_iter()
            .filter(|network| Family::of(network.ip()) == family)
            .map(|network| Range {
                first: number(network.network()),
                last: number(network.broadcast()),
            })
            .collect();
        ranges.sort();
        let mut merged: Vec<Range> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(before) if range.first <= before.last.saturating_add(1) => {
                    before.last = before.last.max(range.last);
                }
                _ => merged.push(range),
            }
        }
        Self {
            family,
            ranges: merged,
        }
    }

    /// The difference: the addresses that are not in `other`, a set of the same family.
    pub fn without(&self, other: &AddressSet) -> Self {
        let mut ranges = Vec::new();
        for range in &self.ranges {
            let mut first = Some(range.first);
            for hole in other.ranges.iter().filter(|hole| hole.last >= range.first) {
                let Some(from) = first.filter(|from| *from <= range.last) else {
                    break;
                };
                if hole.first > range.last {
                    break;
                }
                if hole.first > from {
                    ranges.push(Range {
                        first: from,
                        last: hole.first - 1,
                    });
                }
                first = hole.last.checked_add(1).map(|next| next.max(from));
            }
            if let Some(first) = first.filter(|first| *first <= range.last) {
                ranges.push(Range {
                    first,
                    last: range.last,
                });
            }
        }
        Self {
            family: self.family,
            ranges,
        }
    }

    /// The intersection with `other`, a set of the same family.
    pub fn within(&self, other: &AddressSet) -> Self {
        self.without(&self.without(other))
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The smallest list of networks that covers exactly this set, sorted.
    pub fn to_networks(&self) -> Vec<IpNetwork> {
        let mut networks = Vec::new();
        for range in &self.ranges {
            let mut next = Some(range.first);
            while let Some(first) = next {
                let host = self.largest_block(first, range.last);
                networks.extend(self.network(first, host));
                let last = first | low_bits(host);
                next = last.checked_add(1).filter(|next| *next <= range.last);
            }
        }
        networks
    }

    /// The number of aligned blocks with this prefix length in the set.
    pub fn block_count(&self, prefix: u8) -> u128 {
        let host = self.family.bits().saturating_sub(prefix).min(127);
        self.ranges.iter().fold(0, |sum: u128, range| {
            sum.saturating_add(range.blocks(host).0)
        })
    }

    /// Block number `n` of those that [`AddressSet::block_count`] counts.
    pub fn block(&self, prefix: u8, n: u128) -> Option<IpNetwork> {
        let host = self.family.bits().saturating_sub(prefix).min(127);
        let mut n = n;
        for range in &self.ranges {
            let (count, first) = range.blocks(host);
            if n < count {
                return self.network((first + n) << host, host);
            }
            n -= count;
        }
        None
    }

    /// The number of host bits of the largest aligned block that begins at `first` and ends at or
    /// before `last`.
    fn largest_block(&self, first: u128, last: u128) -> u8 {
        let mut host = 0;
        while host < self.family.bits() {
            let wider = low_bits(host + 1);
            if first & wider != 0 || last - first < wider {
                break;
            }
            host += 1;
        }
        host
    }

    fn network(&self, first: u128, host: u8) -> Option<IpNetwork> {
        let prefix = self.family.bits() - host;
        IpNetwork::new(self.family.address(first), prefix).ok()
    }
}

/// A mask of the low `count` bits, at most 128.
fn low_bits(count: u8) -> u128 {
    1u128
        .checked_shl(u32::from(count))
        .map_or(u128::MAX, |bit| bit - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(list: &[&str]) -> Vec<IpNetwork> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn set(family: Family, list: &[&str]) -> AddressSet {
        AddressSet::of(family, &networks(list))
    }

    #[test]
    fn unions_are_covered_by_the_fewest_networks() {
        let cover = set(
            Family::V4,
            &[
                "10.0.1.0/24",
                "10.0.0.0/24",
                "10.0.0.128/25",
                "10.0.3.0/24",
                "fd00::/8",
            ],
        );
        assert_eq!(
            cover.to_networks(),
            networks(&["10.0.0.0/23", "10.0.3.0/24"])
        );
    }

    #[test]
    fn the_whole_of_both_families_works() {
        for (family, all, half) in [
            (Family::V4, "0.0.0.0/0", "128.0.0.0/1"),
            (Family::V6, "::/0", "8000::/1"),
        ] {
            let whole = set(family, &[all]);
            assert_eq!(whole.to_networks(), networks(&[all]));
            assert!(whole.without(&whole).to_networks().is_empty());
            let rest = whole.without(&set(family, &[half]));
            let back = rest.to_networks();
            assert_eq!(back.len(), 1);
            assert_eq!(back[0].prefix(), 1);
        }
    }

    #[test]
    fn blocks_are_aligned_and_counted() {
        let free = set(Family::V4, &["10.0.0.0/30"]).without(&set(Family::V4, &["10.0.0.1/32"]));
        assert_eq!(free.block_count(31), 1);
        assert_eq!(free.block(31, 0).unwrap().to_string(), "10.0.0.2/31");
        assert_eq!(free.block(31, 1), None);
        let ula = set(Family::V6, &["fd00::/8"]);
        assert_eq!(ula.block_count(64), 1 << 56);
        assert_eq!(ula.block(64, 1).unwrap().to_string(), "fd00:0:0:1::/64");
        let end = set(Family::V6, &["ffff:ffff:ffff:ffff::/64"]);
        assert_eq!(end.block_count(64), 1);
        assert_eq!(set(Family::V6, &["::/0"]).block_count(64), 1 << 64);
    }

    #[test]
    fn within_needs_the_same_family() {
        let within = |a: &str, b: &str| is_within(&a.parse().unwrap(), &b.parse().unwrap());
        assert!(within("10.1.0.0/16", "10.0.0.0/8"));
        assert!(within("10.0.0.0/8", "10.0.0.0/8"));
        assert!(!within("10.0.0.0/8", "10.1.0.0/16"));
        assert!(!within("::/0", "0.0.0.0/0"));
    }
}
