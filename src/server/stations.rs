//! Whose MAC and link-local addresses are whose, among the clients on the server's
//! bridge, and whom each of them does not hear. Pure; `station_claims` asks the
//! kernel about the others of the bridge.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::net::Ipv6Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::grant::Group;
use super::lease::LeaseKey;
use super::registry::ConnectionId;
use crate::net::facts::InterfaceIndex;
use crate::packet::guard_link::{LinkAddress, LinkAddresses, MacAddress};

/// Stations of a client with networks behind it; of another it is one.
const MOST_STATIONS: usize = 64;
/// Link-local addresses of one station.
const MOST_LINK_LOCAL: usize = 8;

/// The clients on the bridge.
#[derive(Debug, Default)]
pub(super) struct Stations(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    members: BTreeMap<ConnectionId, Member>,
    stations: HashMap<MacAddress, ConnectionId>,
    link_local: HashMap<Ipv6Addr, ConnectionId>,
}

#[derive(Debug)]
struct Member {
    terms: StationTerms,
    held: watch::Sender<Arc<LinkAddresses>>,
    strangers: watch::Sender<Arc<HashSet<MacAddress>>>,
}

/// What one client is, and may have.
#[derive(Debug, Clone)]
pub(super) struct StationTerms {
    /// Whose tunnel it is: the latest of its connections has its addresses.
    pub key: LeaseKey,
    /// Clients of the same group hear each other.
    pub groups: BTreeSet<Group>,
    /// Whether there is one host at its end.
    pub one_station: bool,
    /// The port of the bridge where it is.
    pub port: InterfaceIndex,
}

/// What is told to a client's tunnel.
#[derive(Debug)]
pub(super) struct Told {
    /// Its own addresses.
    pub held: watch::Receiver<Arc<LinkAddresses>>,
    /// Whom it does not hear.
    pub strangers: watch::Receiver<Arc<HashSet<MacAddress>>>,
}

/// Why a client does not get an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotYours {
    /// It is that of a client with another key.
    #[error("another client has it")]
    Taken,
    /// It has as many as it may.
    #[error("the client has enough of them")]
    TooMany,
    /// It left.
    #[error("the client is gone")]
    Gone,
}

/// An address that a client may have, if nobody else on the bridge has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reserved {
    /// No client had it.
    New,
    /// An earlier connection of the same key has it until it is confirmed, at
    /// that port.
    MovesFrom(InterfaceIndex),
}

impl Stations {
    /// A client whose tunnel joins the bridge; it has no addresses yet.
    pub(super) fn join(&self, id: ConnectionId, terms: StationTerms) -> Told {
        let (held, of_its_own) = watch::channel(Arc::default());
        let (strangers, not_heard) = watch::channel(Arc::default());
        let member = Member {
            terms,
            held,
            strangers,
        };
        let mut state = self.lock();
        state.members.insert(id, member);
        state.tell_strangers();
        Told {
            held: of_its_own,
            strangers: not_heard,
        }
    }

    /// Keeps an address from others while it is looked into.
    pub(super) fn reserve(
        &self,
        id: ConnectionId,
        address: LinkAddress,
    ) -> Result<Reserved, NotYours> {
        let mut state = self.lock();
        let member = state.members.get(&id).ok_or(NotYours::Gone)?;
        let held = member.held.borrow().clone();
        let one = member.terms.one_station;
        let stations = if one { 1 } else { MOST_STATIONS };
        let full = match address {
            LinkAddress::Station(_) => held.stations.len() >= stations,
            LinkAddress::LinkLocal(_) => held.link_local.len() >= MOST_LINK_LOCAL * stations,
        };
        if full {
            return Err(NotYours::TooMany);
        }
        let of_same_key = |holder: &ConnectionId| {
            let terms = state.members.get(holder).map(|holder| &holder.terms);
            terms.filter(|terms| terms.key == member.terms.key)
        };
        match state.holder(address) {
            None => {
                state.set_holder(address, id);
                Ok(Reserved::New)
            }
            Some(holder) if holder == id => Ok(Reserved::New),
            Some(holder) => match of_same_key(&holder) {
                Some(terms) => Ok(Reserved::MovesFrom(terms.port)),
                None => Err(NotYours::Taken),
            },
        }
    }

