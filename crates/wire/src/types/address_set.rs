//! A set of IP addresses, made of networks. The guard looks up each packet's addresses in one;
//! routes and free networks are planned with one. Sorted ranges that neither overlap nor
//! touch, so that a look-up is one binary search.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use super::family::Family;

/// A set of addresses of both families.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressSet {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

impl AddressSet {
    /// The empty set.
    pub const EMPTY: AddressSet = AddressSet {
        v4: Ranges(Vec::new()),
        v6: Ranges(Vec::new()),
    };

    /// All addresses of `networks`.
    pub fn of<'a>(networks: impl IntoIterator<Item = &'a IpNetwork>) -> Self {
        networks.into_iter().copied().collect()
    }

    /// Whether the set contains `address`.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.contains_v4(address),
            IpAddr::V6(address) => self.contains_v6(address),
        }
    }

    /// [`contains`](Self::contains) for IPv4.
    pub fn contains_v4(&self, address: Ipv4Addr) -> bool {
        self.v4.contains(address.to_bits())
    }

    /// [`contains`](Self::contains) for IPv6.
    pub fn contains_v6(&self, address: Ipv6Addr) -> bool {
        self.v6.contains(address.to_bits())
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.v4.0.is_empty() && self.v6.0.is_empty()
    }

    /// The union of both sets.
    pub fn union(&self, other: &AddressSet) -> AddressSet {
        AddressSet {
            v4: self.v4.union(&other.v4),
            v6: self.v6.union(&other.v6),
        }
    }

    /// The addresses of this set that are not in `other`.
    pub fn minus(&self, other: &AddressSet) -> AddressSet {
        AddressSet {
            v4: self.v4.minus(&other.v4),
            v6: self.v6.minus(&other.v6),
        }
    }

    /// The intersection with `other`.
    pub fn within(&self, other: &AddressSet) -> AddressSet {
        self.minus(&self.minus(other))
    }

    /// Whether this set contains all of `other`.
    pub fn includes(&self, other: &AddressSet) -> bool {
        other.minus(self).is_empty()
    }

    /// The fewest networks that cover exactly this set, sorted, IPv4 first.
    pub fn to_networks(&self) -> Vec<IpNetwork> {
        let mut networks = Vec::new();
        for family in [Family::V4, Family::V6] {
            for range in self.ranges(family) {
                let mut next = Some(range.first);
                while let Some(first) = next {
                    let host = range.largest_block(first, family);
                    networks.extend(network(family, first, host));
                    let last = first | low_bits(host);
                    next = last.checked_add(1).filter(|next| *next <= range.last);
                }
            }
        }
        networks
    }

    /// How many aligned blocks of `family` with this prefix length fit in.
    pub fn block_count(&self, family: Family, prefix: u8) -> u128 {
        let host = family.bits().saturating_sub(prefix).min(127);
        self.ranges(family).fold(0, |sum: u128, range| {
            sum.saturating_add(range.blocks(host).0)
        })
    }

    /// The block number `n` of those that [`AddressSet::block_count`] counts.
    pub fn block(&self, family: Family, prefix: u8, n: u128) -> Option<IpNetwork> {
        let host = family.bits().saturating_sub(prefix).min(127);
        let mut n = n;
        for range in self.ranges(family) {
            let (count, first) = range.blocks(host);
            if n < count {
                return network(family, (first + n) << host, host);
            }
            n -= count;
        }
        None
    }

    /// Those of one family.
    fn ranges(&self, family: Family) -> impl Iterator<Item = WideRange> {
        let (v4, v6) = match family {
            Family::V4 => (self.v4.0.as_slice(), Default::default()),
            Family::V6 => (Default::default(), self.v6.0.as_slice()),
        };
        let v4 = v4.iter().map(|&(first, last)| (first.into(), last.into()));
        let ranges = v4.chain(v6.iter().copied());
        ranges.map(|(first, last)| WideRange { first, last })
    }
}

/// First and last address of a run, both in it, of either family.
#[derive(Debug, Clone, Copy)]
struct WideRange {
    first: u128,
    last: u128,
}

impl WideRange {
    /// How many whole aligned blocks of `1 << host` addresses are in it, and
    /// the number of the first of them.
    fn blocks(self, host: u8) -> (u128, u128) {
        let host = u32::from(host);
        let mask = (1u128 << host) - 1;
        let Some(first) = self.first.checked_add(mask) else {
            return (0, 0);
        };
        let first = first >> host;
        // The end is one beyond the last block that is whole.
        let end = match self.last.checked_add(1) {
            Some(end) => end >> host,
            None => (u128::MAX >> host).saturating_add(1),
        };
        (end.saturating_sub(first), first)
    }

