//! Adds a key to a known_hosts file as the invoker: under sudo the file is in the invoker's
//! directory, so nothing there may be accessed with root's rights.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use russh::keys::ssh_key::known_hosts::HostPatterns;
use russh::keys::ssh_key::public::KeyData;

use super::key_line;
use super::known_hosts::{SALT_LENGTH, hash};
use crate::config::invoker::Invoker;

/// How the host name is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ssh) enum NameForm {
    /// In clear text.
    Plain,
    /// Hashed (ssh_config's `HashKnownHosts`).
    Hashed,
}

/// Appends `key` for each of `hosts` to `file`. Creates ~/.ssh if the file belongs there.
pub(in crate::ssh) fn append(
    file: &Path,
    hosts: &[&str],
    key: &KeyData,
    form: NameForm,
    invoker: &Invoker,
) -> io::Result<()> {
    let entry = entry(hosts, key, form)?;
    let home_ssh = invoker.home.join(".ssh");
    invoker.act(|| {
        if file.starts_with(&home_ssh) && !home_ssh.exists() {
            DirBuilder::new().mode(0o700).create(&home_ssh)?;
        }
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(file)?;
        let entry = match lacks_line_end(&mut file)? {
            true => format!("\n{entry}"),
            false => entry,
        };
        // A single write, because another ssh may append at the same time.
        let written = file.write(entry.as_bytes())?;
        if written == entry.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::WriteZero.into())
        }
    })
}

/// The lines for `hosts`: one with both names, or one for each hash.
fn entry(hosts: &[&str], key: &KeyData, form: NameForm) -> io::Result<String> {
    let key = key_line::format(key);
    let hosts = hosts.iter().map(|host| host.to_ascii_lowercase());
    match form {
        NameForm::Plain => Ok(format!("{} {key}\n", hosts.collect::<Vec<_>>().join(","))),
        NameForm::Hashed => hosts
            .map(|host| Ok(format!("{} {key}\n", hashed(&host)?)))
            .collect(),
    }
}

/// `|1|salt|hash` with a new random salt.
fn hashed(host: &str) -> io::Result<String> {
    let mut salt = [0; SALT_LENGTH];
    aws_lc_rs::rand::fill(&mut salt).map_err(|_| io::Error::other("no random numbers"))?;
    let name = HostPatterns::HashedName {
        hash: hash(&salt, host),
        salt: salt.to_vec(),
    };
    Ok(name.to_string())
}

/// Whether the file's last line lacks its line end.
fn lacks_line_end(file: &mut File) -> io::Result<bool> {
    if file.seek(SeekFrom::End(-1)).is_err() {
        // Empty, or not seekable, like a pipe.
        return Ok(false);
    }
    let mut last = [0];
    let count = file.read(&mut last)?;
    Ok(count == 1 && last != *b"\n")
}

#[cfg(test)]
mod tests;
