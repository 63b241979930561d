//! Which clients may reach which addresses: the rules that each live tunnel's guard
//! applies. They are rebuilt for the members of its groups when a client comes or goes,
//! and for all clients when the settings or a network behind a client change.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnetwork::IpNetwork;
use tokio::sync::watch;

use crate::packet::guard::{GuardRules, Reach};
use crate::pump::Guard;
use crate::server::login::grant::Group;
use crate::server::report::registry::ConnectionId;
use crate::types::address_set::AddressSet;

/// The tunnels that are up.
#[derive(Debug, Default)]
pub struct Reachability(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The server's own addresses in the tunnels.
    here: AddressSet,
    /// The networks from which clients get addresses.
    pools: AddressSet,
    /// The same, as they were given.
    pool_networks: Vec<IpNetwork>,
    /// All addresses that clients have or may get: the pools, and the members' own ones.
    clients: AddressSet,
    members: BTreeMap<ConnectionId, Member>,
    /// The members of each group.
    groups: BTreeMap<Group, BTreeSet<ConnectionId>>,
}

#[derive(Debug)]
struct Member {
    terms: Terms,
    sources: AddressSet,
    rules: watch::Sender<Arc<GuardRules>>,
}

/// What one tunnel is allowed to reach and to send from.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// The client's own addresses.
    pub addresses: Vec<IpAddr>,
    /// Networks behind the client.
    pub sources: Vec<IpNetwork>,
    /// Networks beyond this host that the client may reach.
    pub routes: Vec<IpNetwork>,
    /// Groups whose clients it may reach.
    pub groups: BTreeSet<Group>,
}

/// A tunnel's membership in the rules; dropping it removes the tunnel.
#[derive(Debug)]
pub struct Membership {
    reachability: Arc<Reachability>,
    id: ConnectionId,
}

impl Reachability {
    /// Replaces the server's addresses and the networks of its clients.
    pub fn set_networks(
        &self,
        here: impl IntoIterator<Item = IpAddr>,
        pools: impl IntoIterator<Item = IpNetwork>,
    ) {
        let mut state = self.lock();
        state.here = here.into_iter().collect();
        state.pool_networks = pools.into_iter().collect();
        state.pools = state.pool_networks.iter().copied().collect();
        state.clients = state.all_clients();
        state.tell(&state.everybody());
    }

    /// The networks from which clients get addresses.
    pub fn pools(&self) -> Vec<IpNetwork> {
        self.lock().pool_networks.clone()
    }

    /// Adds the tunnel of a connection (at most one each); returns the guard that checks
    /// its packets.
    pub fn join(self: &Arc<Self>, id: ConnectionId, terms: Terms) -> (Guard, Membership) {
        let member = Member::new(terms);
        let guard = Guard::new(member.rules.subscribe());
        let mut state = self.lock();
        let concerned = state.come(id, member);
        state.tell(&concerned);
        let membership = Membership {
            reachability: Arc::clone(self),
            id,
        };
        (guard, membership)
    }

    /// Changes what the tunnel of a connection may reach, while its packets flow.
    pub fn change(&self, id: ConnectionId, routes: Vec<IpNetwork>, groups: BTreeSet<Group>) {
        let mut state = self.lock();
        let concerned = state.change(id, routes, groups);
        state.tell(&concerned);
    }

    /// Whether the server may connect to `to` for the client `id`, which is in `groups`: not
    /// to another client that the client's own packets could not reach.
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
        // Other pool addresses are unassigned, or may be assigned to a client later.
        if holders.peek().is_none() {
            return !state.pools.contains(to);
        }
        holders.all(|(holder, member)| *holder == id || !member.terms.groups.is_disjoint(groups))
    }

    /// The current terms of a tunnel.
    #[cfg(test)]
    pub(in crate::server) fn terms_of(&self, id: ConnectionId) -> Option<Terms> {
        Some(self.lock().members.get(&id)?.terms.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut state = self.reachability.lock();
        let concerned = state.go(self.id);
        state.tell(&concerned);
    }
}

impl Member {
    /// A member that may not send anything yet.
    fn new(terms: Terms) -> Self {
        let own: AddressSet = terms.addresses.iter().copied().collect();
        let sources = own.union(&terms.sources.iter().copied().collect());
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
        Member {
            terms,
            sources,
            rules: watch::Sender::new(Arc::new(nothing)),
        }
    }
}

