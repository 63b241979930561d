//! What this process may still do once it is set up: few capabilities, no gain of
//! privileges by a program (`no_new_privs`), files by Landlock (landlock(7)), system
//! calls by seccomp(2). Everything here is for good, for all threads and for all
//! programs that are started later.
//!
//! ```text
//!   Sandbox ─► confine ─► threads ─► each thread: capabilities, no_new_privs, files
//!                                └─► calls (the kernel applies it to all threads)
//!   user: another user id, before that
//! ```
//!
//! What a kernel lacks is left out, and [`InForce`] says so.

mod calls;
pub mod capabilities;
mod executable;
pub mod files;
mod threads;
pub mod user;

#[cfg(test)]
mod tests;

use std::fmt;

use nix::errno::Errno;
use thiserror::Error;

use calls::CallFilter;
use capabilities::{Capabilities, Reduction};
use files::{FileRules, Files};

/// What stays possible.
#[derive(Debug)]
pub struct Sandbox {
    /// These capabilities, as far as the process has them.
    pub capabilities: Capabilities,
    /// Whether programs that are started have them too, whoever the user is.
    pub for_programs: bool,
    /// These files.
    pub files: Files,
}

/// Why the sandbox is not in force.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// The kernel refused to take something away.
    #[error("cannot give up {what}: {errno}")]
    Refused {
        /// What should have gone.
        what: &'static str,
        /// The kernel's reason.
        errno: Errno,
    },
    /// The kernel has Landlock, and refused these rules.
    #[error("cannot limit access to files (Landlock): {0}")]
    Files(#[from] landlock::RulesetError),
    /// The filter was not made or not taken.
    #[error("cannot limit system calls (seccomp): {0}")]
    Calls(#[from] seccompiler::Error),
    /// A thread was not reached, or has more than it should.
    #[error("thread {thread} of this process has not given up its privileges: {reason}")]
    Thread {
        /// Its number (gettid(2)).
        thread: i32,
        /// What was found.
        reason: String,
    },
    /// The threads could not be looked at.
    #[error("cannot read the state of this process's threads in /proc/self/task: {0}")]
    Unreadable(#[source] std::io::Error),
}

/// What is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    capabilities: Capabilities,
    landlock: Option<i32>,
    seccomp: bool,
}

impl InForce {
    /// Whether the kernel limits the files.
    pub fn limits_files(&self) -> bool {
        self.landlock.is_some()
    }
}

impl fmt::Display for InForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "capabilities: {}; no_new_privs; ", self.capabilities)?;
        match self.landlock {
            Some(abi) => write!(f, "Landlock (ABI {abi})")?,
            None => f.write_str("no Landlock on this kernel")?,
        }
        f.write_str(match self.seccomp {
            true => "; seccomp",
            false => "; no seccomp filter on this kernel",
        })
    }
}

/// Takes everything else away from all threads. Where it fails, some of it may have
/// gone already.
pub fn confine(sandbox: &Sandbox) -> Result<InForce, SandboxError> {
    let capabilities = sandbox.capabilities.that_we_have()?;
    let files = FileRules::build(&sandbox.files)?;
    let reduction = Reduction::new(capabilities, sandbox.for_programs);
    threads::reduce_all(reduction, files.ruleset())?;
    let seccomp = CallFilter::apply_to_all_threads()?;
    Ok(InForce {
        capabilities,
        landlock: files.abi(),
        seccomp,
    })
}
