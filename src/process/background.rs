//! `-f`: moves to the background when the tunnel is up, as ssh does. The process that the shell
//! waits for forks before any thread exists; the child does the work, asks its questions on the
//! same terminal, and reports when it is ready.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;
use nix::sys::prctl;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, dup2_stderr, dup2_stdin, dup2_stdout, fork, pipe2, setsid};

/// Tells the waiting parent that the child is ready.
#[derive(Debug)]
pub struct Ready(File);

/// The parent or the child.
pub enum Forked {
    /// The child, which does the work.
    Child(Ready),
    /// The parent, after its wait; contains its exit code.
    Parent(u8),
}

/// Forks. The parent returns only when the child is ready or has ended. Call it while the process
/// has one thread.
pub fn fork_until_ready() -> io::Result<Forked> {
    // With O_CLOEXEC, since a ProxyCommand that inherits the pipe would keep the parent waiting.
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    // SAFETY: no other thread exists yet, so the child may do what any process may.
    match unsafe { fork() }? {
        ForkResult::Child => {
            drop(reader);
            // A user who stops waiting and kills the parent means both processes.
            prctl::set_pdeathsig(Signal::SIGTERM)?;
            Ok(Forked::Child(Ready(File::from(writer))))
        }
        ForkResult::Parent { child } => {
            drop(writer);
            // Ctrl-C goes to both processes; the child decides.
            // SAFETY: SIG_IGN runs no code.
            unsafe { signal(Signal::SIGINT, SigHandler::SigIgn) }?;
            if became_ready(reader) {
                return Ok(Forked::Parent(0));
            }
            Ok(Forked::Parent(match waitpid(child, None)? {
                WaitStatus::Exited(_, code) => u8::try_from(code).unwrap_or(255),
                _ => 255,
            }))
        }
    }
}

fn became_ready(reader: OwnedFd) -> bool {
    let mut byte = [0];
    matches!(File::from(reader).read(&mut byte), Ok(1))
}

impl Ready {
    /// Detaches from the terminal and lets the parent exit: starts a session of its own and
    /// redirects the standard streams, so that their readers see end of file. With `-v` standard
    /// error stays open, as with ssh.
    pub fn detach(mut self, verbose: bool) -> io::Result<()> {
        let null = File::options().read(true).write(true).open("/dev/null")?;
        setsid()?;
        dup2_stdin(&null)?;
        dup2_stdout(&null)?;
        prctl::set_pdeathsig(None)?;
        if !verbose {
            dup2_stderr(&null)?;
        }
        self.0.write_all(&[1])
    }
}
