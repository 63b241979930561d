//! The audit log as a file of JSON lines.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::event::Record;
use crate::config::serve::request::append_trusted;

#[derive(Debug)]
pub(super) struct FileSink {
    path: PathBuf,
    file: File,
    /// The last line is incomplete, because the disk was full.
    torn: bool,
}

impl FileSink {
    /// Opens the file to append to it; creates it with mode 0600 if it does not exist.
    /// Refuses a path that another user can have redirected.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = append_trusted(path)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            torn: false,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends one line, in a single write if the disk has room.
    pub fn write(&mut self, record: &Record) -> io::Result<()> {
        let mut line = Vec::with_capacity(512);
        if self.torn {
            line.push(b'\n');
        }
        serde_json::to_writer(&mut line, record)?;
        line.push(b'\n');
        let mut left = line.as_slice();
        while !left.is_empty() {
            let written = match self.file.write(left) {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other,
            };
            match written {
                Ok(count) => left = left.get(count..).unwrap_or_default(),
                Err(error) => {
                    self.torn |= left.len() < line.len();
                    return Err(error);
                }
            }
        }
        self.torn = false;
        Ok(())
    }
}
