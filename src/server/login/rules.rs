//! All rules of a server: its configuration and the files that it names, read as a whole
//! or not at all.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::policy::{Policy, Warning};
use crate::config::serve::request::ServeRequest;
use crate::config::serve::settings::ServeSettings;
use crate::server::life::serve_error::ServeError;
use crate::ssh::server::host_keys::HostKeys;
use crate::ssh::server::settings::ServerSettings;

/// The rules at one time; a reload replaces them.
#[derive(Debug)]
pub(in crate::server) struct Rules {
    /// The settings from the configuration.
    pub settings: ServeSettings,
    /// Decides about logins.
    pub policy: Policy,
    /// The settings common to all SSH connections.
    pub ssh: ServerSettings,
}

impl Rules {
    /// Reads everything; generates host keys that do not exist.
    pub(in crate::server) fn load(
        request: &ServeRequest,
    ) -> Result<(Self, Vec<Warning>), ServeError> {
        let settings = request.load()?;
        let (policy, mut warnings) = Policy::load(&settings)?;
        warnings.extend(policy.doubtful_rules(request.config_path()));
        let ssh = ServerSettings {
            host_keys: HostKeys::load_or_make(&settings.host_keys)?,
            max_auth_tries: settings.login.max_auth_tries,
            grace_time: settings.login.grace_time,
            channels: settings.limits.channels,
        };
        let rules = Rules {
            settings,
            policy,
            ssh,
        };
        Ok((rules, warnings))
    }

    /// Addresses that are reserved for certain clients.
    pub(in crate::server) fn fixed_addresses(&self) -> BTreeSet<IpAddr> {
        let rules = self.settings.clients.iter();
        rules
            .flat_map(|rule| rule.addresses.iter().copied())
            .collect()
    }
}
