//! Why the client rejects a server's offer, and what to do about it.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use thiserror::Error;

use crate::config::domain_name::DomainNameError;
use crate::types::{Mtu, ParseError};

/// Why the client rejects an offer.
#[derive(Debug, Error)]
pub enum OfferError {
    /// The offer is invalid.
    #[error("{host}: the server offers an invalid tunnel: {reason}")]
    Nonsense {
        /// The server.
        host: String,
        /// The fault.
        reason: String,
    },
    /// The MTU is invalid.
    #[error("{host}: the server offers an invalid tunnel: {source}")]
    Mtu {
        /// The server.
        host: String,
        /// The fault.
        source: ParseError,
    },
    /// The MTU exceeds the user's limit.
    #[error("{host}: the server offers an MTU of {offered}, above the limit of {wanted} (--mtu)")]
    LargerMtu {
        /// The server.
        host: String,
        /// The offered MTU.
        offered: Mtu,
        /// The user's limit.
        wanted: Mtu,
    },
    /// The MTU is too small for ordinary traffic.
    #[error(
        "{host}: the server offers an MTU of {offered}, which is unusually small ('--mtu {offered}' \
         accepts it)"
    )]
    SmallMtu {
        /// The server.
        host: String,
        /// The offered MTU.
        offered: Mtu,
    },
    /// The offer has no usable address.
    #[error("{host}: the server offers no address that this host can use: {reason}")]
    NoAddress {
        /// The server.
        host: String,
        /// The cause.
        reason: &'static str,
    },
    /// The offer lacks the address that the user requested.
    #[error("{host}: the server offers the address {given}, not the requested {asked} (--address)")]
    OtherAddress {
        /// The server.
        host: String,
        /// The requested address.
        asked: IpAddr,
        /// The offered address of that family.
        given: String,
    },
    /// The address is public, so another host may have it.
    #[error(
        "{host}: the server offers the tunnel address {network}, which is not private: \
         '--accept-route {network}' accepts it"
    )]
    PublicAddress {
        /// The server.
        host: String,
        /// The address or the link's network.
        network: IpNetwork,
    },
    /// Another tunnel of this host has the server's address at its other end.
    #[error(
        "{host}: {device} on this host already leads to the server's tunnel address {server}: one host can have one tunnel to a server, and to servers with the same pool; use that one, or take it down first (Ctrl-C where it runs, or kill its process)"
    )]
    SecondTunnel {
        /// The server.
        host: String,
        /// The server's address in the tunnel.
        server: IpAddr,
        /// The other tunnel's device.
        device: String,
    },
    /// The address is in use on this host.
    #[error(
        "{host}: the server offers the tunnel address {network}, but {used} is in use on this host: \
         request another with --address, or take the other tunnel down"
    )]
    InUse {
        /// The server.
        host: String,
        /// The address or the link's network.
        network: IpNetwork,
        /// The network in use.
        used: IpNetwork,
    },
    /// This host has another route to the address.
    #[error(
        "{host}: the server offers the tunnel address {network}, but this host has a route to {used}: \
         '--accept-route {network}' accepts it nevertheless"
    )]
    Routed {
        /// The server.
        host: String,
        /// The address or the link's network.
        network: IpNetwork,
        /// The existing route.
        used: IpNetwork,
    },
    /// The address would route the SSH connection into its own tunnel.
    #[error(
        "{host}: the server offers the tunnel address {network}, which would cut off the SSH connection \
         to {server}"
    )]
    CutsOff {
        /// The server.
        host: String,
        /// The address or the link's network.
        network: IpNetwork,
        /// The address that the SSH connection goes to.
        server: IpAddr,
    },
    /// The server does not offer a requested route.
    #[error(
        "{host}: the server does not offer the whole of {missing} (--route); it offers {offered}"
    )]
    NotOffered {
        /// The server.
        host: String,
        /// The routes that are not, or not wholly, offered.
        missing: String,
        /// The offered routes.
        offered: String,
    },
    /// A requested IPv6 route, without an IPv6 address.
    #[error("{host}: the server offers no IPv6 address, so {route} cannot be reached")]
    NoFamily {
        /// The server.
        host: String,
        /// The route.
        route: IpNetwork,
    },
    /// An invalid search domain.
    #[error("{host}: the server offers an invalid search domain: {source}")]
    Domain {
        /// The server.
        host: String,
        /// The fault.
        source: DomainNameError,
    },
}
