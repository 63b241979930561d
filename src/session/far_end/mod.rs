//! The far end of a tunnel on a host that has no sshvpn: what it is like
//! ([`facts`]), what is to be done there ([`steps`]), and a process that does it
//! and undoes it when the connection is gone ([`Holder`]). All of it goes through
//! commands over the same SSH connection.

mod answers;
pub mod facts;
pub mod steps;

#[cfg(test)]
mod hold_tests;
#[cfg(test)]
mod hostile_tests;

use std::future::Future;
use std::time::Duration;

use thiserror::Error;
use tokio::time::timeout;

use crate::config::types::{Mode, Unit};
use crate::message::say;
use crate::ssh::connect::Connection;
use crate::ssh::error::ChannelError;
use crate::ssh::process::{ProcessInput, ProcessRequest};
use crate::ssh::terminal_text;
use answers::Answers;
use facts::{Facts, FactsError, Privilege};
use steps::Step;

/// The program that holds the far end's state. POSIX sh.
const HOLD: &str = include_str!("hold.sh");
/// The program that tells about the far end. POSIX sh.
const PROBE: &str = include_str!("probe.sh");

/// The most that the probe may print, in bytes; routing tables can be long.
const PROBE_LIMIT: usize = 4 * 1024 * 1024;
/// The most that the far end may say of its device, in bytes.
const DEVICE_LIMIT: usize = 4096;
/// The part of a far end's complaint that is shown, in characters.
const REASON_LIMIT: usize = 300;
/// How long the probe may take; `sudo` and routing tables can be slow.
const PROBE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a step may take at the far end.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it may take to start, which includes undoing what others left.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(60);
/// What is said when no answer will come.
const SHELL_GONE: &str = "the shell there ended or the connection is gone";
/// How long the far end may take to undo its part before we leave it to do so
/// by itself.
const UNDO_TIMEOUT: Duration = Duration::from_secs(10);

/// What can fail at the far end.
#[derive(Debug, Error)]
pub enum FarEndError {
    /// The connection or a command on it failed.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// What the far end told about itself is not usable.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// A step failed.
    #[error("{host}: cannot {what}: {reason}")]
    Step {
        /// The far end.
        host: String,
        /// What was being done.
        what: String,
        /// What the far end said.
        reason: String,
    },
}

/// Asks the far end about itself, and by which interface it reaches `ways`.
pub async fn probe(
    connection: &Connection,
    ways: &[std::net::IpAddr],
) -> Result<Facts, FarEndError> {
    let mut command = format!("exec sh -c {} sshvpn-probe", quote(PROBE));
    for address in ways {
        command.push(' ');
        command.push_str(&address.to_string());
    }
    let finished = in_time(connection, "look at it", PROBE_TIMEOUT, async {
        Ok(connection.run(&command, PROBE_LIMIT).await?)
    })
    .await?;
    let text = String::from_utf8_lossy(&finished.output);
    let complaint = String::from_utf8_lossy(&finished.error_output);
    Ok(facts::parse(connection.host(), &text, &complaint)?)
}

/// The unit of the device that sshd opened for our tunnel, which is known only
/// to commands started after it (sshd's `SSH_TUNNEL`).
pub async fn opened_unit(connection: &Connection, mode: Mode) -> Result<Unit, FarEndError> {
    let what = "learn which device it opened";
    let finished = in_time(connection, what, STEP_TIMEOUT, async {
        let command = "echo \"$SSH_TUNNEL\"";
        Ok(connection.run(command, DEVICE_LIMIT).await?)
    })
    .await?;
    let text = String::from_utf8_lossy(&finished.output);
    unit_in(&text, mode).ok_or_else(|| {
        let said = terminal_text::line(text.trim());
        let reason = format!("it says '{said}' (SSH_TUNNEL): name a unit with --peer-unit");
        failed(connection.host(), what, &reason)
    })
}

/// The last device in SSH_TUNNEL's list, if it is one of `mode`.
fn unit_in(text: &str, mode: Mode) -> Option<Unit> {
    let number = text
        .trim()
        .rsplit(',')
        .next()?
        .strip_prefix(mode.prefix())?;
    // "+1" is a number to Rust, and no unit.
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Unit::new(number.parse().ok()?).ok()
}

/// Does `work` at the far end, but does not wait for ever.
async fn in_time<T>(
    connection: &Connection,
    what: &str,
    limit: Duration,
    work: impl Future<Output = Result<T, FarEndError>>,
) -> Result<T, FarEndError> {
    match timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(failed(connection.host(), what, &no_answer(limit))),
    }
}

fn no_answer(limit: Duration) -> String {
    format!("no answer in {} seconds", limit.as_secs())
}

fn failed(host: &str, what: &str, reason: &str) -> FarEndError {
    let reason = if reason.is_empty() {
        "it failed without a word"
    } else {
        reason
    };
    FarEndError::Step {
        host: host.to_owned(),
        what: what.to_owned(),
        reason: reason.chars().take(REASON_LIMIT).collect(),
    }
}

