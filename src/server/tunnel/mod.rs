//! A client's tunnel on the server: permission, addresses, device, and the checks on its
//! packets. Packets flow through `channel` or `stream`.

pub(super) mod channel;
pub mod client_device;
mod offered_routes;
pub(super) mod rates;
pub(super) mod stream;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::Server;
use super::access::access_rules::{Membership, Terms};
use super::access::entitlement::{Dismissal, Entitlement, Held};
use super::access::revocation::TunnelHeld;
use super::address::lease::{Lease, LeaseKey};
use super::bridge::mac_claims::{self, BridgePlace};
use super::bridge::neighbours::{Neighbour, Routed};
use super::bridge::stations::StationTerms;
use super::login::grant::{Grant, TunnelGrant};
use super::report::audit::event::TunnelFacts;
use super::report::registry::ConnectionId;
use super::report::registry::session::{Session, TunnelTraffic};
use crate::frame::control::{Addresses, Dns, Offer};
use crate::host::plan::facts::InterfaceIndex;
use crate::link::datagram::{LinkCounters, Restrictions};
use crate::process::cleanup;
use crate::pump::{EgressFilter, LinkClaims};
use crate::ssh::server::requests::RefusalCode;
use crate::tun::Device;
use crate::types::{InterfaceName, Mode, Mtu, Unit, UnitRequest};
use client_device::{BridgedPort, ClientChanges, ClientDevice, ClientDeviceRequest, ClientUnit};
use offered_routes::Routes;
use rates::Rates;

/// Why a client gets no tunnel; the text is for the client and the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The reason code of the protocol.
    pub code: RefusalCode,
    /// The reason as text.
    pub text: String,
}

impl Refusal {
    fn prohibited(text: impl Into<String>) -> Self {
        Refusal {
            code: RefusalCode::Prohibited,
            text: text.into(),
        }
    }

    fn shortage(text: impl Into<String>) -> Self {
        Refusal {
            code: RefusalCode::ResourceShortage,
            text: text.into(),
        }
    }

    fn failed(text: impl Into<String>) -> Self {
        Refusal {
            code: RefusalCode::ConnectFailed,
            text: text.into(),
        }
    }
}

/// What a grant permits for a requested device. `reserved` are the units that other
/// grants name.
pub(super) fn permitted<'a>(
    grant: &'a Grant,
    mode: Mode,
    asked: UnitRequest,
    reserved: &Arc<BTreeSet<Unit>>,
) -> Result<(&'a TunnelGrant, ClientUnit), Refusal> {
    let Some(tunnel) = &grant.tunnel else {
        return Err(Refusal::prohibited(
            "this key is not granted a tunnel (tunnel= on its line in authorized_keys, or 'tunnel' \
             in a [[client]] rule of the server's configuration)",
        ));
    };
    if !tunnel.modes.contains(&mode) {
        let kind = match mode {
            Mode::PointToPoint => "point-to-point",
            Mode::Ethernet => "ethernet",
        };
        return Err(Refusal::prohibited(format!(
            "this key is not granted {kind} tunnels"
        )));
    }
    Ok((tunnel, unit(tunnel.unit, asked, reserved)?))
}

fn unit(
    granted: Option<Unit>,
    asked: UnitRequest,
    reserved: &Arc<BTreeSet<Unit>>,
) -> Result<ClientUnit, Refusal> {
    match (granted, asked) {
        (Some(granted), UnitRequest::Unit(asked)) if asked != granted => Err(Refusal::prohibited(
            format!("this key is granted only unit {}", granted.get()),
        )),
        (Some(granted), _) => Ok(ClientUnit::Granted(granted)),
        (None, UnitRequest::Unit(asked)) if reserved.contains(&asked) => Err(Refusal::prohibited(
            format!("unit {} is reserved for another key", asked.get()),
        )),
        (None, asked) => Ok(ClientUnit::New {
            asked,
            reserved: Arc::clone(reserved),
        }),
    }
}

/// A tunnel with chosen addresses; nothing has changed on this host yet.
pub(super) struct Reserved {
    server: Arc<Server>,
    entitlement: Arc<Entitlement>,
    grant: TunnelGrant,
    id: ConnectionId,
    mode: Mode,
    unit: ClientUnit,
    mtu: Mtu,
    key: LeaseKey,
    lease: Lease,
}

