//! Prompts the user on the terminal or through an askpass program (ssh(1), SSH_ASKPASS),
//! and shows lines.

pub(in crate::ssh) mod askpass;
pub mod terminal_text;
pub(in crate::ssh) mod tty;

#[cfg(test)]
pub(in crate::ssh) mod script;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd;
use thiserror::Error;

use super::auth::secret::Secret;
use askpass::{Askpass, Hint, Preference};

use crate::config::invoker::Invoker;
use crate::config::ssh::options::{LogLevel, SshOptions};
use crate::process::message::say;
use tty::NoAnswer;

/// The process's controlling terminal, independent of its standard streams.
const TERMINAL: &str = "/dev/tty";

/// Why a prompt has no answer.
#[derive(Debug, Error)]
pub enum PromptError {
    /// Batch mode is set, or there is neither a terminal nor an askpass program.
    #[error(
        "cannot prompt: BatchMode is set, or there is neither a terminal nor an SSH_ASKPASS program"
    )]
    Unattended,
    /// The user closed the prompt without an answer.
    #[error("the prompt was closed without an answer")]
    GivenUp,
    /// A signal ended the prompt.
    #[error("interrupted")]
    Interrupted,
    /// The answer is not UTF-8.
    #[error("the answer is not valid UTF-8")]
    NotUtf8,
    /// An operation on the terminal failed.
    #[error("cannot prompt on {TERMINAL}")]
    Terminal(#[source] io::Error),
    /// The askpass program could not be run.
    #[error("cannot run the askpass program {}", .0.display())]
    Askpass(std::path::PathBuf, #[source] io::Error),
}

/// Prompts the user and shows lines.
#[derive(Debug, Clone)]
pub struct Prompter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    log_level: LogLevel,
    voice: Voice,
}

#[derive(Debug)]
enum Voice {
    /// A user: terminal, askpass program, standard error.
    Person { batch_mode: bool, askpass: Askpass },
    #[cfg(test)]
    Script(script::Script),
}

impl Prompter {
    /// For the user of this process, with the prompt settings of `options`. An askpass
    /// program runs as the invoker.
    pub fn new(options: &SshOptions, invoker: &Invoker) -> Self {
        let environment = |name: &str| std::env::var_os(name);
        Self::with_environment(options, invoker, environment)
    }

