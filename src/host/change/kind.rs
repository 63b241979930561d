//! The form that every kind of change has: how it is planned, made, undone and described.

use std::path::PathBuf;

use super::Entry;
use crate::host::error::NetError;
use crate::host::journal::Journal;
use crate::host::netlink::Netlink;
use crate::host::plan::facts::LinkFacts;

/// A change of the tunnel's link, with one journal entry.
pub(in crate::host) trait LinkChange {
    /// The entry to journal; `None` if nothing has to change.
    async fn plan(&self, netlink: &Netlink, link: &LinkFacts) -> Result<Option<Entry>, NetError>;

    /// Makes the change.
    async fn make(&self, netlink: &Netlink, link: &LinkFacts) -> Result<(), NetError>;

    /// Whether it changes the caller's own device alone, so that file capabilities suffice.
    fn is_on_device(&self) -> bool {
        false
    }
}

/// A journalled change of a link.
pub(in crate::host) trait LinkEntry {
    /// Undoes the change if the present value is still ours.
    async fn undo(&self, netlink: &Netlink, link: &LinkFacts) -> Result<Outcome, NetError>;

    /// The description, for reports.
    fn describe(&self, interface: &str) -> String;

    /// Whether undoing it changes the device `interface` alone, so that file capabilities suffice.
    fn is_undone_on_device(&self, _interface: &str) -> bool {
        false
    }
}

/// A change that journals itself: one beyond the link, or one with several entries.
pub(in crate::host) trait HostChange {
    /// Journals the change and makes it.
    async fn apply(&self, netlink: &Netlink, journal: &mut Journal) -> Result<(), NetError>;

    /// Makes the part that concerns a link which ends with this process, without a journal.
    fn make(&self, _link: &LinkFacts) {}

    /// Whether it changes the caller's own device alone, so that file capabilities suffice.
    fn is_on_device(&self) -> bool {
        false
    }
}

/// A journalled change beyond the link, which only root may undo.
pub(in crate::host) trait HostEntry {
    /// Undoes the change of the entry at `position`; it may remove the entry from the journal.
    async fn undo(
        &self,
        netlink: &Netlink,
        journal: &mut Journal,
        position: usize,
    ) -> Result<Outcome, NetError>;

    /// The description, for reports.
    fn describe(&self, interface: &str) -> String;

    /// Adds the access that undoing needs.
    fn add_needs(&self, _needs: &mut ToUndo) {}

    /// Starts the program that undoing will run, while this process still has its privileges.
    async fn prepare_to_undo(&self, _interface: &str) {}
}

/// The access that undoing needs besides CAP_NET_ADMIN.
#[derive(Debug)]
pub struct ToUndo {
    /// The directory of the journals.
    pub directory: PathBuf,
    /// A resolver file that has to be restored.
    pub file: Option<PathBuf>,
    /// Whether there are iptables rules.
    pub iptables: bool,
}

/// The outcome of undoing one change.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::host) enum Outcome {
    Undone,
    /// Released; another tunnel still needs the change.
    Shared,
    Gone,
    /// Another program has changed it to this value.
    Left(String),
    /// The caller may not undo it, for this reason.
    Beyond(String),
}

/// Restores a value by `restore` if it is still the one that we set.
pub(in crate::host) async fn put_back<T: PartialEq + std::fmt::Display>(
    now: &T,
    before: &T,
    set: &T,
    restore: impl Future<Output = Result<(), NetError>>,
) -> Result<Outcome, NetError> {
    match judge(now, before, set) {
        None => done(restore.await),
        Some(outcome) => Ok(outcome),
    }
}

/// Returns `None` if the value is still the one that we set.
pub(in crate::host) fn judge<T: PartialEq + std::fmt::Display>(
    now: &T,
    before: &T,
    set: &T,
) -> Option<Outcome> {
    if now == set {
        None
    } else if now == before {
        Some(Outcome::Gone)
    } else {
        Some(Outcome::Left(format!("it is now {now}")))
    }
}

pub(in crate::host) fn done(result: Result<(), NetError>) -> Result<Outcome, NetError> {
    result.map(|()| Outcome::Undone)
}

/// Journals a change, then makes it by `making`. The entry leaves the journal again if the change
/// was certainly not made.
pub(in crate::host) async fn record_and_make(
    journal: &mut Journal,
    entry: Entry,
    making: impl Future<Output = Result<(), NetError>>,
) -> Result<(), NetError> {
    journal.record(entry)?;
    let result = making.await;
    if let Err(error) = &result
        && error.nothing_changed()
        && let Err(error) = journal.withdraw_last()
    {
        tracing::warn!(%error, "a refused change is still in the journal");
    }
    result
}

/// The device of a journal.
pub(in crate::host) async fn link_of(
    netlink: &Netlink,
    journal: &Journal,
) -> Result<LinkFacts, NetError> {
    let gone = || NetError::NoInterface(journal.interface().to_owned());
    let index = journal.index().ok_or_else(gone)?;
    let link = netlink.link_by_index(index).await?;
    link.filter(|link| link.name == journal.interface())
        .ok_or_else(gone)
}