/// A tunnel that is set up on this host.
pub(super) struct Tunnel {
    /// The tunnel's counters.
    pub counters: Arc<LinkCounters>,
    facts: TunnelFacts,
    mtu: Mtu,
    changes: ClientChanges,
    /// The membership in the server's bridge.
    place: Option<BridgePlace>,
    /// The membership among the tunnels that this host routes.
    neighbour: Option<Neighbour>,
    // Before the lease: the next holder of the address may be in other groups.
    _membership: Membership,
    _held: Held,
    _lease: Lease,
}

impl Reserved {
    /// Chooses addresses: the client's own, or the requested ones, or any.
    pub(super) fn new(
        server: &Arc<Server>,
        entitlement: &Arc<Entitlement>,
        id: ConnectionId,
        mode: Mode,
        asked: UnitRequest,
        mtu: Option<Mtu>,
        wanted: &[IpAddr],
    ) -> Result<Self, Refusal> {
        let grant = entitlement.grant();
        let rules = server.rules();
        let (tunnel, unit) = permitted(&grant, mode, asked, rules.policy.reserved_units())?;
        let key = LeaseKey::of(&grant.identity);
        let lease = server.leases.lease(&key, &tunnel.addresses, wanted);
        let lease = lease.map_err(|error| Refusal::shortage(error.to_string()))?;
        let most = rules.settings.network.mtu;
        let mtu = mtu.map_or(most, |wanted| wanted.min(most));
        Ok(Reserved {
            server: Arc::clone(server),
            entitlement: Arc::clone(entitlement),
            grant: tunnel.clone(),
            id,
            mode,
            unit,
            mtu,
            key,
            lease,
        })
    }

    /// What our own client is told about the tunnel.
    pub(super) fn offer(&self) -> Offer {
        let rules = self.server.rules();
        let network = &rules.settings.network;
        let routes = Routes {
            granted: &self.grant,
            mode: self.mode,
            leased: self.lease.addresses(),
            pools: &self.server.reach.pools(),
            places: &rules.policy.places_of(&self.grant.groups),
        };
        let pairs = self.lease.addresses().iter().map(|leased| Addresses {
            client: leased.client,
            agent: leased.server,
            prefix: leased.prefix,
        });
        Offer {
            mtu: self.mtu,
            addresses: pairs.collect(),
            routes: routes.offered(),
            dns: Dns {
                servers: network.dns_servers.clone(),
                search: network.dns_search.clone(),
            },
        }
    }

    /// Makes the device and all that belongs to it; also returns the checks on the client's
    /// packets, which include `rates`.
    pub(super) async fn open(
        self,
        rates: Rates,
    ) -> Result<(Tunnel, Device, Restrictions), Refusal> {
        let request = ClientDeviceRequest {
            mode: self.mode,
            unit: self.unit.clone(),
            mtu: self.mtu,
            addresses: self.lease.addresses().to_vec(),
            sources: self.grant.sources.clone(),
            grouped: !self.grant.groups.is_empty(),
        };
        let opened = self.server.devices.open(request).await;
        let ClientDevice {
            device,
            index,
            bridged,
            changes,
        } = opened.map_err(|error| Refusal::failed(error.to_string()))?;
        let addresses: Vec<IpAddr> = self
            .lease
            .addresses()
            .iter()
            .map(|leased| leased.client)
            .collect();
        let facts = TunnelFacts {
            device: device.name().clone(),
            mode: self.mode,
            addresses: addresses.clone(),
            mtu: self.mtu.get(),
        };
        let neighbour = match bridged {
            // This host routes nothing for a bridge port.
            Some(_) => None,
            None => Some(self.join_neighbours(index, &addresses).await),
        };
        let on_bridge = bridged.map(|port| self.join_bridge(port));
        let terms = Terms {
            addresses: addresses.clone(),
            sources: self.grant.sources.clone(),
            routes: self.grant.routes.clone(),
            groups: self.grant.groups.clone(),
        };
        let (guard, membership) = self.server.reach.join(self.id, terms);
        let (guard, egress_filter, place) = match on_bridge {
            Some((claims, egress_filter, place)) => {
                (guard.on_shared_link(claims), egress_filter, Some(place))
            }
            None => (guard, EgressFilter::default(), None),
        };
        let held = TunnelHeld {
            device: device.name().clone(),
            mode: self.mode,
            premade: device.preexisting(),
            addresses,
            grant: self.grant,
        };
        // A reload since the request may have revoked it.
        let held = match self
            .entitlement
            .hold_tunnel(held, &self.server.rules().policy)
        {
            Ok(held) => held,
            Err(revocation) => {
                tracing::debug!(%revocation, device = %device.name(), "the grant of a new tunnel was revoked");
                drop(device);
                leave(place, neighbour).await;
                cleanup::print_report(&changes.undo().await, false);
                return Err(Refusal::prohibited(Dismissal::AccessWithdrawn.to_string()));
            }
        };
        let restrictions = Restrictions {
            guard: Some(guard),
            egress_filter,
            upload: rates.upload,
            download: rates.download,
        };
        let tunnel = Tunnel {
            counters: Arc::default(),
            facts,
            mtu: self.mtu,
            changes,
            place,
            neighbour,
            _membership: membership,
            _held: held,
            _lease: self.lease,
        };
        Ok((tunnel, device, restrictions))
    }

