//! The families of IP addresses, and addresses as numbers.

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

    /// IPv6 or IPv4.
    pub fn of_ipv6(ipv6: bool) -> Self {
        match ipv6 {
            true => Family::V6,
            false => Family::V4,
        }
    }

    /// The bits of an address.
    pub fn bits(self) -> u8 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }

    /// The address with this number, of which IPv4 takes the low 32 bits.
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

/// Whether `inner` is `outer` or lies in it.
pub fn is_within(inner: &IpNetwork, outer: &IpNetwork) -> bool {
    Family::of(inner.ip()) == Family::of(outer.ip())
        && outer.prefix() <= inner.prefix()
        && outer.contains(inner.network())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn within_needs_the_same_family() {
        let within = |a: &str, b: &str| is_within(&a.parse().unwrap(), &b.parse().unwrap());
        assert!(within("10.1.0.0/16", "10.0.0.0/8"));
        assert!(within("10.0.0.0/8", "10.0.0.0/8"));
        assert!(!within("10.0.0.0/8", "10.1.0.0/16"));
        assert!(!within("::/0", "0.0.0.0/0"));
    }
}
