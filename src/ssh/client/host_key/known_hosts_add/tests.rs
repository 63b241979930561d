//! Appending to known_hosts files: format, ownership, line ends.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use nix::unistd::{User, geteuid};
use tempfile::TempDir;

use super::*;
use crate::ssh::client::host_key::known_hosts::KnownHosts;
use crate::ssh::test_settings::invoker;

const ED25519: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

fn key() -> KeyData {
    key_line::parse(ED25519).unwrap().key_data().clone()
}

/// An invoker with a temporary home directory.
fn at_home() -> (TempDir, Invoker, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let mut invoker = invoker();
    invoker.home = home.path().to_owned();
    let file = home.path().join(".ssh/known_hosts");
    (home, invoker, file)
}

#[test]
fn the_file_and_its_directory_are_private() {
    let (_home, invoker, file) = at_home();
    append(
        &file,
        &["Alpha", "192.0.2.1"],
        &key(),
        NameForm::Plain,
        &invoker,
    )
    .unwrap();
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        format!("alpha,192.0.2.1 {ED25519}\n")
    );
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    let directory = fs::metadata(file.parent().unwrap()).unwrap();
    assert_eq!(directory.mode() & 0o777, 0o700);
}

#[test]
fn a_hashed_name_is_found_again_and_not_readable() {
    let (_home, invoker, file) = at_home();
    append(
        &file,
        &["alpha", "192.0.2.1"],
        &key(),
        NameForm::Hashed,
        &invoker,
    )
    .unwrap();
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(text.lines().count(), 2);
    assert!(!text.contains("alpha"), "{text}");
    let known = KnownHosts::load([&file], &invoker);
    assert_eq!(known.about("alpha").keys[0].line, 1);
    assert_eq!(known.about("192.0.2.1").keys[0].line, 2);
    assert!(known.about("beta").keys.is_empty());
}

#[test]
fn a_last_line_without_an_end_stays_whole() {
    let (home, invoker, _) = at_home();
    let file = home.path().join("hosts");
    fs::write(&file, format!("beta {ED25519}")).unwrap();
    append(&file, &["alpha"], &key(), NameForm::Plain, &invoker).unwrap();
    append(&file, &["gamma"], &key(), NameForm::Plain, &invoker).unwrap();
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        format!("beta {ED25519}\nalpha {ED25519}\ngamma {ED25519}\n")
    );
}

#[test]
fn no_directory_but_dot_ssh_is_made() {
    let (home, invoker, _) = at_home();
    let file = home.path().join("elsewhere/hosts");
    assert!(append(&file, &["alpha"], &key(), NameForm::Plain, &invoker).is_err());
    append(
        Path::new("/dev/null"),
        &["alpha"],
        &key(),
        NameForm::Plain,
        &invoker,
    )
    .unwrap();
}

#[test]
fn under_sudo_all_of_it_happens_with_the_rights_of_the_invoker() {
    if !geteuid().is_root() {
        return;
    }
    let (home, mut invoker, file) = at_home();
    let user = User::from_name("nobody").unwrap().unwrap();
    (invoker.uid, invoker.gid, invoker.via_sudo) = (user.uid, user.gid, true);
    invoker.groups = vec![user.gid];
    let owned = append(&file, &["alpha"], &key(), NameForm::Plain, &invoker);
    assert!(owned.is_err(), "the invoker cannot write in this home");

    nix::unistd::chown(home.path(), Some(user.uid), Some(user.gid)).unwrap();
    append(&file, &["alpha"], &key(), NameForm::Plain, &invoker).unwrap();
    for path in [&file, &home.path().join(".ssh")] {
        assert_eq!(fs::metadata(path).unwrap().uid(), user.uid.as_raw());
        assert_eq!(fs::metadata(path).unwrap().gid(), user.gid.as_raw());
    }
    // A symbolic link must not reach a file of root.
    let secret = tempfile::NamedTempFile::new().unwrap();
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink(secret.path(), &file).unwrap();
    assert!(append(&file, &["alpha"], &key(), NameForm::Plain, &invoker).is_err());
    assert_eq!(fs::metadata(secret.path()).unwrap().len(), 0);
    // Nor must a file that only root's group may write to.
    let group_writable = fs::Permissions::from_mode(0o660);
    fs::set_permissions(secret.path(), group_writable).unwrap();
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let refused = append(&file, &["alpha"], &key(), NameForm::Plain, &invoker);
    assert!(refused.is_err());
    assert_eq!(fs::metadata(secret.path()).unwrap().len(), 0);
    // This thread is root again.
    fs::write(secret.path(), "x").unwrap();
}
