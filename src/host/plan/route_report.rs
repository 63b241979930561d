//! What there is to say about planned routes: remarks, warnings, errors.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use thiserror::Error;

use super::route_plan::MAX_ROUTES;

/// Something about a planned route that is allowed, but may surprise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteNote {
    /// A warning: a local network inside the route stays outside the tunnel.
    ContainsLocal {
        /// The planned route.
        route: IpNetwork,
        /// The local network.
        network: IpNetwork,
        /// Its interface.
        interface: String,
    },
    /// A more specific route stays in force for its part.
    ContainsRoute {
        /// The planned route.
        route: IpNetwork,
        /// The existing one.
        existing: IpNetwork,
        /// Where that leads.
        way: String,
    },
    /// The planned route takes its part from a wider one.
    InsideRoute {
        /// The planned route.
        route: IpNetwork,
        /// The existing one.
        existing: IpNetwork,
        /// Where that leads.
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

/// Why the routes cannot be installed as asked for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RoutePlanError {
    /// The excludes cut the routes to pieces.
    #[error(
        "routes and excludes make {0} routes, more than {MAX_ROUTES}; ask for fewer, larger networks"
    )]
    TooMany(usize),
    /// Nothing is left.
    #[error("the excludes leave nothing of the routes that were asked for")]
    Nothing,
    /// The tunnel would run through itself.
    #[error(
        "the route {route} contains the SSH server {server}, through which the tunnel runs; add --exclude {}", IpNetwork::from(*server)
    )]
    Server {
        /// The route.
        route: IpNetwork,
        /// The server, or the first jump host.
        server: IpAddr,
    },
    /// Part of a network that this host is in.
    #[error(
        "the route {route} overlaps the local network {network} on {interface}; use --exclude {network}, or renumber one of the two"
    )]
    Local {
        /// The route.
        route: IpNetwork,
        /// The local network.
        network: IpNetwork,
        /// Its interface.
        interface: String,
    },
    /// There is such a route.
    #[error("this host has a route {route} {way} already; {}", way_out(route))]
    Taken {
        /// The route.
        route: IpNetwork,
        /// Where the existing one leads.
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
        _ => "remove that, or ask for parts of it",
    }
}
