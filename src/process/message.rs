//! What is written for people and for other programs. The terminal may be closed
//! and the reader of a pipe may be gone while there is still work to undo, so a
//! message that cannot be written is dropped: `eprintln!` would panic.

use std::fmt;
use std::io::{self, Write};

/// Writes one line for the person at the terminal, on standard error.
pub fn say(text: impl fmt::Display) {
    // Whoever could be told is gone.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Writes what was asked for, on standard output. A reader that has seen enough
/// is no error.
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
