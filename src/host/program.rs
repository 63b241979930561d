//! Runs programs of this host (nft, iptables, resolvconf and the like).
//!
//! They are found in the administrators' directories and run without a shell, with limits on time
//! and output and with an environment of their own.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::Uid;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use crate::config::invoker::elevation;
use crate::config::keys::trusted_file::TrustedOwners;

/// The directories to search first: the PATH of a command over SSH may lack these. The last one is
/// NixOS's.
const DIRECTORIES: [&str; 7] = [
    "/usr/sbin",
    "/sbin",
    "/usr/local/sbin",
    "/usr/bin",
    "/bin",
    "/usr/local/bin",
    "/run/current-system/sw/bin",
];
/// The limit of a program's output, in bytes; the rest is not read.
const OUTPUT_LIMIT: u64 = 4 * 1024 * 1024;
/// The limit of the complaint in an error message, in bytes.
const COMPLAINT_LIMIT: u64 = 500;
/// The time limit of one run: large rulesets take seconds.
const TIME_LIMIT: Duration = Duration::from_secs(20);

/// The reason why a program failed.
#[derive(Debug, Error)]
pub enum ProgramError {
    /// The program did not start, or its output could not be read.
    #[error("cannot run {program} to {action}: {source}")]
    Run {
        /// The program.
        program: PathBuf,
        /// The purpose, to follow "cannot".
        action: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The program reported an error.
    #[error("cannot {action}: {program} says: {complaint}")]
    Refused {
        /// The program's name.
        program: String,
        /// The purpose, to follow "cannot".
        action: &'static str,
        /// The program's error message.
        complaint: String,
    },
    /// The program was stopped at the time limit; its effect is unknown.
    #[error("cannot {action}: {program} did not end within {} seconds", TIME_LIMIT.as_secs())]
    TooSlow {
        /// The program's name.
        program: String,
        /// The purpose, to follow "cannot".
        action: &'static str,
    },
}

/// A program that was found on this host.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
}

impl Program {
    /// Looks for the program. PATH is searched only if root runs this process for itself;
    /// any other process accepts only files that root alone can have put there.
    pub fn find(name: &str) -> Option<Self> {
        let fixed = DIRECTORIES.iter().map(PathBuf::from);
        if elevation::relies_on_root_alone() {
            return Self::find_of_root(name, fixed);
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = fixed
            .chain(std::env::split_paths(&path).filter(|directory| directory.is_absolute()))
            .map(|directory| directory.join(name))
            .find(|program| is_program(program));
        found.map(Self::at)
    }

    fn find_of_root(name: &str, directories: impl Iterator<Item = PathBuf>) -> Option<Self> {
        let root = TrustedOwners(&[Uid::from_raw(0)]);
        let is_of_root = |program: &PathBuf| matches!(root.open(program), Ok(Some(_)));
        let mut programs = directories.map(|directory| directory.join(name));
        let found = programs.find(|program| is_program(program) && is_of_root(program));
        found.map(Self::at)
    }

    /// The program at `path`.
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs the program with these arguments and this input; returns its output. `action` is the
    /// purpose, to follow "cannot".
    pub async fn run(
        &self,
        action: &'static str,
        arguments: &[&str],
        input: &str,
    ) -> Result<String, ProgramError> {
        let failed = |source| ProgramError::Run {
            program: self.path.clone(),
            action,
            source,
        };
        let prepared = match input {
            "" => prepared::take(&self.path, arguments),
            _ => None,
        };
        let (mut child, input) = match prepared {
            Some(waiting) => (waiting, prepared::GO),
            None => {
                let mut command = Command::new(&self.path);
                command.args(arguments);
                (start(&mut command).map_err(failed)?, input)
            }
        };
        let talk = tokio::time::timeout(TIME_LIMIT, converse(&mut child, input));
        let (output, complaint) = match talk.await {
            Ok(said) => said.map_err(failed)?,
            Err(_) => {
                // The program must be gone before its effect can be undone.
                child.kill().await.map_err(failed)?;
                return Err(ProgramError::TooSlow {
                    program: self.name(),
                    action,
                });
            }
        };
        if child.wait().await.map_err(failed)?.success() {
            return Ok(output);
        }
        Err(ProgramError::Refused {
            program: self.name(),
            action,
            complaint: first_error(&complaint).to_owned(),
        })
    }

    /// Starts a process with this process's present privileges that later becomes this program with
    /// these arguments and no input, when [`run`](Self::run) asks for it.
    pub async fn prepare(&self, arguments: &[&str]) -> io::Result<()> {
        prepared::prepare(&self.path, arguments)
    }

    fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }
}

/// Starts the program with pipes and without this process's environment.
fn start(command: &mut Command) -> io::Result<Child> {
    command
        .env_clear()
        .env("PATH", DIRECTORIES.join(":"))
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A second Ctrl-C must not end the program that undoes.
        .process_group(0)
        .kill_on_drop(true);
    // SAFETY: the closure makes two system calls, which are safe after fork (signal-safety(7)).
    unsafe { command.pre_exec(ignore_keys) };
    command.spawn()
}

/// Ignores Ctrl-C and Ctrl-\\. The closure also has fork(2) start the program: posix_spawn(3)
/// resets this process's handlers before the program has a process group of its own, and a
/// terminal's signal to the old group at that moment would end it.
fn ignore_keys() -> io::Result<()> {
    for key in [Signal::SIGINT, Signal::SIGQUIT] {
        // SAFETY: ignoring a signal installs no handler.
        unsafe { signal(key, SigHandler::SigIgn) }?;
    }
    Ok(())
}

