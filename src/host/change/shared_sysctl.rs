//! Settings of the host that several tunnels need at once.
//!
//! The journals are the register: each tunnel's journal has an entry with the value from before the
//! first of them, and the last one restores that value. Reading the other journals and changing
//! one's own are one step, under the lock of the journals' directory.

use std::fs;
use std::io;

use serde::{Deserialize, Serialize};

use super::Entry;
use super::kind::{HostChange, HostEntry, Outcome, judge};
use super::shared_setting::{IPV6_INTERFACES, SharedSetting};
use super::sysctl::{SysctlError, SysctlKey};
use crate::host::error::NetError;
use crate::host::journal::Journal;
use crate::host::journal::shell_register::ShellRecord;
use crate::host::netlink::Netlink;
use crate::types::InterfaceName;
use crate::types::family::Family;

/// A setting beyond the interface was set, or another tunnel had set it already. Every tunnel that
/// needs it has this entry in its journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    /// The setting.
    pub setting: SharedSetting,
    /// The value before the first of those tunnels.
    pub before: String,
    /// Interfaces whose setting the kernel overwrote and which had the wanted value before.
    pub same_before: Vec<InterfaceName>,
}

impl HostChange for SharedSetting {
    async fn apply(&self, _: &Netlink, journal: &mut Journal) -> Result<(), NetError> {
        take(journal, self)
    }
}

impl HostEntry for Made {
    async fn undo(
        &self,
        _: &Netlink,
        journal: &mut Journal,
        position: usize,
    ) -> Result<Outcome, NetError> {
        release(journal, position)
    }

    fn describe(&self, _: &str) -> String {
        self.setting.to_string()
    }
}

/// Holds exactly these settings, and releases the others that were taken before.
pub(in crate::host) fn share_exactly(
    journal: &mut Journal,
    wanted: &[SharedSetting],
) -> Result<(), NetError> {
    let is_wanted = |entry: &Entry| match entry {
        Entry::SharedSysctl(made) => wanted.contains(&made.setting),
        _ => true,
    };
    while let Some(position) = journal.entries().iter().position(|it| !is_wanted(it)) {
        release(journal, position)?;
    }
    for setting in wanted {
        if !journal.entries().iter().any(|entry| holds(entry, setting)) {
            take(journal, setting)?;
        }
    }
    Ok(())
}

/// Takes a setting for this tunnel: journals it and sets it. A setting that has the wanted value
/// already, and not from another tunnel, is left alone.
fn take(journal: &mut Journal, setting: &SharedSetting) -> Result<(), NetError> {
    let key = setting.key();
    let mut journal = journal.lock()?;
    let others = journal.entries_of_others()?;
    let noted = others.into_iter().find(|entry| holds(entry, setting));
    let entry = match (noted, ShellRecord::find(journal.directory(), &key)) {
        (Some(entry), _) => entry,
        (None, Some(record)) => {
            let (before, same_before) = record
                .read()
                .map_err(|source| failed("read", &key, source))?;
            Entry::SharedSysctl(Made {
                setting: setting.clone(),
                before,
                same_before,
            })
        }
        (None, None) => {
            let before = key.read()?;
            if before == setting.wanted() {
                return Ok(());
            }
            Entry::SharedSysctl(Made {
                setting: setting.clone(),
                before,
                same_before: same_before(setting),
            })
        }
    };
    let before = journal.entries().to_vec();
    let mut with = before.clone();
    with.push(entry);
    journal.replace(with)?;
    if let Err(error) = key.write(setting.wanted()) {
        if let Err(error) = journal.replace(before) {
            tracing::warn!(%error, "a refused change is still in the journal");
        }
        return Err(error.into());
    }
    Ok(())
}

/// Releases the setting at `position` of the journal and removes its entry. If no other tunnel
/// holds the setting, the value from before is restored.
fn release(journal: &mut Journal, position: usize) -> Result<Outcome, NetError> {
    let mut journal = journal.lock()?;
    let mut entries = journal.entries().to_vec();
    let Some(Entry::SharedSysctl(Made {
        setting,
        before,
        same_before,
    })) = entries.get(position).cloned()
    else {
        return Ok(Outcome::Gone);
    };
    let others = journal.entries_of_others()?;
    let key = setting.key();
    let outcome = if others.iter().any(|entry| holds(entry, &setting)) {
        Outcome::Shared
    } else if let Some(record) = ShellRecord::find(journal.directory(), &key) {
        record
            .hand_over(&before, &same_before)
            .map_err(|source| failed("write", &key, source))?;
        Outcome::Shared
    } else {
        restore(&setting, &before, &same_before)?
    };
    entries.remove(position);
    journal.replace(entries)?;
    Ok(outcome)
}

/// An error of the setting's record is reported as one of the setting.
fn failed(action: &'static str, key: &SysctlKey, source: io::Error) -> SysctlError {
    SysctlError::Io {
        action,
        key: key.clone(),
        source,
    }
}

fn holds(entry: &Entry, wanted: &SharedSetting) -> bool {
    matches!(entry, Entry::SharedSysctl(made) if made.setting == *wanted)
}

fn restore(
    setting: &SharedSetting,
    before: &str,
    same_before: &[InterfaceName],
) -> Result<Outcome, NetError> {
    let key = setting.key();
    let now = match key.read() {
        Err(SysctlError::Absent { .. }) => return Ok(Outcome::Gone),
        other => other?,
    };
    let outcome = match judge(&now.as_str(), &before, &setting.wanted()) {
        None => {
            key.write(before)?;
            Outcome::Undone
        }
        // Perhaps by a process that died at this point; the interfaces below still have to be
        // restored.
        Some(Outcome::Gone) => Outcome::Gone,
        Some(other) => return Ok(other),
    };
    for interface in same_before {
        match forwarding_of(interface).write(setting.wanted()) {
            // The interface was removed meanwhile.
            Err(SysctlError::Absent { .. }) => {}
            other => other?,
        }
    }
    Ok(outcome)
}

/// The interfaces that have the wanted value by themselves, before the kernel overwrites all of
/// them.
fn same_before(setting: &SharedSetting) -> Vec<InterfaceName> {
    if *setting != SharedSetting::ForwardIpv6 {
        return Vec::new();
    }
    let interfaces = fs::read_dir(IPV6_INTERFACES).into_iter().flatten();
    let mut names: Vec<InterfaceName> = interfaces
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok()?.parse().ok())
        .filter(|name| {
            forwarding_of(name)
                .read()
                .is_ok_and(|value| value == setting.wanted())
        })
        .collect();
    names.sort();
    names
}

/// The interface's setting that the kernel overwrites with [`SharedSetting::ForwardIpv6`].
fn forwarding_of(interface: &InterfaceName) -> SysctlKey {
    SysctlKey::of(Family::V6, interface.as_str(), "forwarding")
}

#[cfg(test)]
mod tests;
