//! The sources that are refused for a while for what they did
//! (sshd_config(5), PerSourcePenalties). A source is a block of addresses; what
//! it owes is a sum of time, which passes as time does.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;

use crate::config::serve::settings::{Overflow, Penalties};

/// No penalty is longer, so that its end can always be told.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// What a source did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offence {
    /// A login that failed.
    AuthFail,
    /// A connection that tried no login.
    NoAuth,
    /// A login that took longer than it may.
    GraceExceeded,
    /// A connection that spoke no SSH, or broke its rules.
    Crash,
}

impl Offence {
    /// Every one.
    pub const ALL: [Offence; 4] = [
        Offence::AuthFail,
        Offence::NoAuth,
        Offence::GraceExceeded,
        Offence::Crash,
    ];

    /// The name that a refusal for it has in logs and metrics.
    pub(super) fn penalty_name(self) -> &'static str {
        match self {
            Offence::AuthFail => "penalty-authfail",
            Offence::NoAuth => "penalty-noauth",
            Offence::GraceExceeded => "penalty-grace-exceeded",
            Offence::Crash => "penalty-crash",
        }
    }

    fn cost(self, penalties: &Penalties) -> Duration {
        match self {
            Offence::AuthFail => penalties.authfail,
            Offence::NoAuth => penalties.noauth,
            Offence::GraceExceeded => penalties.grace_exceeded,
            Offence::Crash => penalties.crash,
        }
    }
}

impl fmt::Display for Offence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Offence::AuthFail => "failed logins",
            Offence::NoAuth => "connections that tried no login",
            Offence::GraceExceeded => "logins that took too long",
            Offence::Crash => "connections that broke the protocol",
        })
    }
}

/// The addresses that count as one source: a network, by its first address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SourceBlock(IpAddr);

impl SourceBlock {
    /// The block of `address`; `sizes` are the prefix lengths for IPv4 and IPv6.
    pub fn of(address: IpAddr, sizes: (u8, u8)) -> Self {
        let size = match address {
            IpAddr::V4(_) => sizes.0,
            IpAddr::V6(_) => sizes.1,
        };
        // A length that no address has stands for the whole of one.
        Self(IpNetwork::new(address, size).map_or(address, |network| network.network()))
    }
}

/// The penalties of both families, which do not crowd out each other.
#[derive(Debug, Default)]
pub(super) struct PenaltyTable {
    v4: Family,
    v6: Family,
}

/// How many sources of one family are known at most, and what comes then. A
/// penalty that does not count yet takes a place too, as in sshd.
#[derive(Debug, Clone, Copy)]
struct Capacity {
    most: usize,
    overflow: Overflow,
}

impl Capacity {
    fn of(source: SourceBlock, penalties: &Penalties) -> Self {
        let (most, overflow) = match source.0 {
            IpAddr::V4(_) => (penalties.max_sources4, penalties.overflow),
            IpAddr::V6(_) => (penalties.max_sources6, penalties.overflow6),
        };
        Capacity { most, overflow }
    }
}

#[derive(Debug, Default)]
struct Family {
    by_source: HashMap<SourceBlock, Penalty>,
    /// The same, by when they end.
    by_end: BTreeSet<(Instant, SourceBlock)>,
}

#[derive(Debug, Clone, Copy)]
struct Penalty {
    end: Instant,
    /// Whether the sum has been large enough to count; it does until it is over.
    active: bool,
    /// What was done last.
    offence: Offence,
}

impl PenaltyTable {
    /// Adds to what `source` owes.
    pub fn add(
        &mut self,
        source: SourceBlock,
        offence: Offence,
        penalties: &Penalties,
        now: Instant,
    ) {
        let cost = offence.cost(penalties);
        if !cost.is_zero() {
            self.family(source)
                .add(source, offence, cost, penalties, now);
        }
    }

    /// For what `source` is refused now.
    pub fn active_offence(&mut self, source: SourceBlock, now: Instant) -> Option<Offence> {
        let family = self.family(source);
        family.expire(now);
        let penalty = family.by_source.get(&source)?;
        penalty.active.then_some(penalty.offence)
    }

    /// Whether `source` is refused, whoever it is, as there is no room for more.
    pub fn is_shut(&mut self, source: SourceBlock, penalties: &Penalties, now: Instant) -> bool {
        let Capacity { most, overflow } = Capacity::of(source, penalties);
        let family = self.family(source);
        family.expire(now);
        overflow == Overflow::DenyAll && family.by_source.len() >= most
    }

