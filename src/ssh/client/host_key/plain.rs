//! Decides about a plain host key: known, new, changed or revoked (check_host_key of
//! OpenSSH).

use std::path::PathBuf;

use russh::keys::ssh_key::public::KeyData;

use super::known_hosts::{KeyStatus, KnownHost, KnownHosts};
use super::text::{ASK_AGAIN, ASK_AGAIN_YES_NO, Presented};
use super::{HostKeyError, HostTrust, Inner};
use crate::config::ssh::options::StrictHostKeyChecking;

/// At most this many answers are read: an askpass program without a user would never stop.
const MAX_ANSWERS: usize = 10;

impl Inner {
    /// Checks a plain key against the known ones.
    pub(in crate::ssh) async fn check_plain(
        &self,
        key: &KeyData,
        known: &KnownHosts,
    ) -> Result<HostTrust, HostKeyError> {
        let host = self.names.lookup();
        let address = self.names.address();
        let presented = self.presented(&host, &address, key);
        let about = known.about(&host);
        let about_address = self.names.checks_address().then(|| known.about(&address));
        let of_address = about_address.as_ref().map(|about| about.status_of(key));
        let of_host = about.status_of(key);
        match &of_host {
            KeyStatus::Revoked => return self.revoked(&presented),
            KeyStatus::Changed(line) => {
                return self.changed(&presented, line, of_address.as_ref());
            }
            KeyStatus::Known(line) => {
                tracing::debug!("key found in {}:{}", line.file.display(), line.line);
                if let Some(KeyStatus::New) = of_address {
                    self.add_address(&presented);
                }
            }
            KeyStatus::New => {
                if let Some(trust) = self.known_without_port(&presented, known)? {
                    return Ok(trust);
                }
                let with_address = matches!(of_address, Some(KeyStatus::New));
                self.accept_new(&presented, known, with_address).await?;
            }
        }
        if let Some(KeyStatus::Changed(offending)) = of_address {
            let matching = match of_host {
                KeyStatus::Known(line) => Some(line),
                _ => None,
            };
            self.address_differs(&presented, offending, matching)
                .await?;
        }
        Ok(HostTrust::Verified)
    }

    /// A key that is unknown under `[host]:port` may be known under the name alone.
    fn known_without_port(
        &self,
        presented: &Presented<'_>,
        known: &KnownHosts,
    ) -> Result<Option<HostTrust>, HostKeyError> {
        let Some(plain) = self.names.without_port() else {
            return Ok(None);
        };
        match known.about(plain).status_of(presented.key) {
            KeyStatus::Known(_) => {
                tracing::debug!("found a matching key without the port");
                Ok(Some(HostTrust::Verified))
            }
            KeyStatus::Revoked => self.revoked(presented).map(Some),
            KeyStatus::New | KeyStatus::Changed(_) => Ok(None),
        }
    }

    /// For an unknown host: refuses it, prompts the user, or accepts it.
    async fn accept_new(
        &self,
        presented: &Presented<'_>,
        known: &KnownHosts,
        with_address: bool,
    ) -> Result<(), HostKeyError> {
        let Some(file) = self.recording_file() else {
            return Err(HostKeyError::VerificationFailed);
        };
        match self.options.strict_host_key_checking {
            StrictHostKeyChecking::Yes => {
                self.prompter.error(&presented.unknown());
                return Err(HostKeyError::VerificationFailed);
            }
            StrictHostKeyChecking::Ask => {
                let question = presented.question(known, &self.invoker.home);
                self.confirm(&question, Some(&presented.fingerprint()))
                    .await?;
            }
            StrictHostKeyChecking::AcceptNew | StrictHostKeyChecking::No => {}
        }
        self.record_new(file, presented, with_address);
        Ok(())
    }

