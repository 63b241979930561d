//! Remarks, warnings and errors about planned routes.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use thiserror::Error;

use super::route_plan::MAX_ROUTES;

/// A remark or a warning about a planned route that is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteNote {
    /// A warning: the route contains a local network, which stays outside of the tunnel.
    ContainsLocal {
        /// The planned route.
        route: IpNetwork,
        /// The local network.
        network: IpNetwork,
        /// Its interface.
        interface: String,
        /// Whether it is a network of another tunnel.
        tunnel: bool,
    },
    /// A more specific existing route stays in force for its part.
    ContainsRoute {
        /// The planned route.
        route: IpNetwork,
        /// The existing route's destination.
        existing: IpNetwork,
        /// The existing route's path.
        way: String,
    },
    /// The planned route takes precedence over a wider existing route.
    InsideRoute {
        /// The planned route.
        route: IpNetwork,
        /// The existing route's destination.
        existing: IpNetwork,
        /// The existing route's path.
        way: String,
    },
}

impl RouteNote {
    /// Whether it is a warning rather than a remark.
    pub fn is_warning(&self) -> bool {
        matches!(self, RouteNote::ContainsLocal { .. })
    }
}

impl fmt::Display for RouteNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RouteNote::ContainsLocal {
                route,
                network,
                interface,
                tunnel: true,
            } => write!(
                f,
                "the route {route} contains {network}, which stays with the tunnel on {interface}"
            ),
            RouteNote::ContainsLocal {
                route,
                network,
                interface,
                tunnel: false,
            } => write!(
                f,
                "the route {route} contains the local network {network} on {interface}, which stays outside the tunnel"
            ),
            RouteNote::ContainsRoute {
                route,
                existing,
                way,
            } => write!(
                f,
                "the route {route} contains the existing route {existing} {way}, which stays in force"
            ),
            RouteNote::InsideRoute {
                route,
                existing,
                way,
            } => write!(
                f,
                "the route {route} takes precedence over the existing route {existing} {way}"
            ),
        }
    }
}

/// The reason why the requested routes cannot be installed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RoutePlanError {
    /// The excludes split the routes into too many.
    #[error(
        "routes and excludes make {0} routes, more than {MAX_ROUTES}; ask for fewer, larger networks"
    )]
    TooMany(usize),
    /// No route is left.
    #[error("the excludes leave none of the requested routes; exclude smaller networks")]
    Nothing,
    /// The route would send the SSH connection through its own tunnel.
    #[error(
        "the route {route} contains the SSH server {server}, through which the tunnel runs; {}",
        without(exclude.as_ref())
    )]
    Server {
        /// The route.
        route: IpNetwork,
        /// The server, or the first jump host.
        server: IpAddr,
        /// What to exclude, if routes are left then.
        exclude: Option<IpNetwork>,
    },
    /// The route overlaps a network that this host is directly connected to.
    #[error(
        "the route {route} overlaps the local network {network} on {interface}; {}, or renumber one of the two",
        without(exclude.as_ref())
    )]
    Local {
        /// The route.
        route: IpNetwork,
        /// The local network.
        network: IpNetwork,
        /// Its interface.
        interface: String,
        /// What to exclude, if routes are left then.
        exclude: Option<IpNetwork>,
    },
    /// The route overlaps a network of another tunnel.
    #[error(
        "the route {route}: this host reaches {network} by a tunnel on {interface} already; end that tunnel, or {}",
        without(exclude.as_ref())
    )]
    Tunnel {
        /// The route.
        route: IpNetwork,
        /// The tunnel's network.
        network: IpNetwork,
        /// Its interface.
        interface: String,
        /// What to exclude, if routes are left then.
        exclude: Option<IpNetwork>,
    },
    /// This host has the same route.
    #[error("this host already has a route {route} {way}; {}", way_out(route))]
    Taken {
        /// The route.
        route: IpNetwork,
        /// The existing route's path.
        way: String,
    },
}

fn way_out(route: &IpNetwork) -> &'static str {
    match (route.prefix(), route) {
        (0, IpNetwork::V4(_)) => {
            "to send everything through the tunnel, ask for its halves: 0.0.0.0/1 and 128.0.0.0/1"
        }
        (0, IpNetwork::V6(_)) => {
            "to send everything through the tunnel, ask for its halves: ::/1 and 8000::/1"
        }
        _ => "remove that route, or ask for smaller networks within it",
    }
}

/// The advice to do without a network.
fn without(exclude: Option<&IpNetwork>) -> String {
    match exclude {
        Some(network) => format!("add --exclude {network}"),
        None => "leave out that route".to_owned(),
    }
}
