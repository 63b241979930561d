//! Decides which connections are accepted: limits connections without a login in total,
//! per source and per network, and refuses sources with a penalty (sshd_config(5):
//! MaxStartups, PerSourceMaxStartups, PerSourcePenalties). Unlike in sshd, a full table
//! does not refuse a new connection: one that has not begun to log in is closed for it.

mod penalties;
mod startups;

#[cfg(test)]
pub(in crate::server) mod tests;

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::config::serve::settings::{LoginSettings, MaxStartups};

pub use penalties::Offence;
use penalties::{PenaltyTable, SourceBlock};
pub use startups::{Place, Startup};
use startups::{Startups, Within};

/// Why a connection is refused before the banner, or closed before its login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Its source has a penalty.
    Penalty(Offence),
    /// The table of penalties is full, and the settings then refuse all sources.
    PenaltyOverflow,
    /// Too many connections have no login.
    Startups,
    /// Too many of them are from its source.
    SourceStartups,
    /// Too many of them are from its network.
    NetworkStartups,
    /// It had not begun to log in, and a new connection took its place.
    Displaced,
    /// Its login exceeded the shorter grace time that applies to a crowd.
    CrowdedGrace,
}

impl Refused {
    /// A short name, for logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Refused::Penalty(offence) => offence.penalty_name(),
            Refused::PenaltyOverflow => "penalty-overflow",
            Refused::Startups => "max-startups",
            Refused::SourceStartups => "per-source-max-startups",
            Refused::NetworkStartups => "per-network-max-startups",
            Refused::Displaced => "displaced",
            Refused::CrowdedGrace => "crowded-grace-time",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Penalty(offence) => write!(f, "penalty: {offence}"),
            Refused::PenaltyOverflow => f.write_str("penalty: the table of penalties is full"),
            Refused::Startups => f.write_str("too many connections without a login"),
            Refused::SourceStartups => {
                f.write_str("too many connections without a login from its source")
            }
            Refused::NetworkStartups => {
                f.write_str("too many connections without a login from its network")
            }
            Refused::Displaced => f.write_str("displaced by a new connection before its login"),
            Refused::CrowdedGrace => f.write_str("its login took longer than crowded-grace-time"),
        }
    }
}

/// Decides which connections are accepted; shared by the listeners.
#[derive(Debug)]
pub struct Admission {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    settings: LoginSettings,
    startups: Startups,
    penalties: PenaltyTable,
}

impl Admission {
    /// Starts with empty tables.
    pub fn new(settings: &LoginSettings) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                settings: settings.clone(),
                startups: Startups::default(),
                penalties: PenaltyTable::default(),
            }),
        })
    }

    /// Whether a connection from `peer` is accepted. As long as the guard lives, the
    /// connection counts as one without a login.
    pub fn admit(self: &Arc<Self>, peer: IpAddr, now: Instant) -> Result<Startup, Refused> {
        self.admit_by(peer, now, draw)
    }

    /// `draw` returns a uniformly distributed number below 100. At a limit, a connection that
    /// counts against it and has not begun to log in is closed; if there is none, the new one
    /// is refused.
    fn admit_by(
        self: &Arc<Self>,
        peer: IpAddr,
        now: Instant,
        draw: impl FnOnce() -> u8,
    ) -> Result<Startup, Refused> {
        let peer = peer.to_canonical();
        let mut state = self.lock();
        state.check_penalties(peer, now)?;
        state.make_room(peer, now, draw)?;
        let (id, displaced) = state.startups.insert(peer, now);
        drop(state);
        let place = Place::new(Arc::clone(self), id);
        Ok(Startup::new(place, displaced))
    }

    /// Records an offence of the source of `peer`. Its existing connections continue.
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

    /// Replaces the settings. Existing connections stay, and penalties continue; those for
    /// blocks of another size, or all if penalties are now off, are dropped.
    pub fn replace(&self, settings: &LoginSettings) {
        let mut state = self.lock();
        if settings.penalties.is_none() || settings.source_block != state.settings.source_block {
            state.penalties.clear();
        }
        state.settings = settings.clone();
    }

    /// The number of connections without a login.
    pub fn startups(&self) -> usize {
        self.lock().startups.len()
    }

    /// Marks a connection that has begun to log in.
    fn begun(&self, id: u64) {
        self.lock().startups.begun(id);
    }

    /// Removes a connection that has ended or logged in.
    fn forget(&self, id: u64) {
        self.lock().startups.remove(id);
    }

    /// The number of sources with a penalty.
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

    /// Makes room for a connection from `peer`.
    fn make_room(
        &mut self,
        peer: IpAddr,
        now: Instant,
        draw: impl FnOnce() -> u8,
    ) -> Result<(), Refused> {
        let exempt = self.is_exempt(peer);
        let Self {
            settings, startups, ..
        } = self;
        let limits = settings.max_startups;
        if startups.len() >= limits.start
            && let Some(grace) = settings.crowded_grace_time
        {
            startups.end_older(Within::All, grace, now);
        }
        for (most, sizes, refused) in [
            (
                settings.per_source_max_startups,
                settings.source_block,
                Refused::SourceStartups,
            ),
            (
                settings.per_network_max_startups,
                settings.network_block,
                Refused::NetworkStartups,
            ),
        ] {
            let within = Within::block(peer, sizes);
            let is_full =
                |startups: &Startups| most.is_some_and(|most| startups.count(within) >= most);
            if exempt || !is_full(startups) {
                continue;
            }
            // Many users may share one address: the slow logins are closed first.
            if let Some(grace) = settings.crowded_grace_time {
                startups.end_older(within, grace, now);
            }
            if is_full(startups) && !startups.displace(within, peer, settings, now) {
                return Err(refused);
            }
        }
        let chance = refusal_chance(limits, startups.len());
        let wanted = chance > 0 && (chance >= 100 || draw() < chance);
        match wanted && !startups.displace(Within::All, peer, settings, now) {
            true => Err(Refused::Startups),
            false => Ok(()),
        }
    }
}

/// The chance in percent that a new connection costs another one its place, at `startups`
/// connections: 0 below `start`, `rate` at `start`, linear up to 100 at `full`.
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

/// A random number below 100; 0, which refuses, if there is no randomness.
fn draw() -> u8 {
    let mut bytes = [0; 8];
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => (u64::from_le_bytes(bytes) % 100) as u8,
        Err(_) => 0,
    }
}
