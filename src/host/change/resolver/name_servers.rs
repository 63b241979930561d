//! The name servers of a tunnel and the domains that they answer for.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::config::domain_name::DomainName;

/// Name servers that are reached through a tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NameServers {
    /// Their addresses, at least one.
    pub servers: Vec<IpAddr>,
    /// The domains that they answer for, which are search domains for short names too; empty for
    /// all names.
    pub domains: Vec<DomainName>,
}

impl fmt::Display for NameServers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&joined(&self.servers, ", "))?;
        match self.domains.is_empty() {
            true => Ok(()),
            false => write!(f, " for {}", joined(&self.domains, ", ")),
        }
    }
}

/// Joins a list with `between`.
pub(in crate::host) fn joined<T: fmt::Display>(list: &[T], between: &str) -> String {
    let texts: Vec<String> = list.iter().map(ToString::to_string).collect();
    texts.join(between)
}
