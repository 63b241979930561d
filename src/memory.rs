//! How the C library's allocator is to behave in this process.

use nix::libc;

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
