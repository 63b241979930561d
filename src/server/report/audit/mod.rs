//! The audit log: logins, requests, and traffic. A task that records an event never
//! waits: records pass through a bounded queue to a thread that writes them, and records
//! that find the queue full are counted as lost.
//!
//! ```text
//!   record ─► queue ─► writer ─┬► file      one JSON object per line
//!     event, text, time        ├► journald  the native protocol
//!                              └► line      as text, if there is neither
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

use crate::config::serve::request::check_append_trusted;
use crate::config::serve::settings::AuditSettings;
use event::{Event, Record};
use writer::Outlets;

/// Limit of the queued records; each has a few hundred bytes.
const QUEUE: usize = 4096;

/// Why the audit log cannot be opened.
#[derive(Debug, Error)]
pub enum AuditError {
    /// The file cannot be opened.
    #[error(
        "cannot open the audit log {path}: {source}; name another with --audit-log, or in [audit]"
    )]
    File {
        /// The file.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The writer's thread cannot be started.
    #[error("cannot start the thread that writes the audit log: {0}")]
    Thread(io::Error),
}

/// A handle to write to the log. Dropping the last one ends the log.
#[derive(Debug, Clone)]
pub struct Audit {
    log: Arc<Log>,
}

/// Closes the queue when the last handle is dropped.
#[derive(Debug)]
struct Log {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// Signalled when the writer has work.
    work: Condvar,
    /// Signalled when the writer has ended.
    finished: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    records: VecDeque<Record>,
    /// New settings, to be applied before the next record.
    settings: Option<AuditSettings>,
    closed: bool,
    finished: bool,
    /// Records that found the queue full and that the writer has not yet reported.
    overflowed: u64,
    /// All lost records, for any reason.
    lost: u64,
}

/// The writer's next work, in this order.
struct Work {
    settings: Option<AuditSettings>,
    records: VecDeque<Record>,
    overflowed: u64,
}

impl AuditError {
    /// Fails if the audit log of these settings cannot be opened; creates nothing.
    pub fn check(settings: &AuditSettings) -> Result<(), Self> {
        let Some(path) = &settings.file else {
            return Ok(());
        };
        check_append_trusted(path).map_err(|source| AuditError::File {
            path: path.clone(),
            source,
        })
    }
}

impl Audit {
    /// Opens the log and starts its thread. Each thread has its own capabilities, so the
    /// process must drop its capabilities before.
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

    /// Records an event with the current time.
    pub fn record(&self, event: Event) {
        self.record_at(event, SystemTime::now());
    }

    fn record_at(&self, event: Event, time: SystemTime) {
        self.log.shared.push(Record::new(event, time.into()));
    }

    /// Applies the settings and reopens the file, for logrotate; earlier records are in the
    /// old file. If that fails, the log continues unchanged, with a warning.
    pub fn reopen(&self, settings: &AuditSettings) {
        self.log.shared.lock().settings = Some(settings.clone());
        self.log.shared.work.notify_one();
    }

    /// The number of records lost since the log was opened, by a full queue, disk or journal.
    pub fn lost(&self) -> u64 {
        self.log.shared.lock().lost
    }

    /// Ends the log: writes the queued records within `patience`, and accepts no more. Blocks
    /// the calling thread; returns whether everything is written.
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

    /// Waits for work; `None` when the log is closed and written.
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
