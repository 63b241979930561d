//! The claims of one client on the server's bridge: for each MAC and link-local
//! address that its frames turn out to need, whether anyone else there has it, by
//! what the kernel knows of the bridge and by asking the link.
//!
//! A station that is granted is told to the bridge, whose port learns nothing by
//! itself and takes no frames of others: where the station speaks up elsewhere
//! later, the kernel moves it there and drops what comes of it here. Within seconds
//! it is taken from the client, which gets it again only once the bridge has
//! forgotten that.

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

/// How long nothing else is looked into after a claim that was refused.
const PAUSE: Duration = Duration::from_secs(1);
/// How long others have to say that an address is theirs.
const ANSWER: Duration = Duration::from_millis(500);
/// The same for one that had it a while ago, whom the kernel asks three times, a
/// second apart (RFC 4861, section 10).
const ANSWER_AGAIN: Duration = Duration::from_millis(4500);
/// How often it is looked where the bridge has a client's stations.
const RENEWAL: Duration = Duration::from_secs(5);
/// How often it is looked whether others have answered.
const LOOK: Duration = Duration::from_millis(50);

/// Why a claim is refused.
#[derive(Debug, Error)]
enum Refused {
    #[error(transparent)]
    NotYours(#[from] NotYours),
    #[error("it is this host's own")]
    OurOwn,
    #[error("somebody else on the bridge has it")]
    OnBridge,
    #[error("the bridge has no link-local IPv6 address to ask the others from")]
    NobodyAsks,
    #[error(transparent)]
    Net(#[from] NetError),
}

/// A client's place on the bridge.
#[derive(Debug)]
pub(in crate::server) struct BridgePlace {
    leaving: oneshot::Sender<()>,
    claims: JoinHandle<()>,
}

/// Takes a client's port in hand; yields by what its packets are held to what is
/// its own, and kept from those that it has nothing to do with.
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
    /// Gives it up, while the device is still there.
    pub(in crate::server) async fn leave(self) {
        drop(self.leaving);
        // One that panicked has nothing more to say.
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
                // In time, whatever a client asks for.
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
                    tracing::debug!(?address, %port, "a client does not get it: {why}");
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

    /// Takes stations from the client that turned up elsewhere, and tells the bridge
    /// again of those that it has forgotten.
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
                tracing::debug!(%station, port = %link.name, "it is elsewhere by now");
                self.stations.lose(self.id, *station);
                // Where it is in one VLAN alone.
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
        // A router has its address also while it is silent.
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

    /// Who else has the address, as far as the kernel knows.
    async fn other_holder(&self, address: Ipv6Addr) -> Result<Option<NeighbourFacts>, NetError> {
        let held = self.stations.held(self.id);
        let found = self.netlink.neighbour(self.port.bridge, address).await?;
        Ok(found.filter(|found| {
            let station = found.station;
            station.is_some_and(|station| !held.stations.contains(&station))
        }))
    }

    /// Lets the bridge and the link forget the client, whose addresses are free
    /// after that.
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

/// What the bridge knows too much goes with the device; what it lacks is told again.
fn not_done(done: Result<(), NetError>) {
    if let Err(error) = done {
        tracing::debug!(%error, "a bridge is not told of a client");
    }
}

#[cfg(test)]
mod tests;
