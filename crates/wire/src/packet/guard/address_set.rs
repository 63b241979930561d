//! A set of IP addresses, looked up for each packet: sorted ranges that neither overlap
//! nor touch, so that a look-up is one binary search.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

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

    /// Whether this set contains all of `other`.
    pub fn includes(&self, other: &AddressSet) -> bool {
        other.minus(self).is_empty()
    }
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

    fn set(networks: &[&str]) -> AddressSet {
        networks
            .iter()
            .map(|network| network.parse::<IpNetwork>().unwrap())
            .collect()
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
            for host in 0..=255 {
                let address = IpAddr::from([10, 0, 0, host]);
                let inside = ours.iter().any(|network| network.contains(address));
                let outside = theirs.iter().any(|network| network.contains(address));
                prop_assert_eq!(one.contains(address), inside);
                prop_assert_eq!(both.contains(address), inside || outside);
                prop_assert_eq!(less.contains(address), inside && !outside);
            }
            prop_assert_eq!(one.includes(&other), other.minus(&one).is_empty());
        }
    }
}
