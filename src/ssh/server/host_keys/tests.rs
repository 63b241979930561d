//! Host key files: those of ssh-keygen are read, and ssh-keygen reads those created here.

use std::process::Command;

use tempfile::TempDir;

use super::*;
use crate::ssh::client::test_server::run;

fn keygen(directory: &TempDir, name: &str, arguments: &[&str]) -> PathBuf {
    let path = directory.path().join(name);
    run(Command::new("ssh-keygen")
        .args(["-q", "-C", name, "-f"])
        .arg(&path)
        .args(arguments));
    path
}

fn fingerprint(path: &Path) -> String {
    let line = run(Command::new("ssh-keygen").arg("-lf").arg(path));
    line.split(' ').nth(1).unwrap().to_owned()
}

fn problem(path: &Path) -> String {
    let error = HostKeys::load_or_make(&[path.to_owned()]).unwrap_err();
    assert_eq!(error.path, path);
    error.to_string()
}

#[test]
fn a_missing_key_is_made_once_and_ssh_keygen_reads_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new/host");
    let made = HostKeys::load_or_make(std::slice::from_ref(&path)).unwrap();
    let read = HostKeys::load_or_make(std::slice::from_ref(&path)).unwrap();
    assert_eq!(made.fingerprints(), read.fingerprints());
    assert_eq!(made.fingerprints(), [fingerprint(&path)]);
    assert_eq!(made.fingerprints(), [fingerprint(&beside(&path, ".pub"))]);
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(&beside(&path, ".pub")), 0o644);
    let names = fs::read_dir(path.parent().unwrap()).unwrap().count();
    assert_eq!(names, 2);
}

#[test]
fn servers_that_start_together_have_one_key_whatever_a_crash_left() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("host");
    fs::write(beside(&path, ".new"), "a draft").unwrap();
    let start = || {
        HostKeys::load_or_make(std::slice::from_ref(&path))
            .unwrap()
            .fingerprints()
    };
    let all: Vec<Vec<String>> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
        starts.into_iter().map(|it| it.join().unwrap()).collect()
    });
    assert!(all.iter().all(|one| *one == all[0]), "{all:?}");
    // The key, its public key and the old draft.
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3);
    assert_eq!(all[0], [fingerprint(&beside(&path, ".pub"))]);
}

#[test]
fn a_key_is_never_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = keygen(&directory, "host", &["-t", "ed25519", "-N", ""]);
    let before = fs::read(&path).unwrap();
    let error = make(&path, None).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn keys_of_openssh_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let kinds = [
        ("ed25519", "256"),
        ("ecdsa", "256"),
        ("ecdsa", "521"),
        ("rsa", "2048"),
    ];
    let paths: Vec<PathBuf> = kinds
        .iter()
        .map(|(kind, bits)| {
            let name = format!("{kind}{bits}");
            keygen(&directory, &name, &["-t", kind, "-b", bits, "-N", ""])
        })
        .collect();
    let expected: Vec<String> = paths.iter().map(|path| fingerprint(path)).collect();
    let keys = HostKeys::load_or_make(&paths).unwrap();
    assert_eq!(keys.fingerprints(), expected);
}

#[test]
fn what_cannot_be_used_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let locked = keygen(&directory, "locked", &["-t", "ed25519", "-N", "secret"]);
    assert!(problem(&locked).contains("passphrase"));
    let short = keygen(
        &directory,
        "short",
        &["-t", "rsa", "-b", "1024", "-N", "", "-m", "PEM"],
    );
    assert!(problem(&short).contains("2048"), "{}", problem(&short));
    let open = keygen(&directory, "open", &["-t", "ed25519", "-N", ""]);
    fs::set_permissions(&open, Permissions::from_mode(0o640)).unwrap();
    assert!(problem(&open).contains("0640"), "{}", problem(&open));
    // A user who can write to the directory can replace the server's key.
    let shared = directory.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, Permissions::from_mode(0o777)).unwrap();
    let elsewhere = directory.path().join("elsewhere");
    std::os::unix::fs::symlink(shared.join("host"), &elsewhere).unwrap();
    for path in [&shared.join("host"), &elsewhere] {
        assert!(problem(path).contains("no other user may write to it"));
    }
    assert_eq!(fs::read_dir(&shared).unwrap().count(), 0);
    let text = directory.path().join("text");
    write_new(&text, b"no key\n", 0o600).unwrap();
    assert!(problem(&text).contains("not a private key"));
    assert!(problem(directory.path()).contains("host key"));
    assert!(HostKeys::load_or_make(&[]).is_err());
}
