//! What a server is to do, parsed and complete.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnetwork::IpNetwork;

use crate::config::domain_name::DomainName;
use crate::config::forward_place::Place;
use crate::types::{InterfaceName, Mode, Mtu, Unit};

/// Networks that one client may be offered: what our own clients take.
pub const MOST_ROUTES: usize = 1024;
/// Name servers that clients may be offered; resolvers ask three at most
/// (resolv.conf(5)).
pub const MOST_NAME_SERVERS: usize = 8;
/// Search domains that they may be offered.
pub const MOST_DOMAINS: usize = 32;

/// All settings of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServeSettings {
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// Its host keys; one that is missing is made.
    pub host_keys: Vec<PathBuf>,
    /// Files with the keys that may come in.
    pub authorized_keys: Vec<PathBuf>,
    /// Files with the keys whose user certificates are good.
    pub user_authorities: Vec<PathBuf>,
    /// Keys and certificates that are not good any more.
    pub revoked_keys: Option<PathBuf>,
    /// No tunnels and no forwards for anybody, whatever else is granted.
    pub disable_forwarding: bool,
    /// How logins are held in check.
    pub login: LoginSettings,
    /// What the tunnels lead to.
    pub network: NetworkSettings,
    /// What each client may use up.
    pub limits: ClientLimits,
    /// Where it is written down who did what.
    pub audit: AuditSettings,
    /// Where Prometheus asks; nowhere, where there is none.
    pub metrics: Option<SocketAddr>,
    /// Names under which it asks, besides addresses and the name of this host.
    pub metrics_names: Vec<DomainName>,
    /// Rules for clients; of several that match one, the first counts.
    pub clients: Vec<ClientRule>,
}

/// How logins are held in check, as in sshd_config(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginSettings {
    /// How long a login may take; for ever, where there is none.
    pub grace_time: Option<Duration>,
    /// How long while more than [`MaxStartups::start`] connections are not logged in.
    pub crowded_grace_time: Option<Duration>,
    /// Failed attempts of one connection.
    pub max_auth_tries: usize,
    /// `MaxStartups`: connections that are not logged in.
    pub max_startups: MaxStartups,
    /// `PerSourceMaxStartups`: the same from one network of [`source_block`](Self::source_block).
    pub per_source_max_startups: Option<usize>,
    /// `PerSourceNetBlockSize`: prefix lengths for IPv4 and IPv6.
    pub source_block: (u8, u8),
    /// The same as `per_source_max_startups` for a network of `network_block`.
    pub per_network_max_startups: Option<usize>,
    /// Prefix lengths for IPv4 and IPv6 of what one attacker may well have.
    pub network_block: (u8, u8),
    /// `PerSourcePenalties`; none, where they are off.
    pub penalties: Option<Penalties>,
    /// `PerSourcePenaltyExemptList`.
    pub exempt: Vec<IpNetwork>,
}

/// From `start` on a new connection displaces one that has not begun to log in,
/// or is refused where there is none, with a chance of `rate` percent, that grows
/// to certainty at `full`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxStartups {
    /// Connections that are always taken.
    pub start: usize,
    /// Percent.
    pub rate: u8,
    /// Connections from which on none is taken.
    pub full: usize,
}

/// For how long a source is refused, for what it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Penalties {
    /// A login that failed.
    pub authfail: Duration,
    /// A connection that tried no login.
    pub noauth: Duration,
    /// A login that took longer than it may.
    pub grace_exceeded: Duration,
    /// A connection that spoke no SSH, or broke its rules.
    pub crash: Duration,
    /// The least sum of penalties that counts.
    pub min: Duration,
    /// The largest sum.
    pub max: Duration,
    /// IPv4 sources that are known at most.
    pub max_sources4: usize,
    /// IPv6 sources that are known at most.
    pub max_sources6: usize,
    /// What happens when so many IPv4 sources are known.
    pub overflow: Overflow,
    /// The same for IPv6.
    pub overflow6: Overflow,
}

/// What happens when as many sources are known as may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// The penalty that ends first is forgotten for a new one.
    Permissive,
    /// Nobody comes in until a penalty has ended, but for who is exempt.
    DenyAll,
}

/// What the tunnels lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSettings {
    /// Networks that addresses are taken from, one a family at most; where it is
    /// empty, unused private ones are chosen.
    pub pools: Vec<IpNetwork>,
    /// Whether to have pools at all.
    pub assign: bool,
    /// Where leases are kept over a restart.
    pub leases: PathBuf,
    /// The MTU of the tunnels.
    pub mtu: Mtu,
    /// Networks beyond this host that clients may reach, where no rule says so.
    pub routes: Vec<IpNetwork>,
    /// Whether clients appear there with this host's address.
    pub nat: bool,
    /// Whether hosts beyond may open connections to clients.
    pub inbound: bool,
    /// Name servers for our own clients.
    pub dns_servers: Vec<IpAddr>,
    /// Their domains.
    pub dns_search: Vec<String>,
    /// The bridge that ethernet tunnels join.
    pub bridge: Option<InterfaceName>,
}

/// What each client may use up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientLimits {
    /// Clients that are logged in at once.
    pub clients: usize,
    /// Connections of one key at once.
    pub per_key: usize,
    /// Channels of one connection at once.
    pub channels: usize,
    /// Bytes a second that a client may send; any number where there is none.
    pub upload: Option<u64>,
    /// Bytes a second that a client may be sent.
    pub download: Option<u64>,
}

/// Where it is written down who did what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditSettings {
    /// A file of JSON lines.
    pub file: Option<PathBuf>,
    /// The journal too, where there is one.
    pub journald: bool,
}

/// What clients are granted besides what their line in authorized_keys says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientRule {
    /// Whom it is about.
    pub who: ClientMatch,
    /// What a tunnel may carry; no tunnel by this rule, where it is empty.
    pub tunnel: Vec<Mode>,
    /// The one unit that it may have.
    pub unit: Option<Unit>,
    /// Fixed addresses, at most one a family.
    pub addresses: Vec<IpAddr>,
    /// Networks behind the client.
    pub sources: Vec<IpNetwork>,
    /// Networks that it may reach, in place of the server's.
    pub routes: Option<Vec<IpNetwork>>,
    /// Groups that it is in.
    pub groups: Vec<String>,
    /// Places it may open TCP connections to.
    pub permit_open: Vec<Place>,
    /// Places it may listen at.
    pub permit_listen: Vec<Place>,
    /// Bytes a second, in place of the server's.
    pub upload: Option<u64>,
    /// Bytes a second, in place of the server's.
    pub download: Option<u64>,
}

/// Whom a rule is about: all that is given has to match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientMatch {
    /// The key's fingerprint, `SHA256:…`.
    pub key: Option<String>,
    /// The user name. Anybody with a key may give any, so without `key` and
    /// `certificate` it matches a certificate alone, of whose principals it is one.
    pub user: Option<String>,
    /// The certificate's key id, which every trusted authority can give out.
    pub certificate: Option<String>,
    /// The fingerprint of the key of the certificate's authority, `SHA256:…`.
    pub authority: Option<String>,
}
