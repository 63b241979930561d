//! Writes messages for users and output for other programs. The terminal may be closed and the
//! reader of a pipe may be gone while there is still work to undo, so a message that cannot be
//! written is dropped: `eprintln!` would panic.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::sync::OnceLock;

/// A number of things: `1 packet`, `2 packets`.
pub struct Counted(pub u64, pub &'static str);

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counted(number, thing) = self;
        match number {
            1 => write!(f, "1 {thing}"),
            number => write!(f, "{number} {thing}s"),
        }
    }
}

/// The file of `-E`, which gets the messages instead of standard error.
static LOG_FILE: OnceLock<File> = OnceLock::new();

/// From now on, messages and debug output go to `file`. The first call decides.
pub fn log_to(file: File) {
    let _ = LOG_FILE.set(file);
}

/// Where messages and debug output go.
pub fn log() -> Box<dyn Write> {
    match LOG_FILE.get() {
        Some(file) => Box::new(file),
        None => Box::new(io::stderr()),
    }
}

/// Writes one message for the user.
pub fn say(text: impl fmt::Display) {
    // The reader may have closed standard error.
    let _ = writeln!(log(), "{text}");
}

/// Writes a line of the server's banner: to standard error also with `-E`.
pub fn show(text: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Writes requested output to standard output. A reader that closes the pipe early is not an error.
pub fn print(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    let written = output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush());
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
