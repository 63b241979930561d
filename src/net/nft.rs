//! The `nft` program (nft(8)): the one way to nftables. Commands go in as text
//! on its standard input, in one transaction; no shell is involved.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

/// Where it is looked for first: the path of a command over SSH may lack these.
const DIRECTORIES: [&str; 5] = [
    "/usr/sbin",
    "/sbin",
    "/usr/local/sbin",
    "/usr/bin",
    "/usr/local/bin",
];
/// The most it may print, in bytes; what is more is not read.
const OUTPUT_LIMIT: u64 = 4 * 1024 * 1024;
/// The part of its complaint that is told, in bytes.
const COMPLAINT_LIMIT: u64 = 500;
/// How long it may take: large rulesets take seconds.
const TIME_LIMIT: Duration = Duration::from_secs(20);

/// Why the firewall was not changed or read.
#[derive(Debug, Error)]
pub enum NftError {
    /// Not installed.
    #[error(
        "there is no 'nft' program on this host: install nftables here, or do without NAT (--no-nat)"
    )]
    Missing,
    /// It did not start, or its output could not be read.
    #[error("cannot run {program} to {action}: {source}")]
    Run {
        /// The program.
        program: PathBuf,
        /// What for.
        action: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
    /// It said no; nothing was changed.
    #[error("cannot {action}: nft says: {complaint}")]
    Refused {
        /// What was tried.
        action: &'static str,
        /// Its words.
        complaint: String,
    },
    /// It was stopped; what it did is unknown.
    #[error("cannot {action}: nft did not end in {} seconds", TIME_LIMIT.as_secs())]
    TooSlow {
        /// What was tried.
        action: &'static str,
    },
    /// An interface with a name that the rules cannot hold.
    #[error(
        "no firewall rules can be made for the interface '{0}': choose a name of letters, digits, '_', '-' and '.'"
    )]
    Name(String),
}

impl NftError {
    /// Whether it is certain that nothing was changed: its input is one transaction.
    pub fn nothing_changed(&self) -> bool {
        !matches!(self, NftError::TooSlow { .. } | NftError::Run { .. })
    }

    /// Whether what was asked about is not there (ENOENT, in the C locale).
    pub fn is_absence(&self) -> bool {
        matches!(self, NftError::Refused { complaint, .. } if complaint.contains("No such file or directory"))
    }
}

/// The program as found on this host.
#[derive(Debug, Clone)]
pub struct Nft {
    program: PathBuf,
}

impl Nft {
    /// Looks for it.
    pub fn find() -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let fixed = DIRECTORIES.iter().map(PathBuf::from);
        let found = fixed
            .chain(std::env::split_paths(&path).filter(|directory| directory.is_absolute()))
            .map(|directory| directory.join("nft"))
            .find(|program| is_program(program));
        found.map(|program| Self { program })
    }

    /// The same, where it is needed.
    pub fn require() -> Result<Self, NftError> {
        Self::find().ok_or(NftError::Missing)
    }

    /// Carries out `commands`, all of them or none; `action` says what they do,
    /// to follow "cannot".
    pub async fn apply(&self, action: &'static str, commands: &str) -> Result<(), NftError> {
        self.run(action, &["-f", "-"], commands).await.map(drop)
    }

    /// What it prints for these arguments.
    pub async fn list(&self, action: &'static str, arguments: &[&str]) -> Result<String, NftError> {
        self.run(action, arguments, "").await
    }

    async fn run(
        &self,
        action: &'static str,
        arguments: &[&str],
        input: &str,
    ) -> Result<String, NftError> {
        let failed = |source| NftError::Run {
            program: self.program.clone(),
            action,
            source,
        };
        let mut child = Command::new(&self.program)
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let talk = tokio::time::timeout(TIME_LIMIT, converse(&mut child, input));
        let (output, complaint) = match talk.await {
            Ok(said) => said.map_err(failed)?,
            Err(_) => {
                // It has to be gone before what it did can be undone.
                child.kill().await.map_err(failed)?;
                return Err(NftError::TooSlow { action });
            }
        };
        if child.wait().await.map_err(failed)?.success() {
            return Ok(output);
        }
        Err(NftError::Refused {
            action,
            complaint: first_error(&complaint).to_owned(),
        })
    }
}

/// Gives the program its input and takes what it prints, until it closes both
/// its outputs.
async fn converse(child: &mut Child, input: &str) -> io::Result<(String, String)> {
    let missing = || io::Error::other("a stream of it is missing");
    let mut stdin = child.stdin.take().ok_or_else(missing)?;
    let stdout = child.stdout.take().ok_or_else(missing)?;
    let stderr = child.stderr.take().ok_or_else(missing)?;
    let write = async {
        // Who does not read it says why on its way out.
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

/// The first error without its place; the lines behind it show the input.
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

    fn program(script: &str) -> (tempfile::TempDir, Nft) {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("nft");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        (directory, Nft { program })
    }

    #[tokio::test]
    async fn one_that_prints_much_is_read_to_its_end() {
        let (_directory, nft) = program("cat; head -c 9000000 /dev/zero; echo no >&2; exit 1");
        let error = nft.apply("do it", "hello").await.unwrap_err();
        assert_eq!(error.to_string(), "cannot do it: nft says: no");
        assert!(error.nothing_changed());
        let (_directory, nft) = program("head -c 9000000 /dev/zero");
        let output = nft.list("look", &[]).await.unwrap();
        assert_eq!(output.len() as u64, OUTPUT_LIMIT);
    }

    #[tokio::test]
    async fn one_that_does_not_read_its_input_is_judged_by_its_exit() {
        let (_directory, nft) = program("exec true");
        nft.apply("do it", &"x\n".repeat(1 << 20)).await.unwrap();
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
        let error = nft.apply("do it", "").await.unwrap_err();
        assert!(matches!(error, NftError::TooSlow { .. }), "{error}");
        assert!(!error.nothing_changed());
    }
}
