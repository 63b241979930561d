//! Parses networks that the user writes, strictly: a wrong route is hard to notice later.

use std::net::{IpAddr, Ipv6Addr};

use ipnetwork::IpNetwork;
use serde::Deserialize;
use thiserror::Error;

/// The reason why a text is not a network.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CidrError {
    /// Not an address or a network.
    #[error(
        "'{0}' is not a network: give an IP address, or a network like 10.1.0.0/16 or fd00:1::/64"
    )]
    Nonsense(String),
    /// Not a prefix length of that family.
    #[error("'{text}' is not a network: the prefix length must be a number from 0 to {max}")]
    Prefix {
        /// The given text.
        text: String,
        /// The length of an address of the family.
        max: u8,
    },
    /// The address has bits set after the prefix.
    #[error("{text} has host bits set; did you mean {network}?")]
    HostBits {
        /// The given text.
        text: String,
        /// The network that contains the address.
        network: IpNetwork,
    },
    /// An IPv4-mapped IPv6 address (RFC 4291, section 2.5.5.2), which no packet on a wire has.
    #[error("{0} is an IPv4-mapped IPv6 network; give it as IPv4")]
    Mapped(String),
}

/// A network in a configuration file.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Network(pub(crate) IpNetwork);

impl TryFrom<String> for Network {
    type Error = CidrError;

    fn try_from(text: String) -> Result<Self, CidrError> {
        parse_network(&text).map(Network)
    }
}

/// Parses a network, or an address as the network of that address alone.
pub fn parse_network(text: &str) -> Result<IpNetwork, CidrError> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address
        .parse()
        .map_err(|_| CidrError::Nonsense(text.to_owned()))?;
    let max = IpNetwork::from(address).prefix();
    let prefix = match prefix {
        None => max,
        Some(prefix) => parse_prefix(prefix, max).ok_or_else(|| CidrError::Prefix {
            text: text.to_owned(),
            max,
        })?,
    };
    if let IpAddr::V6(address) = address
        && is_mapped(address, prefix)
    {
        return Err(CidrError::Mapped(text.to_owned()));
    }
    let given = IpNetwork::new(address, prefix);
    let network = given.and_then(|given| IpNetwork::new(given.network(), prefix));
    match network {
        Ok(network) if network.ip() == address => Ok(network),
        Ok(network) => Err(CidrError::HostBits {
            text: text.to_owned(),
            network,
        }),
        Err(_) => Err(CidrError::Nonsense(text.to_owned())),
    }
}

/// Digits only: no sign, no leading zero, no netmask.
fn parse_prefix(text: &str, max: u8) -> Option<u8> {
    let plain =
        text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    let prefix: u8 = text.parse().ok().filter(|_| plain)?;
    (prefix <= max).then_some(prefix)
}

fn is_mapped(address: Ipv6Addr, prefix: u8) -> bool {
    prefix >= 96 && address.to_ipv4_mapped().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn networks_and_bare_addresses_are_read() {
        for (text, network) in [
            ("10.1.0.0/16", "10.1.0.0/16"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("fd00::1", "fd00::1/128"),
            ("FD00:0::/64", "fd00::/64"),
        ] {
            assert_eq!(parse_network(text).unwrap().to_string(), network);
        }
    }

    #[test]
    fn host_bits_are_refused_with_the_network_that_was_meant() {
        assert_eq!(
            parse_network("10.1.2.3/16").unwrap_err().to_string(),
            "10.1.2.3/16 has host bits set; did you mean 10.1.0.0/16?"
        );
        assert_eq!(
            parse_network("fd00::1/64").unwrap_err().to_string(),
            "fd00::1/64 has host bits set; did you mean fd00::/64?"
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for wrong in [
            "",
            "/",
            "/8",
            "10",
            "10.1/16",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0.0/08",
            "10.0.0.0/255.0.0.0",
            "10.0.0.0/8/8",
            "::/129",
            "010.0.0.0/8",
            "fe80::1%eth0",
            "host.example",
            " 10.0.0.0/8",
            "::ffff:10.0.0.1",
            "::ffff:0.0.0.0/96",
        ] {
            assert!(parse_network(wrong).is_err(), "{wrong}");
        }
        assert!(matches!(
            parse_network("::ffff:1.2.3.4"),
            Err(CidrError::Mapped(_))
        ));
    }

    proptest! {
        #[test]
        fn any_text_is_an_error_or_reads_back(text in "[0-9a-f.:/]{0,24}") {
            if let Ok(network) = parse_network(&text) {
                prop_assert_eq!(parse_network(&network.to_string()), Ok(network));
                prop_assert_eq!(network.ip(), network.network());
            }
        }
    }
}
