//! A process of a host: captures its output, waits for it, signals it, and kills it when dropped.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{self, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::wait::PATIENCE;

/// The output and status of a process so far.
#[derive(Default)]
struct Progress {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    open_streams: u8,
    status: Option<ExitStatus>,
}

/// [`Progress`] and the condition variable that signals a change.
#[derive(Default)]
struct Shared {
    progress: Mutex<Progress>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running process, the leader of its group. Dropping it kills the whole group and prints its
/// output, which the test harness shows for a failed test; the output of a process that succeeded
/// is not printed.
pub struct Child {
    title: String,
    pid: Pid,
    shared: Arc<Shared>,
}

/// The result of a process that has ended.
#[derive(Debug)]
pub struct Output {
    /// The command line, for messages.
    pub title: String,
    /// How it ended.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
}

impl Output {
    /// The exit code; 128 plus the signal's number if a signal ended it, as in a shell.
    pub fn code(&self) -> i32 {
        let signal = || 128 + self.status.signal().unwrap_or_default();
        self.status.code().unwrap_or_else(signal)
    }

    /// The standard output; an error if the process failed.
    pub fn ok(self) -> Result<String> {
        if !self.status.success() {
            bail!(
                "`{}` gave {}: {}{}",
                self.title,
                self.code(),
                self.stdout,
                self.stderr
            );
        }
        Ok(self.stdout)
    }
}

impl Child {
    /// Watches `process`, which [`start`] has started.
    pub(crate) fn watch(title: String, mut process: process::Child) -> Result<Self> {
        let pid = Pid::from_raw(process.id().try_into()?);
        let shared = Arc::new(Shared::default());
        shared.lock().open_streams = 2;
        let stdout = process.stdout.take().context("stdout was piped")?;
        let stderr = process.stderr.take().context("stderr was piped")?;
        collect(stdout, Arc::clone(&shared), |progress| &mut progress.stdout);
        collect(stderr, Arc::clone(&shared), |progress| &mut progress.stderr);
        // Wait for it at once: an unreaped zombie keeps the init of its namespace
        // from ending.
        let waiter = Arc::clone(&shared);
        thread::spawn(move || {
            let _ = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
            // Reaped under the lock, so that no signal goes to a reused pid.
            let mut progress = waiter.lock();
            progress.status = process.wait().ok();
            waiter.changed.notify_all();
        });
        Ok(Self { title, pid, shared })
    }

    /// The pid in the test process's namespace.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Its standard error so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.shared.lock().stderr).into_owned()
    }

    /// Its standard output so far.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.shared.lock().stdout).into_owned()
    }

    /// Whether it has not ended.
    pub fn is_running(&self) -> bool {
        self.shared.lock().status.is_none()
    }

    /// Whether it has ended and all its output has been read.
    pub fn has_ended(&self) -> bool {
        let progress = self.shared.lock();
        progress.status.is_some() && progress.open_streams == 0
    }

    /// Waits until a complete line of either stream contains `part`, and returns that line.
    pub fn wait_for_line(&self, part: &str, limit: Duration) -> Result<String> {
        self.wait_until(limit, &format!("a line with '{part}'"), |progress| {
            let found =
                find_line(&progress.stdout, part).or_else(|| find_line(&progress.stderr, part));
            match found {
                Some(line) => Some(Ok(line)),
                None if progress.status.is_some() && progress.open_streams == 0 => Some(Err(())),
                None => None,
            }
        })?
        .or_else(|()| {
            bail!(
                "`{}` ended without a line with '{part}': {}",
                self.title,
                self.written()
            )
        })
    }

    /// Waits for its end and the end of its output, which a background process may hold open
    /// longer.
    pub fn wait(self, limit: Duration) -> Result<Output> {
        let status = self.wait_until(limit, "its end", |progress| progress.status)?;
        self.wait_until(limit, "the end of its output", |progress| {
            (progress.open_streams == 0).then_some(())
        })?;
        Ok(Output {
            title: self.title.clone(),
            status,
            stdout: self.stdout(),
            stderr: self.stderr(),
        })
    }

    /// Sends `signal` to the whole process group, as a terminal does on Ctrl-C,
    /// if the process has not ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let progress = self.shared.lock();
        if progress.status.is_none() {
            killpg(self.pid, signal).with_context(|| format!("{signal} to `{}`", self.title))?;
        }
        Ok(())
    }

    /// Sends `signal` and waits for the end.
    pub fn end_with(self, signal: Signal) -> Result<Output> {
        self.signal(signal)?;
        self.wait(PATIENCE)
    }

    fn wait_until<T>(
        &self,
        limit: Duration,
        what: &str,
        mut probe: impl FnMut(&Progress) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        let mut progress = self.shared.lock();
        loop {
            if let Some(value) = probe(&progress) {
                return Ok(value);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(progress);
                bail!(
                    "`{}`: {what} did not come within {limit:?}: {}",
                    self.title,
                    self.written()
                );
            }
            let waited = self.shared.changed.wait_timeout(progress, left);
            progress = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Both streams, for an error message.
    fn written(&self) -> String {
        let mut text = String::new();
        for (stream, written) in [("stdout", self.stdout()), ("stderr", self.stderr())] {
            if !written.is_empty() {
                let _ = write!(text, "\n--- {stream}:\n{written}");
            }
        }
        text
    }
}

/// Whether dropped processes print their output.
static PRINTS: AtomicBool = AtomicBool::new(true);

/// Stops dropped processes from printing their output, for programs with output of their own.
pub fn print_nothing() {
    PRINTS.store(false, Ordering::Relaxed);
}

impl Drop for Child {
    fn drop(&mut self) {
        let succeeded = self
            .shared
            .lock()
            .status
            .is_some_and(|status| status.success());
        let _ = self.signal(Signal::SIGKILL);
        if PRINTS.load(Ordering::Relaxed) {
            println!(
                "`{}`{}",
                self.title,
                if succeeded {
                    String::new()
                } else {
                    self.written()
                }
            );
        }
    }
}

/// Starts `command` in its own process group, with piped streams. Separate from [`Child::watch`],
/// since a thread in another pid namespace cannot start the watching threads.
pub(crate) fn start(title: &str, command: &mut Command) -> Result<process::Child> {
    command
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting `{title}`"))
}

/// Copies `stream` into the buffer that `select` returns, until the stream ends.
fn collect(
    stream: impl Read + Send + 'static,
    shared: Arc<Shared>,
    select: fn(&mut Progress) -> &mut Vec<u8>,
) {
    thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        while let Ok(bytes) = reader.fill_buf()
            && !bytes.is_empty()
        {
            let length = bytes.len();
            select(&mut shared.lock()).extend_from_slice(bytes);
            reader.consume(length);
            shared.changed.notify_all();
        }
        shared.lock().open_streams -= 1;
        shared.changed.notify_all();
    });
}

fn find_line(bytes: &[u8], part: &str) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let complete = &text[..text.rfind('\n')?];
    complete
        .lines()
        .find(|line| line.contains(part))
        .map(str::to_owned)
}
