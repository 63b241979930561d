//! Programs that are to run with privileges that this process will have given up by
//! then: a shell is started before, which becomes the program when it is told. What it
//! will be is settled by then; if this process dies, it ends without doing anything.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tokio::process::{Child, Command};

use super::start;

/// What is said to it.
pub(super) const GO: &str = "go\n";
/// Its script: the arguments are the program and its own.
const WAIT: &str = "read -r go && [ \"$go\" = go ] && exec \"$@\"";

/// Those that wait.
static WAITING: Mutex<Vec<Waiting>> = Mutex::new(Vec::new());

#[derive(Debug)]
struct Waiting {
    program: PathBuf,
    arguments: Vec<String>,
    process: Child,
}

/// Starts one that will be `program`. A Ctrl-C on the terminal does not end it.
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

/// The one that will be `program` with these arguments.
pub(super) fn take(program: &Path, arguments: &[&str]) -> Option<Child> {
    let mut all = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
    let fits = |one: &Waiting| one.program == program && one.arguments == arguments;
    let place = all.iter().position(fits)?;
    Some(all.swap_remove(place).process)
}

/// The number of the process that will be `program`.
#[cfg(test)]
pub(super) fn process_of(program: &Path) -> Option<u32> {
    let all = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
    let one = all.iter().find(|one| one.program == program)?;
    one.process.id()
}
