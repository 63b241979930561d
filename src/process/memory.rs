//! Settings of this process's memory: the allocator, core dumps, access by other processes.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::prctl::set_dumpable;

use super::token_bucket::Allowance;

/// The amount of freed memory that the process keeps, in bytes.
const KEPT: libc::c_int = 8 * 1024 * 1024;
/// The size from which on an allocation is a mapping of its own, in bytes.
const MAPPED: libc::c_int = 1024 * 1024;

/// Keeps the freed memory of packet buffers in the process. By default the allocator returns the
/// end of the heap to the kernel whenever 128 KiB of it are free, and soon requests it again: each
/// page of each packet would fault and be cleared by the kernel.
pub fn keep_freed() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [
        (libc::M_TRIM_THRESHOLD, KEPT),
        (libc::M_TOP_PAD, MAPPED),
        (libc::M_MMAP_THRESHOLD, MAPPED),
    ] {
        // SAFETY: mallopt sets numbers of the allocator under its own lock; one
        // that it does not take leaves things as they are.
        unsafe { libc::mallopt(parameter, value) };
    }
}

/// Protects this process's memory from core dumps and from other processes of the same user
/// (ptrace(2), /proc/PID/mem): it holds keys and passwords. Programs that it starts are not
/// affected.
pub fn keep_secret() {
    if let Err(error) = set_dumpable(false) {
        tracing::debug!("other processes of this user can read this process's memory: {error}");
    }
}

/// The least time between two searches of freed memory: the allocator is locked meanwhile.
const LOOKED_THROUGH: Duration = Duration::from_secs(10);

/// Returns freed memory to the kernel, wherever it is, except for the amount that [`keep_freed`]
/// keeps at the end. Returns whether it did so; after `false`, because the last time was too
/// recent, ask again later.
pub fn give_back() -> bool {
    static TURNS: Mutex<Allowance> = Mutex::new(Allowance::new(1, LOOKED_THROUGH));
    let mut turns = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
    if turns.take(Instant::now()).is_none() {
        return false;
    }
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim works under the allocator's own locks, on freed memory
    // only.
    unsafe {
        libc::malloc_trim(KEPT as usize);
    }
    true
}

/// The resident memory of this process, in bytes (proc_pid_status(5)).
#[cfg(test)]
pub(crate) fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.unwrap().trim().trim_end_matches(" kB");
    kilobytes.parse::<u64>().unwrap() * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_and_not_again_at_once() {
        let held: Vec<Vec<u8>> = (0..100).map(|_| vec![1; 100_000]).collect();
        drop(held);
        // Another test may have called it first.
        give_back();
        assert!(!give_back());
    }
}
