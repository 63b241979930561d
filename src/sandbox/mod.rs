//! Confines this process after its setup: few capabilities, no gain of privileges by a program
//! (`no_new_privs`), files by Landlock (landlock(7)), system calls by seccomp(2). It applies
//! permanently, to all threads and to all programs that are started later.
//!
//! ```text
//!   Sandbox ─► confine ─► threads ─► each thread: capabilities, no_new_privs, files
//!                                └─► calls (the kernel applies it to all threads)
//!   user: becomes another user, before that
//! ```
//!
//! Features that the kernel lacks are left out; [`InForce`] lists the active ones.

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

/// The access that stays.
#[derive(Debug)]
pub struct Sandbox {
    /// The capabilities to keep, of those that the process has.
    pub capabilities: Capabilities,
    /// Whether started programs get them too, also if the user is not root.
    pub for_programs: bool,
    /// The accessible files.
    pub files: Files,
}

/// The reason why the sandbox is not in force.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// The kernel refused to remove a privilege.
    #[error("cannot give up {what}: {errno}")]
    Refused {
        /// The privilege.
        what: &'static str,
        /// The kernel's reason.
        errno: Errno,
    },
    /// The kernel has Landlock, but refused these rules.
    #[error("cannot limit access to files (Landlock): {0}")]
    Files(#[from] landlock::RulesetError),
    /// The filter could not be built or installed.
    #[error("cannot limit system calls (seccomp): {0}")]
    Calls(#[from] seccompiler::Error),
    /// A thread did not answer, or has more privileges than it should.
    #[error("thread {thread} of this process has not given up its privileges: {reason}")]
    Thread {
        /// Its number (gettid(2)).
        thread: i32,
        /// The observed state.
        reason: String,
    },
    /// The threads' state cannot be read.
    #[error("cannot read the state of this process's threads in /proc/self/task: {0}")]
    Unreadable(#[source] std::io::Error),
}

/// The active parts of the sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    capabilities: Capabilities,
    landlock: Option<i32>,
    seccomp: bool,
}

impl InForce {
    /// Whether the kernel limits access to files.
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

/// Applies `sandbox` to all threads. After an error a part of it may be in force.
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
