//! The default settings of a server. If sshd_config(5) has the same setting, the value is
//! sshd's, except for the number of connections without a login: sshd's value is meant
//! for a few administrators, and 100 silent connections of one host would exclude all
//! other clients.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::settings::{
    AuditSettings, ClientLimits, LoginSettings, MaxStartups, NetworkSettings, Overflow, Penalties,
    ServeSettings,
};
use crate::types::Mtu;

/// The default configuration file, read if it exists.
pub const CONFIG: &str = "/etc/sshvpn/serve.toml";
/// The port, for IPv4 and IPv6.
const PORT: u16 = 2222;
const AUTHORIZED_KEYS: &str = "/etc/sshvpn/authorized_keys";
const HOST_KEY: &str = "/etc/sshvpn/host_ed25519_key";
/// The default file of leases.
pub const LEASES: &str = "/var/lib/sshvpn/leases.json";

impl Default for ServeSettings {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT))],
            congestion: None,
            host_keys: vec![HOST_KEY.into()],
            authorized_keys: vec![AUTHORIZED_KEYS.into()],
            user_authorities: Vec::new(),
            revoked_keys: None,
            disable_forwarding: false,
            login: LoginSettings::default(),
            network: NetworkSettings::default(),
            limits: ClientLimits::default(),
            audit: AuditSettings::default(),
            metrics: None,
            metrics_names: Vec::new(),
            clients: Vec::new(),
        }
    }
}

impl Default for LoginSettings {
    fn default() -> Self {
        Self {
            grace_time: Some(Duration::from_secs(120)),
            crowded_grace_time: Some(Duration::from_secs(20)),
            max_auth_tries: 6,
            max_startups: MaxStartups {
                start: 100,
                rate: 30,
                full: 1000,
            },
            per_source_max_startups: Some(20),
            source_block: (32, 64),
            per_network_max_startups: Some(100),
            network_block: (24, 48),
            penalties: Some(Penalties::default()),
            exempt: Vec::new(),
        }
    }
}

impl Default for Penalties {
    fn default() -> Self {
        Self {
            authfail: Duration::from_secs(5),
            noauth: Duration::from_secs(1),
            grace_exceeded: Duration::from_secs(10),
            crash: Duration::from_secs(90),
            min: Duration::from_secs(15),
            max: Duration::from_secs(600),
            max_sources4: 65536,
            max_sources6: 65536,
            overflow: Overflow::Permissive,
            overflow6: Overflow::Permissive,
        }
    }
}

impl Default for NetworkSettings {
    fn default() -> Self {
        Self {
            pools: Vec::new(),
            assign: true,
            leases: LEASES.into(),
            mtu: Mtu::ETHERNET,
            routes: Vec::new(),
            nat: true,
            inbound: false,
            dns_servers: Vec::new(),
            dns_search: Vec::new(),
            bridge: None,
        }
    }
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            clients: 1000,
            per_key: 10,
            channels: 64,
            upload: None,
            download: None,
        }
    }
}

impl Default for AuditSettings {
    fn default() -> Self {
        Self {
            file: None,
            journald: true,
        }
    }
}
