//! Whose MAC and link-local addresses are whose, among the clients on the server's
//! bridge, and whom each of them hears. Pure; `mac_claims` asks the
//! kernel about the others of the bridge.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::net::Ipv6Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::host::plan::facts::InterfaceIndex;
use crate::packet::guard::link::{LinkAddress, LinkAddresses, MacAddress};
use crate::pump::Hears;
use crate::server::address::lease::LeaseKey;
use crate::server::login::grant::Group;
use crate::server::report::registry::ConnectionId;

/// Stations of a client with networks behind it; of another it is one.
const MOST_STATIONS: usize = 64;
/// Link-local addresses of one station.
const MOST_LINK_LOCAL: usize = 8;

/// The clients on the bridge.
#[derive(Debug, Default)]
pub(in crate::server) struct Stations(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    members: BTreeMap<ConnectionId, Member>,
    stations: HashMap<MacAddress, Holder>,
    link_local: HashMap<Ipv6Addr, Holder>,
    granted: watch::Sender<Granted>,
}

#[derive(Debug)]
struct Member {
    terms: StationTerms,
    held: watch::Sender<Arc<LinkAddresses>>,
}

/// For whom an address is kept from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Holder {
    id: ConnectionId,
    /// Whether the client has it; else it is still looked into.
    granted: bool,
}

/// The stations that clients have, as all tunnels look them up. Changed in place:
/// nobody keeps a copy.
type Granted = HashMap<MacAddress, Owner>;

/// The client that has a station.
#[derive(Debug)]
struct Owner {
    id: ConnectionId,
    groups: Arc<BTreeSet<Group>>,
}

/// Whom a client hears: itself, clients with which it has a group in common, and
/// all stations of the bridge that are no client's.
#[derive(Debug)]
pub(in crate::server) struct Hearing {
    id: ConnectionId,
    groups: Arc<BTreeSet<Group>>,
    granted: watch::Receiver<Granted>,
}

impl Hears for Hearing {
    fn hears(&self, station: MacAddress) -> bool {
        let granted = self.granted.borrow();
        granted
            .get(&station)
            .is_none_or(|owner| owner.id == self.id || !owner.groups.is_disjoint(&self.groups))
    }
}

/// What one client is, and may have.
#[derive(Debug, Clone)]
pub(in crate::server) struct StationTerms {
    /// Whose tunnel it is: the latest of its connections has its addresses.
    pub key: LeaseKey,
    /// Clients of the same group hear each other.
    pub groups: Arc<BTreeSet<Group>>,
    /// Whether there is one host at its end.
    pub one_station: bool,
    /// The port of the bridge where it is.
    pub port: InterfaceIndex,
}

/// What is told to a client's tunnel.
#[derive(Debug)]
pub(in crate::server) struct Told {
    /// Its own addresses.
    pub held: watch::Receiver<Arc<LinkAddresses>>,
    /// Whom it hears.
    pub hearing: Hearing,
}

/// Why a client does not get an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::server) enum NotYours {
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
pub(in crate::server) enum Reserved {
    /// No client had it.
    New,
    /// An earlier connection of the same key has it until it is confirmed, at
    /// that port.
    MovesFrom(InterfaceIndex),
}

impl Stations {
    /// A client whose tunnel joins the bridge; it has no addresses yet.
    pub(in crate::server) fn join(&self, id: ConnectionId, terms: StationTerms) -> Told {
        let (held, of_its_own) = watch::channel(Arc::default());
        let mut state = self.lock();
        let hearing = Hearing {
            id,
            groups: Arc::clone(&terms.groups),
            granted: state.granted.subscribe(),
        };
        state.members.insert(id, Member { terms, held });
        Told {
            held: of_its_own,
            hearing,
        }
    }

    /// Keeps an address from others while it is looked into.
    pub(in crate::server) fn reserve(
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
        let of_same_key = |holder: Holder| {
            let terms = state.members.get(&holder.id).map(|holder| &holder.terms);
            terms.filter(|terms| terms.key == member.terms.key)
        };
        match state.holder(address) {
            None => {
                state.set_holder(address, Holder { id, granted: false });
                Ok(Reserved::New)
            }
            Some(holder) if holder.id == id => Ok(Reserved::New),
            Some(holder) => match of_same_key(holder) {
                Some(terms) => Ok(Reserved::MovesFrom(terms.port)),
                None => Err(NotYours::Taken),
            },
        }
    }

