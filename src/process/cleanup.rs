//! Undoes the changes that a killed sshvpn left on this host, by their journals: before every `up`,
//! and for `sshvpn cleanup`.

use nix::unistd::Uid;
use tokio::runtime::Runtime;

use super::failure::Failure;
use super::message::say;
use crate::config::invoker::elevation;
use crate::host::change::resolver::{self, RecoveredFile};
use crate::host::journal::recovery::{Recovered, Recoverer, Recovery, recover_stale};
use crate::host::journal::runtime_dir::{RuntimeDir, RuntimeDirError};
use crate::host::journal::state::UndoReport;
use crate::host::runtime_socket::remove_stale;
use crate::sandbox::capabilities::{Capabilities, Capability};
use crate::sandbox::files::Files;
use crate::sandbox::user::{Account, in_child};
use crate::sandbox::{Sandbox, confine};

/// The directory of the journals.
pub fn runtime_dir() -> Result<RuntimeDir, Failure> {
    open_runtime_dir().map_err(Failure::local)
}

/// Like [`runtime_dir`], with the original error.
pub fn open_runtime_dir() -> Result<RuntimeDir, RuntimeDirError> {
    let session = std::env::var_os("XDG_RUNTIME_DIR");
    let session = session.filter(|_| !elevation::is_elevated());
    RuntimeDir::of_user(session.as_deref())
}

/// Undoes the changes left behind and reports them; the exit code is 1 if a change is not undone. `of_server` is the result for the part of a server's own user.
pub async fn run(of_server: OfServer) -> Result<u8, Failure> {
    // Root chose that user, and what the server may change.
    let by = match runtime_dir()?.is_servers_part() {
        true => Recoverer::Server,
        false => Recoverer::Other,
    };
    let (found, clean) = recover(true, by).await?;
    if found == 0 && !of_server.found {
        say("nothing to clean up");
    }
    remove_empty_runtime_dir();
    Ok(if clean && of_server.clean {
        0
    } else {
        Failure::LOCAL
    })
}

/// The result of cleaning up after a server that ran as another user.
#[derive(Debug, Clone, Copy)]
pub struct OfServer {
    found: bool,
    clean: bool,
}

/// The exit codes of a child that cleans up as another user.
const NOTHING: u8 = 0;
const CLEANED: u8 = 3;

/// As root: undoes the changes of a server that ran as a user of its own. That user wrote the
/// journals, so a child with only the server's privileges undoes them. Call it while this process
/// has one thread; `runtime` makes the child's runtime.
pub fn of_servers_user(runtime: impl Fn() -> Result<Runtime, String>) -> Result<OfServer, Failure> {
    let mut result = OfServer {
        found: false,
        clean: true,
    };
    if !Uid::effective().is_root() {
        return Ok(result);
    }
    let directory = runtime_dir()?;
    if let Some(uid) = directory.servers_user() {
        let clean_up = || {
            as_user(uid, &runtime).unwrap_or_else(|error| {
                say(format_args!(
                    "warning: the changes that user {uid} left behind are not undone: {error}"
                ));
                Failure::LOCAL
            })
        };
        let code = in_child(clean_up).map_err(Failure::local)?;
        result.found = code != NOTHING;
        result.clean = matches!(code, NOTHING | CLEANED);
    }
    Ok(result)
}

fn as_user(uid: Uid, runtime: &impl Fn() -> Result<Runtime, String>) -> Result<u8, String> {
    let account = Account::of_uid(uid).ok_or("the user no longer exists")?;
    let told = |error: &dyn std::error::Error| error.to_string();
    let kept = Capabilities::NET_ADMIN.with(Capability::SetPcap);
    account.assume(kept).map_err(|error| told(&error))?;
    let directory = runtime_dir().map_err(|failure| failure.to_string())?;
    let sandbox = Sandbox {
        capabilities: Capabilities::NET_ADMIN,
        for_programs: true,
        files: Files::limited_in_writing()
            .write("/dev/null")
            .write("/proc/sys/net")
            .change(directory.path()),
    };
    confine(&sandbox).map_err(|error| told(&error))?;
    // The child has only the server's privileges.
    let recovered = runtime()?.block_on(recover(true, Recoverer::Server));
    match recovered.map_err(|failure| failure.to_string())? {
        (0, true) => Ok(NOTHING),
        (_, true) => Ok(CLEANED),
        (_, false) => Ok(Failure::LOCAL),
    }
}

/// Undoes the changes left behind; returns the number of journals, and whether all changes are
/// undone.
pub async fn recover(verbose: bool, by: Recoverer) -> Result<(usize, bool), Failure> {
    let directory = runtime_dir()?;
    remove_stale(&directory).map_err(Failure::local)?;
    let recovered = recover_stale(&directory, by)
        .await
        .map_err(Failure::local)?;
    let mut clean = true;
    for Recovered { file_name, outcome } in &recovered {
        match outcome {
            Recovery::Undone(report) => {
                if verbose {
                    say(format_args!(
                        "undoing the changes of an earlier sshvpn ({file_name})"
                    ));
                }
                print_report(report, verbose);
                clean &= report.is_clean();
            }
            Recovery::EarlierBoot => {}
            Recovery::OtherNamespace { .. } => {
                if verbose {
                    say(format_args!(
                        "{file_name} belongs to another network namespace: skipped"
                    ));
                }
            }
            Recovery::Unreadable(error) => {
                say(format_args!("warning: {file_name}: {error}"));
                clean = false;
            }
        }
    }
    match resolver::recover_file(&directory) {
        Ok(None) => Ok((recovered.len(), clean)),
        Ok(Some(recovered_file)) => {
            print_file(&recovered_file, verbose);
            Ok((recovered.len() + 1, clean && recovered_file.left.is_none()))
        }
        Err(error) => {
            say(format_args!("warning: {error}"));
            Ok((recovered.len(), false))
        }
    }
}

/// Reports on name servers that survived a reboot, which have no journal.
fn print_file(file: &RecoveredFile, verbose: bool) {
    let path = file.path.display();
    if verbose {
        say(format_args!(
            "{path}: removed the name servers of a tunnel from before the last reboot"
        ));
    }
    if let Some(what) = &file.left {
        say(format_args!("warning: {path}: not restored: {what}"));
    }
}

/// Reports every problem, and with `verbose` success.
pub fn print_report(report: &UndoReport, verbose: bool) {
    for what in &report.undone {
        tracing::debug!("undone: {what}");
    }
    if verbose && report.is_clean() {
        say("here: undone");
    }
    for what in &report.left {
        say(format_args!(
            "warning: not undone, because another program has changed it: {what}"
        ));
    }
    for what in &report.beyond {
        say(format_args!(
            "warning: not undone, kept in the journal: {what}"
        ));
    }
    for (what, error) in &report.failed {
        say(format_args!(
            "warning: could not undo {what}: {error}; 'sshvpn cleanup' tries again"
        ));
    }
}

/// Removes the directory of the journals if it is empty.
pub fn remove_empty_runtime_dir() {
    if let Ok(directory) = runtime_dir()
        && let Err(error) = directory.remove_if_empty()
    {
        tracing::debug!(%error, "cannot remove the directory of the journals");
    }
}
