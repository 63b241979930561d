//! Assigns MAC and link-local addresses to the clients on the server's bridge, and says
//! which stations each client hears. No I/O; `mac_claims` asks the kernel about other
//! stations of the bridge.

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

/// Limit of the stations of a client with networks behind it; another client has one.
const MOST_STATIONS: usize = 64;
/// Limit of the link-local addresses of one station.
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

/// The client for which an address is reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Holder {
    id: ConnectionId,
    /// Whether the client has the address; false while it is being checked.
    granted: bool,
}

/// The stations that clients have, as all tunnels look them up. Changed in place; no
/// reader keeps a copy.
type Granted = HashMap<MacAddress, Owner>;

/// The client that has a station.
#[derive(Debug)]
struct Owner {
    id: ConnectionId,
    groups: Arc<BTreeSet<Group>>,
}

/// Which stations a client hears: itself, clients with which it has a group in common,
/// and all stations of the bridge that are not clients.
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

/// The terms on which a client joins the bridge.
#[derive(Debug, Clone)]
pub(in crate::server) struct StationTerms {
    /// The holder; the latest of its connections has its addresses.
    pub key: LeaseKey,
    /// Clients of the same group hear each other.
    pub groups: Arc<BTreeSet<Group>>,
    /// Whether the client is a single host.
    pub one_station: bool,
    /// The client's port of the bridge.
    pub port: InterfaceIndex,
}

/// What a client's tunnel is kept informed of.
#[derive(Debug)]
pub(in crate::server) struct Told {
    /// The client's own addresses.
    pub held: watch::Receiver<Arc<LinkAddresses>>,
    /// The stations that the client hears.
    pub hearing: Hearing,
}

/// Why a client does not get an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::server) enum NotYours {
    /// A client with another key has the address.
    #[error("another client has it")]
    Taken,
    /// The client is at its limit.
    #[error("the client has as many of them as it may have")]
    TooMany,
    /// The client's tunnel has ended.
    #[error("the client is gone")]
    Gone,
}

/// An address that the client may have, unless another station of the bridge has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Reserved {
    /// No client has the address.
    New,
    /// An earlier connection of the same key, at that port, keeps the address until it is
    /// confirmed.
    MovesFrom(InterfaceIndex),
}

impl Stations {
    /// Adds a client whose tunnel joins the bridge, without addresses.
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

    /// Reserves an address while it is being checked.
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

    /// Gives the client what was reserved for it.
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

    /// Refuses the client's claim, and frees what was reserved for it.
    pub(in crate::server) fn refuse(&self, id: ConnectionId, address: LinkAddress) {
        let mut state = self.lock();
        if state.holder(address) == Some(Holder { id, granted: false }) {
            state.free(address);
        }
        // Wakes the waiting reader; nothing has changed for it.
        state.change(id, |_| {});
    }

    /// Takes this station from the client, which may claim it again.
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

    /// Whether the client has this address.
    pub(in crate::server) fn has(&self, id: ConnectionId, address: LinkAddress) -> bool {
        self.lock().holds(id, address)
    }

    /// The client's addresses.
    pub(in crate::server) fn held(&self, id: ConnectionId) -> Arc<LinkAddresses> {
        let state = self.lock();
        let member = state.members.get(&id);
        member.map_or_else(Arc::default, |member| member.held.borrow().clone())
    }

    /// Removes a client whose tunnel has ended; its addresses are free.
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

    /// Removes the reservation of the address.
    fn free(&mut self, address: LinkAddress) {
        match address {
            LinkAddress::Station(station) => self.stations.remove(&station),
            LinkAddress::LinkLocal(address) => self.link_local.remove(&address),
        };
    }

    fn holds(&self, id: ConnectionId, address: LinkAddress) -> bool {
        self.holder(address) == Some(Holder { id, granted: true })
    }

    /// Takes the address from the client's frames.
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
