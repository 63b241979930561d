//! What a host looks like from outside: everything that a VPN client may
//! change, as text, to be compared before and after.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use crate::lab::host::Host;
use crate::wait::{PATIENCE, until};

/// Lists everything that does not change by itself.
const SNAPSHOT: &str = include_str!("snapshot.sh");

/// A snapshot: lines, each with the name of its section in front.
#[derive(PartialEq, Eq)]
pub struct State(Vec<String>);

impl State {
    /// Takes one of `host`.
    pub fn of(host: &Host) -> Result<Self> {
        let text = host.run(&["bash", "-c", SNAPSHOT])?.ok()?;
        let mut section = "";
        let mut lines = Vec::new();
        for line in text.lines() {
            match line.strip_prefix("== ") {
                Some(name) => section = name,
                None => lines.push(format!("{section}: {line}")),
            }
        }
        let processes = host.processes()?.into_iter();
        lines.extend(processes.map(|process| format!("process: {}", process.command)));
        lines.sort();
        Ok(Self(lines))
    }

    /// Succeeds as soon as `host` looks like this again; an error names the lines that differ.
    pub fn wait_for(&self, host: &Host) -> Result<()> {
        let mut difference = String::new();
        let same = until("the state before", PATIENCE, || {
            difference = self.difference(&Self::of(host).ok()?);
            difference.is_empty().then_some(())
        });
        if same.is_err() {
            bail!(
                "{} is not as it was (- before, + after):\n{difference}",
                host.name()
            );
        }
        Ok(())
    }

    /// The lines that one has more of than the other, with a sign in front.
    fn difference(&self, other: &Self) -> String {
        let mut counts = BTreeMap::<&str, i32>::new();
        for line in &self.0 {
            *counts.entry(line).or_default() -= 1;
        }
        for line in &other.0 {
            *counts.entry(line).or_default() += 1;
        }
        let changed = counts.into_iter().filter(|(_, count)| *count != 0);
        changed
            .map(|(line, count)| format!("{} {line}\n", if count < 0 { '-' } else { '+' }))
            .collect()
    }
}

/// Hosts and what they looked like at one moment.
pub struct Before<'a>(Vec<(&'a Host, State)>);

impl<'a> Before<'a> {
    /// Takes a snapshot of each of `hosts`.
    pub fn of(hosts: &[&'a Host]) -> Result<Self> {
        let take = |host: &&'a Host| Ok((*host, State::of(host)?));
        Ok(Self(hosts.iter().map(take).collect::<Result<_>>()?))
    }

    /// What is different now, a line each.
    pub fn differences(&self) -> Result<String> {
        let of_one = |(host, state): &(&Host, State)| Ok(state.difference(&State::of(host)?));
        self.0.iter().map(of_one).collect()
    }

    /// Succeeds as soon as each of the hosts looks as it did.
    pub fn is_back(&self) -> Result<()> {
        self.0
            .iter()
            .try_for_each(|(host, state)| state.wait_for(host))
    }
}
