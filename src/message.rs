//! Messages for the person at the terminal, on standard error. The terminal may
//! be closed and the reader of a pipe may be gone while there is still work to
//! undo, so a message that cannot be written is dropped: `eprintln!` would panic.

use std::fmt;
use std::io::{self, Write};

/// Writes one line.
pub fn say(text: impl fmt::Display) {
    // Whoever could be told is gone.
    let _ = writeln!(io::stderr(), "{text}");
}
