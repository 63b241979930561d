//! The audit log: who came, what they asked for, got and carried. Whoever has
//! something to write down never waits: records go through a bounded queue to a
//! thread that writes them, and those that find it full are counted as lost.
//!
//! ```text
//!   record ─► queue ─► writer ─┬► file      a JSON object a line
//!     event, text, time        ├► journald  the native protocol
//!                              └► line      for people, where there is neither
//! ```

pub mod event;
mod file;
mod journald;
pub mod line;
pub mod text;
pub mod time;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use thiserror::Error;

use crate::config::serve::settings::AuditSettings;
use event::{Event, Record};
use writer::Outlets;

/// Records that may wait to be written; a few hundred bytes each.
const QUEUE: usize = 4096;

/// Why there is no audit log.
#[derive(Debug, Error)]
pub enum AuditError {
    /// Its file cannot be used.
    #[error(
        "cannot open the audit log {path}: {source}; name another with --audit-log, or in [audit]"
    )]
    File {
        /// The file.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// No thread can be had for it.
    #[error("cannot start the thread that writes the audit log: {0}")]
    Thread(io::Error),
}

/// The log, for whoever writes to it. When the last of these is dropped the log
/// ends.
#[derive(Debug, Clone)]
pub struct Audit {
    log: Arc<Log>,
}

/// Closes the queue when nobody can write to it any more.
#[derive(Debug)]
struct Log {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// There is something to do for the writer.
    work: Condvar,
    /// The writer has ended.
    finished: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    records: VecDeque<Record>,
    /// Other settings, to be taken before the next record.
    settings: Option<AuditSettings>,
    closed: bool,
    finished: bool,
    /// Records that found the queue full, of which the writer does not know yet.
    overflowed: u64,
    /// Records that were lost, for whatever reason.
    lost: u64,
}

/// What the writer is to do next, in this order.
struct Work {
    settings: Option<AuditSettings>,
    records: VecDeque<Record>,
    overflowed: u64,
}

impl Audit {
    /// Opens the log and starts its thread. Threads have capabilities of their
    /// own: what this process is to drop has to be dropped before.
    pub fn open(settings: &AuditSettings) -> Result<Self, AuditError> {
        Self::open_beside(settings, Path::new(journald::SOCKET))
    }

    /// `journal` is journald's socket.
    fn open_beside(settings: &AuditSettings, journal: &Path) -> Result<Self, AuditError> {
        let outlets = Outlets::open(settings, journal)?;
        let (shared, journal) = (Arc::new(Shared::default()), journal.to_owned());
        let writer = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || writer::run(&writer, outlets, &journal))
            .map_err(AuditError::Thread)?;
        Ok(Self {
            log: Arc::new(Log { shared }),
        })
    }

    /// Writes down what happened now.
    pub fn record(&self, event: Event) {
        self.record_at(event, SystemTime::now());
    }

    fn record_at(&self, event: Event, time: SystemTime) {
        self.log.shared.push(Record::new(event, time.into()));
    }

    /// Takes these settings and opens the file anew, for logrotate: what was
    /// written before is in the old one. Where that fails the log goes on as it
    /// was, and the reason is said.
    pub fn reopen(&self, settings: &AuditSettings) {
        self.log.shared.lock().settings = Some(settings.clone());
        self.log.shared.work.notify_one();
    }

    /// Records that were lost since the log was opened, by a full queue, disk or
    /// journal.
    pub fn lost(&self) -> u64 {
        self.log.shared.lock().lost
    }

    /// Ends the log: writes what waits, for `patience` at most, and takes nothing
    /// more. Blocks the calling thread; yields whether all is written.
    pub fn close(&self, patience: Duration) -> bool {
        let shared = &self.log.shared;
        shared.close();
        let waited = shared
            .finished
            .wait_timeout_while(shared.lock(), patience, |queue| !queue.finished);
        let (queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        queue.finished
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Shared {
    fn push(&self, record: Record) {
        let mut queue = self.lock();
        if queue.closed || queue.records.len() >= QUEUE {
            queue.overflowed += 1;
            queue.lost += 1;
            return;
        }
        queue.records.push_back(record);
        drop(queue);
        self.work.notify_one();
    }

    /// Waits for something to do; none when the log is closed and written.
    fn next(&self) -> Option<Work> {
        let idle = |queue: &mut Queue| {
            queue.records.is_empty() && queue.settings.is_none() && !queue.closed
        };
        let mut queue = self
            .work
            .wait_while(self.lock(), idle)
            .unwrap_or_else(PoisonError::into_inner);
        if queue.records.is_empty() && queue.settings.is_none() {
            queue.finished = true;
            self.finished.notify_all();
            return None;
        }
        Some(Work {
            settings: queue.settings.take(),
            records: std::mem::take(&mut queue.records),
            overflowed: std::mem::take(&mut queue.overflowed),
        })
    }

    fn count_lost(&self) {
        self.lock().lost += 1;
    }

    fn close(&self) {
        self.lock().closed = true;
        self.work.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
