//! Sums by client: by key and user name. A client that comes again goes on
//! where it was, so that its numbers do not fall.

use std::collections::BTreeMap;

use super::Forwarded;
use super::session::SessionView;
use super::traffic::Traffic;
use crate::server::report::audit::text::Text;

/// Clients without a connection whose sums are kept; beyond it the one is
/// forgotten that left first.
const MOST_PAST: usize = 1024;

/// Who a client is, for sums.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientKey {
    /// The key.
    pub fingerprint: Text,
    /// The user name that it gives.
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

/// A client's sums.
#[derive(Debug, Clone)]
pub struct ClientView {
    /// Whose.
    pub client: ClientKey,
    /// Connections that it has.
    pub live: u64,
    /// What its tunnels carried.
    pub traffic: Traffic,
    /// What its TCP connections carried.
    pub forwarded: Forwarded,
}

/// The clients whose connections ended.
#[derive(Debug, Default)]
pub(super) struct Clients {
    past: BTreeMap<ClientKey, Past>,
    /// The same, by when the last of each client's connections ended.
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
    /// Adds what a session carried that is over.
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

    /// All clients, those that are `live` included.
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
