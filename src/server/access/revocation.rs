//! What a client holds, and whether a grant covers all of it: pure functions, for a
//! reload and for what is registered while a reload runs.

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

/// Why a client's access is revoked. This text is for the log.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(in crate::server) enum Revocation {
    /// The login would be denied under the new rules.
    #[error(transparent)]
    Denied(#[from] Denial),
    /// The grant has no tunnel, or not in this mode.
    #[error("{0} is not granted any more")]
    Tunnel(InterfaceName),
    /// The grant names another unit, or reserves this unit for another client, or, for an
    /// existing device, names no unit.
    #[error("the unit of {0} is not granted any more")]
    Unit(InterfaceName),
    /// The client has an address that the grant does not give it, or that is another client's.
    #[error("the address {0} is not granted any more")]
    Address(IpAddr),
    /// The grant does not include a network behind the client.
    #[error("the network {0} behind the client is not granted any more")]
    Source(IpNetwork),
    /// The client shares a link with members of its former groups.
    #[error("the client's groups have changed, and {0} is on one link with the old members")]
    Group(InterfaceName),
    /// The grant does not permit a TCP forward that the client has.
    #[error("the forward {host}:{port} is not permitted any more")]
    Forward {
        /// As the client named it.
        host: String,
        /// As the client named it.
        port: u16,
    },
    /// The client is already being disconnected.
    #[error("the client is already being disconnected")]
    Dismissed,
}

/// A tunnel that a client holds.
#[derive(Debug, Clone)]
pub(in crate::server) struct TunnelHeld {
    /// The device on this host.
    pub device: InterfaceName,
    /// What the tunnel carries.
    pub mode: Mode,
    /// Whether the device existed before the login; such a device needs a grant of its unit.
    pub premade: bool,
    /// The client's addresses.
    pub addresses: Vec<IpAddr>,
    /// The grant that gave the addresses, and what the tunnel may reach.
    pub grant: TunnelGrant,
}

/// The place that a forward connects to or listens at, as the client named it.
#[derive(Debug)]
pub(in crate::server) struct PlaceHeld {
    /// Whether the client opens or listens.
    pub kind: ForwardKind,
    /// The host part of the place.
    pub host: String,
    /// The port part of the place.
    pub port: u16,
    /// The addresses that a listener is bound to.
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

/// The tunnel part of `grant`, if it covers all that is held.
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
    // Isolation between stations of a link is fixed when a station joins it.
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

/// Whether a client keeps an address: one of its own, or one of the pool, as long as the
/// new rules give neither this client an address of its own nor this address to another.
fn keeps(held: &TunnelHeld, granted: &TunnelGrant, policy: &Policy, address: IpAddr) -> bool {
    let own = |grant: &TunnelGrant| {
        let mut own = grant.addresses.iter().copied();
        own.find(|own| Family::of(*own) == Family::of(address))
    };
    granted.addresses.contains(&address)
        || (own(granted) == own(&held.grant) && !policy.is_fixed(address))
}

/// Whether a grant still permits a forward. A connection that a pattern or "any"
/// permits may lead to a client of a group, and needs all groups of that time. One to a
/// place that was named may lead to any client, and needs the name. A listener beyond
/// loopback needs the name of its address.
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
