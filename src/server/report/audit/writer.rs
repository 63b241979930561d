//! The thread that writes records to wherever they are to be written. What goes
//! wrong with one place is said once, until it works again, and costs the others
//! nothing.

use std::fmt;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use super::event::{Event, Record};
use super::file::FileSink;
use super::journald::Journal;
use super::{AuditError, Shared};
use crate::config::serve::settings::AuditSettings;
use crate::process::message::say;

/// Writes until the log is closed. `journal` is journald's socket.
pub(super) fn run(shared: &Shared, mut outlets: Outlets, journal: &Path) {
    while let Some(work) = shared.next() {
        if let Some(settings) = work.settings {
            match Outlets::open(&settings, journal) {
                Ok(opened) => outlets = opened.after(outlets),
                Err(error) => say(format_args!("warning: {error}; the old one is kept")),
            }
        }
        for record in &work.records {
            if !outlets.write(record) {
                shared.count_lost();
            }
        }
        outlets.lost(work.overflowed);
    }
}

/// The places that records go to.
#[derive(Debug)]
pub(super) struct Outlets(Vec<Outlet>);

#[derive(Debug)]
struct Outlet {
    sink: Sink,
    /// Whether it was said that it fails.
    failing: bool,
    /// Records that it lacks, and does not say so yet.
    lacking: u64,
}

#[derive(Debug)]
enum Sink {
    File(FileSink),
    Journal(Journal),
    Terminal,
}

impl Outlets {
    /// Those of `settings`; the terminal, where there would be none.
    pub fn open(settings: &AuditSettings, journal: &Path) -> Result<Self, AuditError> {
        let mut sinks = Vec::new();
        if let Some(path) = &settings.file {
            let opened = FileSink::open(path).map_err(|source| AuditError::File {
                path: path.clone(),
                source,
            })?;
            sinks.push(Sink::File(opened));
        }
        if settings.journald
            && let Some(journal) = Journal::open(journal)
        {
            sinks.push(Sink::Journal(journal));
        }
        if sinks.is_empty() {
            sinks.push(Sink::Terminal);
        }
        let outlets = sinks.into_iter().map(|sink| Outlet {
            sink,
            failing: false,
            lacking: 0,
        });
        Ok(Self(outlets.collect()))
    }

    /// These, in place of others that may lack records: the new ones say so.
    fn after(mut self, before: Outlets) -> Self {
        let lacking = before.0.iter().map(|outlet| outlet.lacking).max();
        for outlet in &mut self.0 {
            outlet.lacking = lacking.unwrap_or_default();
        }
        self
    }

    /// Whether every place has it.
    fn write(&mut self, record: &Record) -> bool {
        let mut everywhere = true;
        for outlet in &mut self.0 {
            everywhere &= outlet.write(record);
        }
        everywhere
    }

    /// Writes down that so many records never came here.
    fn lost(&mut self, count: u64) {
        for outlet in &mut self.0 {
            outlet.lacking += count;
            outlet.admit_lacking();
        }
    }
}

impl Outlet {
    fn write(&mut self, record: &Record) -> bool {
        let written = self.admit_lacking() && self.put(record);
        if !written {
            self.lacking += 1;
        }
        written
    }

    /// Says what it lacks; whether there is nothing more to say.
    fn admit_lacking(&mut self) -> bool {
        if self.lacking > 0 {
            let lost = Event::RecordsLost {
                count: self.lacking,
            };
            if !self.put(&Record::new(lost, SystemTime::now().into())) {
                return false;
            }
            self.lacking = 0;
        }
        true
    }

    fn put(&mut self, record: &Record) -> bool {
        let result = self.sink.write(record);
        if let Err(error) = &result
            && !self.failing
        {
            say(format_args!(
                "warning: cannot write the audit log to {}: {error}",
                self.sink
            ));
        }
        self.failing = result.is_err();
        result.is_ok()
    }
}

impl Sink {
    fn write(&mut self, record: &Record) -> io::Result<()> {
        match self {
            Sink::File(file) => file.write(record),
            Sink::Journal(journal) => journal.write(record),
            Sink::Terminal => {
                say(&record.event);
                Ok(())
            }
        }
    }
}

impl fmt::Display for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sink::File(file) => write!(f, "{}", file.path().display()),
            Sink::Journal(journal) => write!(f, "{}", journal.path().display()),
            Sink::Terminal => f.write_str("standard error"),
        }
    }
}
