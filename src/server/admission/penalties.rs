//! The sources that are refused for a while for what they did
//! (sshd_config(5), PerSourcePenalties). A source is a block of addresses; what
//! it owes is a sum of time, which passes as time does.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;

use crate::config::serve::settings::Penalties;

/// Sources of one family that are known at most, as sshd's max-sources4 and
/// max-sources6 have it. Beyond it the penalty that ends first is forgotten,
/// as by sshd's overflow:permissive: a flood of addresses must shut out nobody.
pub(super) const MAX_SOURCES: usize = 65536;
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
#[derive(Debug)]
pub(super) struct PenaltyTable {
    v4: Family,
    v6: Family,
}

#[derive(Debug)]
struct Family {
    limit: usize,
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
    /// `limit` is how many sources are known at most, of each family.
    pub fn new(limit: usize) -> Self {
        let family = || Family {
            limit,
            by_source: HashMap::new(),
            by_end: BTreeSet::new(),
        };
        Self {
            v4: family(),
            v6: family(),
        }
    }

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
        *self = Self::new(self.v4.limit);
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
        let before = self.by_source.get(&source).copied();
        let owed = before.map_or(Duration::ZERO, |penalty| penalty.end - now);
        let most = penalties.max.min(LONGEST);
        let owed = owed.saturating_add(cost).min(most);
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
        while self.by_source.len() > self.limit
            && let Some(&(end, source)) = self.by_end.first()
        {
            self.remove(end, source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_sources_forgets_what_ends_first() {
        let second = Duration::from_secs(1);
        let penalties = Penalties {
            authfail: second,
            noauth: second,
            grace_exceeded: 10 * second,
            crash: 90 * second,
            min: 15 * second,
            max: 600 * second,
        };
        let mut table = PenaltyTable::new(3);
        let now = Instant::now();
        let block = |text: &str| SourceBlock::of(text.parse().unwrap(), (32, 128));
        table.add(block("2001:db8::1"), Offence::Crash, &penalties, now);
        table.add(block("192.0.2.9"), Offence::Crash, &penalties, now);
        for last in 10..20 {
            let source = block(&format!("192.0.2.{last}"));
            table.add(source, Offence::GraceExceeded, &penalties, now);
        }
        assert_eq!(table.v4.by_source.len(), 3);
        assert_eq!(table.v4.by_end.len(), 3);
        for kept in ["192.0.2.9", "2001:db8::1"] {
            assert_eq!(table.active_offence(block(kept), now), Some(Offence::Crash));
        }
    }
}