    /// Like [`new`](Self::new), with `environment` instead of the process's environment.
    pub(in crate::ssh) fn with_environment(
        options: &SshOptions,
        invoker: &Invoker,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Self {
        Self(Arc::new(Inner {
            log_level: options.log_level,
            voice: Voice::Person {
                batch_mode: options.batch_mode,
                askpass: Askpass::new(invoker, environment),
            },
        }))
    }

    /// For tests: `script` gives the answers and records what is shown.
    #[cfg(test)]
    pub(in crate::ssh) fn scripted(script: script::Script) -> Self {
        Self(Arc::new(Inner {
            log_level: LogLevel::Info,
            voice: Voice::Script(script),
        }))
    }

    /// Prompts for a secret, without echo.
    pub async fn secret(&self, prompt: &str) -> Result<Secret, PromptError> {
        self.ask(prompt, false).await
    }

    /// Prompts for a line, with echo.
    pub async fn line(&self, prompt: &str) -> Result<String, PromptError> {
        let answer = self.ask(prompt, true).await?;
        Ok(answer.expose().to_owned())
    }

    /// Prompts for yes or no; the answer is no where no prompt is possible.
    pub async fn confirm(&self, prompt: &str) -> Result<bool, PromptError> {
        let answer = match &self.0.voice {
            Voice::Person {
                batch_mode: false,
                askpass,
            } if askpass.preference() == Preference::First => {
                // With this hint an askpass program shows two buttons; its exit status says
                // which one was pressed.
                return match askpass.run(&shown(prompt), Hint::Confirm).await {
                    Ok(answer) => Ok(answer.is_empty() || is_yes(answer.expose())),
                    Err(PromptError::GivenUp) => Ok(false),
                    Err(error) => {
                        self.explain(&error);
                        Err(error)
                    }
                };
            }
            _ => self.line(prompt).await,
        };
        match answer {
            Ok(answer) => Ok(is_yes(&answer)),
            Err(PromptError::Unattended | PromptError::GivenUp) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Shows a line at `LogLevel` ERROR and above.
    pub fn error(&self, text: &str) {
        self.tell(LogLevel::Error, text);
    }

    /// Shows a line at `LogLevel` INFO and above.
    pub fn info(&self, text: &str) {
        self.tell(LogLevel::Info, text);
    }

    fn tell(&self, level: LogLevel, text: &str) {
        if level > self.0.log_level {
            return;
        }
        match &self.0.voice {
            Voice::Person { .. } => say(shown(text)),
            #[cfg(test)]
            Voice::Script(script) => script.told(&shown(text)),
        }
    }

    /// Prompts; shows the reason once if that fails.
    async fn ask(&self, prompt: &str, echo: bool) -> Result<Secret, PromptError> {
        let answer = self.ask_quietly(prompt, echo).await;
        if let Err(error) = &answer {
            self.explain(error);
        }
        answer
    }

    fn explain(&self, error: &PromptError) {
        match error {
            PromptError::Unattended | PromptError::GivenUp | PromptError::Interrupted => {
                tracing::debug!("{error}");
            }
            PromptError::NotUtf8 => self.error(&error.to_string()),
            PromptError::Terminal(source) | PromptError::Askpass(_, source) => {
                self.error(&format!("{error}: {source}"));
            }
        }
    }

    async fn ask_quietly(&self, prompt: &str, echo: bool) -> Result<Secret, PromptError> {
        let prompt = shown(prompt);
        match &self.0.voice {
            Voice::Person {
                batch_mode: true, ..
            } => Err(PromptError::Unattended),
            Voice::Person { askpass, .. } => ask_person(askpass, prompt, echo).await,
            #[cfg(test)]
            Voice::Script(script) => script.answer(&prompt, echo),
        }
    }
}

/// The order of readpass.c: askpass if preferred, else the terminal, else askpass if there
/// is a display.
async fn ask_person(askpass: &Askpass, prompt: String, echo: bool) -> Result<Secret, PromptError> {
    if askpass.preference() == Preference::First {
        return askpass.run(&prompt, Hint::None).await;
    }
    match open_terminal() {
        Ok(terminal) => ask_on(terminal, prompt, echo).await,
        Err(error) if askpass.preference() == Preference::Never => {
            tracing::debug!("no terminal to prompt on: {error}");
            Err(PromptError::Unattended)
        }
        Err(_) => askpass.run(&prompt, Hint::None).await,
    }
}

fn open_terminal() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(TERMINAL)
}

/// Prompts on `terminal`. Dropping the future withdraws the prompt.
async fn ask_on(mut terminal: File, prompt: String, echo: bool) -> Result<Secret, PromptError> {
    let pipe = unistd::pipe2(OFlag::O_CLOEXEC);
    let (withdrawn, _withdraw_on_drop) =
        pipe.map_err(|error| PromptError::Terminal(error.into()))?;
    let asking = tokio::task::spawn_blocking(move || {
        use std::os::fd::AsFd;
        tty::ask(&mut terminal, &prompt, echo, withdrawn.as_fd())
    });
    match asking.await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(NoAnswer::Closed)) => Err(PromptError::GivenUp),
        Ok(Err(NoAnswer::Interrupted | NoAnswer::Withdrawn)) => Err(PromptError::Interrupted),
        Ok(Err(NoAnswer::Io(Errno::EILSEQ))) => Err(PromptError::NotUtf8),
        Ok(Err(NoAnswer::Io(error))) => Err(PromptError::Terminal(error.into())),
        Err(error) => Err(PromptError::Terminal(io::Error::other(error))),
    }
}

fn shown(text: &str) -> String {
    terminal_text::paragraph(text)
}

fn is_yes(answer: &str) -> bool {
    answer.trim().eq_ignore_ascii_case("yes")
}