/// A process on the far end that changes its state and puts it back.
pub struct Holder {
    host: String,
    input: ProcessInput,
    answers: Answers,
    /// Its process id there.
    pid: u32,
}

impl Holder {
    /// Starts it; also finishes what a killed one left undone there.
    pub async fn start(connection: &Connection, privilege: Privilege) -> Result<Self, FarEndError> {
        let started = Self::start_and_recover(connection, privilege);
        in_time(connection, "start a shell there", RECOVERY_TIMEOUT, started).await
    }

    async fn start_and_recover(
        connection: &Connection,
        privilege: Privilege,
    ) -> Result<Self, FarEndError> {
        let sudo = match privilege {
            Privilege::Sudo => "sudo -n ",
            Privilege::Root | Privilege::None => "",
        };
        let command = format!("exec {sudo}sh -c {} sshvpn-hold", quote(HOLD));
        let request = ProcessRequest {
            command: Some(command),
            ..Default::default()
        };
        let process = connection.start(&request).await?;
        let host = connection.host().to_owned();
        let mut holder = Holder {
            answers: Answers::of(process.events, host.clone()),
            host,
            input: process.input,
            pid: 0,
        };
        let mut recovered = false;
        loop {
            let line = holder.answer("start a shell there").await?;
            if let Some(pid) = line.strip_prefix("ready ").and_then(|pid| pid.parse().ok()) {
                holder.pid = pid;
                return Ok(holder);
            }
            if line.starts_with("recovered ") && !recovered {
                recovered = true;
                say(format_args!(
                    "{}: undone what an earlier tunnel left",
                    holder.host
                ));
            }
        }
    }

    /// Does one step, noting first how to undo it; yields what it printed.
    pub async fn step(&mut self, step: &Step) -> Result<String, FarEndError> {
        let lines = self.lines(step)?;
        tracing::debug!(host = self.host, "{}", lines.trim_end());
        // What is there already is no answer to this.
        self.answers.forget();
        let asked = async {
            if self.input.write(lines).await.is_err() {
                return Err(self.failed(&step.what, "the connection is gone"));
            }
            self.answer(&step.what).await
        };
        let answer = match timeout(STEP_TIMEOUT, asked).await {
            Ok(answer) => answer?,
            Err(_) => return Err(self.failed(&step.what, &no_answer(STEP_TIMEOUT))),
        };
        match answer.split_once(' ').unwrap_or((&answer, "")) {
            ("ok", text) => Ok(text.trim().to_owned()),
            ("no", reason) => Err(self.failed(&step.what, reason.trim())),
            _ => Err(self.failed(&step.what, &format!("strange answer '{answer}'"))),
        }
    }

    /// A step as the process there reads it: one line for each command.
    fn lines(&self, step: &Step) -> Result<String, FarEndError> {
        let mut lines = String::new();
        let undo = step.undo.iter().map(|undo| ('U', undo));
        for (mark, command) in undo.chain([('D', &step.command)]) {
            if command.contains('\n') {
                return Err(self.failed(&step.what, "its command is not a single line"));
            }
            let command = match mark {
                'U' => command.replace("$HOLDER", &self.pid.to_string()),
                _ => command.clone(),
            };
            lines.push_str(&format!("{mark} {command}\n"));
        }
        Ok(lines)
    }

    /// Has everything undone; `false` if the far end did not say that it is.
    pub async fn finish(mut self) -> bool {
        self.answers.forget();
        let undone = async {
            if self.input.end().await.is_err() {
                return false;
            }
            while let Some(line) = self.answers.next().await {
                if line == "undone" {
                    return true;
                }
            }
            false
        };
        timeout(UNDO_TIMEOUT, undone).await.unwrap_or(false)
    }

    fn failed(&self, what: &str, reason: &str) -> FarEndError {
        failed(&self.host, what, reason)
    }

    async fn answer(&mut self, what: &str) -> Result<String, FarEndError> {
        match self.answers.next().await {
            Some(line) => Ok(line),
            None => Err(self.failed(what, SHELL_GONE)),
        }
    }
}

/// `text` as one word of a POSIX shell.
pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn quoted_text_is_one_word() {
        let wild = "a'b \"$HOME\" `id` ; \\ \n *";
        let shell = Command::new("sh")
            .arg("-c")
            .arg(format!("printf %s {}", quote(wild)))
            .output();
        assert_eq!(String::from_utf8(shell.unwrap().stdout).unwrap(), wild);
    }

    #[test]
    fn the_programs_are_valid_shell() {
        for program in [HOLD, PROBE] {
            let checked = Command::new("sh").arg("-n").arg("-c").arg(program).status();
            assert!(checked.unwrap().success());
        }
    }
}
