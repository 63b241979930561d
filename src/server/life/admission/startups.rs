//! The connections that are not logged in, and which of them goes first when
//! there are too many.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::penalties::SourceBlock;
use super::{Admission, Refused};
use crate::config::serve::settings::LoginSettings;

/// A connection that is younger is still on its way through the key exchange.
const HEAD_START: Duration = Duration::from_secs(2);

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Startups {
    by_id: HashMap<u64, Entry>,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    peer: IpAddr,
    since: Instant,
    /// Whether the key exchange is done and a login was asked for.
    begun: bool,
    end: oneshot::Sender<Refused>,
}

/// Which of them.
#[derive(Debug, Clone, Copy)]
pub(super) enum Within {
    All,
    /// Those from a block of this size.
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

    /// They are looked through, as MaxStartups bounds their number.
    pub fn count(&self, within: Within) -> usize {
        let all = self.by_id.values();
        all.filter(|entry| within.has(entry)).count()
    }

    /// Takes one in; yields its number, and what tells it to go.
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

    /// Ends those of `within` that have taken `grace` or longer.
    pub fn end_older(&mut self, within: Within, grace: Duration, now: Instant) {
        let is_old = |_: &u64, entry: &mut Entry| {
            within.has(entry) && now.saturating_duration_since(entry.since) >= grace
        };
        for (_, entry) in self.by_id.extract_if(is_old) {
            // Its task may be over already.
            let _ = entry.end.send(Refused::CrowdedGrace);
        }
    }

    /// Ends the one that goes first for one from `peer`; false where there is none
    /// that may.
    ///
    /// Of those that have not begun to log in the oldest of the most crowded
    /// network goes, those in their first two seconds last. Where all have begun,
    /// or are that young, one that has begun goes, of a network that has half as
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
        // Its task may be over already.
        let _ = entry.end.send(Refused::Displaced);
        true
    }
}

/// The place of a connection among those that are not logged in.
#[derive(Debug, Clone)]
pub struct Place {
    admission: Arc<Admission>,
    id: u64,
}

impl Place {
    pub(super) fn new(admission: Arc<Admission>, id: u64) -> Self {
        Self { admission, id }
    }

    /// The client has passed the key exchange and asks to log in.
    pub fn begun(&self) {
        self.admission.begun(self.id);
    }
}

/// A connection that is not logged in, until it is dropped.
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

    /// Its place.
    pub fn place(&self) -> Place {
        self.place.clone()
    }

    /// Waits until it has to go, and yields why.
    pub async fn displaced(&mut self) -> Refused {
        match (&mut self.displaced).await {
            Ok(why) => why,
            // It is not in the table any more, and nobody ended it.
            Err(_) => std::future::pending().await,
        }
    }

    /// It is logged in: it counts no longer.
    pub fn logged_in(self) {}
}

impl Drop for Startup {
    fn drop(&mut self) {
        self.place.admission.forget(self.place.id);
    }
}
