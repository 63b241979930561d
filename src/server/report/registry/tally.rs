//! Counts of granted and refused requests, per kind.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::server::report::audit::event::Asked;

/// The counts of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// The number of granted requests.
    pub granted: u64,
    /// The number of refused requests.
    pub refused: u64,
}

/// The counts of all kinds.
#[derive(Debug, Clone, Default)]
pub struct Tallies([Tally; KINDS.len()]);

/// The kinds of [`Asked`], in the order of [`index`].
const KINDS: [&str; 5] = ["tunnel", "open", "listen", "subsystem", "other"];

fn index(asked: &Asked) -> usize {
    match asked {
        Asked::Tunnel { .. } => 0,
        Asked::Open { .. } => 1,
        Asked::Listen { .. } => 2,
        Asked::Subsystem { .. } => 3,
        Asked::Other { .. } => 4,
    }
}

impl Tallies {
    /// Counts a granted request.
    pub fn granted(&mut self, asked: &Asked) {
        self.0[index(asked)].granted += 1;
    }

    /// Counts a refused request.
    pub fn refused(&mut self, asked: &Asked) {
        self.0[index(asked)].refused += 1;
    }

    /// Adds the counts of another.
    pub fn add(&mut self, other: &Tallies) {
        for (sum, one) in self.0.iter_mut().zip(&other.0) {
            sum.granted = sum.granted.saturating_add(one.granted);
            sum.refused = sum.refused.saturating_add(one.refused);
        }
    }

    /// The counts by the name of the kind, without kinds that never occurred.
    pub fn by_kind(&self) -> BTreeMap<&'static str, Tally> {
        let named = KINDS.into_iter().zip(self.0);
        named
            .filter(|(_, tally)| *tally != Tally::default())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Mode, UnitRequest};

    #[test]
    fn a_kind_is_named_as_the_log_names_it() {
        let name = || "x".into();
        let (host, port) = (name, 1);
        for asked in [
            Asked::tunnel(Mode::Ethernet, UnitRequest::Any),
            Asked::Open { host: host(), port },
            Asked::Listen { host: host(), port },
            Asked::Subsystem { name: name() },
            Asked::Other { name: name() },
        ] {
            let mut tallies = Tallies::default();
            tallies.refused(&asked);
            let logged = serde_json::to_value(&asked).unwrap();
            let kinds: Vec<_> = tallies.by_kind().into_keys().collect();
            assert_eq!(kinds, [logged["request"].as_str().unwrap()]);
        }
    }
}
