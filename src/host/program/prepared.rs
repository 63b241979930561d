//! Starts programs ahead, with privileges that this process gives up later.
//!
//! A shell waits and becomes the program on command. Program and arguments are fixed when the shell
//! starts. If this process dies, the shell ends without doing anything.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tokio::process::{Child, Command};

use super::start;

/// The command to start, as the shell reads it.
pub(super) const GO: &str = "go\n";
/// The shell's script: its arguments are the program and the program's arguments.
const WAIT: &str = "read -r go && [ \"$go\" = go ] && exec \"$@\"";

/// The waiting shells.
static WAITING: Mutex<Vec<Waiting>> = Mutex::new(Vec::new());

#[derive(Debug)]
struct Waiting {
    program: PathBuf,
    arguments: Vec<String>,
    process: Child,
}

/// Starts a shell that will become `program`. A Ctrl-C on the terminal does not end it.
pub(super) fn prepare(program: &Path, arguments: &[&str]) -> io::Result<()> {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", WAIT, "sh"])
        .arg(program)
        .args(arguments)
        .process_group(0);
    let waiting = Waiting {
        program: program.to_owned(),
        arguments: arguments.iter().map(|it| (*it).to_owned()).collect(),
        process: start(&mut command)?,
    };
    let mut all = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
    all.push(waiting);
    Ok(())
}

/// Takes the waiting shell for `program` with these arguments.
pub(super) fn take(program: &Path, arguments: &[&str]) -> Option<Child> {
    let mut all = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
    let fits = |one: &Waiting| one.program == program && one.arguments == arguments;
    let place = all.iter().position(fits)?;
    Some(all.swap_remove(place).process)
}

/// The process number of the shell that will become `program`.
#[cfg(test)]
pub(super) fn process_of(program: &Path) -> Option<u32> {
    let all = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
    let one = all.iter().find(|one| one.program == program)?;
    one.process.id()
}
