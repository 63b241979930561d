//! One prompt on a terminal, answered with or without echo; restores the terminal also when
//! a signal ends the prompt. Does what readpassphrase(3) does, and the caller can withdraw
//! the prompt.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{self, SaFlags, SigAction, SigHandler, SigSet, Signal};
use nix::sys::termios::{self, LocalFlags, SetArg, Termios};
use nix::unistd;
use zeroize::Zeroizing;

use crate::ssh::client::auth::secret::Secret;

/// The longest answer in bytes; like ssh, the rest is cut off.
const MAX_ANSWER: usize = 1023;

/// Signals that would end the program while the terminal's echo is off.
const FATAL_SIGNALS: [Signal; 4] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
];

/// One prompt at a time: the process has one terminal and one set of signal handlers.
static TERMINAL: Mutex<()> = Mutex::new(());

/// Where [`note_signal`] writes the signal's number, or -1.
static SIGNAL_PIPE: AtomicI32 = AtomicI32::new(-1);

/// Why there is no answer.
#[derive(Debug)]
pub(in crate::ssh) enum NoAnswer {
    /// End of file, or the terminal was closed.
    Closed,
    /// A signal ended the prompt; it was raised again afterwards.
    Interrupted,
    /// The caller withdrew the prompt.
    Withdrawn,
    /// An operation on the terminal failed.
    Io(Errno),
}

impl From<Errno> for NoAnswer {
    fn from(error: Errno) -> Self {
        NoAnswer::Io(error)
    }
}

/// Shows `prompt` on `tty` and reads one line, without echo unless `echo` is set. Blocks;
/// ends early when the other end of the pipe `withdrawn` is closed.
pub(in crate::ssh) fn ask(
    tty: &mut File,
    prompt: &str,
    echo: bool,
    withdrawn: BorrowedFd<'_>,
) -> Result<Secret, NoAnswer> {
    let _one_at_a_time = TERMINAL
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let signals = SignalWatch::install()?;
    let answer = ask_watched(tty, prompt, echo, withdrawn, signals.pipe.as_fd());
    let signal = signals.noted();
    drop(signals);
    if let Some(signal) = signal {
        // The terminal and the handlers are restored: let the signal take its usual effect.
        signal::raise(signal)?;
        return Err(NoAnswer::Interrupted);
    }
    answer
}

fn ask_watched(
    tty: &mut File,
    prompt: &str,
    echo: bool,
    withdrawn: BorrowedFd<'_>,
    signals: BorrowedFd<'_>,
) -> Result<Secret, NoAnswer> {
    // A second handle, because the guard borrows the first until the answer has arrived.
    let mut screen = tty.try_clone().map_err(io_errno)?;
    let echo_off = if echo { None } else { Some(EchoOff::set(tty)?) };
    // The carriage return overwrites what was typed before the echo was turned off.
    write!(screen, "\r{prompt}").map_err(io_errno)?;
    let answer = read_line(screen.as_fd(), withdrawn, signals);
    if echo_off.is_some() || answer.is_err() {
        // The user's own line end was not echoed.
        writeln!(screen).map_err(io_errno)?;
    }
    answer
}

/// Reads until a line end; waits for the terminal, a signal or withdrawal.
fn read_line(
    tty: BorrowedFd<'_>,
    withdrawn: BorrowedFd<'_>,
    signals: BorrowedFd<'_>,
) -> Result<Secret, NoAnswer> {
    // Reserved in full: growing would leave copies of the secret in memory.
    let mut answer = Zeroizing::new(Vec::with_capacity(MAX_ANSWER));
    let mut chunk = Zeroizing::new([0u8; 256]);
    loop {
        wait(tty, withdrawn, signals)?;
        let count = match unistd::read(tty, chunk.as_mut_slice()) {
            Err(Errno::EINTR | Errno::EAGAIN) => continue,
            // The terminal hung up.
            Err(Errno::EIO) => 0,
            other => other?,
        };
        if count == 0 && answer.is_empty() {
            return Err(NoAnswer::Closed);
        }
        let bytes = chunk.get(..count).unwrap_or_default();
        let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let line = bytes.get(..end.unwrap_or(count)).unwrap_or_default();
        let room = MAX_ANSWER - answer.len();
        answer.extend_from_slice(line.get(..room).unwrap_or(line));
        if end.is_some() || count == 0 {
            return text(answer);
        }
    }
}

fn text(mut bytes: Zeroizing<Vec<u8>>) -> Result<Secret, NoAnswer> {
    match String::from_utf8(std::mem::take(&mut *bytes)) {
        Ok(text) => Ok(Secret::new(text)),
        Err(error) => {
            drop(Zeroizing::new(error.into_bytes()));
            Err(NoAnswer::Io(Errno::EILSEQ))
        }
    }
}

