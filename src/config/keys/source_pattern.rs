//! The source addresses that a key may be used from: `from=` of sshd(8), and `source-address` of
//! certificates (OpenSSH PROTOCOL.certkeys).
//!
//! Only addresses are compared: names are not looked up, as with `UseDNS no`.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use thiserror::Error;

use crate::config::cidr::{CidrError, parse_network};
use crate::config::ssh::pattern::matches_pattern;

/// A list of networks and address patterns, each possibly negated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourcePatterns(Vec<Entry>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    negated: bool,
    what: Wanted,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    Network(IpNetwork),
    /// A pattern for the address as text.
    Text(String),
    /// A host name, which matches no address.
    Name(String),
}

/// The reason why a list is invalid.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SourceError {
    /// An empty entry.
    #[error("an entry of the list is empty")]
    Empty,
    /// An invalid network.
    #[error(transparent)]
    Network(#[from] CidrError),
    /// A negated name would exclude no client, since names are not looked up.
    #[error("'!{0}' is a name, and names are not looked up: give addresses")]
    NegatedName(String),
}

impl SourcePatterns {
    /// Parses the value of `from=`, without the quotes.
    pub fn parse(list: &str) -> Result<Self, SourceError> {
        let entries: Result<_, _> = list.split(',').map(Entry::parse).collect();
        entries.map(Self)
    }

    /// Whether a client with this address may use the key: an entry matches, and no negated entry
    /// does.
    pub fn permit(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let text = address.to_string();
        let mut permitted = false;
        for entry in &self.0 {
            if entry.what.matches(address, &text) {
                if entry.negated {
                    return false;
                }
                permitted = true;
            }
        }
        permitted
    }

    /// The host names of the list, which are never matched.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|entry| match &entry.what {
            Wanted::Name(name) => Some(name.as_str()),
            _ => None,
        })
    }
}

impl Entry {
    fn parse(text: &str) -> Result<Self, SourceError> {
        let (negated, text) = match text.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        if text.is_empty() {
            return Err(SourceError::Empty);
        }
        let what = Wanted::parse(text)?;
        match what {
            Wanted::Name(name) if negated => Err(SourceError::NegatedName(name)),
            what => Ok(Self { negated, what }),
        }
    }
}

impl Wanted {
    fn parse(text: &str) -> Result<Self, SourceError> {
        let lower = text.to_ascii_lowercase();
        let of_address = |c: char| c.is_ascii_hexdigit() || matches!(c, '.' | ':' | '*' | '?');
        match parse_network(text) {
            Ok(network) => Ok(Wanted::Network(network)),
            Err(_) if text.contains(['*', '?']) && lower.chars().all(of_address) => {
                Ok(Wanted::Text(lower))
            }
            // A host name has at least one character that no IPv4 address has.
            Err(CidrError::Nonsense(_))
                if !text.contains(['/', ':'])
                    && text.contains(|c: char| !c.is_ascii_digit() && c != '.') =>
            {
                Ok(Wanted::Name(lower))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn matches(&self, address: IpAddr, text: &str) -> bool {
        match self {
            Wanted::Network(network) => network.contains(address),
            Wanted::Text(pattern) => matches_pattern(text, pattern),
            Wanted::Name(_) => false,
        }
    }
}

/// Parses a certificate's `source-address`: networks only, no patterns or negation.
pub fn parse_networks(list: &str) -> Result<Vec<IpNetwork>, CidrError> {
    list.split(',').map(parse_network).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(list: &str, address: &str) -> bool {
        let list = SourcePatterns::parse(list).unwrap();
        list.permit(address.parse().unwrap())
    }

    #[test]
    fn networks_addresses_and_wildcards_match() {
        for (list, address, expected) in [
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.?", "10.1.2.34", false),
            ("10.1.*", "10.1.2.34", true),
            ("*", "fd00::1", true),
            ("FD00:*", "fd00::1", true),
            ("fd00::/16", "fd00::1", true),
            ("0.0.0.0/0", "fd00::1", false),
            ("::/0", "10.1.2.3", false),
            ("host.example,*.lab", "10.1.2.3", false),
        ] {
            assert_eq!(permits(list, address), expected, "{list} {address}");
        }
    }

    #[test]
    fn a_negated_entry_wins_wherever_it_stands() {
        for list in [
            "!10.1.2.3,10.0.0.0/8",
            "10.0.0.0/8,!10.1.2.3",
            "*,!10.1.2.?",
        ] {
            assert!(!permits(list, "10.1.2.3"), "{list}");
            assert!(permits(list, "10.1.9.9"), "{list}");
        }
        assert!(!permits("!10.1.2.3", "10.9.9.9"));
    }

    #[test]
    fn an_ipv4_client_of_an_ipv6_socket_is_an_ipv4_client() {
        assert!(permits("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(!permits("*,!10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(permits("10.1.*", "::ffff:10.1.2.3"));
    }

    #[test]
    fn lists_that_cannot_be_kept_to_are_refused() {
        for wrong in [
            "",
            ",",
            "10.0.0.1,",
            "!",
            "10.1.2.3/8",
            "10.0.0.0/33",
            "10.1",
            "1.2.3.4.5",
            "::1::",
            "!host.example",
            "!*.lab",
            "::ffff:10.0.0.1",
        ] {
            assert!(SourcePatterns::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_are_reported() {
        let list = SourcePatterns::parse("10.0.0.1,Host.example,*.lab,cafe").unwrap();
        let names: Vec<&str> = list.names().collect();
        assert_eq!(names, ["host.example", "*.lab", "cafe"]);
    }

    #[test]
    fn certificates_name_networks_alone() {
        assert_eq!(parse_networks("10.0.0.0/8,fd00::1").unwrap().len(), 2);
        for wrong in ["", "10.*", "!10.0.0.0/8", "host", "10.1.2.3/8"] {
            assert!(parse_networks(wrong).is_err(), "{wrong}");
        }
    }
}
