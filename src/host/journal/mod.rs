//! The undo journal of a tunnel or a server: a JSON file that lists the changes of this host, in
//! order, with the data to undo each.
//!
//! Before each change the whole file is replaced (written aside, synced, renamed), so it is
//! complete at every moment. Its owner holds an flock(2) on it; the kernel releases the lock when
//! the process ends in any way, and a journal without a lock holder is stale. Writers and readers
//! take the directory's lock.

pub(super) mod format;
pub mod owner;
pub mod recovery;
pub mod runtime_dir;
pub(super) mod shell_register;
pub mod state;
pub(super) mod undo;

#[cfg(test)]
mod tests;

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::Path;

use super::plan::facts::InterfaceIndex;
use crate::types::InterfaceName;
use format::{Document, SIZE_LIMIT, VERSION, parse};
use owner::Owner;
use runtime_dir::RuntimeDir;

pub use crate::host::change::Entry;
pub use format::JournalError;

/// The suffix of journals.
const SUFFIX: &str = ".json";
/// The suffix of a journal that is being written.
const UNFINISHED: &str = ".json.new";

/// A locked file. Dropping it unlocks it explicitly: a child process that is being started has a
/// copy of the descriptor until its exec, so closing alone would not unlock it.
#[derive(Debug)]
struct Held(File);

impl Held {
    fn lock(file: File) -> Result<Self, TryLockError> {
        file.try_lock()?;
        Ok(Self(file))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // The close that follows unlocks as well.
        let _ = self.0.unlock();
    }
}

/// A journal that this process holds.
#[derive(Debug)]
#[must_use = "a journal that is dropped counts as left behind"]
pub struct Journal {
    directory: RuntimeDir,
    file_name: String,
    document: Document,
    /// Holds the lock.
    file: Held,
}

impl Journal {
    /// Creates an empty journal for a tunnel on `interface`, or under that name one for changes
    /// that do not belong to a device.
    pub fn create(
        directory: &RuntimeDir,
        interface: &InterfaceName,
        index: Option<InterfaceIndex>,
    ) -> Result<Self, JournalError> {
        let owner = Owner::current().map_err(JournalError::Owner)?;
        let (directory, _lock) = directory.lock_linked()?;
        let file_name = free_name(&directory, interface, &owner)?;
        let document = Document {
            version: VERSION,
            interface: interface.as_str().to_owned(),
            index,
            owner,
            changes: Vec::new(),
        };
        let file = write(&directory, &file_name, &document)?;
        Ok(Self {
            directory,
            file_name,
            document,
            file,
        })
    }

    /// Records a change before it is made.
    pub fn record(&mut self, entry: Entry) -> Result<(), JournalError> {
        let mut entries = self.document.changes.clone();
        entries.push(entry);
        self.replace(entries)
    }

    /// Removes the last entry, of a change that was certainly not made.
    pub fn withdraw_last(&mut self) -> Result<(), JournalError> {
        let mut entries = self.document.changes.clone();
        entries.pop();
        self.replace(entries)
    }

    /// Replaces all entries.
    pub fn replace(&mut self, entries: Vec<Entry>) -> Result<(), JournalError> {
        self.lock()?.replace(entries)
    }

    /// Locks the directory, so that no other journal changes meanwhile.
    pub(super) fn lock(&mut self) -> Result<Locked<'_>, JournalError> {
        Ok(Locked {
            _lock: self.directory.lock()?,
            journal: self,
        })
    }

    /// Removes the journal: nothing is left to undo.
    pub fn remove(self) -> Result<(), JournalError> {
        let _lock = self.directory.lock()?;
        Ok(self.directory.remove(&self.file_name)?)
    }

    /// The entries, in the order in which the changes were made.
    pub fn entries(&self) -> &[Entry] {
        &self.document.changes
    }

    /// The directory of the journal.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The name of the interface.
    pub fn interface(&self) -> &str {
        &self.document.interface
    }

    /// The number of the interface; `None` without an interface.
    pub fn index(&self) -> Option<InterfaceIndex> {
        self.document.index
    }

    /// The process that made the changes.
    pub fn owner(&self) -> &Owner {
        &self.document.owner
    }
}

