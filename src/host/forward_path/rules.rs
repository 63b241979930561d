//! Tables, chains and rules, reduced to what decides about a forwarded packet, and the way of a
//! packet through them.

use std::collections::BTreeMap;

use super::packet::{Matches, Packet, Test};
use super::{OWN, Ruleset};

/// Chains that call each other, at most; deeper ones are not judged. The kernel's limit for nft is
/// 16.
const DEEPEST: usize = 32;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub ruleset: Ruleset,
    pub name: String,
    pub chains: BTreeMap<String, Chain>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Chain {
    /// For a chain at the hook of forwarded packets.
    pub base: Option<Policy>,
    pub rules: Vec<Rule>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    Accept,
    Drop,
}

/// What a rule does, in order, as long as its tests match.
pub(super) type Rule = Vec<Step>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Test(Test),
    Do(Action),
    /// The action whose test matches.
    Map(Vec<(Test, Action)>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    Accept,
    /// Drop or reject.
    Drop,
    Jump(String),
    Goto(String),
    Return,
    /// The next step is next; also for a verdict that is not judged here.
    Continue,
}

/// The end of a packet's way through one chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Accepted,
    Dropped,
    /// It leaves the chain at its end.
    Out,
}

/// The way of one packet through one table. A step with a match that is not judged here is passed
/// over: one that accepts is not relied on, and one that drops is a restriction that the
/// administrator has narrowed, which stays.
struct Walk<'a> {
    table: &'a Table,
    packet: &'a Packet<'a>,
    /// The ends of the chains that were visited.
    known: BTreeMap<&'a str, End>,
}

impl Table {
    /// A table of our own, whose rules are known to let the packets pass.
    fn is_own(&self) -> bool {
        self.name.starts_with("sshvpn_")
    }

    /// The base chains that drop any of these packets.
    pub(super) fn dropping(&self, packets: &[Packet<'_>]) -> Vec<&str> {
        if self.is_own() {
            return Vec::new();
        }
        let chains = self.chains.iter();
        let bases: Vec<_> = chains
            .filter_map(|(name, chain)| Some((name.as_str(), chain.base?)))
            .collect();
        let mut drops = vec![false; bases.len()];
        for packet in packets {
            let mut walk = Walk {
                table: self,
                packet,
                known: BTreeMap::new(),
            };
            for ((name, policy), drops) in bases.iter().zip(&mut drops) {
                *drops |= match walk.chain(name, 0) {
                    End::Accepted => false,
                    End::Dropped => true,
                    End::Out => *policy == Policy::Drop,
                };
            }
        }
        let named = bases.into_iter().zip(drops);
        named
            .filter_map(|((name, _), drops)| drops.then_some(name))
            .collect()
    }
}

impl<'a> Walk<'a> {
    fn chain(&mut self, name: &str, depth: usize) -> End {
        let table = self.table;
        let Some((name, chain)) = table.chains.get_key_value(name) else {
            return End::Out;
        };
        if let Some(end) = self.known.get(name.as_str()) {
            return *end;
        }
        if depth > DEEPEST {
            return End::Out;
        }
        // For a chain that calls itself, which no kernel has.
        self.known.insert(name, End::Out);
        let mut rules = chain.rules.iter();
        let end = rules.find_map(|rule| self.rule(rule, depth));
        let end = end.unwrap_or(End::Out);
        self.known.insert(name, end);
        end
    }

    /// The end of the packet's way through the chain, if this rule decides it.
    fn rule(&mut self, steps: &'a [Step], depth: usize) -> Option<End> {
        for step in steps {
            let end = match step {
                Step::Test(test) if test.matches(self.packet) == Matches::Yes => None,
                Step::Test(_) => return None,
                Step::Do(action) => self.act(action, depth),
                Step::Map(actions) => {
                    let mut actions = actions.iter();
                    let chosen =
                        actions.find(|(test, _)| test.matches(self.packet) == Matches::Yes);
                    chosen.and_then(|(_, action)| self.act(action, depth))
                }
            };
            if end.is_some() {
                return end;
            }
        }
        None
    }

    fn act(&mut self, action: &'a Action, depth: usize) -> Option<End> {
        match action {
            Action::Accept => Some(End::Accepted),
            Action::Drop => Some(End::Dropped),
            Action::Jump(to) => Some(self.chain(to, depth + 1)).filter(|end| *end != End::Out),
            Action::Goto(to) => Some(self.chain(to, depth + 1)),
            Action::Return => Some(End::Out),
            Action::Continue => None,
        }
    }
}

/// Whether the comment is one of ours.
pub(super) fn is_own(comment: &str) -> bool {
    comment.starts_with(OWN)
}
