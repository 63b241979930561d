//! Runs the process on the remote host that makes the changes there, holds them while the tunnel
//! is up, and undoes them when its input ends.

use std::time::Duration;

use tokio::time::timeout;

use super::answers::Answers;
use super::facts::Privilege;
use super::script::Script;
use super::steps::Step;
use super::{RemoteShellError, STEP_TIMEOUT, failed, in_time, no_answer};
use crate::process::message::say;
use crate::ssh::channel::process::{ProcessInput, ProcessRequest};
use crate::ssh::client::connect::Connection;

/// The script that holds the remote host's state. POSIX sh.
pub(super) const HOLD: &str = include_str!("hold.sh");
/// Limit for its start, which includes undoing what earlier processes left.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(60);
/// The reason when no answer can come.
const SHELL_GONE: &str = "the remote shell ended or the connection is closed";
/// Limit for the remote host to undo its part, after which it is left to do so by itself.
const UNDO_TIMEOUT: Duration = Duration::from_secs(10);

/// A remote process that changes its host's state and undoes that.
pub struct Holder {
    host: String,
    input: ProcessInput,
    pub(super) answers: Answers,
    /// Its process id on the remote host.
    pid: u32,
}

impl Holder {
    /// Starts it; it also undoes what killed predecessors left.
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
        let script = Script {
            name: "sshvpn-hold",
            text: HOLD,
        };
        let request = ProcessRequest {
            command: Some(script.command(sudo, &[])),
            ..Default::default()
        };
        let process = connection.start(&request).await?;
        let host = connection.host().to_owned();
        if process.input.write(script.input()).await.is_err() {
            return Err(failed(&host, "start a shell there", SHELL_GONE));
        }
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
                    "{}: undone the changes that an earlier tunnel left",
                    holder.host
                ));
            }
        }
    }

    /// Does one step, after it has noted how to undo it; returns its output.
    pub async fn step(&mut self, step: &Step) -> Result<String, RemoteShellError> {
        let lines = self.lines(step)?;
        tracing::debug!(host = self.host, "{}", lines.trim_end());
        // Earlier lines are no answers to this step.
        self.answers.forget();
        let asked = async {
            if self.input.write(lines).await.is_err() {
                return Err(self.failed(&step.what, "the connection is closed"));
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
            _ => Err(self.failed(&step.what, &format!("unexpected answer '{answer}'"))),
        }
    }

    /// A step in the process's input format: one line per command.
    fn lines(&self, step: &Step) -> Result<String, RemoteShellError> {
        let mut lines = String::new();
        let undo = step.undo.iter().map(|undo| ('U', undo));
        for (mark, command) in undo.chain([('D', &step.command)]) {
            if command.contains('\n') {
                return Err(self.failed(&step.what, "its command has more than one line"));
            }
            let command = match mark {
                'U' => command.replace("$HOLDER", &self.pid.to_string()),
                _ => command.clone(),
            };
            lines.push_str(&format!("{mark} {command}\n"));
        }
        Ok(lines)
    }

    /// Has everything undone; `false` if the remote host did not confirm it.
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
