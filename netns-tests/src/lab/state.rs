//! Snapshots of a host's state, as text: everything that a VPN client may change, compared before
//! and after.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use crate::lab::host::Host;
use crate::wait::{PATIENCE, until};

/// Prints all state that does not change by itself.
const SNAPSHOT: &str = include_str!("snapshot.sh");

/// A snapshot: lines, each after the name of its section.
#[derive(PartialEq, Eq)]
pub struct State(Vec<String>);

impl State {
    /// Takes a snapshot of `host`.
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

    /// Waits until `host` is in this state again; an error lists the lines that differ.
    pub fn wait_for(&self, host: &Host) -> Result<()> {
        let mut difference = String::new();
        let same = until("the state before", PATIENCE, || {
            difference = self.difference(&Self::of(host).ok()?);
            difference.is_empty().then_some(())
        });
        if same.is_err() {
            bail!(
                "{} differs from its state before (- before, + after):\n{difference}",
                host.name()
            );
        }
        Ok(())
    }

    /// The lines that only one of the two has, after a sign.
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

/// Hosts and their state at one moment.
pub struct Before<'a>(Vec<(&'a Host, State)>);

impl<'a> Before<'a> {
    /// Takes a snapshot of each of `hosts`.
    pub fn of(hosts: &[&'a Host]) -> Result<Self> {
        let take = |host: &&'a Host| Ok((*host, State::of(host)?));
        Ok(Self(hosts.iter().map(take).collect::<Result<_>>()?))
    }

    /// The differences to now, one per line.
    pub fn differences(&self) -> Result<String> {
        let of_one = |(host, state): &(&Host, State)| Ok(state.difference(&State::of(host)?));
        self.0.iter().map(of_one).collect()
    }

    /// Waits until every host is in its earlier state.
    pub fn is_back(&self) -> Result<()> {
        self.0
            .iter()
            .try_for_each(|(host, state)| state.wait_for(host))
    }
}
