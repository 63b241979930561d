//! `--route auto`: of the networks that the remote host has, those that the tunnel can take, and why
//! not the others. Pure.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use thiserror::Error;

use crate::client::up::UpRequest;
use crate::host::plan::facts::HostFacts;
use crate::host::plan::offered::is_meant;
use crate::host::plan::route_plan::{self, MAX_ROUTES, RoutePlanError, RouteRequest};
use crate::types::address_set::AddressSet;
use crate::types::family::is_within;

/// Networks that are left out, named one by one at most.
const LISTED: usize = 16;

/// The inputs of the choice.
pub(in crate::client::up) struct AutoInput<'a> {
    /// The remote host's name.
    pub host: &'a str,
    /// The user's request.
    pub request: &'a UpRequest,
    /// This host's state.
    pub local: &'a HostFacts,
    /// The addresses to which the SSH connection's TCP goes.
    pub first_hop: &'a [IpAddr],
    /// The connected and routed networks of the remote host.
    pub networks: &'a [IpNetwork],
    /// Networks to which the remote host forwards; all if `None`.
    pub permitted: Option<&'a [IpNetwork]>,
    /// Whether the tunnel can have IPv6 addresses.
    pub ipv6: bool,
}

/// The choice.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::client::up) struct Auto {
    /// The networks that are taken, besides those that the user named.
    pub taken: Vec<IpNetwork>,
    /// The networks that are not.
    pub left: Vec<Left>,
}

/// A network that is not taken, and why.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::client::up) struct Left {
    network: IpNetwork,
    reason: Reason,
}

#[derive(Debug, PartialEq, Eq)]
enum Reason {
    Server(IpAddr),
    Local(IpNetwork, String),
    Tunnel(IpNetwork, String),
    NotPermitted,
    WithoutIpv6,
    Other(String),
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.network)?;
        match &self.reason {
            Reason::Server(server) => write!(f, "the SSH connection runs to {server} in it"),
            Reason::Local(network, interface) => {
                write!(f, "this host has {network} itself, on {interface}")
            }
            Reason::Tunnel(network, interface) => {
                write!(f, "this host reaches {network} by a tunnel on {interface}")
            }
            Reason::NotPermitted => f.write_str("the agent there does not forward to it"),
            Reason::WithoutIpv6 => f.write_str("the tunnel has no IPv6"),
            Reason::Other(reason) => f.write_str(reason),
        }
    }
}

/// Why `--route auto` gives no tunnel.
#[derive(Debug, PartialEq, Eq, Error)]
pub(in crate::client::up) enum AutoError {
    /// The agent does not report its networks.
    #[error(
        "{0}: its sshvpn is older than --route auto: update it there, or name the networks with --route"
    )]
    Old(String),
    /// The remote host has more routes than a tunnel may.
    #[error(
        "{host} has {count} networks, more than {MAX_ROUTES}: name those to reach with --route"
    )]
    TooMany {
        /// The remote host.
        host: String,
        /// Their number.
        count: usize,
    },
    /// The server offers nothing that can be taken.
    #[error("{0} offers no route that --route auto can take")]
    NotOffered(String),
    /// Nothing is left.
    #[error("{0} has no network that --route auto can take: name one with --route")]
    Nothing(String),
}

/// Chooses the networks to take.
pub(in crate::client::up) fn choose(input: &AutoInput<'_>) -> Result<Auto, AutoError> {
    let request = input.request;
    let (named, excluded) = (
        AddressSet::of(&request.routes),
        AddressSet::of(&request.excludes),
    );
    let covered = named.union(&excluded);
    let mut auto = Auto {
        taken: Vec::new(),
        left: Vec::new(),
    };
    let meant = input.networks.iter().filter(|network| is_meant(network));
    let open: Vec<&IpNetwork> = meant
        .filter(|network| !covered.includes(&AddressSet::of([*network])))
        .collect();
    if open.len() > MAX_ROUTES {
        return Err(AutoError::TooMany {
            host: input.host.to_owned(),
            count: open.len(),
        });
    }
    for network in open {
        match reason_against(input, network) {
            Some(reason) => auto.left.push(Left {
                network: *network,
                reason,
            }),
            None => auto.taken.push(*network),
        }
    }
    if auto.taken.is_empty() && request.routes.is_empty() {
        return Err(AutoError::Nothing(input.host.to_owned()));
    }
    Ok(auto)
}

fn reason_against(input: &AutoInput<'_>, network: &IpNetwork) -> Option<Reason> {
    let permitted = |outer: &IpNetwork| is_within(network, outer);
    if network.is_ipv6() && !input.ipv6 {
        return Some(Reason::WithoutIpv6);
    }
    if let Some(networks) = input.permitted
        && !networks.iter().any(permitted)
    {
        return Some(Reason::NotPermitted);
    }
    let alone = RouteRequest {
        routes: vec![*network],
        excludes: input.request.excludes.clone(),
        servers: input.first_hop.to_vec(),
    };
    match route_plan::plan(&alone, input.local, "") {
        Ok(_) => None,
        Err(RoutePlanError::Server { server, .. }) => Some(Reason::Server(server)),
        Err(RoutePlanError::Local {
            network, interface, ..
        }) => Some(Reason::Local(network, interface)),
        Err(RoutePlanError::Tunnel {
            network, interface, ..
        }) => Some(Reason::Tunnel(network, interface)),
        Err(error) => Some(Reason::Other(error.to_string())),
    }
}

impl Auto {
    /// The lines for the user, behind the remote host's name.
    pub(in crate::client::up) fn lines(&self) -> Vec<String> {
        let taken: Vec<String> = self.taken.iter().map(ToString::to_string).collect();
        let mut lines = Vec::new();
        if !taken.is_empty() {
            lines.push(format!("--route auto takes {}", taken.join(", ")));
        }
        let left = self.left.iter().take(LISTED);
        lines.extend(left.map(|left| format!("--route auto leaves out {left}")));
        if let Some(more @ 1..) = self.left.len().checked_sub(LISTED) {
            lines.push(format!("--route auto leaves out {more} more"));
        }
        lines
    }
}

#[cfg(test)]
mod tests;
