//! Totals per client, that is, per key and user name. A client that reconnects continues
//! its totals, so that they never fall.

use std::collections::BTreeMap;

use super::Forwarded;
use super::session::SessionView;
use super::traffic::Traffic;
use crate::server::report::audit::text::Text;

/// Limit of the clients without a connection whose totals are kept; beyond it, the one
/// that left first is forgotten.
const MOST_PAST: usize = 1024;

/// The identity of a client for the totals.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientKey {
    /// The fingerprint of the key.
    pub fingerprint: Text,
    /// The user name that the client gave.
    pub user: Text,
}

impl ClientKey {
    fn of(session: &SessionView) -> Self {
        Self {
            fingerprint: session.who.fingerprint.clone(),
            user: session.who.user.clone(),
        }
    }
}

/// A client's totals.
#[derive(Debug, Clone)]
pub struct ClientView {
    /// The client.
    pub client: ClientKey,
    /// The number of its live connections.
    pub live: u64,
    /// The traffic of its tunnels.
    pub traffic: Traffic,
    /// The traffic of its TCP connections.
    pub forwarded: Forwarded,
}

/// The totals of ended connections, per client.
#[derive(Debug, Default)]
pub(super) struct Clients {
    past: BTreeMap<ClientKey, Past>,
    /// The same clients by the end of the last connection of each.
    by_end: BTreeMap<u64, ClientKey>,
    ends: u64,
}

#[derive(Debug, Default)]
struct Past {
    end: u64,
    traffic: Traffic,
    forwarded: Forwarded,
}

impl Clients {
    /// Adds the totals of an ended session.
    pub fn keep(&mut self, session: &SessionView) {
        let key = ClientKey::of(session);
        self.ends += 1;
        let past = self.past.entry(key.clone()).or_default();
        self.by_end.remove(&past.end);
        past.end = self.ends;
        past.traffic.add(&session.traffic);
        past.forwarded.add(session);
        self.by_end.insert(self.ends, key);
        while self.by_end.len() > MOST_PAST
            && let Some((_, first)) = self.by_end.pop_first()
        {
            self.past.remove(&first);
        }
    }

    /// The totals of all clients, with those that are `live`.
    pub fn with_live(&self, live: &[SessionView]) -> Vec<ClientView> {
        let mut all = BTreeMap::new();
        for (client, past) in &self.past {
            let view = ClientView {
                client: client.clone(),
                live: 0,
                traffic: past.traffic.clone(),
                forwarded: past.forwarded,
            };
            all.insert(client.clone(), view);
        }
        for session in live {
            let client = ClientKey::of(session);
            let view = all.entry(client.clone()).or_insert_with(|| ClientView {
                client,
                live: 0,
                traffic: Traffic::default(),
                forwarded: Forwarded::default(),
            });
            view.live += 1;
            view.traffic.add(&session.traffic);
            view.forwarded.add(session);
        }
        all.into_values().collect()
    }
}
