//! Who may knock: how many connections may be without a login at once, in all
//! and from one source, and which sources are refused for what they did
//! (sshd_config(5): MaxStartups, PerSourceMaxStartups, PerSourcePenalties).

mod penalties;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::config::serve::settings::{LoginSettings, MaxStartups};

pub use penalties::Offence;
use penalties::{PenaltyTable, SourceBlock};

/// Why a connection is refused before a word is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Its source is being penalised.
    Penalty(Offence),
    /// As many sources are being penalised as can be remembered, and then
    /// nobody is let in.
    PenaltyOverflow,
    /// Too many connections are not logged in.
    Startups,
    /// Too many of them are from its source.
    SourceStartups,
}

impl Refused {
    /// A short name, for logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Refused::Penalty(offence) => offence.penalty_name(),
            Refused::PenaltyOverflow => "penalty-overflow",
            Refused::Startups => "max-startups",
            Refused::SourceStartups => "per-source-max-startups",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Penalty(offence) => write!(f, "penalty: {offence}"),
            Refused::PenaltyOverflow => f.write_str("penalty: too many sources have one"),
            Refused::Startups => f.write_str("too many connections are not logged in"),
            Refused::SourceStartups => {
                f.write_str("too many connections from its source are not logged in")
            }
        }
    }
}

/// Decides which connections are taken. Shared by the listeners.
#[derive(Debug)]
pub struct Admission {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    settings: LoginSettings,
    /// The connections that are not logged in, and where they are from.
    startups: HashMap<u64, IpAddr>,
    next: u64,
    penalties: PenaltyTable,
}

impl Admission {
    /// With nobody at the door.
    pub fn new(settings: &LoginSettings) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                settings: settings.clone(),
                startups: HashMap::new(),
                next: 0,
                penalties: PenaltyTable::default(),
            }),
        })
    }

    /// Whether a connection from `peer` is taken. While the guard lives it counts
    /// as one that is not logged in.
    pub fn admit(self: &Arc<Self>, peer: IpAddr, now: Instant) -> Result<Startup, Refused> {
        self.admit_by(peer, now, draw)
    }

    /// `draw` yields a number below 100, each as likely as any other.
    fn admit_by(
        self: &Arc<Self>,
        peer: IpAddr,
        now: Instant,
        draw: impl FnOnce() -> u8,
    ) -> Result<Startup, Refused> {
        let peer = peer.to_canonical();
        let mut state = self.lock();
        state.check_penalties(peer, now)?;
        let chance = refusal_chance(state.settings.max_startups, state.startups.len());
        if chance > 0 && (chance >= 100 || draw() < chance) {
            return Err(Refused::Startups);
        }
        if let Some(most) = state.settings.per_source_max_startups
            && state.startups_beside(peer) >= most
        {
            return Err(Refused::SourceStartups);
        }
        let id = state.next;
        state.next = state.next.wrapping_add(1);
        state.startups.insert(id, peer);
        drop(state);
        Ok(Startup {
            admission: Arc::clone(self),
            id,
        })
    }

    /// Holds an offence against the source of `peer`. Connections that it has
    /// already are left alone.
    pub fn penalize(&self, peer: IpAddr, offence: Offence, now: Instant) {
        let peer = peer.to_canonical();
        let mut state = self.lock();
        let Some(penalties) = state.settings.penalties else {
            return;
        };
        if !state.is_exempt(peer) {
            let block = SourceBlock::of(peer, state.settings.source_block);
            state.penalties.add(block, offence, &penalties, now);
        }
    }

    /// Takes other settings. Who is at the door stays there, and penalties go
    /// on; those for blocks of another size, or where there are none any more,
    /// are forgotten.
    pub fn replace(&self, settings: &LoginSettings) {
        let mut state = self.lock();
        if settings.penalties.is_none() || settings.source_block != state.settings.source_block {
            state.penalties.clear();
        }
        state.settings = settings.clone();
    }

    /// Connections that are not logged in.
    pub fn startups(&self) -> usize {
        self.lock().startups.len()
    }

    /// Sources that are refused now.
    pub fn penalised_sources(&self, now: Instant) -> usize {
        self.lock().penalties.active(now)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_exempt(&self, peer: IpAddr) -> bool {
        let mut exempt = self.settings.exempt.iter();
        exempt.any(|network| network.contains(peer))
    }

    fn check_penalties(&mut self, peer: IpAddr, now: Instant) -> Result<(), Refused> {
        let Some(penalties) = self.settings.penalties else {
            return Ok(());
        };
        if self.is_exempt(peer) {
            return Ok(());
        }
        let block = SourceBlock::of(peer, self.settings.source_block);
        if let Some(offence) = self.penalties.active_offence(block, now) {
            return Err(Refused::Penalty(offence));
        }
        match self.penalties.is_shut(block, &penalties, now) {
            true => Err(Refused::PenaltyOverflow),
            false => Ok(()),
        }
    }

    /// Connections from the block of `peer` that are not logged in. They are
    /// looked through, as MaxStartups keeps them few.
    fn startups_beside(&self, peer: IpAddr) -> usize {
        let sizes = self.settings.source_block;
        let block = SourceBlock::of(peer, sizes);
        let known = self.startups.values();
        known
            .filter(|other| SourceBlock::of(**other, sizes) == block)
            .count()
    }
}

/// Percent of the connections that are refused while `startups` are there: none
/// below `start`, `rate` there, growing in a straight line to all at `full`.
fn refusal_chance(limits: MaxStartups, startups: usize) -> u8 {
    if startups < limits.start {
        return 0;
    }
    if startups >= limits.full || limits.rate >= 100 {
        return 100;
    }
    let span = u64::try_from(limits.full - limits.start).unwrap_or(u64::MAX);
    let beyond = u64::try_from(startups - limits.start).unwrap_or(u64::MAX);
    let rate = u64::from(limits.rate);
    let grown = (100 - rate).saturating_mul(beyond) / span.max(1);
    u8::try_from(rate + grown).unwrap_or(100)
}

/// A random number below 100; 0, which refuses, where there are none.
fn draw() -> u8 {
    let mut bytes = [0; 8];
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => (u64::from_le_bytes(bytes) % 100) as u8,
        Err(_) => 0,
    }
}

/// A connection that is not logged in, until it is dropped.
#[derive(Debug)]
#[must_use = "the connection counts as one without a login until this is dropped"]
pub struct Startup {
    admission: Arc<Admission>,
    id: u64,
}

impl Startup {
    /// It is logged in: it counts no longer.
    pub fn logged_in(self) {}
}

impl Drop for Startup {
    fn drop(&mut self) {
        self.admission.lock().startups.remove(&self.id);
    }
}

#[cfg(test)]
#[path = "tests.rs"]
pub(super) mod tests;
