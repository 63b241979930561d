//! Adds ML-KEM to the key exchanges of an ssh program that does not know it (OpenSSH before 9.9),
//! as far as the user's KexAlgorithms leaves room for it.
//!
//! Such a program prints the same list for `KexAlgorithms -mlkem768x25519-sha256` as without any, so
//! the user's own word is read from the command line and from the files.

use std::borrow::Cow;

use super::args::SshArgs;
use super::ask_ssh::SshAnswer;
use super::file;
use super::values::SshValues;
use crate::config::invoker::Invoker;

/// The keyword.
const KEX: &str = "kexalgorithms";
/// The hybrid of ML-KEM and X25519.
const ML_KEM: &str = "mlkem768x25519-sha256";

/// Whether the ssh program knows ML-KEM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MlKem {
    /// Its lists are complete.
    Known,
    /// sshvpn adds it.
    Unknown,
}

impl MlKem {
    /// The program with these `defaults`.
    pub fn of(defaults: &SshValues) -> Self {
        let list = defaults.first(KEX).unwrap_or_default();
        match list.is_empty() || list.split(',').any(|name| name == ML_KEM) {
            true => MlKem::Known,
            false => MlKem::Unknown,
        }
    }

    /// The arguments for the program, which refuses a name that it does not know.
    pub fn arguments(self, args: &SshArgs) -> Cow<'_, SshArgs> {
        if self == MlKem::Known || !args.options.iter().any(|option| option.contains(ML_KEM)) {
            return Cow::Borrowed(args);
        }
        let options = args.options.iter().filter_map(|option| {
            let Some(word) = file::word_in_option(KEX, option) else {
                return Some(option.clone());
            };
            let word = without_ml_kem(&word)?;
            Some(format!("KexAlgorithms={word}"))
        });
        Cow::Owned(SshArgs {
            options: options.collect(),
            ..args.clone()
        })
    }

    /// Adds it to the lists of the program's `answer` for `args`.
    pub fn add(self, answer: &mut SshAnswer, args: &SshArgs, invoker: &Invoker) {
        if self == MlKem::Known {
            return;
        }
        let old = answer.defaults.first(KEX).unwrap_or_default().to_owned();
        let new = format!("{ML_KEM},{old}");
        let listed = answer.values.first(KEX).unwrap_or_default().to_owned();
        let list = match file::first_word(KEX, args, &answer.values, invoker) {
            None => (listed == old).then(|| new.clone()),
            Some(word) => complete(&word, &listed, &old, &new),
        };
        if let Some(list) = list {
            answer.values.set(KEX, vec![list]);
        }
        answer.defaults.set(KEX, vec![new]);
    }
}

/// The list that the user's `word` makes of the `new` default list; `None` if the program made
/// another list than `listed` of it and the `old` one.
fn complete(word: &str, listed: &str, old: &str, new: &str) -> Option<String> {
    let known = without_ml_kem(word);
    let agrees =
        known.is_none_or(|word| file::assemble(KEX, &word, old).as_deref() == Some(listed));
    match agrees {
        true => file::assemble(KEX, word, new),
        false => None,
    }
}

/// A list without the name of ML-KEM; `None` if it names nothing else. What a list takes away stays:
/// it may be a name that the program does not know.
fn without_ml_kem(word: &str) -> Option<String> {
    let (sign, names) = match word.split_at_checked(1) {
        Some(("-", _)) => return Some(word.to_owned()),
        Some((sign @ ("+" | "^"), names)) => (sign, names),
        _ => ("", word),
    };
    let names: Vec<&str> = names.split(',').filter(|name| *name != ML_KEM).collect();
    (!names.is_empty()).then(|| format!("{sign}{}", names.join(",")))
}

#[cfg(test)]
mod tests;
