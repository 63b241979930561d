//! What the server may do on its host: once its listeners are open,
//! CAP_NET_ADMIN (capabilities(7)) and nothing else, neither by itself nor by a
//! program that it starts.
//!
//! Capabilities belong to threads and pass on to threads that are started later,
//! so this has to happen before the runtime is built: [`keep_net_admin`] fails
//! where another thread has more.
//!
//! Root keeps its user id. What it reads and writes later (host keys, leases, the
//! audit log, /run/sshvpn, /proc/sys/net) is root's own, for which no capability
//! is needed; files of other users are closed to it like to everybody else.

use std::collections::HashSet;
use std::fs;
use std::io;

use caps::errors::CapsError;
use caps::{CapSet, Capability};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::setgroups;
use thiserror::Error;

use crate::net::privilege::{PrivilegeError, require_net_admin};

/// The one that stays.
const KEPT: Capability = Capability::CAP_NET_ADMIN;

/// Why the server does not run with as little as it needs.
#[derive(Debug, Error)]
pub enum CapabilityError {
    /// What is needed is not there to be kept.
    #[error(transparent)]
    Missing(#[from] PrivilegeError),
    /// The kernel refused to take something away.
    #[error("cannot give up {what}: {reason}")]
    Refused {
        /// What should have gone.
        what: &'static str,
        /// The kernel's reason.
        reason: String,
    },
    /// A thread was started too early.
    #[error(
        "thread {thread} of this process has capabilities besides CAP_NET_ADMIN: they have to go before threads are started"
    )]
    OtherThread {
        /// Its number (gettid(2)).
        thread: String,
    },
    /// The threads could not be looked at.
    #[error("cannot read the capabilities of this process's threads from /proc/self/task: {0}")]
    Unreadable(#[source] io::Error),
}

/// Gives up everything but CAP_NET_ADMIN, for this process and all that it will
/// start. To be called while it has one thread.
pub fn keep_net_admin() -> Result<(), CapabilityError> {
    require_net_admin()?;
    drop_groups()?;
    reduce_this_thread()?;
    check_threads()
}

/// Supplementary groups open files. Who may not give them up (a user namespace
/// without setgroups, a service's own user) has those it was given on purpose.
fn drop_groups() -> Result<(), CapabilityError> {
    match setgroups(&[]) {
        Ok(()) | Err(Errno::EPERM) => Ok(()),
        Err(errno) => Err(refused("the supplementary groups", errno)),
    }
}

/// All five sets of the calling thread. The bounding set goes first, since that
/// takes CAP_SETPCAP; where that is missing, `no_new_privs` has the same effect.
fn reduce_this_thread() -> Result<(), CapabilityError> {
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)
        .map_err(|error| refused("capabilities", error))?
    {
        reduce_bounding().map_err(|error| refused("the bounding set", error))?;
    }
    let kept = HashSet::from([KEPT]);
    // What is effective has to be permitted; what is ambient, inheritable as well:
    // hence the order.
    for (set, what) in [
        (CapSet::Effective, "effective capabilities"),
        (CapSet::Permitted, "permitted capabilities"),
        (CapSet::Inheritable, "inheritable capabilities"),
        (CapSet::Ambient, "ambient capabilities"),
    ] {
        caps::set(None, set, &kept).map_err(|error| refused(what, error))?;
    }
    prctl::set_no_new_privs().map_err(|errno| refused("privileges of programs", errno))
}

fn reduce_bounding() -> Result<(), CapsError> {
    for capability in caps::runtime::thread_all_supported() {
        if capability != KEPT {
            caps::drop(None, CapSet::Bounding, capability)?;
        }
    }
    Ok(())
}

fn check_threads() -> Result<(), CapabilityError> {
    for entry in fs::read_dir("/proc/self/task").map_err(CapabilityError::Unreadable)? {
        let entry = entry.map_err(CapabilityError::Unreadable)?;
        let status = match fs::read_to_string(entry.path().join("status")) {
            // It has ended meanwhile.
            Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => continue,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other.map_err(CapabilityError::Unreadable)?,
        };
        if !has_no_more(&status) {
            let thread = entry.file_name().to_string_lossy().into_owned();
            return Err(CapabilityError::OtherThread { thread });
        }
    }
    Ok(())
}

/// Whether the status of a thread (proc_pid_status(5)) lists CAP_NET_ADMIN alone
/// as what it has and what it passes on.
fn has_no_more(status: &str) -> bool {
    ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"]
        .into_iter()
        .all(|name| {
            let mask = status.lines().find_map(|line| line.strip_prefix(name));
            let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
            mask == Some(KEPT.bitmask())
        })
}

fn refused(what: &'static str, reason: impl ToString) -> CapabilityError {
    CapabilityError::Refused {
        what,
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::thread;

    /// The masks of all sets, and whether programs may gain more.
    fn sets(status: &str) -> Vec<&str> {
        let is_wanted = |line: &&str| line.starts_with("Cap") || line.starts_with("NoNewPrivs");
        let value = |line: &'_ str| line.rfind('\t').map(|at| at + 1).unwrap_or_default();
        let wanted = status.lines().filter(is_wanted);
        wanted.map(|line| &line[value(line)..]).collect()
    }

    /// Inheritable, permitted, effective, bounding, ambient, no_new_privs.
    const REDUCED: [&str; 6] = [
        "0000000000001000",
        "0000000000001000",
        "0000000000001000",
        "0000000000001000",
        "0000000000001000",
        "1",
    ];

    #[test]
    fn every_thread_and_program_that_is_started_later_has_net_admin_alone() {
        let work = || {
            reduce_this_thread().unwrap();
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .build()
                .unwrap();
            let status = || fs::read_to_string("/proc/thread-self/status").unwrap();
            let worker = runtime.spawn(async move { status() });
            let blocking = runtime.spawn_blocking(status);
            let program = Command::new("cat").arg("/proc/self/status").output();
            let program = String::from_utf8(program.unwrap().stdout).unwrap();
            let [worker, blocking] = [worker, blocking].map(|task| runtime.block_on(task).unwrap());
            for status in [status(), worker, blocking, program] {
                assert_eq!(sets(&status), REDUCED);
                assert!(has_no_more(&status));
            }
        };
        thread::spawn(work).join().unwrap();
    }

    #[test]
    fn a_thread_that_was_started_before_is_found() {
        // This thread has all that the test was started with.
        let work = || {
            reduce_this_thread().unwrap();
            check_threads()
        };
        let found = thread::spawn(work).join().unwrap();
        assert!(
            matches!(found, Err(CapabilityError::OtherThread { .. })),
            "{found:?}"
        );
    }

    #[test]
    fn without_net_admin_there_is_nothing_to_keep() {
        let work = || {
            caps::clear(None, CapSet::Effective).unwrap();
            keep_net_admin()
        };
        let error = thread::spawn(work).join().unwrap().unwrap_err();
        assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
    }
}
