//! A host key check in a test: settings, a known_hosts file, a user's answers.

use std::fs;

use russh::keys::PublicKeyOrCertificate;
use tempfile::TempDir;

use super::host_key::{HostKeyCheck, HostKeyError, HostTrust};
use super::key_line;
use super::prompt::Prompter;
use super::prompt_script::Script;
use super::test_settings;
use crate::config::ssh_options::{SshOptions, StrictHostKeyChecking};

pub(super) const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
pub(super) const OTHER: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK2pr+Bfus1hvPof4Wb/plZCzSbqadHH0u+/f4ODtKnE";

/// A connection to `server`, with a known_hosts file of its own.
pub(super) struct Case {
    pub(super) directory: TempDir,
    pub(super) options: SshOptions,
    pub(super) peer: &'static str,
    pub(super) script: Script,
}

impl Case {
    pub(super) fn new(known_hosts: &str, strict: StrictHostKeyChecking, answers: &[&str]) -> Self {
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

    pub(super) fn check(&self) -> HostKeyCheck {
        let prompter = Prompter::scripted(self.script.clone());
        let peer = self.peer.parse().ok();
        HostKeyCheck::new(&self.options, &test_settings::invoker(), prompter, peer)
    }

    pub(super) async fn present(&self, key: &str) -> Result<HostTrust, HostKeyError> {
        let key = key_line::parse(key).unwrap();
        let check = self.check();
        let outcome = check.check(&PublicKeyOrCertificate::from(key)).await;
        assert_eq!(check.trust(), outcome.as_ref().ok().copied());
        outcome
    }

    pub(super) fn file(&self) -> String {
        fs::read_to_string(&self.options.user_known_hosts[0]).unwrap_or_default()
    }

    pub(super) fn path(&self) -> String {
        self.options.user_known_hosts[0].display().to_string()
    }

    pub(super) fn seen(&self) -> Vec<String> {
        self.script.seen()
    }
}
