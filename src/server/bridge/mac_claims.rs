//! The address claims of one client on the server's bridge: for each MAC and link-local
//! address that its frames need, checks whether another station of the bridge has it, by
//! the kernel's tables of the bridge and by a query on the link.
//!
//! A granted station is entered into the bridge's table; its port does not learn, and
//! drops frames from other stations. If the station later sends from another port, the
//! kernel moves the entry there and drops its frames here. Within seconds the client
//! loses the station, and gets it again only after the bridge has forgotten the other
//! port.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

use super::claim_queue::ClaimQueue;
use super::stations::{NotYours, Reserved, StationTerms, Stations};
use crate::host::error::NetError;
use crate::host::netlink::{NeighbourFacts, Netlink, StationFacts};
use crate::host::plan::facts::AddressFacts;
use crate::packet::guard::link::{LinkAddress, MacAddress};
use crate::pump::{EgressFilter, LinkClaims};
use crate::server::report::registry::ConnectionId;
use crate::server::tunnel::client_device::BridgedPort;

/// The pause between a refused claim and the next check.
const PAUSE: Duration = Duration::from_secs(1);
/// How long other stations may take to answer that an address is theirs.
const ANSWER: Duration = Duration::from_millis(500);
/// The same for a station that had the address a while ago; the kernel asks it 3 times,
/// 1 s apart (RFC 4861, section 10).
const ANSWER_AGAIN: Duration = Duration::from_millis(4500);
/// The interval of checks where the bridge has a client's stations.
const RENEWAL: Duration = Duration::from_secs(5);
/// The interval of checks for answers.
const LOOK: Duration = Duration::from_millis(50);

