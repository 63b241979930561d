//! Who may reach whom: the rules by which each live tunnel's guard judges, made
//! anew for all when a client comes or goes, or the settings change.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnetwork::IpNetwork;
use tokio::sync::watch;

use super::grant::Group;
use super::registry::ConnectionId;
use crate::packet::address_set::AddressSet;
use crate::packet::guard::{GuardRules, Reach};
use crate::pump::Guard;

/// The tunnels that are up.
#[derive(Debug, Default)]
pub struct Reachability(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The server's own addresses in the tunnels.
    here: AddressSet,
    /// The networks that clients get their addresses from.
    pools: AddressSet,
    members: BTreeMap<ConnectionId, Member>,
}

#[derive(Debug)]
struct Member {
    terms: Terms,
    sources: AddressSet,
    rules: watch::Sender<Arc<GuardRules>>,
}

/// What one tunnel is allowed.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// The client's own addresses.
    pub addresses: Vec<IpAddr>,
    /// Networks behind it.
    pub sources: Vec<IpNetwork>,
    /// Networks beyond this host that it may reach.
    pub routes: Vec<IpNetwork>,
    /// It may reach the clients of these groups.
    pub groups: BTreeSet<Group>,
}

/// A tunnel's place among the others, which is given up when this is dropped.
#[derive(Debug)]
pub struct Membership {
    reachability: Arc<Reachability>,
    id: ConnectionId,
}

impl Reachability {
    /// The server's addresses, and the networks of its clients, from now on.
    pub fn set_networks(
        &self,
        here: impl IntoIterator<Item = IpAddr>,
        pools: impl IntoIterator<Item = IpNetwork>,
    ) {
        let mut state = self.lock();
        state.here = here.into_iter().collect();
        state.pools = pools.into_iter().collect();
        state.tell_all();
    }

    /// Adds the tunnel of a connection, which has one at most; yields what its
    /// packets are judged by.
    pub fn join(self: &Arc<Self>, id: ConnectionId, terms: Terms) -> (Guard, Membership) {
        let own: AddressSet = terms.addresses.iter().copied().collect();
        let sources = own.union(&terms.sources.iter().copied().collect());
        let mut state = self.lock();
        let nothing = GuardRules::new(
            AddressSet::EMPTY,
            &Reach {
                here: &AddressSet::EMPTY,
                networks: &[],
                clients: &AddressSet::EMPTY,
                peers: &AddressSet::EMPTY,
            },
            true,
        );
        let (rules, watched) = watch::channel(Arc::new(nothing));
        let member = Member {
            terms,
            sources,
            rules,
        };
        state.members.insert(id, member);
        state.tell_all();
        let membership = Membership {
            reachability: Arc::clone(self),
            id,
        };
        (Guard::new(watched), membership)
    }

    /// Changes what the tunnel of a connection may reach, while its packets flow.
    pub fn change(&self, id: ConnectionId, routes: Vec<IpNetwork>, groups: BTreeSet<Group>) {
        let mut state = self.lock();
        let Some(member) = state.members.get_mut(&id) else {
            return;
        };
        if member.terms.routes != routes || member.terms.groups != groups {
            member.terms.routes = routes;
            member.terms.groups = groups;
            state.tell_all();
        }
    }

    /// Whether a connection from here to `to` may be made for the client of `id`,
    /// who is in `groups`: not to another client that its packets could not reach.
    pub fn lets_connect(&self, id: ConnectionId, groups: &BTreeSet<Group>, to: IpAddr) -> bool {
        let (state, to) = (self.lock(), to.to_canonical());
        if state.here.contains(to) {
            return true;
        }
        let mut holders = state
            .members
            .iter()
            .filter(|(_, member)| member.sources.contains(to))
            .peekable();
        // Of the pools the others are nobody's, or will be somebody's.
        if holders.peek().is_none() {
            return !state.pools.contains(to);
        }
        holders.all(|(holder, member)| *holder == id || !member.terms.groups.is_disjoint(groups))
    }

    /// What a tunnel is allowed now.
    #[cfg(test)]
    pub(super) fn terms_of(&self, id: ConnectionId) -> Option<Terms> {
        Some(self.lock().members.get(&id)?.terms.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut state = self.reachability.lock();
        state.members.remove(&self.id);
        state.tell_all();
    }
}

impl State {
    fn tell_all(&self) {
        let sources = self.members.values().map(|member| &member.sources);
        let clients = sources.fold(self.pools.clone(), |all, own| all.union(own));
        let groups = self.by_group();
        for member in self.members.values() {
            let peers = member
                .terms
                .groups
                .iter()
                .filter_map(|group| groups.get(group))
                .fold(AddressSet::EMPTY, |all, group| all.union(group));
            let reach = Reach {
                here: &self.here,
                networks: &member.terms.routes,
                clients: &clients,
                peers: &peers,
            };
            let one_station = member.terms.sources.is_empty();
            let rules = GuardRules::new(member.sources.clone(), &reach, one_station);
            member.rules.send_if_modified(|known| {
                let differs = **known != rules;
                if differs {
                    *known = Arc::new(rules);
                }
                differs
            });
        }
    }

    /// The addresses of each group's clients.
    fn by_group(&self) -> BTreeMap<&Group, AddressSet> {
        let mut groups: BTreeMap<&Group, AddressSet> = BTreeMap::new();
        for member in self.members.values() {
            for group in &member.terms.groups {
                let all = groups.entry(group).or_insert(AddressSet::EMPTY);
                *all = all.union(&member.sources);
            }
        }
        groups
    }
}

#[cfg(test)]
#[path = "reach_tests.rs"]
mod tests;
