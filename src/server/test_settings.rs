//! Settings for tests: nothing is granted, nothing is reached.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::serve::settings::{
    AuditSettings, ClientLimits, LoginSettings, MaxStartups, NetworkSettings, ServeSettings,
};
use crate::config::types::Mtu;

/// A server without keys, pools, routes or rules.
pub fn settings() -> ServeSettings {
    ServeSettings {
        listen: vec!["[::]:2222".parse().unwrap()],
        host_keys: Vec::new(),
        authorized_keys: Vec::new(),
        user_authorities: Vec::new(),
        revoked_keys: None,
        login: LoginSettings {
            grace_time: Some(Duration::from_secs(120)),
            max_auth_tries: 6,
            max_startups: MaxStartups {
                start: 10,
                rate: 30,
                full: 100,
            },
            per_source_max_startups: None,
            source_block: (32, 128),
            penalties: None,
            exempt: Vec::new(),
        },
        network: NetworkSettings {
            pools: Vec::new(),
            assign: true,
            leases: PathBuf::from("/nowhere/leases.json"),
            mtu: Mtu::ETHERNET,
            routes: Vec::new(),
            nat: true,
            inbound: false,
            dns_servers: Vec::new(),
            dns_search: Vec::new(),
            bridge: None,
        },
        limits: ClientLimits {
            clients: 1000,
            per_key: 10,
            channels: 10,
            upload: None,
            download: None,
        },
        audit: AuditSettings {
            file: None,
            journald: false,
        },
        metrics: None,
        clients: Vec::new(),
        disable_forwarding: false,
    }
}
