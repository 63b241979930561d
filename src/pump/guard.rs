//! The rules for what the far end may send, on a running tunnel: asked about each
//! packet, replaced at any time by whoever holds the other end of the watch.

use std::sync::Arc;

use tokio::sync::watch;

use super::Dropped;
use crate::config::types::Mode;
use crate::packet::guard::GuardRules;
use crate::packet::guard_link::MacAddress;

/// The guard of one tunnel.
#[derive(Debug)]
pub struct Guard {
    replaced: watch::Receiver<Arc<GuardRules>>,
    rules: Arc<GuardRules>,
    /// Whom the far end's Ethernet frames come from, once one has passed.
    station: Option<MacAddress>,
}

impl Guard {
    /// By the rules that `rules` has now, and those that it will have; the last
    /// ones stay when its sender is gone.
    pub fn new(mut rules: watch::Receiver<Arc<GuardRules>>) -> Self {
        let current = Arc::clone(&rules.borrow_and_update());
        Guard {
            replaced: rules,
            rules: current,
            station: None,
        }
    }

    /// Judges a packet of which `head` is the start, with all of its headers.
    pub(super) fn check(&mut self, mode: Mode, head: &[u8]) -> Result<(), Dropped> {
        // An atomic load; the lock is taken for a new set alone.
        if self.replaced.has_changed().unwrap_or(false) {
            self.rules = Arc::clone(&self.replaced.borrow_and_update());
        }
        let judged = self.rules.check(mode, &mut self.station, head);
        judged.map_err(Dropped::from)
    }
}