/// Writes the program's input and reads its output until it closes both of its outputs.
async fn converse(child: &mut Child, input: &str) -> io::Result<(String, String)> {
    let missing = || io::Error::other("a stream of it is missing");
    let mut stdin = child.stdin.take().ok_or_else(missing)?;
    let stdout = child.stdout.take().ok_or_else(missing)?;
    let stderr = child.stderr.take().ok_or_else(missing)?;
    let write = async {
        // A program that does not read its input reports why on standard error.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        Ok(())
    };
    let ((), output, complaint) = tokio::try_join!(
        write,
        read(stdout, OUTPUT_LIMIT),
        read(stderr, COMPLAINT_LIMIT)
    )?;
    Ok((output, complaint))
}

/// Reads to the end and keeps the first `limit` bytes.
async fn read(mut stream: impl AsyncReadExt + Unpin, limit: u64) -> io::Result<String> {
    let mut kept = Vec::new();
    (&mut stream).take(limit).read_to_end(&mut kept).await?;
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    Ok(String::from_utf8_lossy(&kept).into_owned())
}

/// The first error without its position; the following lines repeat the input.
fn first_error(complaint: &str) -> &str {
    let line = complaint.trim().lines().next().unwrap_or_default();
    line.split_once("Error: ").map_or(line, |(_, text)| text)
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shell writes the script: a process that another test starts meanwhile would inherit a
    /// descriptor of ours, and a file that is open for writing cannot be run (ETXTBSY).
    fn program(script: &str) -> (tempfile::TempDir, Program) {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("nft");
        let write = r#"printf '#!/bin/sh\n%s\n' "$2" >"$1" && chmod 700 "$1""#;
        let written = std::process::Command::new("/bin/sh")
            .args(["-c", write, "sh"])
            .args([program.as_os_str(), script.as_ref()])
            .status();
        assert!(written.unwrap().success());
        (directory, Program::at(program))
    }

    #[tokio::test]
    async fn its_environment_is_not_the_callers() {
        let (_directory, nft) = program("env | cut -d= -f1 | sort | tr '\n' ' '");
        let output = nft.run("look", &[], "").await.unwrap();
        // The shell adds PWD.
        assert_eq!(output, "LC_ALL PATH PWD ");
    }

    #[test]
    fn for_others_only_programs_of_root_are_found() {
        use std::fs::{Permissions, set_permissions};
        use std::os::unix::fs::PermissionsExt;
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: only root has programs of its own");
            return;
        }
        let (directory, _) = program("exec true");
        let find = || {
            let nowhere = PathBuf::from("/nowhere");
            Program::find_of_root("nft", [nowhere, directory.path().to_owned()].into_iter())
        };
        assert!(find().is_some());
        set_permissions(directory.path(), Permissions::from_mode(0o777)).unwrap();
        assert!(find().is_none());
        set_permissions(directory.path(), Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::chown(directory.path().join("nft"), Some(1000), None).unwrap();
        assert!(find().is_none());
    }

    #[tokio::test]
    async fn one_that_prints_much_is_read_to_its_end() {
        let (_directory, nft) = program("cat; head -c 9000000 /dev/zero; echo no >&2; exit 1");
        let error = nft.run("do it", &[], "hello").await.unwrap_err();
        assert_eq!(error.to_string(), "cannot do it: nft says: no");
        let (_directory, nft) = program("head -c 9000000 /dev/zero");
        let output = nft.run("look", &[], "").await.unwrap();
        assert_eq!(output.len() as u64, OUTPUT_LIMIT);
    }

    #[tokio::test]
    async fn one_that_does_not_read_its_input_is_judged_by_its_exit() {
        let (_directory, nft) = program("exec true");
        nft.run("do it", &[], &"x\n".repeat(1 << 20)).await.unwrap();
    }

    #[tokio::test]
    async fn one_that_was_prepared_waits_for_its_turn() {
        let (directory, nft) = program("echo \"$$ $*\" >>\"$(dirname \"$0\")/ran\"; echo done");
        let ran = directory.path().join("ran");
        nft.prepare(&["-d", "a b"]).await.unwrap();
        let waiting = prepared::process_of(nft.path()).unwrap();
        assert_eq!(nft.run("do it", &["-d", "b"], "").await.unwrap(), "done\n");
        let other = std::fs::read_to_string(&ran).unwrap();
        assert!(other.ends_with(" -d b\n"), "{other}");
        assert_eq!(
            nft.run("do it", &["-d", "a b"], "").await.unwrap(),
            "done\n"
        );
        let both = std::fs::read_to_string(&ran).unwrap();
        assert_eq!(both, format!("{other}{waiting} -d a b\n"));
        // Without the go-ahead the program does not run.
        nft.prepare(&["-d", "c"]).await.unwrap();
        let mut waiting = prepared::take(nft.path(), &["-d", "c"]).unwrap();
        drop(waiting.stdin.take());
        assert!(!waiting.wait().await.unwrap().success());
        assert_eq!(std::fs::read_to_string(&ran).unwrap(), both);
    }

    #[test]
    fn a_complaint_is_told_without_its_place() {
        let said =
            "/dev/stdin:1:19-26: Error: Could not process rule: File exists\ncreate table\n^^^\n";
        assert_eq!(first_error(said), "Could not process rule: File exists");
        assert_eq!(first_error("netlink: no\n"), "netlink: no");
        assert_eq!(first_error(""), "");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_hangs_is_stopped() {
        let (_directory, nft) = program("exec sleep 1000");
        let error = nft.run("do it", &[], "").await.unwrap_err();
        assert!(matches!(error, ProgramError::TooSlow { .. }), "{error}");
    }
}

mod prepared;