    /// The host bits of the largest aligned block that begins at `first` and
    /// does not reach beyond the end.
    fn largest_block(self, first: u128, family: Family) -> u8 {
        let mut host = 0;
        while host < family.bits() {
            let wider = low_bits(host + 1);
            if first & wider != 0 || self.last - first < wider {
                break;
            }
            host += 1;
        }
        host
    }
}

fn network(family: Family, first: u128, host: u8) -> Option<IpNetwork> {
    IpNetwork::new(family.address(first), family.bits() - host).ok()
}

/// The mask of the low `count` bits, up to 128.
fn low_bits(count: u8) -> u128 {
    1u128
        .checked_shl(u32::from(count))
        .map_or(u128::MAX, |bit| bit - 1)
}

impl FromIterator<IpNetwork> for AddressSet {
    fn from_iter<I: IntoIterator<Item = IpNetwork>>(networks: I) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match network {
                IpNetwork::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNetwork::V6(net) => v6.push((net.network().to_bits(), net.broadcast().to_bits())),
            }
        }
        AddressSet {
            v4: Ranges::new(v4),
            v6: Ranges::new(v6),
        }
    }
}

impl FromIterator<IpAddr> for AddressSet {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        addresses.into_iter().map(IpNetwork::from).collect()
    }
}

/// An address as a number.
trait Number: Copy + Ord {
    /// The next address; `None` after the last.
    fn next(self) -> Option<Self>;
    /// The previous address; `None` before the first.
    fn previous(self) -> Option<Self>;
}

impl Number for u32 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }

    fn previous(self) -> Option<Self> {
        self.checked_sub(1)
    }
}

impl Number for u128 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }

    fn previous(self) -> Option<Self> {
        self.checked_sub(1)
    }
}

/// First and last address of each range, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Ranges<T>(Vec<(T, T)>);

