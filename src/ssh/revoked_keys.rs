//! `RevokedHostKeys` of ssh_config(5): files of keys that are never accepted.

use std::io;
use std::path::PathBuf;

use russh::keys::ssh_key::public::KeyData;

use super::key_line;
use super::known_hosts::read;
use crate::config::invoker::Invoker;

/// How a key revocation list in OpenSSH's binary form begins (PROTOCOL.krl).
const KRL_MAGIC: &[u8] = b"SSHKRL\n\0";

/// Whether one of `files` lists one of `keys`, one key to a line. A file that
/// cannot be read or is a binary list is an error: nothing may pass unchecked.
pub(super) fn lists_any(
    files: &[PathBuf],
    keys: &[&KeyData],
    invoker: &Invoker,
) -> Result<Option<PathBuf>, Failure> {
    for file in files {
        let content = read(file, invoker).map_err(|error| (file.clone(), error))?;
        if content.starts_with(KRL_MAGIC) {
            let reason = "a binary revocation list, which sshvpn does not read: \
                          list the keys as text, one to a line";
            return Err((file.clone(), io::Error::other(reason)));
        }
        let content = String::from_utf8_lossy(&content);
        let listed = content
            .lines()
            .filter_map(|line| key_line::parse(line.trim_start()))
            .any(|listed| keys.contains(&listed.key_data()));
        if listed {
            return Ok(Some(file.clone()));
        }
    }
    Ok(None)
}

/// The file and what is wrong with it.
pub(super) type Failure = (PathBuf, io::Error);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::test_settings;

    const ONE: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const OTHER: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK2pr+Bfus1hvPof4Wb/plZCzSbqadHH0u+/f4ODtKnE";

    fn lists(files: &[PathBuf], keys: &[&KeyData]) -> Result<Option<PathBuf>, Failure> {
        lists_any(files, keys, &test_settings::invoker())
    }

    #[test]
    fn listed_keys_are_found_and_unreadable_lists_are_errors() {
        let directory = tempfile::tempdir().unwrap();
        let list = directory.path().join("revoked");
        std::fs::write(&list, format!("# stolen\n {ONE} old\n")).unwrap();
        let one = key_line::parse(ONE).unwrap();
        let other = key_line::parse(OTHER).unwrap();
        let files = [list.clone()];
        let found = lists(&files, &[other.key_data(), one.key_data()]);
        assert_eq!(found.unwrap(), Some(list.clone()));
        assert_eq!(lists(&files, &[other.key_data()]).unwrap(), None);

        std::fs::write(&list, KRL_MAGIC).unwrap();
        assert!(lists(&files, &[one.key_data()]).is_err());
        assert!(lists(&["/nonexistent/list".into()], &[one.key_data()]).is_err());
    }
}
