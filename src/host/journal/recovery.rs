//! Undoes the changes that dead processes left behind, by their journals: at the next start or by
//! `sshvpn cleanup`.

use super::owner::Owner;
use super::runtime_dir::RuntimeDir;
use super::undo::{UndoReport, undo_and_close};
use super::{Journal, JournalError, Stale};
use crate::host::error::NetError;
use crate::host::journal;
use crate::host::netlink::Netlink;
use crate::host::own_device::UndoScope;

/// A journal whose owner is dead.
#[derive(Debug)]
pub struct Recovered {
    /// The file's name in the runtime directory.
    pub file_name: String,
    /// The outcome.
    pub outcome: Recovery,
}

/// The outcome for a journal whose owner is dead.
#[derive(Debug)]
pub enum Recovery {
    /// Its changes were undone; the journal is removed unless some failed.
    Undone(UndoReport),
    /// It was of an earlier boot, so its changes are gone; the journal was removed.
    EarlierBoot,
    /// It is of another network namespace; nothing was done.
    OtherNamespace {
        /// The inode of that namespace.
        namespace: u64,
    },
    /// It could not be read; nothing was done.
    Unreadable(JournalError),
}

/// The role of the process that undoes stale journals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recoverer {
    /// `serve`: the administrator chose its user and capabilities.
    Server,
    /// Any other role: without root it changes only its user's own devices.
    Other,
}

/// Undoes every stale journal of the calling thread's network namespace. Journals of running
/// tunnels are not touched.
pub async fn recover_stale(
    directory: &RuntimeDir,
    by: Recoverer,
) -> Result<Vec<Recovered>, NetError> {
    let here = Owner::current().map_err(JournalError::Owner)?;
    let mut recovered = Vec::new();
    for Stale { file_name, journal } in journal::take_stale(directory)? {
        let outcome = match journal {
            Ok(journal) => recover(journal, &here, by).await?,
            Err(error) => Recovery::Unreadable(error),
        };
        recovered.push(Recovered { file_name, outcome });
    }
    Ok(recovered)
}

async fn recover(journal: Journal, here: &Owner, by: Recoverer) -> Result<Recovery, NetError> {
    if journal.owner().boot_id != here.boot_id {
        journal.remove()?;
        return Ok(Recovery::EarlierBoot);
    }
    let namespace = journal.owner().network_namespace;
    if namespace != here.network_namespace {
        return Ok(Recovery::OtherNamespace { namespace });
    }
    let netlink = Netlink::open()?;
    let reach = UndoScope::of_journals_left_behind(by);
    Ok(Recovery::Undone(
        undo_and_close(&netlink, journal, reach).await,
    ))
}

#[cfg(test)]
mod tests;
