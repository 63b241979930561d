//! A simulated user with a list of answers, for tests of prompts and messages.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::PromptError;
use crate::ssh::client::auth::secret::Secret;

/// Gives answers in order and records prompts and messages. Clones share both.
#[derive(Debug, Clone, Default)]
pub(in crate::ssh) struct Script(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    answers: VecDeque<String>,
    /// Prompts and lines, in the order shown.
    seen: Vec<String>,
    /// For each prompt, whether the answer was echoed.
    echoes: Vec<bool>,
}

impl Script {
    /// A user with these answers; after the last one no prompt is possible.
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

    /// The prompts and lines so far.
    pub(in crate::ssh) fn seen(&self) -> Vec<String> {
        self.0.lock().unwrap().seen.clone()
    }

    /// For each prompt so far, whether the answer was echoed.
    pub(in crate::ssh) fn echoes(&self) -> Vec<bool> {
        self.0.lock().unwrap().echoes.clone()
    }
}
