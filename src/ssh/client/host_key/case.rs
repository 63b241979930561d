//! A host key check in a test: settings, a known_hosts file, the user's answers.

use std::fs;

use russh::keys::PublicKeyOrCertificate;
use tempfile::TempDir;

use super::key_line;
use super::{HostKeyCheck, HostKeyError, HostTrust};
use crate::config::ssh::options::{SshOptions, StrictHostKeyChecking};
use crate::ssh::client::prompt::Prompter;
use crate::ssh::client::prompt::script::Script;
use crate::ssh::test_settings;

pub(in crate::ssh) const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
pub(in crate::ssh) const OTHER: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK2pr+Bfus1hvPof4Wb/plZCzSbqadHH0u+/f4ODtKnE";

/// A connection to `server` with its own known_hosts file.
pub(in crate::ssh) struct Case {
    pub(in crate::ssh) directory: TempDir,
    pub(in crate::ssh) options: SshOptions,
    pub(in crate::ssh) peer: &'static str,
    pub(in crate::ssh) script: Script,
}

impl Case {
    pub(in crate::ssh) fn new(
        known_hosts: &str,
        strict: StrictHostKeyChecking,
        answers: &[&str],
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut options = test_settings::options();
        options.strict_host_key_checking = strict;
        options.user_known_hosts = vec![directory.path().join("known_hosts")];
        if !known_hosts.is_empty() {
            fs::write(&options.user_known_hosts[0], known_hosts).unwrap();
        }
        Self {
            directory,
            options,
            peer: "192.0.2.1:22",
            script: Script::new(answers),
        }
    }

    pub(in crate::ssh) fn check(&self) -> HostKeyCheck {
        let prompter = Prompter::scripted(self.script.clone());
        let peer = self.peer.parse().ok();
        HostKeyCheck::new(&self.options, &test_settings::invoker(), prompter, peer)
    }

    pub(in crate::ssh) async fn present(&self, key: &str) -> Result<HostTrust, HostKeyError> {
        let key = key_line::parse(key).unwrap();
        let check = self.check();
        let outcome = check.check(&PublicKeyOrCertificate::from(key)).await;
        assert_eq!(check.trust(), outcome.as_ref().ok().copied());
        outcome
    }

    pub(in crate::ssh) fn file(&self) -> String {
        fs::read_to_string(&self.options.user_known_hosts[0]).unwrap_or_default()
    }

    pub(in crate::ssh) fn path(&self) -> String {
        self.options.user_known_hosts[0].display().to_string()
    }

    pub(in crate::ssh) fn seen(&self) -> Vec<String> {
        self.script.seen()
    }
}