    /// The host is known with another key.
    fn changed(
        &self,
        presented: &Presented<'_>,
        line: &KnownHost,
        of_address: Option<&KeyStatus<'_>>,
    ) -> Result<HostTrust, HostKeyError> {
        if let Some(warning) = spoofing(presented, line, of_address) {
            self.prompter.error(&warning);
        }
        let mut files = self.options.user_known_hosts.iter();
        let file = files.next().or(self.options.global_known_hosts.first());
        self.prompter
            .error(&presented.changed(line, file.map(PathBuf::as_path)));
        if self.options.strict_host_key_checking != StrictHostKeyChecking::No {
            self.prompter.error(&presented.changed_and_strict());
            return Err(HostKeyError::VerificationFailed);
        }
        self.go_on_unverified()
    }

    pub(in crate::ssh) fn revoked(
        &self,
        presented: &Presented<'_>,
    ) -> Result<HostTrust, HostKeyError> {
        self.prompter.error(&presented.revoked());
        if self.options.strict_host_key_checking != StrictHostKeyChecking::No {
            self.prompter.error(&presented.revoked_and_strict());
            return Err(HostKeyError::VerificationFailed);
        }
        self.go_on_unverified()
    }

    /// Continues without anything that a man in the middle could use.
    fn go_on_unverified(&self) -> Result<HostTrust, HostKeyError> {
        let disabled = [
            (
                self.options.password_authentication,
                "Password authentication",
            ),
            (
                self.options.kbd_interactive_authentication,
                "Keyboard-interactive authentication",
            ),
            (self.options.tunnel.is_some(), "Tunnel forwarding"),
        ];
        let mut any = false;
        for (_, what) in disabled.iter().filter(|(enabled, _)| *enabled) {
            any = true;
            self.prompter.error(&format!(
                "{what} is disabled to avoid man-in-the-middle attacks."
            ));
        }
        if any && self.options.exit_on_forward_failure {
            return Err(HostKeyError::ForwardingDisabled);
        }
        Ok(HostTrust::Unverified)
    }

    /// The key matches the host's name, but not its address.
    async fn address_differs(
        &self,
        presented: &Presented<'_>,
        offending: &KnownHost,
        matching: Option<&KnownHost>,
    ) -> Result<(), HostKeyError> {
        let warning = presented.address_differs(offending, matching);
        match self.options.strict_host_key_checking {
            StrictHostKeyChecking::Ask => {
                let question = "Are you sure you want to continue connecting (yes/no)? ";
                self.confirm(&format!("{warning}\n{question}"), None).await
            }
            StrictHostKeyChecking::No => {
                self.prompter.info(&warning);
                Ok(())
            }
            StrictHostKeyChecking::Yes | StrictHostKeyChecking::AcceptNew => {
                self.prompter.info(&warning);
                self.prompter
                    .error("Exiting, you have requested strict checking.");
                Err(HostKeyError::VerificationFailed)
            }
        }
    }

    /// Only `yes` or the fingerprint itself accepts.
    async fn confirm(&self, question: &str, fingerprint: Option<&str>) -> Result<(), HostKeyError> {
        let mut question = question;
        for _ in 0..MAX_ANSWERS {
            let answer = match self.prompter.line(question).await {
                Ok(answer) => answer,
                Err(error) => {
                    tracing::debug!("asking about the host key: {error}");
                    break;
                }
            };
            let answer = answer.split_whitespace().next().unwrap_or_default();
            if answer.is_empty() || answer.eq_ignore_ascii_case("no") {
                break;
            }
            if answer.eq_ignore_ascii_case("yes") || fingerprint == Some(answer) {
                return Ok(());
            }
            question = match fingerprint {
                Some(_) => ASK_AGAIN,
                None => ASK_AGAIN_YES_NO,
            };
        }
        Err(HostKeyError::VerificationFailed)
    }
}

/// The warning for a changed host key whose address does not have the same key.
fn spoofing(
    presented: &Presented<'_>,
    of_host: &KnownHost,
    of_address: Option<&KeyStatus<'_>>,
) -> Option<String> {
    let (state, line) = match of_address? {
        KeyStatus::New => ("is unknown", None),
        KeyStatus::Known(line) => ("is unchanged", Some(*line)),
        KeyStatus::Changed(line) if line.key != of_host.key => {
            ("has a different value", Some(*line))
        }
        KeyStatus::Changed(_) | KeyStatus::Revoked => return None,
    };
    Some(presented.spoofed(state, line))
}
