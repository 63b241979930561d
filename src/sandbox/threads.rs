//! Makes every thread of this process give up its privileges: capabilities and Landlock belong to
//! threads, and a runtime already has threads when a client is connected.
//!
//! The kernel has no call for that, so each thread does it itself, in a signal handler, as libcap's
//! libpsx does.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SaFlags, SigSet};
use nix::unistd::gettid;

use super::SandboxError;
use super::capabilities::{Capabilities, Reduction, Step};

/// The limit of threads. The runtime's pool has at most 512.
const MOST_THREADS: usize = 1024;
/// The time limit for all threads.
const PATIENCE: Duration = Duration::from_secs(5);
/// The interval of checks for threads that have not finished.
const TURN: Duration = Duration::from_micros(200);

/// The task of the handler: set once per process, before the first signal.
static TASK: OnceLock<Task> = OnceLock::new();
/// The threads that have finished; unused entries are 0.
static DONE: [AtomicI32; MOST_THREADS] = [const { AtomicI32::new(0) }; MOST_THREADS];
/// The errno of a thread that failed.
static FAILED: AtomicI32 = AtomicI32::new(0);
/// Serializes the calls.
static TURN_LOCK: Mutex<()> = Mutex::new(());

#[derive(Debug, Clone, Copy)]
struct Task {
    reduction: Reduction,
    ruleset: Option<RawFd>,
}

impl Task {
    /// Async-signal-safe.
    fn run(self) -> Result<(), (Step, Errno)> {
        let Some(ruleset) = self.ruleset else {
            return self.reduction.apply();
        };
        // SAFETY: they take numbers alone.
        let limited = unsafe {
            // Without CAP_SYS_ADMIN, Landlock requires no_new_privs.
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0)
        };
        Errno::result(limited).map_err(|errno| ("access to files", errno))?;
        self.reduction.apply()
    }
}

/// Makes every thread apply `reduction` and the Landlock ruleset. Works once per process.
pub(super) fn reduce_all(
    reduction: Reduction,
    ruleset: Option<BorrowedFd<'_>>,
) -> Result<(), SandboxError> {
    let _turn = TURN_LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    let task = Task {
        reduction,
        ruleset: ruleset.map(|ruleset| ruleset.as_raw_fd()),
    };
    if TASK.set(task).is_err() {
        let errno = Errno::EALREADY;
        let what = "privileges";
        return Err(SandboxError::Refused { what, errno });
    }
    task.run()
        .map_err(|(what, errno)| SandboxError::Refused { what, errno })?;
    let ourselves = gettid().as_raw();
    let others = |thread: &i32| *thread != ourselves;
    if threads()?.into_iter().any(|thread| others(&thread)) {
        tell_others(ourselves)?;
    }
    for thread in threads()? {
        check(thread, reduction.kept())?;
    }
    Ok(())
}

/// Signals each thread until all have finished, including those that start meanwhile.
fn tell_others(ourselves: i32) -> Result<(), SandboxError> {
    let signal = libc::SIGRTMAX() - 1;
    let before = install(signal, handle as *const () as libc::sighandler_t)?;
    let limit = Instant::now() + PATIENCE;
    let mut told = Vec::new();
    let result = loop {
        let left: Vec<i32> = threads()?
            .into_iter()
            .filter(|thread| *thread != ourselves && !has_done(*thread))
            .collect();
        let errno = FAILED.load(Ordering::Acquire);
        if errno != 0 {
            let what = "privileges of a thread";
            let errno = Errno::from_raw(errno);
            break Err(SandboxError::Refused { what, errno });
        }
        let Some(first) = left.first().copied() else {
            break Ok(());
        };
        if Instant::now() > limit {
            let reason = format!("no answer within {} seconds", PATIENCE.as_secs());
            let thread = first;
            break Err(SandboxError::Thread { thread, reason });
        }
        for thread in left {
            if !told.contains(&thread) {
                told.push(thread);
                // SAFETY: it takes numbers alone; a thread that has ended is not there.
                unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal) };
            }
        }
        sleep(TURN);
    };
    // After a failure a thread may receive the signal late, which would end the process if there
    // were no handler.
    if result.is_ok() {
        restore(signal, &before)?;
    }
    result
}

fn has_done(thread: i32) -> bool {
    let done = DONE.iter().map(|place| place.load(Ordering::Acquire));
    done.take_while(|done| *done != 0)
        .any(|done| done == thread)
}

/// The signal handler: system calls and atomics only.
extern "C" fn handle(_signal: libc::c_int) {
    let errno = Errno::last();
    let result = match TASK.get() {
        Some(task) => task.run(),
        None => Ok(()),
    };
    if let Err((_, failed)) = result {
        FAILED.store(failed as i32, Ordering::Release);
    }
    note_done();
    errno.set();
}

/// Records this thread in the first free entry.
fn note_done() {
    // SAFETY: it has no arguments.
    let thread = unsafe { libc::syscall(libc::SYS_gettid) } as i32;
    for place in &DONE {
        let taken = place.compare_exchange(0, thread, Ordering::AcqRel, Ordering::Relaxed);
        if taken.is_ok() {
            return;
        }
    }
    FAILED.store(Errno::ENOMEM as i32, Ordering::Release);
}

/// The threads of this process.
fn threads() -> Result<Vec<i32>, SandboxError> {
    let entries = fs::read_dir("/proc/self/task").map_err(SandboxError::Unreadable)?;
    let mut threads = Vec::new();
    for entry in entries {
        let entry = entry.map_err(SandboxError::Unreadable)?;
        threads.extend(
            entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<i32>().ok()),
        );
    }
    Ok(threads)
}

/// Checks in /proc that a thread has `kept` and no more.
fn check(thread: i32, kept: Capabilities) -> Result<(), SandboxError> {
    let path = format!("/proc/self/task/{thread}/status");
    let status = match fs::read_to_string(path) {
        // The thread has ended.
        Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(SandboxError::Unreadable)?,
    };
    match surplus(&status, kept) {
        None => Ok(()),
        Some(line) => Err(SandboxError::Thread {
            thread,
            reason: format!("its status has '{line}'"),
        }),
    }
}

/// The line of a thread's status (proc_pid_status(5)) that shows more than `kept`.
fn surplus(status: &str, kept: Capabilities) -> Option<String> {
    let value = |name: &str| {
        let mut lines = status.lines();
        lines
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    };
    for name in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        let found = value(name).unwrap_or_default();
        let mask = u64::from_str_radix(found, 16).unwrap_or(u64::MAX);
        if mask & !kept.mask() != 0 {
            return Some(format!("{name} {found}"));
        }
    }
    let programs = value("NoNewPrivs:").unwrap_or_default();
    (programs != "1").then(|| format!("NoNewPrivs: {programs}"))
}

fn install(signal: i32, handler: libc::sighandler_t) -> Result<libc::sigaction, SandboxError> {
    // SAFETY: all zero is a value of it.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = SaFlags::SA_RESTART.bits();
    action.sa_mask = *SigSet::all().as_ref();
    exchange(signal, &action)
}

fn restore(signal: i32, before: &libc::sigaction) -> Result<(), SandboxError> {
    exchange(signal, before).map(drop)
}

fn exchange(signal: i32, action: &libc::sigaction) -> Result<libc::sigaction, SandboxError> {
    // SAFETY: all zero is a value of it.
    let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: both are whole; the handler is async-signal-safe, or was there before.
    let done = unsafe { libc::sigaction(signal, action, &raw mut before) };
    let what = "privileges of other threads";
    Errno::result(done).map_err(super::capabilities::refused(what))?;
    Ok(before)
}