impl<T: Number> Ranges<T> {
    /// Takes ranges in any order, which may overlap.
    fn new(mut ranges: Vec<(T, T)>) -> Self {
        ranges.sort_unstable();
        let mut joined: Vec<(T, T)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match joined.last_mut() {
                Some((_, end)) if end.next().is_none_or(|next| first <= next) => {
                    *end = last.max(*end);
                }
                _ => joined.push((first, last)),
            }
        }
        Ranges(joined)
    }

    fn contains(&self, number: T) -> bool {
        let behind = self.0.partition_point(|(first, _)| *first <= number);
        let range = behind.checked_sub(1).and_then(|index| self.0.get(index));
        range.is_some_and(|(_, last)| number <= *last)
    }

    fn union(&self, other: &Self) -> Self {
        Ranges::new(self.0.iter().chain(&other.0).copied().collect())
    }

    fn minus(&self, other: &Self) -> Self {
        let mut left = Vec::with_capacity(self.0.len());
        for &(mut first, last) in &self.0 {
            let mut rest = true;
            let from = other.0.partition_point(|(_, end)| *end < first);
            for &(start, end) in other.0.iter().skip(from) {
                if start > last {
                    break;
                }
                if let Some(before) = start.previous().filter(|before| *before >= first) {
                    left.push((first, before));
                }
                match end.next().filter(|next| *next <= last) {
                    Some(next) => first = next,
                    None => {
                        rest = false;
                        break;
                    }
                }
            }
            if rest {
                left.push((first, last));
            }
        }
        Ranges(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn networks(list: &[&str]) -> Vec<IpNetwork> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn set(list: &[&str]) -> AddressSet {
        AddressSet::of(&networks(list))
    }

    #[test]
    fn the_ends_of_a_network_are_in_it_and_their_neighbours_are_not() {
        let set = set(&[
            "10.1.0.0/16",
            "fd00:1::/32",
            "0.0.0.0/32",
            "255.255.255.255/32",
        ]);
        for (address, inside) in [
            ("10.0.255.255", false),
            ("10.1.0.0", true),
            ("10.1.255.255", true),
            ("10.2.0.0", false),
            ("0.0.0.0", true),
            ("0.0.0.1", false),
            ("255.255.255.255", true),
            ("fd00:1::", true),
            ("fd00:1:ffff:ffff:ffff:ffff:ffff:ffff", true),
            ("fd00:2::", false),
            ("::ffff:10.1.0.1", false),
        ] {
            assert_eq!(set.contains(address.parse().unwrap()), inside, "{address}");
        }
        assert!(!AddressSet::EMPTY.contains("10.1.0.0".parse().unwrap()));
    }

    #[test]
    fn everything_less_a_network_is_what_is_before_and_behind_it() {
        let left = set(&["0.0.0.0/0", "::/0"]).minus(&set(&["0.0.0.0/8", "10.0.0.0/8", "::/1"]));
        let expected = set(&["8000::/1"]).union(&AddressSet {
            v4: Ranges::new(vec![(0x0100_0000, 0x09ff_ffff), (0x0b00_0000, u32::MAX)]),
            v6: Ranges::default(),
        });
        assert_eq!(left, expected);
        assert!(left.includes(&set(&["11.0.0.0/8", "9000::/4"])));
        assert!(!left.includes(&set(&["8.0.0.0/6"])));
        assert!(left.minus(&left).is_empty());
    }

    #[test]
    fn unions_are_covered_by_the_fewest_networks() {
        let cover = set(&[
            "10.0.1.0/24",
            "fd00::/8",
            "10.0.0.0/24",
            "10.0.0.128/25",
            "10.0.3.0/24",
        ]);
        assert_eq!(
            cover.to_networks(),
            networks(&["10.0.0.0/23", "10.0.3.0/24", "fd00::/8"])
        );
    }

    #[test]
    fn the_whole_of_both_families_works() {
        for (all, half) in [("0.0.0.0/0", "128.0.0.0/1"), ("::/0", "8000::/1")] {
            let whole = set(&[all]);
            assert_eq!(whole.to_networks(), networks(&[all]));
            assert!(whole.minus(&whole).to_networks().is_empty());
            let rest = whole.minus(&set(&[half]));
            let back = rest.to_networks();
            assert_eq!(back.len(), 1);
            assert_eq!(back[0].prefix(), 1);
        }
    }

    #[test]
    fn blocks_are_aligned_and_counted() {
        let free = set(&["10.0.0.0/30"]).minus(&set(&["10.0.0.1/32"]));
        assert_eq!(free.block_count(Family::V4, 31), 1);
        assert_eq!(
            free.block(Family::V4, 31, 0).unwrap().to_string(),
            "10.0.0.2/31"
        );
        assert_eq!(free.block(Family::V4, 31, 1), None);
        let ula = set(&["fd00::/8"]);
        assert_eq!(ula.block_count(Family::V6, 64), 1 << 56);
        assert_eq!(
            ula.block(Family::V6, 64, 1).unwrap().to_string(),
            "fd00:0:0:1::/64"
        );
        let end = set(&["ffff:ffff:ffff:ffff::/64"]);
        assert_eq!(end.block_count(Family::V6, 64), 1);
        assert_eq!(set(&["::/0"]).block_count(Family::V6, 64), 1 << 64);
    }

    proptest! {
        #[test]
        fn sets_are_what_their_members_say(
            ours in proptest::collection::vec((any::<u8>(), 24..=32_u8), 0..8),
            theirs in proptest::collection::vec((any::<u8>(), 24..=32_u8), 0..8),
        ) {
            let networks = |of: &[(u8, u8)]| -> Vec<IpNetwork> {
                of.iter()
                    .map(|(host, prefix)| IpNetwork::new([10, 0, 0, *host].into(), *prefix).unwrap())
                    .collect()
            };
            let (ours, theirs) = (networks(&ours), networks(&theirs));
            let one: AddressSet = ours.iter().copied().collect();
            let other: AddressSet = theirs.iter().copied().collect();
            let (both, less) = (one.union(&other), one.minus(&other));
            let common = one.within(&other);
            prop_assert_eq!(&AddressSet::of(&both.to_networks()), &both);
            for host in 0..=255 {
                let address = IpAddr::from([10, 0, 0, host]);
                let inside = ours.iter().any(|network| network.contains(address));
                let outside = theirs.iter().any(|network| network.contains(address));
                prop_assert_eq!(one.contains(address), inside);
                prop_assert_eq!(both.contains(address), inside || outside);
                prop_assert_eq!(less.contains(address), inside && !outside);
                prop_assert_eq!(common.contains(address), inside && outside);
            }
            prop_assert_eq!(one.includes(&other), other.minus(&one).is_empty());
        }
    }
}
