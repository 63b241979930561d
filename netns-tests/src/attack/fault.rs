//! Fault injection: makes the N-th use of a system call on the local host, or of a command on the
//! remote host, fail.

use anyhow::Result;

use crate::lab::host::Host;

/// The effect at the N-th use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It does nothing and fails: EPERM, exit code 1.
    Fails,
    /// The process (local host) or the SSH connection (remote host) is killed.
    Kills,
}

const TRACE: &str = "/run/lab/strace";

/// A set of system calls.
#[derive(Debug, Clone, Copy)]
pub struct Calls<'a> {
    /// Their names, separated by commas.
    pub names: &'a str,
    /// Only calls about this file; `None` is any.
    pub file: Option<&'a str>,
}

/// The command line that runs `command` under strace, which applies `fault` to each thread's
/// `number`th of `calls`. strace is not the parent, so signals and the exit code are those of
/// `command`.
pub fn at_system_call(
    fault: Fault,
    calls: Calls<'_>,
    number: usize,
    command: &[String],
) -> Vec<String> {
    let names = calls.names;
    let what = match fault {
        Fault::Fails => "error=EPERM",
        Fault::Kills => "signal=SIGKILL",
    };
    let mut line: Vec<String> = ["strace", "-D", "-f", "-qq", "-o", TRACE]
        .map(str::to_owned)
        .into();
    line.extend(["-e".to_owned(), format!("trace={names}")]);
    line.extend([
        "-e".to_owned(),
        format!("inject={names}:{what}:when={number}"),
    ]);
    if let Some(file) = calls.file {
        line.extend(["-P".to_owned(), file.to_owned()]);
    }
    line.extend_from_slice(command);
    line
}

/// Whether a call was made to fail in the last traced run of `host`.
pub fn was_injected(host: &Host) -> Result<bool> {
    Ok(host.read(TRACE)?.contains("(INJECTED)"))
}

const COUNT: &str = "/run/lab/stand-ins/count";
const AT: &str = "/run/lab/stand-ins/at";
const COMMANDS: [&str; 3] = ["ip", "nft", "sysctl"];

/// A stand-in for a command: counts its uses while armed, and fails at the number in
/// /run/lab/stand-ins/at.
const STAND_IN: &str = r#"#!/bin/bash
lab=/run/lab/stand-ins
if [ -e $lab/at ]; then
    exec {lock}>$lab/lock
    flock $lock
    read -r count <$lab/count
    read -r at fault <$lab/at
    echo $((count + 1)) >$lab/count
    exec {lock}>&-
    if [ $((count + 1)) = "$at" ]; then
        [ "$fault" = Kills ] && kill -KILL $(pgrep -f '^sshd: [^/]')
        echo "$(basename "$0"): Operation not permitted" >&2
        exit 1
    fi
fi
exec "$lab/$(basename "$0")" "$@"
"#;

/// Stand-ins for the commands of a remote host that change its network. They are mounted over the
/// real ones, so every caller gets them.
pub struct RemoteCommands<'a>(&'a Host);

impl<'a> RemoteCommands<'a> {
    /// Puts the stand-ins in place on `host`.
    pub fn on(host: &'a Host) -> Result<Self> {
        host.write("/run/lab/stand-ins/stand-in", STAND_IN)?;
        for name in COMMANDS {
            host.sh(&format!(
                "path=$(readlink -f $(command -v {name})); cp $path /run/lab/stand-ins/{name}; \
                 chmod 755 /run/lab/stand-ins/stand-in; mount --bind /run/lab/stand-ins/stand-in $path"
            ))?;
        }
        Ok(Self(host))
    }

    /// Starts to count, and applies `fault` at the `number`th use.
    pub fn fail_at(&self, number: usize, fault: Fault) -> Result<()> {
        self.0.write(COUNT, "0\n")?;
        self.0.write(AT, &format!("{number} {fault:?}\n"))
    }

    /// Stops counting and failing; returns the number of uses.
    pub fn disarm(&self) -> Result<usize> {
        self.0.sh(&format!("rm -f {AT}"))?;
        Ok(self.0.read(COUNT)?.trim().parse()?)
    }
}
