//! What one logged-in client may do: the combined result of all rules.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

pub use crate::config::forward_place::Place;
use crate::config::ssh::pattern::matches_pattern;
use crate::types::{Mode, Unit};

/// Identity of a login, as in the log and in `--status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user name that the client gave.
    pub user: String,
    /// The key's fingerprint, as `ssh-keygen -l` shows it: `SHA256:…`.
    pub fingerprint: String,
    /// The certificate, if the client logged in with one.
    pub certificate: Option<CertificateIdentity>,
}

/// Identity of a certificate, as in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateIdentity {
    /// The key id that the authority gave it.
    pub key_id: String,
    /// Its serial number.
    pub serial: u64,
    /// The authority's fingerprint.
    pub authority: String,
}

/// A group whose members may reach each other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(pub String);

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Everything that a login permits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The identity of the client.
    pub identity: Identity,
    /// A tunnel; none unless a line or a rule grants one.
    pub tunnel: Option<TunnelGrant>,
    /// Connections that the server makes for the client (-L, -D).
    pub open: ForwardRule,
    /// Listeners of the server for the client (-R).
    pub listen: ForwardRule,
    /// Bytes per second that the client may send, tunnel and forwards together; `None` is
    /// unlimited.
    pub upload: Option<u64>,
    /// Bytes per second that the client may receive; `None` is unlimited.
    pub download: Option<u64>,
}

/// The tunnel that a client may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelGrant {
    /// The modes that the tunnel may have.
    pub modes: Vec<Mode>,
    /// The one unit that the client may have; `None` is any unit.
    pub unit: Option<Unit>,
    /// The client's fixed addresses, if any; at most one per family.
    pub addresses: Vec<IpAddr>,
    /// Networks behind the client: routed to it, and permitted as its source addresses
    /// besides its own addresses.
    pub sources: Vec<IpNetwork>,
    /// Networks beyond this host that the client may reach.
    pub routes: Vec<IpNetwork>,
    /// Groups whose clients it may reach.
    pub groups: BTreeSet<Group>,
}

/// The TCP forwards that a client may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardRule {
    /// No forwards.
    Nothing,
    /// All forwards.
    Anything,
    /// Only forwards to, or listeners at, these places.
    Places(Vec<Place>),
}

impl ForwardRule {
    /// Whether the client may connect to this place.
    pub fn permits(&self, host: &str, port: u16) -> bool {
        self.permits_if(port, |wanted| wanted.eq_ignore_ascii_case(host))
    }

    /// Whether the rule names that very place, not a pattern that includes it.
    pub fn names(&self, host: &str, port: u16) -> bool {
        match self {
            ForwardRule::Nothing | ForwardRule::Anything => false,
            ForwardRule::Places(places) => places.iter().any(|place| {
                let named = place.host.as_deref();
                place.port.is_none_or(|wanted| wanted == port)
                    && named.is_some_and(|named| named.eq_ignore_ascii_case(host))
            }),
        }
    }

    /// Whether the client may listen at this place. Hosts of this rule are patterns, as in
    /// sshd(8). A client that lets the server choose the port asks for port 0, which no
    /// port number permits.
    pub fn permits_listener(&self, host: &str, port: u16) -> bool {
        let host = host.to_ascii_lowercase();
        self.permits_if(port, |wanted| {
            matches_pattern(&host, &wanted.to_ascii_lowercase())
        })
    }

    fn permits_if(&self, port: u16, is_host: impl Fn(&str) -> bool) -> bool {
        match self {
            ForwardRule::Nothing => false,
            ForwardRule::Anything => true,
            ForwardRule::Places(places) => places.iter().any(|place| {
                place.port.is_none_or(|wanted| wanted == port)
                    && place.host.as_deref().is_none_or(&is_host)
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(list: &[&str]) -> ForwardRule {
        let places = list.iter().map(|text| Place::parse_open(text).unwrap());
        ForwardRule::Places(places.collect())
    }

    #[test]
    fn a_connection_is_permitted_to_its_place_by_name() {
        let rule = places(&["db.lab:5432", "*:443", "[::1]:*", "*.lab:80"]);
        for (host, port, expected) in [
            ("db.lab", 5432, true),
            ("DB.LAB", 5432, true),
            ("db.lab", 5433, false),
            ("anything", 443, true),
            ("::1", 1, true),
            ("127.0.0.1", 5432, false),
            // permitopen= has no patterns.
            ("a.lab", 80, false),
            ("*.lab", 80, true),
        ] {
            assert_eq!(rule.permits(host, port), expected, "{host}:{port}");
        }
        assert!(rule.names("DB.lab", 5432) && rule.names("::1", 7));
        assert!(!rule.names("db.lab", 443) && !rule.names("anything", 443));
        assert!(!ForwardRule::Anything.names("db.lab", 5432));
        assert!(!ForwardRule::Nothing.permits("a", 1));
        assert!(ForwardRule::Anything.permits("a", 1));
        assert!(!ForwardRule::Places(Vec::new()).permits("a", 1));
    }

    #[test]
    fn a_listener_is_permitted_by_pattern() {
        let rule = places(&["127.0.0.?:8080", "localhost:*"]);
        for (host, port, expected) in [
            ("127.0.0.1", 8080, true),
            ("127.0.0.11", 8080, false),
            ("localhost", 0, true),
            ("127.0.0.1", 0, false),
            ("", 8080, false),
        ] {
            assert_eq!(rule.permits_listener(host, port), expected, "{host}:{port}");
        }
    }
}
