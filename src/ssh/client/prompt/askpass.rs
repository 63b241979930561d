//! The askpass program of ssh(1): when to use it, and how to run it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::AsyncReadExt;
use tokio::process::Command;
use zeroize::Zeroizing;

use super::PromptError;
use crate::config::invoker::Invoker;
use crate::ssh::client::auth::secret::Secret;

/// The program that ssh uses when SSH_ASKPASS is not set.
const DEFAULT_PROGRAM: &str = "/usr/bin/ssh-askpass";

/// At most this many bytes of the program's output are read.
const MAX_OUTPUT: u64 = 1023;

/// When to prompt through the program (ssh(1), SSH_ASKPASS_REQUIRE).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ssh) enum Preference {
    /// Instead of on the terminal.
    First,
    /// Only without a terminal.
    WithoutTerminal,
    /// Never.
    Never,
}

/// The kind of prompt, passed to the program in SSH_ASKPASS_PROMPT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ssh) enum Hint {
    /// The prompt asks for a text.
    None,
    /// The prompt asks for yes or no.
    Confirm,
}

/// The program and when to use it.
#[derive(Debug)]
pub(in crate::ssh) struct Askpass {
    program: PathBuf,
    preference: Preference,
    invoker: Invoker,
}

impl Askpass {
    /// Settings from `environment`; the program runs as `invoker`.
    pub(in crate::ssh) fn new(
        invoker: &Invoker,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Self {
        let program = environment("SSH_ASKPASS").unwrap_or_else(|| DEFAULT_PROGRAM.into());
        Self {
            program: program.into(),
            preference: preference(&environment),
            invoker: invoker.clone(),
        }
    }

    pub(in crate::ssh) fn preference(&self) -> Preference {
        self.preference
    }

    /// Runs the program; the answer is the first line of its output.
    pub(in crate::ssh) async fn run(
        &self,
        prompt: &str,
        hint: Hint,
    ) -> Result<Secret, PromptError> {
        let failed = |error| PromptError::Askpass(self.program.clone(), error);
        let mut command = Command::from(self.invoker.command(&self.program));
        command
            .arg(prompt)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        match hint {
            Hint::None => command.env_remove("SSH_ASKPASS_PROMPT"),
            Hint::Confirm => command.env("SSH_ASKPASS_PROMPT", "confirm"),
        };
        let mut child = command.spawn().map_err(failed)?;
        let mut output = Zeroizing::new(Vec::with_capacity(MAX_OUTPUT as usize));
        if let Some(stdout) = child.stdout.take() {
            stdout
                .take(MAX_OUTPUT)
                .read_to_end(&mut output)
                .await
                .map_err(failed)?;
        }
        let status = child.wait().await.map_err(failed)?;
        if !status.success() {
            return Err(PromptError::GivenUp);
        }
        let end = output.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
        let line = output.get(..end.unwrap_or(output.len()));
        let text = std::str::from_utf8(line.unwrap_or_default());
        let text = text.map_err(|_| PromptError::NotUtf8)?;
        Ok(Secret::new(text.to_owned()))
    }
}

/// A display permits the program; SSH_ASKPASS_REQUIRE overrides that.
fn preference(environment: &impl Fn(&str) -> Option<OsString>) -> Preference {
    let display = ["DISPLAY", "WAYLAND_DISPLAY"]
        .into_iter()
        .filter_map(environment)
        .any(|value| !value.is_empty());
    let required = environment("SSH_ASKPASS_REQUIRE").unwrap_or_default();
    match (
        required.to_string_lossy().to_ascii_lowercase().as_str(),
        display,
    ) {
        ("force", _) | ("prefer", true) => Preference::First,
        ("never", _) | (_, false) => Preference::Never,
        (_, true) => Preference::WithoutTerminal,
    }
}