/// A journal while this process holds the directory's lock: no other process creates, renews or
/// reads journals meanwhile. Hold it for a few system calls only.
pub(super) struct Locked<'a> {
    journal: &'a mut Journal,
    _lock: File,
}

impl Locked<'_> {
    /// The entries of all other journals of this boot and network namespace, whether their owners
    /// run or died. Unreadable journals are skipped.
    pub fn entries_of_others(&self) -> Result<Vec<Entry>, JournalError> {
        let Journal {
            directory,
            file_name,
            document,
            ..
        } = &*self.journal;
        let mut others = Vec::new();
        for name in directory.names(SUFFIX)? {
            if name == *file_name {
                continue;
            }
            if let Some(file) = directory.open(&name)? {
                others.push(parse(&file, &display_path(directory, &name)));
            }
        }
        if let Some(directory) = directory.other_side() {
            for name in directory.names(SUFFIX)? {
                if let Some((file, _)) = directory.look_at(&name)? {
                    others.push(parse(&file, &display_path(&directory, &name)));
                }
            }
        }
        let mut entries = Vec::new();
        for other in others {
            match other {
                Ok(other) if other.owner.shares_namespace(&document.owner) => {
                    entries.extend(other.changes);
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "skipped a journal that cannot be read"),
            }
        }
        Ok(entries)
    }

    /// The entries of this journal.
    pub fn entries(&self) -> &[Entry] {
        self.journal.entries()
    }

    /// The directory of the journals and of the shell programs' register: root's directory even for
    /// a server's own user.
    pub fn directory(&self) -> &Path {
        self.journal.directory.whole_path()
    }

    /// Replaces all entries.
    pub fn replace(&mut self, entries: Vec<Entry>) -> Result<(), JournalError> {
        let journal = &mut *self.journal;
        let document = Document {
            changes: entries,
            ..journal.document.clone()
        };
        journal.file = write(&journal.directory, &journal.file_name, &document)?;
        journal.document = document;
        Ok(())
    }
}

/// A stale journal.
#[derive(Debug)]
pub struct Stale {
    /// The name of the file.
    pub file_name: String,
    /// The journal, now held by this process, or why it cannot be undone.
    pub journal: Result<Journal, JournalError>,
}

/// Takes over every journal in the directory whose owner is dead.
pub fn take_stale(directory: &RuntimeDir) -> Result<Vec<Stale>, JournalError> {
    let _lock = directory.lock()?;
    for name in directory.names(UNFINISHED)? {
        // A writer would hold the directory's lock, so this file is stale.
        directory.remove(&name)?;
    }
    let mut stale = Vec::new();
    for file_name in directory.names(SUFFIX)? {
        let Some(file) = directory.open(&file_name)? else {
            continue;
        };
        match Held::lock(file) {
            Ok(file) => {
                let journal = match read(directory, &file_name, file) {
                    Err(JournalError::Corrupt { path, reason }) => {
                        Err(set_aside(directory, &file_name, path, reason)?)
                    }
                    read => read,
                };
                stale.push(Stale { file_name, journal });
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(source)) => {
                return Err(directory.failed("lock", &file_name, source).into());
            }
        }
    }
    Ok(stale)
}

/// Renames a file that is no journal, so that it is in the way of no later tunnel; returns the error
/// that names it. The caller holds the directory's lock.
fn set_aside(
    directory: &RuntimeDir,
    file_name: &str,
    path: String,
    reason: String,
) -> Result<JournalError, JournalError> {
    let numbered = (2u32..).map(|number| format!("{file_name}.bad-{number}"));
    let names = std::iter::once(format!("{file_name}.bad")).chain(numbered);
    let Some(name) = names.into_iter().find(|name| !directory.has(name)) else {
        return Ok(JournalError::Corrupt { path, reason });
    };
    directory.rename(file_name, &name)?;
    Ok(JournalError::SetAside {
        path,
        aside: display_path(directory, &name),
        reason,
    })
}

