//! Notes for the user about the parts of an offer that the client does not take.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::host::change::resolver::name_servers::NameServers;

/// A note about an offer. Its text follows the server's name and a colon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::client::up) enum OfferNote {
    /// Routes that the user does not accept.
    RoutesLeft(String),
    /// Routes that together cover everything, though the user accepts all routes.
    Everything(String),
    /// A warning: routes to addresses that hosts cannot have.
    UnsoundRoutes(String),
    /// A warning: a route of a family in which the tunnel has no address.
    RouteWithoutFamily(IpNetwork),
    /// A warning: a route that this host cannot install, and the reason.
    RouteRefused(IpNetwork, String),
    /// Name servers that the user does not accept.
    NameServersLeft(NameServers),
    /// A warning: a name server that no route of the tunnel reaches.
    NameServerOutside(IpAddr),
    /// The IPv6 addresses are not used, and the reason.
    WithoutIpv6(&'static str),
    /// The offer has no address.
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
                "offers routes {list}: not taken, since together they cover nearly all addresses; \
                 --accept-route NETWORK takes those within NETWORK"
            ),
            OfferNote::UnsoundRoutes(list) => {
                write!(f, "offers routes {list}: not taken, since no host can have these addresses")
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
                "no route of the tunnel leads to the name server {server}: queries to it go outside of the tunnel"
            ),
            OfferNote::WithoutIpv6(problem) => {
                write!(f, "offers IPv6 addresses: not taken, since {problem}")
            }
            OfferNote::NoAddress => f.write_str(
                "offers no addresses: the device on this host needs one from elsewhere (by DHCP, for instance)",
            ),
        }
    }
}
