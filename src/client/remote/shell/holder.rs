//! The process on the remote end that makes the changes there, holds them while the
//! tunnel is up, and puts everything back when its input ends.

use std::time::Duration;

use tokio::time::timeout;

use super::answers::Answers;
use super::facts::Privilege;
use super::steps::Step;
use super::{RemoteShellError, STEP_TIMEOUT, failed, in_time, no_answer, quote};
use crate::process::message::say;
use crate::ssh::channel::process::{ProcessInput, ProcessRequest};
use crate::ssh::client::connect::Connection;

/// The program that holds the remote end's state. POSIX sh.
pub(super) const HOLD: &str = include_str!("hold.sh");
/// How long it may take to start, which includes undoing what others left.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(60);
/// What is said when no answer will come.
const SHELL_GONE: &str = "the shell there ended or the connection is gone";
/// How long the remote end may take to undo its part before we leave it to do so
/// by itself.
const UNDO_TIMEOUT: Duration = Duration::from_secs(10);

/// A process on the remote end that changes its state and puts it back.
pub struct Holder {
    host: String,
    input: ProcessInput,
    pub(super) answers: Answers,
    /// Its process id there.
    pid: u32,
}

impl Holder {
    /// Starts it; also finishes what a killed one left undone there.
    pub async fn start(
        connection: &Connection,
        privilege: Privilege,
    ) -> Result<Self, RemoteShellError> {
        let started = Self::start_and_recover(connection, privilege);
        in_time(connection, "start a shell there", RECOVERY_TIMEOUT, started).await
    }

    async fn start_and_recover(
        connection: &Connection,
        privilege: Privilege,
    ) -> Result<Self, RemoteShellError> {
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
    pub async fn step(&mut self, step: &Step) -> Result<String, RemoteShellError> {
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
    fn lines(&self, step: &Step) -> Result<String, RemoteShellError> {
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

    /// Has everything undone; `false` if the remote end did not say that it is.
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

    fn failed(&self, what: &str, reason: &str) -> RemoteShellError {
        failed(&self.host, what, reason)
    }

    async fn answer(&mut self, what: &str) -> Result<String, RemoteShellError> {
        match self.answers.next().await {
            Some(line) => Ok(line),
            None => Err(self.failed(what, SHELL_GONE)),
        }
    }
}