/// Why a claim is refused.
#[derive(Debug, Error)]
enum Refused {
    #[error(transparent)]
    NotYours(#[from] NotYours),
    #[error("it is this host's own address")]
    OurOwn,
    #[error("another station on the bridge has it")]
    OnBridge,
    #[error("the bridge has no link-local IPv6 address, which a query on the link needs")]
    NobodyAsks,
    #[error(transparent)]
    Net(#[from] NetError),
}

/// A client's membership in the bridge.
#[derive(Debug)]
pub(in crate::server) struct BridgePlace {
    leaving: oneshot::Sender<()>,
    claims: JoinHandle<()>,
}

/// Takes control of a client's port; returns the checks that hold its packets to its own
/// addresses and keep it apart from clients outside of its groups.
pub(in crate::server) fn join(
    stations: &Arc<Stations>,
    netlink: &Netlink,
    id: ConnectionId,
    terms: StationTerms,
    port: BridgedPort,
) -> (LinkClaims, EgressFilter, BridgePlace) {
    let told = stations.join(id, terms);
    let (wanted, asked) = ClaimQueue::new();
    let (leaving, left) = oneshot::channel();
    let claims = Claims {
        stations: Arc::clone(stations),
        netlink: netlink.clone(),
        id,
        port,
    };
    let place = BridgePlace {
        leaving,
        claims: tokio::spawn(claims.run(asked, left)),
    };
    let held = told.held;
    let claims = LinkClaims { wanted, held };
    (claims, EgressFilter::new(Box::new(told.hearing)), place)
}

impl BridgePlace {
    /// Leaves the bridge, while the device still exists.
    pub(in crate::server) async fn leave(self) {
        drop(self.leaving);
        // A task that panicked needs no further handling.
        let _ = self.claims.await;
    }
}

struct Claims {
    stations: Arc<Stations>,
    netlink: Netlink,
    id: ConnectionId,
    port: BridgedPort,
}

impl Claims {
    async fn run(self, asked: ClaimQueue, left: oneshot::Receiver<()>) {
        tokio::select! {
            () = self.answer(asked) => {}
            _ = left => {}
        }
        self.forget().await;
    }

    async fn answer(&self, mut asked: ClaimQueue) {
        let mut renewal = interval_at(Instant::now() + RENEWAL, RENEWAL);
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let address = tokio::select! {
                biased;
                // Before the claims, so that a client's claims cannot delay it.
                _ = renewal.tick() => {
                    not_done(self.renew().await);
                    continue;
                }
                next = asked.next() => match next {
                    Some(address) => address,
                    None => return,
                },
            };
            if self.stations.has(self.id, address) {
                continue;
            }
            match self.look_into(address).await {
                Ok(()) => self.stations.confirm(self.id, address),
                Err(why) => {
                    let port = &self.port.link.name;
                    tracing::debug!(?address, %port, "a client's claim is refused: {why}");
                    asked.drop_claims_to(address);
                    self.stations.refuse(self.id, address);
                    sleep(PAUSE).await;
                }
            }
        }
    }

    async fn look_into(&self, address: LinkAddress) -> Result<(), Refused> {
        let reserved = self.stations.reserve(self.id, address)?;
        match address {
            LinkAddress::Station(station) => self.take_station(station, reserved).await,
            LinkAddress::LinkLocal(address) => self.look_for(address).await,
        }
    }

    async fn take_station(&self, station: MacAddress, reserved: Reserved) -> Result<(), Refused> {
        if self.netlink.own_stations().await?.contains(&station) {
            return Err(Refused::OurOwn);
        }
        let mut known = self.netlink.stations(self.port.bridge).await?;
        known.retain(|found| found.station == station);
        let ours = |found: &StationFacts| {
            let moves = reserved == Reserved::MovesFrom(found.port);
            !found.own && (found.port == self.port.link.index || moves)
        };
        if !known.iter().all(ours) {
            return Err(Refused::OnBridge);
        }
        let link = &self.port.link;
        Ok(self.netlink.add_station(link, station).await?)
    }

    /// Revokes stations that the kernel moved to another port, and re-enters those that the
    /// bridge has forgotten.
    async fn renew(&self) -> Result<(), NetError> {
        let held = self.stations.held(self.id);
        if held.stations.is_empty() {
            return Ok(());
        }
        let link = &self.port.link;
        let known = self.netlink.stations(self.port.bridge).await?;
        for station in &held.stations {
            // A later connection of its key may have it by now.
            if !self.stations.has(self.id, LinkAddress::Station(*station)) {
                continue;
            }
            let mut found = known.iter().filter(|found| found.station == *station);
            let elsewhere = |found: &StationFacts| found.own || found.port != link.index;
            if found.clone().next().is_none() {
                self.netlink.add_station(link, *station).await?;
            } else if found.any(elsewhere) {
                tracing::debug!(%station, port = %link.name, "the station has moved to another port");
                self.stations.lose(self.id, *station);
                // The kernel moved it in one VLAN only; removes the entries in the others.
                self.netlink.remove_station(link, *station).await?;
            }
        }
        Ok(())
    }

    async fn look_for(&self, address: Ipv6Addr) -> Result<(), Refused> {
        let own = self.netlink.addresses(None).await?;
        if own.iter().any(|own| own.address == IpAddr::V6(address)) {
            return Err(Refused::OurOwn);
        }
        let bridge = self.port.bridge;
        let asks = |own: &AddressFacts| match own.address {
            IpAddr::V6(own_address) => own.index == bridge && own_address.is_unicast_link_local(),
            IpAddr::V4(_) => false,
        };
        if !own.iter().any(asks) {
            return Err(Refused::NobodyAsks);
        }
        let known = self.netlink.neighbour(bridge, address).await?;
        let held = self.stations.held(self.id);
        let by_us = |known: &NeighbourFacts| {
            let station = known.station;
            station.is_some_and(|station| held.stations.contains(&station))
        };
        // A router keeps its address even if it is silent.
        let kept = |known: &NeighbourFacts| known.router || known.fixed;
        if known.is_some_and(|known| kept(&known) && !by_us(&known)) {
            return Err(Refused::OnBridge);
        }
        let known = known.filter(|known| known.station.is_some() && !by_us(known));
        let known = known.is_some_and(|known| !known.failed);
        let asked = self.netlink.ask_for_neighbour(bridge, address, known);
        asked.await?;
        let patience = if known { ANSWER_AGAIN } else { ANSWER };
        let end = Instant::now() + patience;
        while Instant::now() < end {
            sleep(LOOK).await;
            match self.other_holder(address).await? {
                Some(holder) if holder.reachable || !known && !holder.failed => {
                    return Err(Refused::OnBridge);
                }
                None | Some(NeighbourFacts { failed: true, .. }) if known => return Ok(()),
                _ => {}
            }
        }
        Ok(())
    }

    /// Another holder of the address, as far as the kernel knows.
    async fn other_holder(&self, address: Ipv6Addr) -> Result<Option<NeighbourFacts>, NetError> {
        let held = self.stations.held(self.id);
        let found = self.netlink.neighbour(self.port.bridge, address).await?;
        Ok(found.filter(|found| {
            let station = found.station;
            station.is_some_and(|station| !held.stations.contains(&station))
        }))
    }

    /// Removes the client from the bridge and the link; its addresses are free after that.
    async fn forget(&self) {
        let held = self.stations.held(self.id);
        for address in &held.link_local {
            let known = self.netlink.neighbour(self.port.bridge, *address).await;
            let ours = |known: NeighbourFacts| {
                let station = known.station;
                station.is_some_and(|station| held.stations.contains(&station))
            };
            if known.is_ok_and(|known| known.is_some_and(ours)) {
                let removed = self.netlink.remove_neighbour(self.port.bridge, *address);
                not_done(removed.await);
            }
        }
        for station in &held.stations {
            let removed = self.netlink.remove_station(&self.port.link, *station);
            not_done(removed.await);
        }
        self.stations.leave(self.id);
    }
}

/// An unremoved entry goes with the device; a missing entry is added at the next renewal.
fn not_done(done: Result<(), NetError>) {
    if let Err(error) = done {
        tracing::debug!(%error, "cannot update a client's entries on a bridge");
    }
}

#[cfg(test)]
mod tests;
