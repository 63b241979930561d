//! Reads the settings from ssh's files, on hosts without an ssh program. The crate ssh2-config
//! supports neither `Match` nor `-o`.
//!
//! The result is the output of `ssh -G`, except for defaults.

mod algorithms;
mod collected;
mod conditions;
mod files;
mod keywords;
mod line;
mod settle;
mod word;

#[cfg(test)]
mod agreement_tests;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub(crate) use algorithms::assemble;
use collected::Collected;
use line::Line;
use tracing::warn;
pub(crate) use word::{first_word, word_in_option};

use super::args::{AddressFamily, SshArgs};
use super::options_build;
use super::tokens::{Tokens, expand_host_name};
use super::values::SshValues;
use crate::config::error::ConfigError;
use crate::config::invoker::Invoker;

/// The values for `args` that differ from the defaults. `defaults` provides the lists that a
/// leading `+`, `-` or `^` changes.
pub(crate) fn read(
    args: &SshArgs,
    invoker: &Invoker,
    defaults: &SshValues,
) -> Result<SshValues, ConfigError> {
    read_below(Path::new("/etc/ssh"), args, invoker, defaults)
}

/// The same, with the system's files in `system`.
fn read_below(
    system: &Path,
    args: &SshArgs,
    invoker: &Invoker,
    defaults: &SshValues,
) -> Result<SshValues, ConfigError> {
    let mut reader = Reader::new(system, args, invoker)?;
    let user_given = reader.collected.values.contains("user");
    reader.read_files(args)?;
    reader.settle_host_name()?;
    if reader.wants_final_pass {
        reader.final_pass = true;
        reader.read_files(args)?;
    }
    settle::finish(reader, defaults, user_given)
}

/// One reading of all files.
struct Reader<'a> {
    collected: Collected,
    invoker: &'a Invoker,
    /// The directory of the system's files.
    system: &'a Path,
    typed_host: String,
    command: String,
    /// Whether the host's name is final, and the files are read again.
    final_pass: bool,
    wants_final_pass: bool,
    /// Whether the commands of `Match exec` run; if not, they count as failed.
    runs_commands: bool,
}

impl<'a> Reader<'a> {
    /// A reader that has taken the values of `args`.
    fn new(system: &'a Path, args: &SshArgs, invoker: &'a Invoker) -> Result<Self, ConfigError> {
        let destination = args.destination()?;
        let mut reader = Reader {
            collected: Collected::default(),
            invoker,
            system,
            typed_host: destination.host,
            command: args.command.join(" "),
            final_pass: false,
            wants_final_pass: false,
            runs_commands: true,
        };
        reader.take_arguments(args, destination.user, destination.port)?;
        Ok(reader)
    }

    /// Takes the values of the command line, which come first and therefore take precedence.
    fn take_arguments(
        &mut self,
        args: &SshArgs,
        user: Option<String>,
        port: Option<u16>,
    ) -> Result<(), ConfigError> {
        let wrong = |problem| on_command_line("", problem);
        let family = args.address_family.map(|family| match family {
            AddressFamily::Any => "any",
            AddressFamily::Inet => "inet",
            AddressFamily::Inet6 => "inet6",
        });
        for (key, value) in [
            ("port", args.port.map(|port| port.to_string())),
            ("user", args.login.clone()),
            ("bindaddress", args.bind_address.clone()),
            ("bindinterface", args.bind_interface.clone()),
            ("ciphers", args.ciphers.clone()),
            ("macs", args.macs.clone()),
            ("addressfamily", family.map(str::to_owned)),
        ] {
            if let Some(value) = value {
                self.collected.set_first(key, vec![value]);
            }
        }
        if let Some(list) = &args.jump {
            self.collected.proxy_jump(list, true).map_err(wrong)?;
        }
        self.take_identities(&args.identities)?;
        for option in &args.options {
            let wrong = |problem| on_command_line(option, problem);
            if let Some(line) = Line::parse(option).map_err(wrong)? {
                self.collected.kind(&line).map_err(wrong)?;
                self.collected.apply(&line, true).map_err(wrong)?;
            }
        }
        if let Some(device) = args.tunnel_device {
            let device = format!("{}:{}", device.local, device.remote);
            self.collected.values.set("tunneldevice", vec![device]);
            self.collected.set_first("tunnel", vec!["yes".into()]);
        }
        for (key, value) in [("user", user), ("port", port.map(|port| port.to_string()))] {
            if let Some(value) = value {
                self.collected.set_first(key, vec![value]);
            }
        }
        Ok(())
    }

    /// `-i`: ssh skips missing files with a warning.
    fn take_identities(&mut self, identities: &[PathBuf]) -> Result<(), ConfigError> {
        for identity in identities {
            let path = identity.to_string_lossy().into_owned();
            let file = self.invoker.expand_tilde(&path)?;
            if let Err(error) = self.invoker.act(|| file.metadata()) {
                warn!("identity file {path} not accessible: {error}");
                continue;
            }
            let added = self.collected.add("identityfile", path);
            added.map_err(|problem| on_command_line("-i", problem))?;
        }
        Ok(())
    }

    /// The present name of the host: `HostName` applies immediately.
    fn host_name(&self) -> Result<String, ConfigError> {
        match self.collected.values.first("hostname") {
            Some(name) if self.final_pass => Ok(name.to_owned()),
            Some(name) => expand_host_name(name, &self.typed_host),
            None => Ok(self.typed_host.clone()),
        }
    }

    /// The tokens from the present values.
    fn tokens(&self) -> Result<Tokens, ConfigError> {
        let values = &self.collected.values;
        let mut tokens = options_build::tokens(values, &self.typed_host, self.invoker)?;
        tokens.host = self.host_name()?;
        if !values.contains("hostkeyalias") {
            tokens.key_alias.clone_from(&tokens.host);
        }
        Ok(tokens)
    }
}

fn on_command_line(option: &str, problem: String) -> ConfigError {
    ConfigError::Line {
        place: format!("command line {option}").trim_end().to_owned(),
        problem,
    }
}