    async fn join_neighbours(&self, device: InterfaceIndex, addresses: &[IpAddr]) -> Neighbour {
        let link = (self.mode == Mode::Ethernet).then_some(device);
        let routed = Routed::new(link, addresses, &self.grant.groups);
        let server = &self.server;
        let netlink = server.devices.netlink();
        server.neighbours.join(netlink, self.id, routed).await
    }

    fn join_bridge(&self, port: BridgedPort) -> (LinkClaims, EgressFilter, BridgePlace) {
        let terms = StationTerms {
            key: self.key.clone(),
            groups: Arc::new(self.grant.groups.clone()),
            one_station: self.grant.sources.is_empty(),
            port: port.link.index,
        };
        let server = &self.server;
        let netlink = server.devices.netlink();
        mac_claims::join(&server.stations, netlink, self.id, terms, port)
    }
}

impl Tunnel {
    /// Reports the tunnel and its counters to the registry.
    pub(super) fn announce(&self, session: &Session) {
        let counters = Arc::clone(&self.counters);
        session.tunnel_up(
            self.facts.clone(),
            Box::new(move || TunnelTraffic {
                upload: counters.inbound.snapshot(),
                download: counters.outbound.snapshot(),
            }),
        );
    }

    /// The name of the device.
    pub(super) fn device(&self) -> &InterfaceName {
        &self.facts.device
    }

    /// The MTU of the device.
    pub(super) fn mtu(&self) -> Mtu {
        self.mtu
    }

    /// Undoes the tunnel on this host, after the device is closed; its addresses are free
    /// after that.
    pub(super) async fn close(self, session: &Session) {
        session.tunnel_down();
        leave(self.place, self.neighbour).await;
        cleanup::print_report(&self.changes.undo().await, false);
    }
}

/// Removes the tunnel from its bridge, or from the neighbour answers of this host.
async fn leave(place: Option<BridgePlace>, neighbour: Option<Neighbour>) {
    if let Some(place) = place {
        place.leave().await;
    }
    if let Some(neighbour) = neighbour {
        neighbour.leave().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_that_is_granted_is_the_only_one() {
        let number = |number| Unit::new(number).unwrap();
        let (five, six) = (UnitRequest::Unit(number(5)), UnitRequest::Unit(number(6)));
        let reserved = Arc::new(BTreeSet::from([number(5), number(7)]));
        let granted = ClientUnit::Granted(number(5));
        for asked in [five, UnitRequest::Any] {
            assert_eq!(
                unit(Some(number(5)), asked, &reserved).as_ref(),
                Ok(&granted)
            );
        }
        for (grant, asked) in [(Some(number(5)), six), (None, five)] {
            let refused = unit(grant, asked, &reserved).unwrap_err();
            assert_eq!(refused.code, RefusalCode::Prohibited);
        }
        for asked in [six, UnitRequest::Any] {
            let new = ClientUnit::New {
                asked,
                reserved: Arc::clone(&reserved),
            };
            assert_eq!(unit(None, asked, &reserved), Ok(new));
        }
    }
}
