//! How the C library's allocator is to behave in this process.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::prctl::set_dumpable;

use super::token_bucket::Allowance;

/// Freed memory that stays with the process, in bytes.
const KEPT: libc::c_int = 8 * 1024 * 1024;
/// Allocations from this size on are mappings of their own, in bytes.
const MAPPED: libc::c_int = 1024 * 1024;

/// Keeps the buffers of packets with the process when they are freed. By its
/// defaults the allocator gives the end of the heap back to the kernel whenever
/// 128 KiB of it are free, and takes it again at once: each page of each packet
/// would be a fault, and cleared by the kernel.
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

/// Closes this process's memory to core dumps and to other processes of the same user
/// (ptrace(2), /proc/PID/mem): it holds keys and passwords. Programs that it starts are
/// as they would be without it.
pub fn keep_secret() {
    if let Err(error) = set_dumpable(false) {
        tracing::debug!("the process's memory stays open to others: {error}");
    }
}

/// How often freed memory is looked through at most: the allocator is locked meanwhile.
const LOOKED_THROUGH: Duration = Duration::from_secs(10);

/// Gives memory that was freed back to the kernel, wherever it lies, but for what
/// [`keep_freed`] keeps at the end. Whether that was done: not if it was done a
/// moment ago, after which it is worth asking again.
pub fn give_back() -> bool {
    static TURNS: Mutex<Allowance> = Mutex::new(Allowance::new(1, LOOKED_THROUGH));
    let mut turns = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
    if turns.take(Instant::now()).is_none() {
        return false;
    }
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim works under the allocator's own locks, on memory that
    // nobody has.
    unsafe {
        libc::malloc_trim(KEPT as usize);
    }
    true
}

/// The memory that this process has, in bytes (proc_pid_status(5)).
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
        // Another test may have been faster.
        give_back();
        assert!(!give_back());
    }
}
