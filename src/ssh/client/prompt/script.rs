//! A user made of a list of answers, for tests of what asks and tells.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::PromptError;
use crate::ssh::client::auth::secret::Secret;

/// Answers in order, and what was asked and shown. Clones share both.
#[derive(Debug, Clone, Default)]
pub(in crate::ssh) struct Script(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    answers: VecDeque<String>,
    /// Prompts and lines, in the order in which the user sees them.
    seen: Vec<String>,
    /// For each prompt, whether the answer was echoed.
    echoes: Vec<bool>,
}

impl Script {
    /// A user with these answers; after them, nobody is there to be asked.
    pub(in crate::ssh) fn new(answers: &[&str]) -> Self {
        let script = Self::default();
        script.0.lock().unwrap().answers = answers.iter().map(|&text| text.to_owned()).collect();
        script
    }

    pub(in crate::ssh) fn answer(&self, prompt: &str, echo: bool) -> Result<Secret, PromptError> {
        let mut state = self.0.lock().unwrap();
        let Some(answer) = state.answers.pop_front() else {
            return Err(PromptError::Unattended);
        };
        state.seen.push(prompt.to_owned());
        state.echoes.push(echo);
        Ok(Secret::new(answer))
    }

    pub(in crate::ssh) fn told(&self, line: &str) {
        self.0.lock().unwrap().seen.push(line.to_owned());
    }

    /// Prompts and lines so far.
    pub(in crate::ssh) fn seen(&self) -> Vec<String> {
        self.0.lock().unwrap().seen.clone()
    }

    /// Whether the answers were echoed, prompt by prompt.
    pub(in crate::ssh) fn echoes(&self) -> Vec<bool> {
        self.0.lock().unwrap().echoes.clone()
    }
}
