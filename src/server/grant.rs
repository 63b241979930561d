//! What a client may do once it is in: the result of all rules, for one login.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::config::types::{Mode, Unit};

/// Who logged in, as the log and `--status` have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user name that was given.
    pub user: String,
    /// The key's fingerprint, as `ssh-keygen -l` shows it: `SHA256:…`.
    pub fingerprint: String,
    /// The certificate, where one was shown.
    pub certificate: Option<CertificateIdentity>,
}

/// A certificate, as the log has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateIdentity {
    /// What its authority calls it.
    pub key_id: String,
    /// Its number.
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

/// All that a login is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Whose.
    pub identity: Identity,
    /// A tunnel; none unless somebody granted it.
    pub tunnel: Option<TunnelGrant>,
    /// Connections from here on the client's behalf (-L, -D).
    pub open: ForwardRule,
    /// Listeners here on the client's behalf (-R).
    pub listen: ForwardRule,
}

/// The tunnel that a client may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelGrant {
    /// What it may carry; both, where both are listed.
    pub modes: Vec<Mode>,
    /// The one unit that it may have; any, where none is named.
    pub unit: Option<Unit>,
    /// Its addresses, where they are fixed; at most one a family.
    pub addresses: Vec<IpAddr>,
    /// Networks behind the client, that it may send from besides its addresses,
    /// and that are routed to it.
    pub sources: Vec<IpNetwork>,
    /// Networks beyond this host that it may reach.
    pub routes: Vec<IpNetwork>,
    /// Clients of these groups it may reach.
    pub groups: BTreeSet<Group>,
    /// Bytes a second that it may send; any number where there is none.
    pub upload: Option<u64>,
    /// Bytes a second that it may be sent.
    pub download: Option<u64>,
}

/// Which TCP forwards a client may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardRule {
    /// None.
    Nothing,
    /// Any.
    Anything,
    /// To or at these places alone.
    Places(Vec<Place>),
}

/// A place of `permitopen=` or `permitlisten=` (sshd(8)): a host, as it is asked
/// for, and a port; any, where none is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The name or address; compared as text, without case.
    pub host: Option<String>,
    /// The port.
    pub port: Option<u16>,
}