impl State {
    /// Adds a member; returns the members whose rules change.
    fn come(&mut self, id: ConnectionId, member: Member) -> BTreeSet<ConnectionId> {
        self.join_groups(id, &member.terms.groups);
        let has_more = !self.clients.includes(&member.sources);
        let mut concerned = match has_more {
            true => {
                self.clients = self.clients.union(&member.sources);
                self.everybody()
            }
            false => self.of_groups(&member.terms.groups),
        };
        concerned.insert(id);
        self.members.insert(id, member);
        concerned
    }

    /// Removes a member; returns the members whose rules change.
    fn go(&mut self, id: ConnectionId) -> BTreeSet<ConnectionId> {
        let Some(member) = self.members.remove(&id) else {
            return BTreeSet::new();
        };
        self.leave_groups(id, &member.terms.groups);
        if !self.pools.includes(&member.sources) {
            let clients = self.all_clients();
            if clients != self.clients {
                self.clients = clients;
                return self.everybody();
            }
        }
        self.of_groups(&member.terms.groups)
    }

    fn join_groups(&mut self, id: ConnectionId, groups: &BTreeSet<Group>) {
        for group in groups {
            self.groups.entry(group.clone()).or_default().insert(id);
        }
    }

    fn leave_groups(&mut self, id: ConnectionId, groups: &BTreeSet<Group>) {
        for group in groups {
            if let Some(left) = self.groups.get_mut(group) {
                left.remove(&id);
                if left.is_empty() {
                    self.groups.remove(group);
                }
            }
        }
    }

    /// Changes a member's routes and groups; returns the members whose rules change.
    fn change(
        &mut self,
        id: ConnectionId,
        routes: Vec<IpNetwork>,
        groups: BTreeSet<Group>,
    ) -> BTreeSet<ConnectionId> {
        let mut concerned = BTreeSet::new();
        let Some(member) = self.members.get_mut(&id) else {
            return concerned;
        };
        if member.terms.routes != routes {
            member.terms.routes = routes;
            concerned.insert(id);
        }
        if member.terms.groups == groups {
            return concerned;
        }
        let before = std::mem::replace(&mut member.terms.groups, groups.clone());
        concerned.extend(self.of_groups(&before));
        self.leave_groups(id, &before);
        self.join_groups(id, &groups);
        concerned.insert(id);
        concerned.extend(self.of_groups(&groups));
        concerned
    }

    fn everybody(&self) -> BTreeSet<ConnectionId> {
        self.members.keys().copied().collect()
    }

    fn of_groups(&self, groups: &BTreeSet<Group>) -> BTreeSet<ConnectionId> {
        let members = groups.iter().filter_map(|group| self.groups.get(group));
        members.flatten().copied().collect()
    }

    fn all_clients(&self) -> AddressSet {
        let sources = self.members.values().map(|member| &member.sources);
        let besides = sources.filter(|sources| !self.pools.includes(sources));
        besides.fold(self.pools.clone(), |all, own| all.union(own))
    }

    /// Rebuilds the rules of `concerned`.
    fn tell(&self, concerned: &BTreeSet<ConnectionId>) {
        let concerned = concerned.iter().filter_map(|id| self.members.get(id));
        // Each group's addresses are collected once, however many members it has.
        let mut groups: BTreeMap<&Group, AddressSet> = BTreeMap::new();
        for member in concerned {
            let own = member.terms.groups.iter().map(|group| {
                let known = groups.entry(group);
                known.or_insert_with(|| self.addresses_of(group)).clone()
            });
            let peers = own.fold(AddressSet::EMPTY, |all, group| all.union(&group));
            let reach = Reach {
                here: &self.here,
                networks: &member.terms.routes,
                clients: &self.clients,
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

    /// The addresses of a group's clients.
    fn addresses_of(&self, group: &Group) -> AddressSet {
        let members = self.groups.get(group).into_iter().flatten();
        members
            .filter_map(|id| self.members.get(id))
            .fold(AddressSet::EMPTY, |all, member| all.union(&member.sources))
    }
}

#[cfg(test)]
mod tests;
