//! What a client holds, and whether a grant gives it all of that: pure, for a
//! reload and for what comes up while one passes.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use thiserror::Error;

use crate::server::forward::listen::Named;
use crate::server::login::denial::Denial;
use crate::server::login::grant::{Grant, TunnelGrant};
use crate::server::login::policy::Policy;
use crate::server::report::registry::forwards::ForwardKind;
use crate::types::family::Family;
use crate::types::{InterfaceName, Mode, Unit};

/// Why access is withdrawn. This is for the log.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(in crate::server) enum Revocation {
    /// The login would be denied.
    #[error(transparent)]
    Denied(#[from] Denial),
    /// No tunnels, or not of this kind.
    #[error("{0} is not granted any more")]
    Tunnel(InterfaceName),
    /// Another unit than it has, or its unit to somebody else, or none in particular
    /// where its device was made beforehand.
    #[error("the unit of {0} is not granted any more")]
    Unit(InterfaceName),
    /// It has an address that is not its own, or is another client's.
    #[error("the address {0} is not granted any more")]
    Address(IpAddr),
    /// A network behind it is not.
    #[error("the network {0} behind it is not granted any more")]
    Source(IpNetwork),
    /// It is on one link with members of its groups, which are others now.
    #[error("its groups are others now, and {0} is on one link with their members")]
    Group(InterfaceName),
    /// It has a TCP forward that it may not have.
    #[error("the forward {host}:{port} is not permitted any more")]
    Forward {
        /// As the client named it.
        host: String,
        /// As the client named it.
        port: u16,
    },
    /// It is on its way out.
    #[error("it has to go already")]
    Dismissed,
}

/// A tunnel that a client holds.
#[derive(Debug, Clone)]
pub(in crate::server) struct TunnelHeld {
    /// This host's device.
    pub device: InterfaceName,
    /// What it carries.
    pub mode: Mode,
    /// Whether the device was made beforehand, which takes a grant of its unit.
    pub premade: bool,
    /// The client's addresses.
    pub addresses: Vec<IpAddr>,
    /// By what it has them, and what it may reach.
    pub grant: TunnelGrant,
}

/// Where a forward leads, or listens, as the client named it.
#[derive(Debug)]
pub(in crate::server) struct PlaceHeld {
    /// Which of the two.
    pub kind: ForwardKind,
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The addresses of a listener.
    pub at: Vec<IpAddr>,
}

impl PlaceHeld {
    /// Whether a grant permits it.
    pub(in crate::server) fn is_permitted(&self, grant: &Grant) -> bool {
        match self.kind {
            ForwardKind::Open => grant.open.permits(&self.host, self.port),
            ForwardKind::Listen => grant.listen.permits_listener(&self.host, self.port),
        }
    }
}

/// What `grant` says of a tunnel, if it gives all that is held.
pub(in crate::server) fn check_tunnel<'a>(
    held: &TunnelHeld,
    grant: &'a Grant,
    policy: &Policy,
) -> Result<&'a TunnelGrant, Revocation> {
    let granted = grant.tunnel.as_ref();
    let granted = granted
        .filter(|granted| granted.modes.contains(&held.mode))
        .ok_or_else(|| Revocation::Tunnel(held.device.clone()))?;
    let is_of = |unit: &Unit| held.device.as_str() == unit.device_name(held.mode);
    let keeps_unit = match &granted.unit {
        Some(unit) => is_of(unit),
        None => !held.premade && !policy.reserved_units().iter().any(is_of),
    };
    if !keeps_unit {
        return Err(Revocation::Unit(held.device.clone()));
    }
    let mut addresses = held.addresses.iter();
    if let Some(lost) = addresses.find(|address| !keeps(held, granted, policy, **address)) {
        return Err(Revocation::Address(*lost));
    }
    // Who hears whom on a link is settled when a station joins it.
    if held.mode == Mode::Ethernet && held.grant.groups != granted.groups {
        return Err(Revocation::Group(held.device.clone()));
    }
    let is_granted = |source: &IpNetwork| {
        granted
            .sources
            .iter()
            .any(|wider| wider.prefix() <= source.prefix() && wider.contains(source.network()))
    };
    let mut sources = held.grant.sources.iter();
    match sources.find(|source| !is_granted(source)) {
        Some(lost) => Err(Revocation::Source(*lost)),
        None => Ok(granted),
    }
}

/// Whether a client keeps an address: one of its own, or one of the pool, where
/// neither it nor another client has come to be given one of its own instead.
fn keeps(held: &TunnelHeld, granted: &TunnelGrant, policy: &Policy, address: IpAddr) -> bool {
    let own = |grant: &TunnelGrant| {
        let mut own = grant.addresses.iter().copied();
        own.find(|own| Family::of(*own) == Family::of(address))
    };
    granted.addresses.contains(&address)
        || (own(granted) == own(&held.grant) && !policy.is_fixed(address))
}

/// Whether a grant still permits a forward. A connection that one of many places
/// permits may lead to a client of a group, and needs all groups that there were;
/// one to a place that was named may lead to any client, and needs the name. A
/// listener beyond loopback needs the name of its address.
pub(in crate::server) fn check_place(
    place: &PlaceHeld,
    before: &Grant,
    now: &Grant,
) -> Result<(), Revocation> {
    let groups = |grant: &Grant| {
        let tunnel = grant.tunnel.as_ref();
        tunnel
            .map(|tunnel| tunnel.groups.clone())
            .unwrap_or_default()
    };
    let names = |grant: &Grant| grant.open.names(&place.host, place.port);
    let stays = match place.kind {
        ForwardKind::Open => names(now) || !names(before) && groups(before).is_subset(&groups(now)),
        ForwardKind::Listen => {
            let now = Named::of(&place.host).places(&now.listen, place.port);
            let mut at = place.at.iter();
            at.all(|address| address.is_loopback() || now.contains(address))
        }
    };
    match stays && place.is_permitted(now) {
        true => Ok(()),
        false => Err(Revocation::Forward {
            host: place.host.clone(),
            port: place.port,
        }),
    }
}
