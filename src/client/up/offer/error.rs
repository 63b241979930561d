//! Why a tunnel that a server offers is not taken, and what to do about it.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use thiserror::Error;

use crate::config::domain_name::DomainNameError;
use crate::types::{Mtu, ParseError};

/// Why an offer is not taken.
#[derive(Debug, Error)]
pub enum OfferError {
    /// It is no tunnel.
    #[error("{host}: the server there offers no sound tunnel: {reason}")]
    Nonsense {
        /// The server.
        host: String,
        /// What is wrong.
        reason: String,
    },
    /// An MTU that a tunnel cannot have.
    #[error("{host}: the server there offers no sound tunnel: {source}")]
    Mtu {
        /// The server.
        host: String,
        /// Why not.
        source: ParseError,
    },
    /// A larger MTU than the user's.
    #[error(
        "{host}: the server there offers an MTU of {offered}, and not at most {wanted} (--mtu)"
    )]
    LargerMtu {
        /// The server.
        host: String,
        /// Its offer.
        offered: Mtu,
        /// What was asked for.
        wanted: Mtu,
    },
    /// So small that nothing passes as it should.
    #[error(
        "{host}: the server there offers an MTU of {offered}, which is too small to be meant (--mtu {offered} \
         takes it)"
    )]
    SmallMtu {
        /// The server.
        host: String,
        /// Its offer.
        offered: Mtu,
    },
    /// No address, or none that can be used here.
    #[error("{host}: the server there offers no address that this host can have: {reason}")]
    NoAddress {
        /// The server.
        host: String,
        /// Why.
        reason: &'static str,
    },
    /// Another one than the user's.
    #[error(
        "{host}: the server there does not give this host the address {asked} (--address), but {given}"
    )]
    OtherAddress {
        /// The server.
        host: String,
        /// What was asked for.
        asked: IpAddr,
        /// What it offers in that family.
        given: String,
    },
    /// An address that is somebody else's, somewhere.
    #[error(
        "{host}: the server there offers the tunnel address {network}, which is no private one: \
         '--accept-route {network}' takes it"
    )]
    PublicAddress {
        /// The server.
        host: String,
        /// The address or the link's network.
        network: IpNetwork,
    },
    /// Something else has it here.
    #[error(
        "{host}: the server there offers the tunnel address {network}, and {used} is in use on this host: ask \
         for another with --address, or take one tunnel down"
    )]
    InUse {
        /// The server.
        host: String,
        /// The address or the link's network.
        network: IpNetwork,
        /// What is in use.
        used: IpNetwork,
    },
    /// This host reaches a network of that name by another way.
    #[error(
        "{host}: the server there offers the tunnel address {network}, and this host has a route to {used}: \
         '--accept-route {network}' takes it all the same"
    )]
    Routed {
        /// The server.
        host: String,
        /// The address or the link's network.
        network: IpNetwork,
        /// The route.
        used: IpNetwork,
    },
    /// It would lead the SSH connection into its own tunnel.
    #[error(
        "{host}: the server there offers the tunnel address {network}, which would cut off the SSH connection \
         to {server}"
    )]
    CutsOff {
        /// The server.
        host: String,
        /// The address or the link's network.
        network: IpNetwork,
        /// Where the connection leads.
        server: IpAddr,
    },
    /// A route of the user's that the server does not have.
    #[error(
        "{host}: the server there does not lead to {missing} (--route), or not to all of that; it offers {offered}"
    )]
    NotOffered {
        /// The server.
        host: String,
        /// What is missing of the routes.
        missing: String,
        /// What it has.
        offered: String,
    },
    /// A route without an address of its family.
    #[error("{host}: the server there gives no IPv6 address, so there is no way to {route}")]
    NoFamily {
        /// The server.
        host: String,
        /// The route.
        route: IpNetwork,
    },
    /// A search domain that is none.
    #[error("{host}: the server there offers a search domain that is none: {source}")]
    Domain {
        /// The server.
        host: String,
        /// Why not.
        source: DomainNameError,
    },
}
