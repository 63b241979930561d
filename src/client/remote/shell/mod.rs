//! Sets up a remote host without sshvpn, by shell commands over the same SSH connection: its facts
//! ([`facts`]), the steps ([`steps`]), and a process that does them, and undoes them when the
//! connection ends ([`Holder`]).

mod answers;
pub mod facts;
pub mod firewall;
mod holder;
pub mod routed;
pub(crate) mod script;
pub mod steps;

#[cfg(test)]
mod beside_agent_tests;
#[cfg(test)]
mod hold_tests;
#[cfg(test)]
mod hostile_tests;

use std::future::Future;
use std::time::Duration;

use thiserror::Error;
use tokio::time::timeout;

use crate::link::last_words::{LastWords, last_lines};
use crate::ssh::channel::process::Finished;
use crate::ssh::client::connect::Connection;
use crate::ssh::client::prompt::terminal_text;
use crate::ssh::error::ChannelError;
use crate::types::{Mode, Unit};
use facts::{FactsError, RemoteFacts};
pub use holder::Holder;
use script::Script;

/// The script that reports the remote host's facts. POSIX sh.
const PROBE: &str = include_str!("probe.sh");

/// Bytes that the probe may print, at most; routing tables can be long.
const PROBE_LIMIT: usize = 4 * 1024 * 1024;
/// Bytes of the answer about the device, at most.
const DEVICE_LIMIT: usize = 4096;
/// Characters of a remote error that are shown, at most.
const REASON_LIMIT: usize = 300;
/// Limit for the probe; `sudo` and routing tables can be slow.
const PROBE_TIMEOUT: Duration = Duration::from_secs(60);
/// Limit for one step.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);

/// Errors of the remote host.
#[derive(Debug, Error)]
pub enum RemoteShellError {
    /// The connection or a command on it failed.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The remote host cannot be used.
    #[error(transparent)]
    RemoteFacts(#[from] FactsError),
    /// A step failed.
    #[error("{host}: cannot {what}: {reason}")]
    Step {
        /// The remote end.
        host: String,
        /// The action that failed.
        what: String,
        /// The remote error text.
        reason: String,
    },
}

/// Reads the remote host's facts, with the interfaces by which it reaches `ways`.
pub async fn probe(
    connection: &Connection,
    ways: &[std::net::IpAddr],
) -> Result<RemoteFacts, RemoteShellError> {
    let script = Script {
        name: "sshvpn-probe",
        text: PROBE,
    };
    let ways: Vec<String> = ways.iter().map(ToString::to_string).collect();
    let command = script.command("", &ways);
    let finished = in_time(connection, "look at it", PROBE_TIMEOUT, async {
        let run = connection.run("a shell", &command, script.input(), PROBE_LIMIT);
        Ok(run.await?)
    })
    .await?;
    let text = String::from_utf8_lossy(&finished.output);
    Ok(facts::parse(
        connection.host(),
        &text,
        &how_it_ended(&finished),
    )?)
}

/// What a process printed, its error output last, and how it ended.
fn how_it_ended(finished: &Finished) -> String {
    let words = LastWords::default();
    words.heard(&finished.error_output);
    if let Some(exit) = &finished.exit {
        words.ended(exit.clone());
    }
    match last_lines(&finished.output) {
        printed if printed.is_empty() => words.to_string(),
        printed => format!("it printed \"{printed}\"; {words}"),
    }
}

/// The unit of the device that sshd opened for this tunnel. Only commands that start after it know
/// it (sshd's `SSH_TUNNEL`).
pub async fn opened_unit(connection: &Connection, mode: Mode) -> Result<Unit, RemoteShellError> {
    let what = "learn which device it opened";
    let finished = in_time(connection, what, STEP_TIMEOUT, async {
        let command = script::print_variable("SSH_TUNNEL");
        let run = connection.run("a shell", &command, "", DEVICE_LIMIT);
        Ok(run.await?)
    })
    .await?;
    let text = String::from_utf8_lossy(&finished.output);
    let text = script::output(&text).unwrap_or(&text);
    unit_in(text, mode).ok_or_else(|| {
        let said = terminal_text::line(text.trim());
        let reason = format!("its SSH_TUNNEL is '{said}': give the unit with --peer-unit");
        failed(connection.host(), what, &reason)
    })
}

/// The unit of the last device in SSH_TUNNEL's list, if it is of `mode`.
fn unit_in(text: &str, mode: Mode) -> Option<Unit> {
    unit_of(text.trim().rsplit(',').next()?, mode)
}

/// The unit of the device `name`, if it is of `mode`.
fn unit_of(name: &str, mode: Mode) -> Option<Unit> {
    let number = name.strip_prefix(mode.prefix())?;
    // Rust parses "+1" as a number, but it is no unit.
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Unit::new(number.parse().ok()?).ok()
}

/// Runs `work` with a time limit.
async fn in_time<T>(
    connection: &Connection,
    what: &str,
    limit: Duration,
    work: impl Future<Output = Result<T, RemoteShellError>>,
) -> Result<T, RemoteShellError> {
    match timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(failed(connection.host(), what, &no_answer(limit))),
    }
}

fn no_answer(limit: Duration) -> String {
    format!("no answer in {} seconds", limit.as_secs())
}

fn failed(host: &str, what: &str, reason: &str) -> RemoteShellError {
    let reason = if reason.is_empty() {
        "it failed without a message"
    } else {
        reason
    };
    RemoteShellError::Step {
        host: host.to_owned(),
        what: what.to_owned(),
        reason: reason.chars().take(REASON_LIMIT).collect(),
    }
}

/// Quotes `text` as one word of a POSIX shell.
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
        for program in [holder::HOLD, PROBE, firewall::FIREWALL] {
            let checked = Command::new("sh").arg("-n").arg("-c").arg(program).status();
            assert!(checked.unwrap().success());
        }
    }
}