    /// Sources that are refused now.
    pub fn active(&mut self, now: Instant) -> usize {
        let mut count = 0;
        for family in [&mut self.v4, &mut self.v6] {
            family.expire(now);
            let known = family.by_source.values();
            count += known.filter(|penalty| penalty.active).count();
        }
        count
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    fn family(&mut self, source: SourceBlock) -> &mut Family {
        match source.0 {
            IpAddr::V4(_) => &mut self.v4,
            IpAddr::V6(_) => &mut self.v6,
        }
    }
}

impl Family {
    fn expire(&mut self, now: Instant) {
        while let Some(&(end, source)) = self.by_end.first()
            && end <= now
        {
            self.remove(end, source);
        }
    }

    fn remove(&mut self, end: Instant, source: SourceBlock) {
        self.by_end.remove(&(end, source));
        self.by_source.remove(&source);
    }

    fn add(
        &mut self,
        source: SourceBlock,
        offence: Offence,
        cost: Duration,
        penalties: &Penalties,
        now: Instant,
    ) {
        self.expire(now);
        let Capacity { most, overflow } = Capacity::of(source, penalties);
        let before = self.by_source.get(&source).copied();
        let full = before.is_none() && self.by_source.len() >= most;
        if full && overflow == Overflow::DenyAll {
            return;
        }
        let owed = before.map_or(Duration::ZERO, |penalty| penalty.end - now);
        let longest = penalties.max.min(LONGEST);
        let owed = owed.saturating_add(cost).min(longest);
        if let Some(penalty) = before {
            self.remove(penalty.end, source);
        }
        let penalty = Penalty {
            end: now + owed,
            active: before.is_some_and(|penalty| penalty.active) || owed > penalties.min,
            offence,
        };
        self.by_source.insert(source, penalty);
        self.by_end.insert((penalty.end, source));
        while self.by_source.len() > most
            && let Some(&(end, source)) = self.by_end.first()
        {
            self.remove(end, source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn block(text: &str) -> SourceBlock {
        SourceBlock::of(text.parse().unwrap(), (32, 128))
    }

    fn for_three(overflow: Overflow) -> Penalties {
        Penalties {
            max_sources4: 3,
            overflow,
            ..Penalties::default()
        }
    }

    #[test]
    fn a_flood_of_sources_forgets_what_ends_first() {
        let penalties = for_three(Overflow::Permissive);
        let mut table = PenaltyTable::default();
        let now = Instant::now();
        table.add(block("2001:db8::1"), Offence::Crash, &penalties, now);
        table.add(block("192.0.2.9"), Offence::Crash, &penalties, now);
        for last in 10..20 {
            let source = block(&format!("192.0.2.{last}"));
            table.add(source, Offence::GraceExceeded, &penalties, now);
            assert!(!table.is_shut(source, &penalties, now));
        }
        assert_eq!(table.v4.by_source.len(), 3);
        assert_eq!(table.v4.by_end.len(), 3);
        for kept in ["192.0.2.9", "2001:db8::1"] {
            assert_eq!(table.active_offence(block(kept), now), Some(Offence::Crash));
        }
        // A reload that wants fewer counts from the next offence on.
        let fewer = Penalties {
            max_sources4: 1,
            ..penalties
        };
        table.add(block("192.0.2.9"), Offence::NoAuth, &fewer, now);
        assert_eq!(table.v4.by_source.len(), 1);
    }

    #[test]
    fn where_all_are_denied_the_door_opens_as_penalties_end() {
        let penalties = for_three(Overflow::DenyAll);
        let mut table = PenaltyTable::default();
        let now = Instant::now();
        let (stranger, other_family) = (block("198.51.100.7"), block("2001:db8::1"));
        for last in 1..=3 {
            assert!(!table.is_shut(stranger, &penalties, now), "{last}");
            let source = block(&format!("192.0.2.{last}"));
            table.add(source, Offence::AuthFail, &penalties, now + SECOND * last);
        }
        assert!(table.is_shut(stranger, &penalties, now + 3 * SECOND));
        assert!(!table.is_shut(other_family, &penalties, now));
        // What is known goes on to count, and nobody else is taken up.
        table.add(stranger, Offence::Crash, &penalties, now + 3 * SECOND);
        table.add(
            block("192.0.2.3"),
            Offence::Crash,
            &penalties,
            now + 3 * SECOND,
        );
        assert_eq!(table.v4.by_source.len(), 3);
        assert_eq!(table.active(now + 3 * SECOND), 1);
        // The first owes 5 s, from the first second on.
        assert!(table.is_shut(stranger, &penalties, now + 5 * SECOND));
        assert!(!table.is_shut(stranger, &penalties, now + 6 * SECOND));
    }
}
