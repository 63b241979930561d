//! What there is to say about an offer: what of it was not taken, and why.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::host::change::resolver::name_servers::NameServers;

/// Something about an offer that the user should know. Each reads on behind the
/// server's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::client::up) enum OfferNote {
    /// Routes that the user did not allow.
    RoutesLeft(String),
    /// Routes that take everything, though the user allowed all.
    Everything(String),
    /// A warning: routes that are no networks of hosts.
    UnsoundRoutes(String),
    /// A warning: a route of a family of which the tunnel has no address.
    RouteWithoutFamily(IpNetwork),
    /// A warning: a route that this host cannot have, and why.
    RouteRefused(IpNetwork, String),
    /// Name servers that the user did not allow.
    NameServersLeft(NameServers),
    /// A warning: a name server that is not reached through the tunnel.
    NameServerOutside(IpAddr),
    /// The IPv6 addresses were left out, and why.
    WithoutIpv6(&'static str),
    /// There is no address.
    NoAddress,
}

impl OfferNote {
    /// Whether it is a warning rather than a remark.
    pub fn is_warning(&self) -> bool {
        matches!(
            self,
            OfferNote::UnsoundRoutes(_)
                | OfferNote::RouteWithoutFamily(_)
                | OfferNote::RouteRefused(..)
                | OfferNote::NameServerOutside(_)
        )
    }
}

impl fmt::Display for OfferNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OfferNote::RoutesLeft(list) => {
                write!(f, "offers routes {list}: --accept-routes takes them")
            }
            OfferNote::Everything(list) => write!(
                f,
                "offers routes {list}: not taken, since together they are next to everything; \
                 --accept-route NETWORK takes those that are in it"
            ),
            OfferNote::UnsoundRoutes(list) => {
                write!(f, "offers routes {list}: not taken, since no hosts are there")
            }
            OfferNote::RouteWithoutFamily(route) => write!(
                f,
                "offers the route {route}: not taken, since the tunnel has no address of that family"
            ),
            OfferNote::RouteRefused(route, reason) => {
                write!(f, "offers the route {route}: not taken: {reason}")
            }
            OfferNote::NameServersLeft(name_servers) => write!(
                f,
                "offers the name servers {name_servers}: --accept-dns takes them"
            ),
            OfferNote::NameServerOutside(server) => write!(
                f,
                "the name server {server} is not behind the tunnel's routes, so it is asked outside of the tunnel"
            ),
            OfferNote::WithoutIpv6(problem) => {
                write!(f, "offers IPv6 addresses: not taken, since {problem}")
            }
            OfferNote::NoAddress => f.write_str(
                "offers no addresses: the device here has none until somebody gives it one (DHCP, for instance)",
            ),
        }
    }
}
