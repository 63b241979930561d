//! The word that the user gives to one keyword, where the output of `ssh -G` does not show it.

use std::path::Path;

use tracing::debug;

use super::Reader;
use super::line::Line;
use crate::config::error::ConfigError;
use crate::config::invoker::Invoker;
use crate::config::ssh::args::SshArgs;
use crate::config::ssh::values::SshValues;

/// The word of `key` that applies to the destination of `args`, as it is written; `None` if there
/// is none, or if it cannot be found. `values` are the settings from ssh. Runs no commands: a
/// `Match exec` counts as failed.
pub(crate) fn first_word(
    key: &str,
    args: &SshArgs,
    values: &SshValues,
    invoker: &Invoker,
) -> Option<String> {
    match read_word(key, args, values, invoker) {
        Ok(word) => word,
        Err(error) => {
            debug!("{key}: cannot read how it is configured: {error}");
            None
        }
    }
}

fn read_word(
    key: &str,
    args: &SshArgs,
    values: &SshValues,
    invoker: &Invoker,
) -> Result<Option<String>, ConfigError> {
    let mut reader = Reader::new(Path::new("/etc/ssh"), args, invoker)?;
    reader.runs_commands = false;
    if !reader.collected.values.contains(key) {
        reader.read_files(args)?;
    }
    if reader.wants_final_pass && !reader.collected.values.contains(key) {
        // ssh has found the host's final name.
        let name = values.first("hostname").unwrap_or(&reader.typed_host);
        reader
            .collected
            .values
            .set("hostname", vec![name.to_owned()]);
        reader.final_pass = true;
        reader.read_files(args)?;
    }
    Ok(reader.collected.values.first(key).map(str::to_owned))
}

/// The word of `key` in one option of `-o`.
pub(crate) fn word_in_option(key: &str, option: &str) -> Option<String> {
    let line = Line::parse(option).ok().flatten()?;
    let word = line.only_word().ok()?;
    (line.keyword == key).then(|| word.to_owned())
}