/// Waits until the terminal is readable; fails on a signal or withdrawal.
fn wait(
    tty: BorrowedFd<'_>,
    withdrawn: BorrowedFd<'_>,
    signals: BorrowedFd<'_>,
) -> Result<(), NoAnswer> {
    let mut events = [
        PollFd::new(signals, PollFlags::POLLIN),
        PollFd::new(withdrawn, PollFlags::POLLIN),
        PollFd::new(tty, PollFlags::POLLIN),
    ];
    loop {
        match poll(&mut events, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        let [signal, withdrawal, terminal] = &events;
        if signal.any().unwrap_or(true) {
            return Err(NoAnswer::Interrupted);
        }
        if withdrawal.any().unwrap_or(true) {
            return Err(NoAnswer::Withdrawn);
        }
        if terminal.any().unwrap_or(true) {
            return Ok(());
        }
    }
}

fn io_errno(error: std::io::Error) -> NoAnswer {
    NoAnswer::Io(Errno::from_raw(error.raw_os_error().unwrap_or(0)))
}

/// Keeps the echo off until it is dropped.
struct EchoOff<'tty> {
    tty: &'tty File,
    before: Termios,
}

impl<'tty> EchoOff<'tty> {
    fn set(tty: &'tty File) -> Result<Self, Errno> {
        let before = termios::tcgetattr(tty)?;
        let mut silent = before.clone();
        silent
            .local_flags
            .remove(LocalFlags::ECHO | LocalFlags::ECHONL);
        termios::tcsetattr(tty, SetArg::TCSAFLUSH, &silent)?;
        Ok(Self { tty, before })
    }
}

impl Drop for EchoOff<'_> {
    fn drop(&mut self) {
        // A failure here cannot be handled.
        let _ = termios::tcsetattr(self.tty, SetArg::TCSAFLUSH, &self.before);
    }
}

/// Writes the fatal signals into a pipe until it is dropped.
struct SignalWatch {
    pipe: OwnedFd,
    _writer: OwnedFd,
    before: Vec<(Signal, SigAction)>,
}

impl SignalWatch {
    fn install() -> Result<Self, Errno> {
        let (pipe, writer) = unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        SIGNAL_PIPE.store(std::os::fd::AsRawFd::as_raw_fd(&writer), Ordering::SeqCst);
        let mut watch = Self {
            pipe,
            _writer: writer,
            before: Vec::new(),
        };
        let action = SigAction::new(
            SigHandler::Handler(note_signal),
            SaFlags::empty(),
            SigSet::empty(),
        );
        for signal in FATAL_SIGNALS {
            // SAFETY: the handler does only what a signal handler may: it
            // loads an atomic, calls write(2) and keeps errno. The action put
            // back later is the one the kernel gave for this very signal.
            let before = unsafe { signal::sigaction(signal, &action) }?;
            if matches!(before.handler(), SigHandler::SigIgn) {
                // It was ignored before (nohup) and stays ignored.
                // SAFETY: SIG_IGN runs no code.
                unsafe { signal::sigaction(signal, &before) }?;
            } else {
                watch.before.push((signal, before));
            }
        }
        Ok(watch)
    }

    /// The signal that arrived, if any.
    fn noted(&self) -> Option<Signal> {
        let mut number = [0u8; 1];
        match unistd::read(&self.pipe, &mut number) {
            Ok(1) => Signal::try_from(i32::from(number[0])).ok(),
            _ => None,
        }
    }
}

impl Drop for SignalWatch {
    fn drop(&mut self) {
        for (signal, before) in &self.before {
            // SAFETY: `before` was in force when this watch was installed, so
            // its handler is one this program runs with.
            let Ok(current) = (unsafe { signal::sigaction(*signal, before) }) else {
                continue;
            };
            if !is_ours(&current) {
                // Other code installed its own handler during the prompt.
                // SAFETY: it was in force until a moment ago.
                let _ = unsafe { signal::sigaction(*signal, &current) };
            }
        }
        SIGNAL_PIPE.store(-1, Ordering::SeqCst);
    }
}

fn is_ours(action: &SigAction) -> bool {
    match action.handler() {
        SigHandler::Handler(handler) => {
            std::ptr::fn_addr_eq(handler, note_signal as extern "C" fn(i32))
        }
        _ => false,
    }
}

/// Writes the signal's number into the pipe of the current prompt.
extern "C" fn note_signal(number: i32) {
    let before = Errno::last_raw();
    let pipe = SIGNAL_PIPE.load(Ordering::SeqCst);
    if pipe >= 0 {
        // SAFETY: while SIGNAL_PIPE holds a number, the watch that stored it
        // keeps that descriptor open.
        let pipe = unsafe { BorrowedFd::borrow_raw(pipe) };
        let _ = unistd::write(pipe, &[u8::try_from(number).unwrap_or(0)]);
    }
    Errno::set_raw(before);
}

#[cfg(test)]
mod tests;
