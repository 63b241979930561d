//! Parses `/etc/sshvpn/serve.toml`. Keys that are absent keep their defaults; an unknown
//! key is an error.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

use super::settings::{ClientMatch, ClientRule, MaxStartups, ServeSettings};
use super::values::{
    Count, Fingerprint, OptionalCount, OptionalPenalties, OptionalTime, Rate, SourceBlock,
};
use crate::config::cidr::Network;
use crate::config::congestion::CongestionControl;
use crate::config::domain_name::DomainName;
use crate::config::forward_place::{ListenPlace, OpenPlace};
use crate::config::toml_text;
use crate::types::{InterfaceName, Mode, Mtu, ParseError, Unit};

/// The document. Keys that exist on the command line too have the names of its options.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Document {
    listen: Option<Vec<SocketAddr>>,
    congestion: Option<CongestionControl>,
    host_key: Option<Vec<PathBuf>>,
    authorized_keys: Option<Vec<PathBuf>>,
    trusted_user_ca_keys: Option<Vec<PathBuf>>,
    revoked_keys: Option<PathBuf>,
    login: LoginTable,
    network: NetworkTable,
    limits: LimitsTable,
    audit: AuditTable,
    metrics: MetricsTable,
    client: Vec<Spanned<ClientTable>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct LoginTable {
    grace_time: Option<OptionalTime>,
    crowded_grace_time: Option<OptionalTime>,
    max_auth_tries: Option<Count>,
    max_startups: Option<MaxStartups>,
    per_source_max_startups: Option<OptionalCount>,
    per_source_net_block_size: Option<SourceBlock>,
    per_network_max_startups: Option<OptionalCount>,
    per_network_block_size: Option<SourceBlock>,
    per_source_penalties: Option<OptionalPenalties>,
    per_source_penalty_exempt: Option<Vec<Network>>,
    disable_forwarding: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct NetworkTable {
    pool: Option<Spanned<Vec<Network>>>,
    assign: Option<bool>,
    leases: Option<PathBuf>,
    mtu: Option<Mtu>,
    route: Option<Vec<Network>>,
    nat: Option<bool>,
    inbound: Option<bool>,
    dns_server: Option<Vec<IpAddr>>,
    dns_search: Option<Vec<String>>,
    bridge: Option<InterfaceName>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct LimitsTable {
    clients: Option<Count>,
    per_key: Option<Count>,
    channels: Option<Count>,
    upload: Option<Rate>,
    download: Option<Rate>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct AuditTable {
    file: Option<PathBuf>,
    journald: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct MetricsTable {
    listen: Option<SocketAddr>,
    names: Vec<DomainName>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct ClientTable {
    key: Option<Fingerprint>,
    user: Option<String>,
    certificate: Option<String>,
    authority: Option<Fingerprint>,
    tunnel: Vec<Mode>,
    unit: Option<UnitNumber>,
    address: Vec<IpAddr>,
    source: Vec<Network>,
    route: Option<Vec<Network>>,
    group: Vec<String>,
    permit_open: Vec<OpenPlace>,
    permit_listen: Vec<ListenPlace>,
    upload: Option<Rate>,
    download: Option<Rate>,
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "u32")]
struct UnitNumber(Unit);

impl TryFrom<u32> for UnitNumber {
    type Error = ParseError;

    fn try_from(number: u32) -> Result<Self, ParseError> {
        Unit::new(number).map(UnitNumber)
    }
}

/// The contents of a file, and the lines for later errors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileSettings {
    /// The complete settings.
    pub settings: ServeSettings,
    /// The lines of what is checked later.
    pub lines: Lines,
}

/// Line numbers in a file, from 1.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lines {
    /// The line of `pool`, if present.
    pub pool: Option<usize>,
    /// The line of each `[[client]]`.
    pub clients: Vec<usize>,
}

/// Parses a file; the error is one line of text that begins with the line number.
pub fn parse(content: &[u8]) -> Result<FileSettings, String> {
    let document: Document = toml_text::parse(content)?;
    let line = |offset| toml_text::line_at(content, offset);
    let lines = Lines {
        pool: document
            .network
            .pool
            .as_ref()
            .map(|pool| line(pool.span().start)),
        clients: document
            .client
            .iter()
            .map(|client| line(client.span().start))
            .collect(),
    };
    let mut settings = ServeSettings::default();
    document.apply(&mut settings);
    Ok(FileSettings { settings, lines })
}

impl Document {
    fn apply(self, to: &mut ServeSettings) {
        put(&mut to.listen, self.listen);
        to.congestion = self.congestion;
        put(&mut to.host_keys, self.host_key);
        put(&mut to.authorized_keys, self.authorized_keys);
        put(&mut to.user_authorities, self.trusted_user_ca_keys);
        to.revoked_keys = self.revoked_keys;
        put(&mut to.disable_forwarding, self.login.disable_forwarding);
        self.login.apply(to);
        self.network.apply(to);
        let limits = self.limits;
        put(
            &mut to.limits.clients,
            limits.clients.map(|Count(count)| count),
        );
        put(
            &mut to.limits.per_key,
            limits.per_key.map(|Count(count)| count),
        );
        put(
            &mut to.limits.channels,
            limits.channels.map(|Count(count)| count),
        );
        to.limits.upload = limits.upload.map(|Rate(bytes)| bytes);
        to.limits.download = limits.download.map(|Rate(bytes)| bytes);
        to.audit.file = self.audit.file;
        put(&mut to.audit.journald, self.audit.journald);
        to.metrics = self.metrics.listen;
        to.metrics_names = self.metrics.names;
        let clients = self.client.into_iter().map(Spanned::into_inner);
        to.clients = clients.map(ClientTable::into_rule).collect();
    }
}

impl LoginTable {
    fn apply(self, to: &mut ServeSettings) {
        let to = &mut to.login;
        put(
            &mut to.grace_time,
            self.grace_time.map(|OptionalTime(time)| time),
        );
        put(
            &mut to.crowded_grace_time,
            self.crowded_grace_time.map(|OptionalTime(time)| time),
        );
        put(
            &mut to.max_auth_tries,
            self.max_auth_tries.map(|Count(count)| count),
        );
        put(&mut to.max_startups, self.max_startups);
        put(
            &mut to.per_source_max_startups,
            self.per_source_max_startups
                .map(|OptionalCount(count)| count),
        );
        put(
            &mut to.source_block,
            self.per_source_net_block_size
                .map(|SourceBlock(v4, v6)| (v4, v6)),
        );
        put(
            &mut to.per_network_max_startups,
            self.per_network_max_startups
                .map(|OptionalCount(count)| count),
        );
        put(
            &mut to.network_block,
            self.per_network_block_size
                .map(|SourceBlock(v4, v6)| (v4, v6)),
        );
        put(
            &mut to.penalties,
            self.per_source_penalties
                .map(|OptionalPenalties(penalties)| penalties),
        );
        put(&mut to.exempt, self.per_source_penalty_exempt.map(plain));
    }
}

impl NetworkTable {
    fn apply(self, to: &mut ServeSettings) {
        let to = &mut to.network;
        put(
            &mut to.pools,
            self.pool.map(|pool| plain(pool.into_inner())),
        );
        put(&mut to.assign, self.assign);
        put(&mut to.leases, self.leases);
        put(&mut to.mtu, self.mtu);
        put(&mut to.routes, self.route.map(plain));
        put(&mut to.nat, self.nat);
        put(&mut to.inbound, self.inbound);
        put(&mut to.dns_servers, self.dns_server);
        put(&mut to.dns_search, self.dns_search);
        to.bridge = self.bridge;
    }
}

impl ClientTable {
    fn into_rule(self) -> ClientRule {
        ClientRule {
            who: ClientMatch {
                key: self.key.map(|Fingerprint(text)| text),
                user: self.user,
                certificate: self.certificate,
                authority: self.authority.map(|Fingerprint(text)| text),
            },
            tunnel: self.tunnel,
            unit: self.unit.map(|UnitNumber(unit)| unit),
            addresses: self.address,
            sources: plain(self.source),
            routes: self.route.map(plain),
            groups: self.group,
            permit_open: self
                .permit_open
                .into_iter()
                .map(|OpenPlace(place)| place)
                .collect(),
            permit_listen: self
                .permit_listen
                .into_iter()
                .map(|ListenPlace(place)| place)
                .collect(),
            upload: self.upload.map(|Rate(bytes)| bytes),
            download: self.download.map(|Rate(bytes)| bytes),
        }
    }
}

fn put<T>(place: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *place = given;
    }
}

fn plain(list: Vec<Network>) -> Vec<ipnetwork::IpNetwork> {
    list.into_iter().map(|Network(network)| network).collect()
}

#[cfg(test)]
mod tests;
