//! What every connection of a server has in common.

use std::time::Duration;

use super::host_keys::HostKeys;

/// Settings of a server's connections.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// By which it shows who it is.
    pub host_keys: HostKeys,
    /// Failed attempts of one connection, as sshd's `MaxAuthTries`.
    pub max_auth_tries: usize,
    /// How long a login may take; for ever, where there is none.
    pub grace_time: Option<Duration>,
    /// Channels that one connection may have open or ask for at once.
    pub channels: usize,
}
