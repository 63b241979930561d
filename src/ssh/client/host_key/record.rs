//! Records accepted host keys, and informs the user.

use std::path::{Path, PathBuf};

use russh::keys::ssh_key::public::KeyData;

use super::Inner;
use super::known_hosts_add::{self, NameForm};
use super::text::Presented;

impl Inner {
    /// Adds the key of a host, and of its address if that is checked. Like in ssh, a
    /// failure to write does not stop the connection.
    pub(in crate::ssh) fn record_new(
        &self,
        file: &Path,
        presented: &Presented<'_>,
        with_address: bool,
    ) {
        let hosts = match with_address {
            true => vec![presented.host, presented.address],
            false => vec![presented.host],
        };
        match self.record(file, &hosts, presented.key) {
            Ok(()) => self.prompter.info(&format!(
                "Warning: Permanently added '{}' ({}) to the list of known hosts.",
                hosts.join(","),
                presented.kind()
            )),
            Err(error) => {
                tracing::debug!("adding to {}: {error}", file.display());
                self.prompter.info(&format!(
                    "Failed to add the host to the list of known hosts ({}).",
                    file.display()
                ));
            }
        }
    }

    /// Adds the address of a host whose key is known by name.
    pub(in crate::ssh) fn add_address(&self, presented: &Presented<'_>) {
        let (kind, address) = (presented.kind(), presented.address);
        let text = match self.recording_file() {
            None => {
                format!("{kind} host key for IP address '{address}' not in list of known hosts.")
            }
            Some(file) => match self.record(file, &[address], presented.key) {
                Ok(()) => format!(
                    "Warning: Permanently added the {kind} host key for IP address \
                     '{address}' to the list of known hosts."
                ),
                Err(_) => format!(
                    "Failed to add the {kind} host key for IP address '{address}' to the \
                     list of known hosts ({}).",
                    file.display()
                ),
            },
        };
        self.prompter.info(&text);
    }

    fn record(&self, file: &Path, hosts: &[&str], key: &KeyData) -> std::io::Result<()> {
        let form = match self.options.hash_known_hosts {
            true => NameForm::Hashed,
            false => NameForm::Plain,
        };
        known_hosts_add::append(file, hosts, key, form, &self.invoker)
    }

    /// The file to which keys are added; `None` if keys are not recorded.
    pub(in crate::ssh) fn recording_file(&self) -> Option<&Path> {
        let file = self.options.user_known_hosts.first().map(PathBuf::as_path);
        file.filter(|_| self.names.can_be_recorded())
    }
}
