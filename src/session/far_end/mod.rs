//! The far end of a tunnel on a host that has no sshvpn: what it is like
//! ([`facts`]), what is to be done there ([`steps`]), and a process that does it
//! and undoes it when the connection is gone ([`Holder`]). All of it goes through
//! commands over the same SSH connection.

pub mod facts;
pub mod steps;

use std::time::Duration;

use thiserror::Error;
use tokio::time::timeout;

use crate::message::say;
use crate::ssh::connect::Connection;
use crate::ssh::error::ChannelError;
use crate::ssh::process::{Process, ProcessEvent, ProcessRequest};
use crate::ssh::terminal_text;
use facts::{Facts, FactsError, Privilege};
use steps::Step;

/// The program that holds the far end's state. POSIX sh.
const HOLD: &str = include_str!("hold.sh");
/// The program that tells about the far end. POSIX sh.
const PROBE: &str = include_str!("probe.sh");

/// The most that the probe may print, in bytes; routing tables can be long.
const PROBE_LIMIT: usize = 4 * 1024 * 1024;
/// The longest answer to a step, in bytes.
const LINE_LIMIT: usize = 64 * 1024;
/// The part of a far end's complaint that is shown, in characters.
const REASON_LIMIT: usize = 300;
/// How long a step may take at the far end.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);
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
    let finished = connection.run(&command, PROBE_LIMIT).await?;
    let text = String::from_utf8_lossy(&finished.output);
    let complaint = String::from_utf8_lossy(&finished.error_output);
    Ok(facts::parse(connection.host(), &text, &complaint)?)
}

/// The name of the device that sshd opened for our tunnel, which is known only
/// to commands started after it (sshd's `SSH_TUNNEL`).
pub async fn opened_device(connection: &Connection) -> Result<String, FarEndError> {
    let finished = connection.run("echo \"$SSH_TUNNEL\"", LINE_LIMIT).await?;
    let text = String::from_utf8_lossy(&finished.output);
    Ok(text
        .trim()
        .rsplit(',')
        .next()
        .unwrap_or_default()
        .to_owned())
}

/// A process on the far end that changes its state and puts it back.
pub struct Holder {
    host: String,
    process: Process,
    /// Its process id there.
    pid: u32,
    unread: Vec<u8>,
}

impl Holder {
    /// Starts it; also finishes what a killed one left undone there.
    pub async fn start(connection: &Connection, privilege: Privilege) -> Result<Self, FarEndError> {
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
            host,
            process,
            pid: 0,
            unread: Vec::new(),
        };
        loop {
            let line = holder.answer("start a shell there").await?;
            if let Some(pid) = line.strip_prefix("ready ").and_then(|pid| pid.parse().ok()) {
                holder.pid = pid;
                return Ok(holder);
            }
            if line.starts_with("recovered ") {
                say(format_args!(
                    "{}: undone what an earlier tunnel left",
                    holder.host
                ));
            }
        }
    }

    /// Does one step, noting first how to undo it; yields what it printed.
    pub async fn step(&mut self, step: &Step) -> Result<String, FarEndError> {
        let mut lines = String::new();
        for undo in &step.undo {
            lines.push_str(&format!(
                "U {}\n",
                undo.replace("$HOLDER", &self.pid.to_string())
            ));
        }
        lines.push_str(&format!("D {}\n", step.command));
        tracing::debug!(host = self.host, "{}", lines.trim_end());
        if self.process.input.write(lines).await.is_err() {
            return Err(self.lost(&step.what, "the connection is gone"));
        }
        let answer = self.answer(&step.what).await?;
        match answer.split_once(' ').unwrap_or((&answer, "")) {
            ("ok", text) => Ok(text.trim().to_owned()),
            ("no", reason) => Err(self.lost(&step.what, reason.trim())),
            _ => Err(self.lost(&step.what, &format!("strange answer '{answer}'"))),
        }
    }

    /// Has everything undone; `false` if the far end did not say that it is.
    pub async fn finish(mut self) -> bool {
        let undone = async {
            // A connection that hangs does not even take the end of the input.
            if self.process.input.end().await.is_err() {
                return false;
            }
            loop {
                match self.line().await {
                    Some(line) if line == "undone" => return true,
                    Some(_) => {}
                    None => return false,
                }
            }
        };
        timeout(UNDO_TIMEOUT, undone).await.unwrap_or(false)
    }

    fn lost(&self, what: &str, reason: &str) -> FarEndError {
        let reason = if reason.is_empty() {
            "it failed without a word"
        } else {
            reason
        };
        FarEndError::Step {
            host: self.host.clone(),
            what: what.to_owned(),
            reason: reason.chars().take(REASON_LIMIT).collect(),
        }
    }

    async fn answer(&mut self, what: &str) -> Result<String, FarEndError> {
        match timeout(STEP_TIMEOUT, self.line()).await {
            Ok(Some(line)) => Ok(line),
            Ok(None) => Err(self.lost(what, "the shell there ended or the connection is gone")),
            Err(_) => Err(self.lost(what, "no answer in 30 seconds")),
        }
    }

    /// The next line of its output, fit to be shown; nothing at its end.
    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                let text = String::from_utf8_lossy(&line);
                return Some(terminal_text::line(text.trim_end()));
            }
            if self.unread.len() > LINE_LIMIT {
                return None;
            }
            match self.process.events.next().await? {
                ProcessEvent::Output(data) => self.unread.extend_from_slice(&data),
                ProcessEvent::ErrorOutput(data) => {
                    let text = String::from_utf8_lossy(&data);
                    tracing::debug!(host = self.host, "{}", terminal_text::line(&text));
                }
                ProcessEvent::OutputEnd | ProcessEvent::Exited(_) => {}
            }
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
