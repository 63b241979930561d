//! Undoes one journalled change: only if the present value is still ours, and without an error if
//! the change is gone already.

use super::{Entry, Journal};
use crate::host::change::kind::Outcome;
use crate::host::error::{NetError, Refusal};
use crate::host::netlink::Netlink;
use crate::host::own_device::{self, UndoScope};
use crate::host::plan::facts::InterfaceIndex;

/// The outcome for the changes of one tunnel.
#[derive(Debug, Default)]
pub struct UndoReport {
    /// Changes that were undone.
    pub undone: Vec<String>,
    /// Changes that were gone already, with the device for instance.
    pub gone: Vec<String>,
    /// Settings that another program has changed since; they stay unchanged.
    pub left: Vec<String>,
    /// Changes that only root may undo; they stay in the journal.
    pub beyond: Vec<String>,
    /// Changes that could not be undone; they stay in the journal.
    pub failed: Vec<(String, NetError)>,
}

impl UndoReport {
    /// Whether every change of this tunnel is undone or gone.
    pub fn is_clean(&self) -> bool {
        self.left.is_empty() && self.beyond.is_empty() && self.failed.is_empty()
    }
}

/// Undoes every change of `journal` in reverse and removes the journal. Changes that fail or are
/// beyond `reach` stay in it for a later try.
pub(in crate::host) async fn undo_and_close(
    netlink: &Netlink,
    mut journal: Journal,
    reach: UndoScope,
) -> UndoReport {
    let (mut report, remaining) = undo_all(netlink, &mut journal, reach).await;
    let name = format!("the journal of {}", journal.interface());
    let closed = if remaining.is_empty() {
        journal.remove()
    } else {
        journal.replace(remaining)
    };
    if let Err(error) = closed {
        report.failed.push((name, error.into()));
    }
    report
}

/// Undoes every change of `journal` in reverse; the second value lists the changes that could not
/// be undone, in the order of the journal.
async fn undo_all(
    netlink: &Netlink,
    journal: &mut Journal,
    reach: UndoScope,
) -> (UndoReport, Vec<Entry>) {
    let mut report = UndoReport::default();
    let mut remaining = Vec::new();
    for (position, entry) in journal.entries().to_vec().iter().enumerate().rev() {
        let what = entry.describe(journal.interface());
        match undo(netlink, journal, position, reach, entry).await {
            Ok(Outcome::Undone) => report.undone.push(what),
            Ok(Outcome::Shared) => report
                .undone
                .push(format!("{what} (kept; another tunnel needs it)")),
            Ok(Outcome::Gone) => report.gone.push(what),
            Ok(Outcome::Beyond(why)) => {
                report.beyond.push(format!("{what}: {why}"));
                remaining.insert(0, entry.clone());
            }
            Ok(Outcome::Left(found)) => report.left.push(format!("{what}: {found}")),
            Err(error) => {
                report.failed.push((what, error));
                remaining.insert(0, entry.clone());
            }
        }
    }
    (report, remaining)
}

/// Undoes the entry at `position`; it may remove the entry from the journal.
async fn undo(
    netlink: &Netlink,
    journal: &mut Journal,
    position: usize,
    reach: UndoScope,
    entry: &Entry,
) -> Result<Outcome, NetError> {
    match (entry.is_of_link(), journal.index()) {
        (false, _) if reach == UndoScope::OwnDevices => Ok(takes_root()),
        (false, _) => entry.undo_on_host(netlink, journal, position).await,
        (true, Some(index)) => undo_link(netlink, journal.interface(), index, reach, entry).await,
        (true, None) => Ok(Outcome::Gone),
    }
}

fn takes_root() -> Outcome {
    Outcome::Beyond("this needs root".to_owned())
}

async fn undo_link(
    netlink: &Netlink,
    interface: &str,
    index: InterfaceIndex,
    reach: UndoScope,
    entry: &Entry,
) -> Result<Outcome, NetError> {
    let Some(link) = netlink.link_by_index(index).await? else {
        return Ok(Outcome::Gone);
    };
    // Interface numbers can recur in a new namespace, so the name is checked too.
    if link.name != interface || !link.is_tun() {
        return Ok(Outcome::Left(format!(
            "interface number {} is now '{}'",
            index.0, link.name
        )));
    }
    if !own_device::is_own(netlink, &link, reach).await? {
        return Ok(Outcome::Beyond(format!(
            "'{interface}' belongs to another user"
        )));
    }
    if reach == UndoScope::OwnDevices && !entry.is_undone_on_device(interface) {
        return Ok(takes_root());
    }
    let result = entry.undo_on_link(netlink, &link).await;
    match result {
        Err(error) if matches!(error.refusal(), Some(Refusal::NoDevice | Refusal::Absent)) => {
            Ok(Outcome::Gone)
        }
        other => other,
    }
}