/// The name for a new journal: NAME.json, or NAME@INODE.json if a tunnel of another network
/// namespace uses NAME.json, since each namespace may have an interface NAME.
fn free_name(
    directory: &RuntimeDir,
    interface: &InterfaceName,
    owner: &Owner,
) -> Result<String, JournalError> {
    let plain = format!("{interface}{SUFFIX}");
    let qualified = format!("{interface}@{}{SUFFIX}", owner.network_namespace);
    let mut free = None;
    for name in [&qualified, &plain] {
        if !directory.has(name) {
            free = Some(name);
            continue;
        }
        let path = display_path(directory, name);
        let file = directory.open(name)?.ok_or_else(|| JournalError::Corrupt {
            path: path.clone(),
            reason: "it is not a regular file of this user".to_owned(),
        })?;
        let found = parse(&file, &path)?;
        if found.owner.network_namespace == owner.network_namespace {
            return Err(match Held::lock(file) {
                Ok(_) => JournalError::Stale { path },
                Err(_) => JournalError::Busy {
                    name: interface.to_string(),
                    holder: holder(&found.owner),
                },
            });
        }
    }
    // Firewall and devices are the same for both directories.
    if let Some(other) = directory.other_side() {
        for name in [&qualified, &plain] {
            let Some((file, _)) = other.look_at(name)? else {
                continue;
            };
            let path = display_path(&other, name);
            let found = match parse(&file, &path) {
                // The other user sets it aside.
                Err(JournalError::Corrupt { .. }) => continue,
                parsed => parsed?,
            };
            if found.owner.network_namespace == owner.network_namespace {
                return Err(JournalError::Busy {
                    name: interface.to_string(),
                    holder: holder(&found.owner),
                });
            }
        }
    }
    let path = display_path(directory, &plain);
    free.cloned().ok_or(JournalError::Stale { path })
}

/// When a process moves to the background, its child inherits the lock.
fn holder(owner: &Owner) -> String {
    match owner.is_running() {
        true => format!("process {}", owner.pid),
        false => format!("a child of the ended process {}", owner.pid),
    }
}

fn read(directory: &RuntimeDir, file_name: &str, file: Held) -> Result<Journal, JournalError> {
    let document = parse(&file.0, &display_path(directory, file_name))?;
    Ok(Journal {
        directory: directory.clone(),
        file_name: file_name.to_owned(),
        document,
        file,
    })
}

/// Replaces the file and returns it, locked. The caller holds the directory's lock.
fn write(
    directory: &RuntimeDir,
    file_name: &str,
    document: &Document,
) -> Result<Held, JournalError> {
    let mut text = serde_json::to_vec(document)
        .map_err(|error| directory.failed("write", file_name, error.into()))?;
    text.push(b'\n');
    if text.len() as u64 > SIZE_LIMIT {
        let path = display_path(directory, file_name);
        return Err(JournalError::Full { path });
    }
    let stem = file_name.strip_suffix(SUFFIX).unwrap_or(file_name);
    let unfinished = format!("{stem}{UNFINISHED}");
    directory.remove(&unfinished)?;
    let file = directory.create(&unfinished)?;
    let fill = |file: File| -> io::Result<Held> {
        let mut file = Held::lock(file)?;
        file.0.write_all(&text)?;
        file.0.sync_all()?;
        Ok(file)
    };
    let written = fill(file)
        .map_err(|source| directory.failed("write", &unfinished, source))
        .and_then(|file| {
            directory.rename(&unfinished, file_name)?;
            Ok(file)
        });
    if written.is_err() {
        // Report the failed write, not this one.
        let _ = directory.remove(&unfinished);
    }
    Ok(written?)
}

fn display_path(directory: &RuntimeDir, file_name: &str) -> String {
    directory.path().join(file_name).display().to_string()
}