    /// From now on the client has what was reserved for it.
    pub(super) fn confirm(&self, id: ConnectionId, address: LinkAddress) {
        let mut state = self.lock();
        if !state.members.contains_key(&id) {
            return;
        }
        if let Some(before) = state.holder(address).filter(|before| *before != id) {
            state.change(before, |held| match address {
                LinkAddress::Station(gone) => held.stations.retain(|it| *it != gone),
                LinkAddress::LinkLocal(gone) => held.link_local.retain(|it| *it != gone),
            });
        }
        state.set_holder(address, id);
        // Before its first frame can pass.
        state.tell_strangers();
        state.change(id, |held| match address {
            LinkAddress::Station(own) => held.stations.push(own),
            LinkAddress::LinkLocal(own) => held.link_local.push(own),
        });
    }

    /// The client does not get what it wanted; whatever was reserved is free.
    pub(super) fn refuse(&self, id: ConnectionId, address: LinkAddress) {
        let mut state = self.lock();
        if !state.holds(id, address) && state.holder(address) == Some(id) {
            match address {
                LinkAddress::Station(station) => drop(state.stations.remove(&station)),
                LinkAddress::LinkLocal(own) => drop(state.link_local.remove(&own)),
            }
        }
        // Whoever waits for the answer has it.
        state.change(id, |_| {});
    }

    /// Whether the client has that address.
    pub(super) fn has(&self, id: ConnectionId, address: LinkAddress) -> bool {
        self.lock().holds(id, address)
    }

    /// What a client has.
    pub(super) fn held(&self, id: ConnectionId) -> Arc<LinkAddresses> {
        let state = self.lock();
        let member = state.members.get(&id);
        member.map_or_else(Arc::default, |member| member.held.borrow().clone())
    }

    /// The client's tunnel is gone; others may have its addresses.
    pub(super) fn leave(&self, id: ConnectionId) {
        let mut state = self.lock();
        state.members.remove(&id);
        release(&mut state.stations, id);
        release(&mut state.link_local, id);
        state.tell_strangers();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn release<A: Eq + Hash>(holders: &mut HashMap<A, ConnectionId>, id: ConnectionId) {
    holders.retain(|_, holder| *holder != id);
}

impl State {
    fn holder(&self, address: LinkAddress) -> Option<ConnectionId> {
        match address {
            LinkAddress::Station(station) => self.stations.get(&station).copied(),
            LinkAddress::LinkLocal(address) => self.link_local.get(&address).copied(),
        }
    }

    fn set_holder(&mut self, address: LinkAddress, id: ConnectionId) {
        match address {
            LinkAddress::Station(station) => self.stations.insert(station, id),
            LinkAddress::LinkLocal(address) => self.link_local.insert(address, id),
        };
    }

    fn holds(&self, id: ConnectionId, address: LinkAddress) -> bool {
        let Some(member) = self.members.get(&id) else {
            return false;
        };
        let held = member.held.borrow();
        match address {
            LinkAddress::Station(station) => held.stations.contains(&station),
            LinkAddress::LinkLocal(address) => held.link_local.contains(&address),
        }
    }

    fn change(&self, id: ConnectionId, change: impl FnOnce(&mut LinkAddresses)) {
        if let Some(member) = self.members.get(&id) {
            member.held.send_modify(|held| change(Arc::make_mut(held)));
        }
    }

    /// Works out again whom each client does not hear.
    fn tell_strangers(&self) {
        for (id, member) in &self.members {
            let stranger = |holder: &ConnectionId| {
                let other = self.members.get(holder);
                let apart = |other: &Member| member.terms.groups.is_disjoint(&other.terms.groups);
                holder != id && other.is_none_or(apart)
            };
            let stations = self.stations.iter();
            let strangers: HashSet<MacAddress> = stations
                .filter(|(_, holder)| stranger(holder))
                .map(|(station, _)| *station)
                .collect();
            member.strangers.send_if_modified(|known| {
                let differs = **known != strangers;
                if differs {
                    *known = Arc::new(strangers);
                }
                differs
            });
        }
    }
}

#[cfg(test)]
#[path = "stations_tests.rs"]
mod tests;
