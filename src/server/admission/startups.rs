//! The table of connections without a login, and the choice which of them is closed
//! first when there are too many.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::penalties::SourceBlock;
use super::{Admission, Refused};
use crate::config::serve::settings::LoginSettings;

/// A younger connection is taken to be still in its key exchange.
const HEAD_START: Duration = Duration::from_secs(2);

/// The table.
#[derive(Debug, Default)]
pub(super) struct Startups {
    by_id: HashMap<u64, Entry>,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    peer: IpAddr,
    since: Instant,
    /// Whether the key exchange is done and the client asked to log in.
    begun: bool,
    end: oneshot::Sender<Refused>,
}

/// The part of the table that a limit is about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Within {
    All,
    /// The connections from a block of this size.
    Block(SourceBlock, (u8, u8)),
}

impl Within {
    /// The block of `peer`; `sizes` are the prefix lengths for IPv4 and IPv6.
    pub fn block(peer: IpAddr, sizes: (u8, u8)) -> Self {
        Within::Block(SourceBlock::of(peer, sizes), sizes)
    }

    fn has(self, entry: &Entry) -> bool {
        match self {
            Within::All => true,
            Within::Block(block, sizes) => SourceBlock::of(entry.peer, sizes) == block,
        }
    }
}

impl Startups {
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// A linear search, since MaxStartups limits the size of the table.
    pub fn count(&self, within: Within) -> usize {
        let all = self.by_id.values();
        all.filter(|entry| within.has(entry)).count()
    }

    /// Adds a connection; returns its number, and the receiver of its refusal.
    pub fn insert(&mut self, peer: IpAddr, now: Instant) -> (u64, oneshot::Receiver<Refused>) {
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        let (end, told) = oneshot::channel();
        let entry = Entry {
            peer,
            since: now,
            begun: false,
            end,
        };
        self.by_id.insert(id, entry);
        (id, told)
    }

    pub fn begun(&mut self, id: u64) {
        if let Some(entry) = self.by_id.get_mut(&id) {
            entry.begun = true;
        }
    }

    pub fn remove(&mut self, id: u64) {
        self.by_id.remove(&id);
    }

    /// Closes those of `within` that are as old as `grace` or older.
    pub fn end_older(&mut self, within: Within, grace: Duration, now: Instant) {
        let is_old = |_: &u64, entry: &mut Entry| {
            within.has(entry) && now.saturating_duration_since(entry.since) >= grace
        };
        for (_, entry) in self.by_id.extract_if(is_old) {
            // Its task may have ended already.
            let _ = entry.end.send(Refused::CrowdedGrace);
        }
    }

    /// Closes the connection that goes first to make room for one from `peer`; returns
    /// whether there was one.
    ///
    /// Of those that have not begun to log in, the oldest of the most crowded network goes;
    /// those in their first 2 s go last. If all have begun, or are that young, one that has
    /// begun goes, but only of a network at half of its limit or more, and not for another
    /// connection of its own network.
    /// many as it may have; not for another one of its own network.
    pub fn displace(
        &mut self,
        within: Within,
        peer: IpAddr,
        settings: &LoginSettings,
        now: Instant,
    ) -> bool {
        let sizes = settings.network_block;
        let mut crowds: HashMap<SourceBlock, usize> = HashMap::new();
        for entry in self.by_id.values() {
            *crowds
                .entry(SourceBlock::of(entry.peer, sizes))
                .or_default() += 1;
        }
        let crowd = |entry: &Entry| {
            let block = SourceBlock::of(entry.peer, sizes);
            crowds.get(&block).copied().unwrap_or_default()
        };
        let many = settings
            .per_network_max_startups
            .map_or(usize::MAX, |most| most.div_ceil(2));
        let own = Within::block(peer, sizes);
        let place = |entry: &Entry| {
            let young = now.saturating_duration_since(entry.since) < HEAD_START;
            match (entry.begun, young) {
                (false, false) => Some(0),
                (true, _) => (!own.has(entry) && crowd(entry) >= many).then_some(1),
                (false, true) => Some(2),
            }
        };
        let candidates = self.by_id.iter().filter(|(_, entry)| within.has(entry));
        let first = candidates
            .filter_map(|(id, entry)| {
                Some((place(entry)?, Reverse(crowd(entry)), entry.since, *id))
            })
            .min();
        let Some(entry) = first.and_then(|(.., id)| self.by_id.remove(&id)) else {
            return false;
        };
        // Its task may have ended already.
        let _ = entry.end.send(Refused::Displaced);
        true
    }
}

/// The slot of a connection without a login.
#[derive(Debug, Clone)]
pub struct Place {
    admission: Arc<Admission>,
    id: u64,
}

impl Place {
    pub(super) fn new(admission: Arc<Admission>, id: u64) -> Self {
        Self { admission, id }
    }

    /// Marks that the client has passed the key exchange and asks to log in.
    pub fn begun(&self) {
        self.admission.begun(self.id);
    }
}

/// A connection without a login, until this is dropped.
#[derive(Debug)]
#[must_use = "the connection counts as one without a login until this is dropped"]
pub struct Startup {
    place: Place,
    displaced: oneshot::Receiver<Refused>,
}

impl Startup {
    pub(super) fn new(place: Place, displaced: oneshot::Receiver<Refused>) -> Self {
        Self { place, displaced }
    }

    /// The connection's slot.
    pub fn place(&self) -> Place {
        self.place.clone()
    }

    /// Waits until the connection must be closed; returns the reason.
    pub async fn displaced(&mut self) -> Refused {
        match (&mut self.displaced).await {
            Ok(why) => why,
            // Its entry has left the table without a refusal.
            Err(_) => std::future::pending().await,
        }
    }

    /// The client has logged in, so the connection no longer counts.
    pub fn logged_in(self) {}
}

impl Drop for Startup {
    fn drop(&mut self) {
        self.place.admission.forget(self.place.id);
    }
}
