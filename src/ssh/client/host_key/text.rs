//! The texts about host keys, word for word those of ssh.

use std::path::Path;

use russh::keys::ssh_key::public::KeyData;

use super::key_line;
use super::known_hosts::{KnownHost, KnownHosts};
use crate::config::ssh::options::FingerprintHash;

/// At most this many other names of a key are listed.
const MAX_OTHER_NAMES: usize = 8;

/// The prompt after an invalid answer.
pub(in crate::ssh) const ASK_AGAIN: &str = "Please type 'yes', 'no' or the fingerprint: ";

/// The prompt after an invalid answer where a fingerprint is not accepted.
pub(in crate::ssh) const ASK_AGAIN_YES_NO: &str = "Please type 'yes' or 'no': ";

/// A key that a host presented, and the host's names.
pub(in crate::ssh) struct Presented<'a> {
    /// The lookup name.
    pub(in crate::ssh) host: &'a str,
    /// The address, or ssh's text in its place behind a proxy.
    pub(in crate::ssh) address: &'a str,
    /// The key.
    pub(in crate::ssh) key: &'a KeyData,
    /// The hash of the fingerprint.
    pub(in crate::ssh) hash: FingerprintHash,
}

impl Presented<'_> {
    /// The type of key, for example `ED25519`.
    pub(in crate::ssh) fn kind(&self) -> &'static str {
        key_line::kind(self.key)
    }

    /// The key's fingerprint.
    pub(in crate::ssh) fn fingerprint(&self) -> String {
        key_line::fingerprint(self.key, self.hash)
    }

    /// The prompt to accept an unknown key.
    pub(in crate::ssh) fn question(&self, known: &KnownHosts, home: &Path) -> String {
        format!(
            "The authenticity of host '{} ({})' can't be established.\n\
             {} key fingerprint is {}.\n\
             {}\n\
             Are you sure you want to continue connecting (yes/no/[fingerprint])? ",
            self.host,
            self.address,
            self.kind(),
            self.fingerprint(),
            self.other_names(known, home),
        )
    }

    /// The other names under which the key is known.
    fn other_names(&self, known: &KnownHosts, home: &Path) -> String {
        let lines: Vec<String> = known
            .other_hosts_with(self.key, self.host)
            .map(|line| {
                let file = short(&line.file, home);
                format!("\n    {file}:{}: {}", line.line, line.names)
            })
            .collect();
        if lines.is_empty() {
            return "This key is not known by any other names.".to_owned();
        }
        let shown = lines.iter().take(MAX_OTHER_NAMES).map(String::as_str);
        let mut text = "This host key is known by the following other names/addresses:".to_owned();
        text.extend(shown);
        if let Some(omitted) = lines.len().checked_sub(MAX_OTHER_NAMES).filter(|&n| n > 0) {
            text.push_str(&format!("\n    ({omitted} additional names omitted)"));
        }
        text
    }

    /// The message that an unknown key is refused.
    pub(in crate::ssh) fn unknown(&self) -> String {
        format!(
            "No {} host key is known for {} and you have requested strict checking.",
            self.kind(),
            self.host
        )
    }

    /// The warning about a key that differs from the known one in `line`. The right key
    /// belongs in `file`.
    pub(in crate::ssh) fn changed(&self, line: &KnownHost, file: Option<&Path>) -> String {
        let add = file.map_or_else(String::new, |file| {
            let file = file.display();
            format!("Add correct host key in {file} to get rid of this message.\n")
        });
        format!(
            "{RULER}\n\
             @    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n\
             {RULER}\n\
             IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!\n\
             Someone could be eavesdropping on you right now (man-in-the-middle attack)!\n\
             It is also possible that a host key has just been changed.\n\
             The fingerprint for the {} key sent by the remote host is\n\
             {}.\n\
             Please contact your system administrator.\n\
             {add}Offending {} key in {}:{}\n{}",
            self.kind(),
            self.fingerprint(),
            key_line::kind(&line.key),
            line.file.display(),
            line.line,
            removal(line, self.host),
        )
    }

    /// The message that follows [`Presented::changed`] and refuses the key.
    pub(in crate::ssh) fn changed_and_strict(&self) -> String {
        format!(
            "Host key for {} has changed and you have requested strict checking.",
            self.host
        )
    }

    /// The warning about a revoked key.
    pub(in crate::ssh) fn revoked(&self) -> String {
        format!(
            "{RULER}\n\
             @       WARNING: REVOKED HOST KEY DETECTED!               @\n\
             {RULER}\n\
             The {} host key for {} is marked as revoked.\n\
             This could mean that a stolen key is being used to\n\
             impersonate this host.",
            self.kind(),
            self.host
        )
    }

    /// The message that follows [`Presented::revoked`] and refuses the key.
    pub(in crate::ssh) fn revoked_and_strict(&self) -> String {
        format!(
            "{} host key for {} was revoked and you have requested strict checking.",
            self.kind(),
            self.host
        )
    }

    /// The warning that the keys of the name and the address changed differently. `state`
    /// describes the address's key: "is unknown", "is unchanged", …
    pub(in crate::ssh) fn spoofed(&self, state: &str, line: Option<&KnownHost>) -> String {
        let offending = line.map_or_else(String::new, |line| {
            let place = format!("{}:{}", line.file.display(), line.line);
            let removal = removal(line, self.address);
            format!("\nOffending key for IP in {place}\n{removal}")
        });
        format!(
            "{RULER}\n\
             @       WARNING: POSSIBLE DNS SPOOFING DETECTED!          @\n\
             {RULER}\n\
             The {} host key for {} has changed,\n\
             and the key for the corresponding IP address {}\n\
             {state}. This could either mean that\n\
             DNS SPOOFING is happening or the IP address for the host\n\
             and its host key have changed at the same time.{offending}",
            self.kind(),
            self.host,
            self.address,
        )
    }

    /// The warning that the address has another key, in `offending`; `matching` has the
    /// host's own key.
    pub(in crate::ssh) fn address_differs(
        &self,
        offending: &KnownHost,
        matching: Option<&KnownHost>,
    ) -> String {
        let matching = matching.map_or_else(String::new, |line| {
            let file = line.file.display();
            format!("\nMatching host key in {file}:{}", line.line)
        });
        format!(
            "Warning: the {} host key for '{}' differs from the key for the IP address '{}'\n\
             Offending key for IP in {}:{}{matching}",
            self.kind(),
            self.host,
            self.address,
            offending.file.display(),
            offending.line,
        )
    }
}

const RULER: &str = "@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@";

/// The command that removes the known keys, as Debian's ssh suggests it.
fn removal(line: &KnownHost, host: &str) -> String {
    let file = line.file.display();
    format!("  remove with:\n  ssh-keygen -f \"{file}\" -R \"{host}\"")
}

/// `file` with `~` for the home directory.
fn short(file: &Path, home: &Path) -> String {
    match file.strip_prefix(home) {
        Ok(rest) => format!("~/{}", rest.display()),
        Err(_) => file.display().to_string(),
    }
}
