//! Runs a POSIX sh script on the remote host, whatever the login's shell is.
//!
//! The login's shell gets one line that csh, fish and POSIX shells read alike; the script follows
//! on standard input, so it stands neither in a list of processes nor in an error. What startup
//! files print comes before [`BEGIN`] and is passed over.

use super::quote;

/// The line that `sh` prints before the output of the script.
pub(crate) const BEGIN: &str = "sshvpn-begin";
/// The line that ends the script on standard input.
const END: &str = "sshvpn-end";
/// Reads the script and runs it once [`END`] has come, so a connection that is cut runs no part of
/// it. `read` takes no byte beyond that line, so the rest of standard input is the script's.
/// Without `!`, which csh would expand. `set`: bash as `sh` takes options from an exported SHELLOPTS.
const LOADER: &str = "set +euf; n=$(printf \"\\nx\"); n=${n%x}; s=; while IFS= read -r l; do case $l in \
     sshvpn-end) printf \"\\nsshvpn-begin\\n\"; eval \"$s\"; exit ;; esac; s=$s$l$n; done; exit 1";

/// A script, with its name in the remote list of processes.
pub(crate) struct Script {
    /// The name, `$0`.
    pub name: &'static str,
    /// The lines, none of which is [`END`].
    pub text: &'static str,
}

impl Script {
    /// The command for the login's shell. `by` stands in front of `sh`, such as `sudo -n `;
    /// `arguments` are words without special characters.
    pub fn command(&self, by: &str, arguments: &[String]) -> String {
        let mut command = format!("exec {by}sh -c {} {}", quote(LOADER), self.name);
        for argument in arguments {
            command.push(' ');
            command.push_str(argument);
        }
        command
    }

    /// What goes to its standard input first.
    pub fn input(&self) -> String {
        format!("{}\n{END}\n", self.text.trim_end())
    }
}

/// The command that prints the value of an environment variable behind [`BEGIN`].
pub(super) fn print_variable(name: &str) -> String {
    let line = format!("printf \"\\n{BEGIN}\\n%s\\n\" \"${name}\"");
    format!("exec sh -c {}", quote(&line))
}

/// The output of a script, without what startup files printed before it; `None` where it did not
/// start.
pub(super) fn output(text: &str) -> Option<&str> {
    let mut rest = text;
    while let Some((line, after)) = rest.split_once('\n') {
        if line.trim_end() == BEGIN {
            return Some(after);
        }
        rest = after;
    }
    None
}

#[cfg(test)]
mod tests;