    /// From now on the client has what was reserved for it.
    pub(in crate::server) fn confirm(&self, id: ConnectionId, address: LinkAddress) {
        let mut state = self.lock();
        let Some(member) = state.members.get(&id) else {
            return;
        };
        let groups = Arc::clone(&member.terms.groups);
        if let Some(before) = state.holder(address).filter(|before| before.id != id) {
            state.take(before.id, address);
        }
        state.set_holder(address, Holder { id, granted: true });
        if let LinkAddress::Station(station) = address {
            // Before its first frame can pass.
            state.granted.send_modify(|granted| {
                granted.insert(station, Owner { id, groups });
            });
        }
        state.change(id, |held| match address {
            LinkAddress::Station(own) => held.stations.push(own),
            LinkAddress::LinkLocal(own) => held.link_local.push(own),
        });
    }

    /// The client does not get what it wanted; whatever was reserved is free.
    pub(in crate::server) fn refuse(&self, id: ConnectionId, address: LinkAddress) {
        let mut state = self.lock();
        if state.holder(address) == Some(Holder { id, granted: false }) {
            state.free(address);
        }
        // Whoever waits for the answer has it.
        state.change(id, |_| {});
    }

    /// The client has this station no more, and may claim it anew.
    pub(in crate::server) fn lose(&self, id: ConnectionId, station: MacAddress) {
        let mut state = self.lock();
        let address = LinkAddress::Station(station);
        if !state.holds(id, address) {
            return;
        }
        state.take(id, address);
        state.free(address);
        state.granted.send_modify(|granted| {
            granted.remove(&station);
        });
    }

    /// Whether the client has that address.
    pub(in crate::server) fn has(&self, id: ConnectionId, address: LinkAddress) -> bool {
        self.lock().holds(id, address)
    }

    /// What a client has.
    pub(in crate::server) fn held(&self, id: ConnectionId) -> Arc<LinkAddresses> {
        let state = self.lock();
        let member = state.members.get(&id);
        member.map_or_else(Arc::default, |member| member.held.borrow().clone())
    }

    /// The client's tunnel is gone; others may have its addresses.
    pub(in crate::server) fn leave(&self, id: ConnectionId) {
        let mut state = self.lock();
        let Some(member) = state.members.remove(&id) else {
            return;
        };
        release(&mut state.stations, id);
        release(&mut state.link_local, id);
        state.granted.send_modify(|granted| {
            for station in &member.held.borrow().stations {
                granted.remove(station);
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn release<A: Eq + Hash>(holders: &mut HashMap<A, Holder>, id: ConnectionId) {
    holders.retain(|_, holder| holder.id != id);
}

impl State {
    fn holder(&self, address: LinkAddress) -> Option<Holder> {
        match address {
            LinkAddress::Station(station) => self.stations.get(&station).copied(),
            LinkAddress::LinkLocal(address) => self.link_local.get(&address).copied(),
        }
    }

    fn set_holder(&mut self, address: LinkAddress, holder: Holder) {
        match address {
            LinkAddress::Station(station) => self.stations.insert(station, holder),
            LinkAddress::LinkLocal(address) => self.link_local.insert(address, holder),
        };
    }

    /// Keeps it for nobody any more.
    fn free(&mut self, address: LinkAddress) {
        match address {
            LinkAddress::Station(station) => self.stations.remove(&station),
            LinkAddress::LinkLocal(address) => self.link_local.remove(&address),
        };
    }

    fn holds(&self, id: ConnectionId, address: LinkAddress) -> bool {
        self.holder(address) == Some(Holder { id, granted: true })
    }

    /// The client's frames may not have it any more.
    fn take(&self, id: ConnectionId, address: LinkAddress) {
        self.change(id, |held| match address {
            LinkAddress::Station(gone) => held.stations.retain(|it| *it != gone),
            LinkAddress::LinkLocal(gone) => held.link_local.retain(|it| *it != gone),
        });
    }

    fn change(&self, id: ConnectionId, change: impl FnOnce(&mut LinkAddresses)) {
        if let Some(member) = self.members.get(&id) {
            member.held.send_modify(|held| change(Arc::make_mut(held)));
        }
    }
}

#[cfg(test)]
mod tests;
