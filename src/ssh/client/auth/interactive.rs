//! The methods that prompt the user: `password` (RFC 4252, section 8) and
//! `keyboard-interactive` (RFC 4256).

use russh::client::{AuthResult, Handle, Handler, KeyboardInteractiveAuthResponse, Prompt};

use super::secret::Secret;
use super::{Attempt, AuthError, Person};
use crate::ssh::client::prompt::PromptError;
use crate::ssh::client::prompt::terminal_text;

/// At most this many rounds of questions, and questions per round, are answered: far more
/// than any login needs.
const MAX_ROUNDS: usize = 100;
const MAX_QUESTIONS: usize = 100;

/// Counts how often the user was prompted.
#[derive(Debug, Default)]
pub(in crate::ssh) struct Interactive {
    passwords: u32,
    dialogues: u32,
    /// Whether the server asked a question in one of the dialogues.
    was_asked: bool,
}

impl Interactive {
    /// Prompts for the password and sends it.
    pub(in crate::ssh) async fn password<H: Handler>(
        &mut self,
        handle: &mut Handle<H>,
        person: &Person<'_>,
    ) -> Result<Attempt, AuthError> {
        let options = person.options;
        if self.passwords >= options.number_of_password_prompts {
            return Ok(Attempt::NothingToSend);
        }
        self.passwords += 1;
        if self.passwords > 1 {
            person
                .prompter
                .error("Permission denied, please try again.");
        }
        let prompt = format!("{}@{}'s password: ", options.user, host_shown(person));
        let password = match person.prompter.secret(&prompt).await {
            Ok(password) => password,
            Err(PromptError::Interrupted) => return Err(AuthError::Interrupted),
            Err(error) => {
                tracing::debug!("no password: {error}");
                return Ok(Attempt::NothingToSend);
            }
        };
        let answer = handle
            .authenticate_password(&options.user, password.expose())
            .await
            .map_err(|error| person.failed(error))?;
        Ok(Attempt::Answered(answer))
    }

    /// Runs one dialogue with the server.
    pub(in crate::ssh) async fn keyboard_interactive<H: Handler>(
        &mut self,
        handle: &mut Handle<H>,
        person: &Person<'_>,
    ) -> Result<Attempt, AuthError> {
        let enough = self.dialogues >= person.options.number_of_password_prompts;
        if enough || (self.dialogues > 0 && !self.was_asked) {
            return Ok(Attempt::NothingToSend);
        }
        self.dialogues += 1;
        let mut answer = handle
            .authenticate_keyboard_interactive_start(&person.options.user, None)
            .await
            .map_err(|error| person.failed(error))?;
        let mut unattended = false;
        for _ in 0..MAX_ROUNDS {
            let (name, instructions, prompts) = match answer {
                KeyboardInteractiveAuthResponse::Success => {
                    return Ok(Attempt::Answered(AuthResult::Success));
                }
                KeyboardInteractiveAuthResponse::Failure {
                    remaining_methods,
                    partial_success,
                } => {
                    if unattended {
                        // Another dialogue would end in the same way.
                        self.dialogues = person.options.number_of_password_prompts;
                    }
                    return Ok(Attempt::Answered(AuthResult::Failure {
                        remaining_methods,
                        partial_success,
                    }));
                }
                KeyboardInteractiveAuthResponse::InfoRequest {
                    name,
                    instructions,
                    prompts,
                } => (name, instructions, prompts),
            };
            self.was_asked = true;
            for text in [name, instructions].iter().filter(|text| !text.is_empty()) {
                person.prompter.info(text);
            }
            let responses = respond(&prompts, person).await?;
            unattended |= responses.is_none();
            // The protocol requires an answer to each question; where no prompt is possible
            // the answers are empty, like ssh's.
            let responses = responses.unwrap_or_else(|| vec![Secret::default(); prompts.len()]);
            let responses = responses.iter().map(|secret| secret.expose().to_owned());
            answer = handle
                .authenticate_keyboard_interactive_respond(responses.collect())
                .await
                .map_err(|error| person.failed(error))?;
        }
        Err(too_many(person))
    }
}

/// The user's answers; `None` where no prompt is possible.
async fn respond(
    prompts: &[Prompt],
    person: &Person<'_>,
) -> Result<Option<Vec<Secret>>, AuthError> {
    if prompts.len() > MAX_QUESTIONS {
        return Err(too_many(person));
    }
    let mut responses = Vec::with_capacity(prompts.len());
    for prompt in prompts {
        let text = terminal_text::paragraph(&prompt.prompt);
        let text = format!("({}@{}) {text}", person.options.user, host_shown(person));
        let answer = match prompt.echo {
            true => person.prompter.line(&text).await.map(Secret::new),
            false => person.prompter.secret(&text).await,
        };
        match answer {
            Ok(answer) => responses.push(answer),
            Err(PromptError::Interrupted) => return Err(AuthError::Interrupted),
            Err(error) => {
                tracing::debug!("no answer: {error}");
                return Ok(None);
            }
        }
    }
    Ok(Some(responses))
}

fn too_many(person: &Person<'_>) -> AuthError {
    AuthError::TooManyQuestions {
        host: person.host(),
    }
}

/// The host in prompts: the alias, if there is one.
fn host_shown(person: &Person<'_>) -> String {
    let alias = person.options.host_key_alias.clone();
    alias.unwrap_or_else(|| person.host())
}
