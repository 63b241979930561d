//! The complete settings of a server.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnetwork::IpNetwork;

use crate::config::congestion::CongestionControl;
use crate::config::domain_name::DomainName;
use crate::config::forward_place::Place;
use crate::types::{InterfaceName, Mode, Mtu, Unit};

/// Limit of the networks offered to one client, the same as our own clients' limit.
pub const MOST_ROUTES: usize = 1024;
/// Limit of the name servers offered to clients; resolvers use at most three
/// (resolv.conf(5)).
pub const MOST_NAME_SERVERS: usize = 8;
/// Limit of the search domains offered to clients.
pub const MOST_DOMAINS: usize = 32;

/// All settings of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServeSettings {
    /// The addresses at which it listens.
    pub listen: Vec<SocketAddr>,
    /// The congestion control of the connections; `None` for this host's own choice.
    pub congestion: Option<CongestionControl>,
    /// Files of host keys; a missing one is generated.
    pub host_keys: Vec<PathBuf>,
    /// Files of keys that can log in.
    pub authorized_keys: Vec<PathBuf>,
    /// Files of trusted authorities' keys.
    pub user_authorities: Vec<PathBuf>,
    /// The file of revoked keys and certificates.
    pub revoked_keys: Option<PathBuf>,
    /// No tunnels and no forwards for any client, whatever else is granted.
    pub disable_forwarding: bool,
    /// Limits on logins.
    pub login: LoginSettings,
    /// The networks of the tunnels.
    pub network: NetworkSettings,
    /// Limits per client.
    pub limits: ClientLimits,
    /// The destinations of the audit log.
    pub audit: AuditSettings,
    /// The address of the metrics listener; `None` disables it.
    pub metrics: Option<SocketAddr>,
    /// Names permitted in requests for metrics, besides addresses and this host's name.
    pub metrics_names: Vec<DomainName>,
    /// Rules for clients; the first that matches applies.
    pub clients: Vec<ClientRule>,
}

/// Limits on logins, as in sshd_config(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginSettings {
    /// Time limit for a login; `None` is unlimited.
    pub grace_time: Option<Duration>,
    /// The time limit while more than [`MaxStartups::start`] connections have no login.
    pub crowded_grace_time: Option<Duration>,
    /// Limit of the failed attempts on one connection.
    pub max_auth_tries: usize,
    /// `MaxStartups`: connections without a login.
    pub max_startups: MaxStartups,
    /// `PerSourceMaxStartups`: the same from one network of [`source_block`](Self::source_block).
    pub per_source_max_startups: Option<usize>,
    /// `PerSourceNetBlockSize`: prefix lengths for IPv4 and IPv6.
    pub source_block: (u8, u8),
    /// The same as `per_source_max_startups` for a network of `network_block`.
    pub per_network_max_startups: Option<usize>,
    /// Prefix lengths, for IPv4 and IPv6, of networks that one attacker may control.
    pub network_block: (u8, u8),
    /// `PerSourcePenalties`; `None` disables them.
    pub penalties: Option<Penalties>,
    /// `PerSourcePenaltyExemptList`.
    pub exempt: Vec<IpNetwork>,
}

/// From `start` on, a new connection displaces one that has not begun to log in, or is
/// refused if there is none, with a chance of `rate` percent that grows to 100 percent at
/// `full`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxStartups {
    /// Below this number, connections are always accepted.
    pub start: usize,
    /// The chance at `start`, in percent.
    pub rate: u8,
    /// From this number on, no connection is accepted without a displacement.
    pub full: usize,
}

/// How long a source is refused after an offence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Penalties {
    /// A failed login.
    pub authfail: Duration,
    /// A connection without a login attempt.
    pub noauth: Duration,
    /// A login that exceeded its time limit.
    pub grace_exceeded: Duration,
    /// A connection that did not speak SSH, or broke the protocol.
    pub crash: Duration,
    /// The smallest sum of penalties that takes effect.
    pub min: Duration,
    /// The largest sum of penalties.
    pub max: Duration,
    /// Limit of the recorded IPv4 sources.
    pub max_sources4: usize,
    /// Limit of the recorded IPv6 sources.
    pub max_sources6: usize,
    /// What happens when the table of IPv4 sources is full.
    pub overflow: Overflow,
    /// The same for IPv6.
    pub overflow6: Overflow,
}

/// What happens when a table of sources is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// A new penalty replaces the one that ends first.
    Permissive,
    /// All sources that are not exempt are refused until a penalty ends.
    DenyAll,
}

/// The networks of the tunnels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSettings {
    /// Networks for clients' addresses, at most one per family; if empty, unused private
    /// networks are chosen.
    pub pools: Vec<IpNetwork>,
    /// Whether the server assigns addresses at all.
    pub assign: bool,
    /// The file that keeps leases over a restart.
    pub leases: PathBuf,
    /// The MTU of the tunnels.
    pub mtu: Mtu,
    /// Networks beyond this host that clients may reach, unless a rule has its own.
    pub routes: Vec<IpNetwork>,
    /// Whether clients appear there with this host's address.
    pub nat: bool,
    /// Whether hosts there may open connections to clients.
    pub inbound: bool,
    /// Name servers offered to our own clients.
    pub dns_servers: Vec<IpAddr>,
    /// Their search domains.
    pub dns_search: Vec<String>,
    /// The bridge that ethernet tunnels join.
    pub bridge: Option<InterfaceName>,
}

/// Limits per client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientLimits {
    /// Limit of concurrent logged-in clients.
    pub clients: usize,
    /// Limit of concurrent connections of one key.
    pub per_key: usize,
    /// Limit of concurrent channels of one connection.
    pub channels: usize,
    /// Bytes per second that a client may send; `None` is unlimited.
    pub upload: Option<u64>,
    /// Bytes per second that a client may receive; `None` is unlimited.
    pub download: Option<u64>,
}

/// The destinations of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditSettings {
    /// A file of JSON lines.
    pub file: Option<PathBuf>,
    /// Whether to log to the journal too, if there is one.
    pub journald: bool,
}

/// What clients are granted besides the options of their line in authorized_keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientRule {
    /// The clients that the rule matches.
    pub who: ClientMatch,
    /// The modes of a tunnel; if empty, the rule grants no tunnel.
    pub tunnel: Vec<Mode>,
    /// The one unit that the client may have.
    pub unit: Option<Unit>,
    /// Fixed addresses, at most one per family.
    pub addresses: Vec<IpAddr>,
    /// Networks behind the client.
    pub sources: Vec<IpNetwork>,
    /// Networks that the client may reach, instead of the server's.
    pub routes: Option<Vec<IpNetwork>>,
    /// The client's groups.
    pub groups: Vec<String>,
    /// Places to which the client may open TCP connections.
    pub permit_open: Vec<Place>,
    /// Places at which the client may listen.
    pub permit_listen: Vec<Place>,
    /// Upload limit in bytes per second, instead of the server's.
    pub upload: Option<u64>,
    /// Download limit in bytes per second, instead of the server's.
    pub download: Option<u64>,
}

/// The conditions of a rule; all that are given have to match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientMatch {
    /// The key's fingerprint, `SHA256:…`.
    pub key: Option<String>,
    /// The user name. Any key holder can claim any name, so without `key` and `certificate`
    /// this matches only certificates that have the name as a principal.
    pub user: Option<String>,
    /// The certificate's key id, which every trusted authority can assign.
    pub certificate: Option<String>,
    /// The fingerprint of the key of the certificate's authority, `SHA256:…`.
    pub authority: Option<String>,
}
