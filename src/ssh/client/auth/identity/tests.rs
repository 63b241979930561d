//! Key files in the formats of ssh-keygen and openssl.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use tempfile::TempDir;

use super::*;
use crate::ssh::client::prompt::script::Script;
use crate::ssh::test_settings;

const PASSPHRASE: &str = "correct horse";

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A key that ssh-keygen makes with `arguments`, in a directory of its own.
fn key_file(arguments: &[&str]) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("id");
    run(Command::new("ssh-keygen")
        .args(["-q", "-C", "test", "-f"])
        .arg(&path)
        .args(arguments));
    (directory, path)
}

async fn load_with(
    path: &Path,
    answers: &[&str],
) -> (Result<Box<PrivateKey>, IdentityError>, Vec<String>) {
    let script = Script::new(answers);
    let prompter = Prompter::scripted(script.clone());
    let options = test_settings::options();
    let invoker = test_settings::invoker();
    let key = load_private(path, &invoker, &options, &prompter).await;
    (key, script.seen())
}

fn identities(path: &Path) -> Vec<Identity> {
    let mut options = test_settings::options();
    options.identity_files = vec![path.to_owned()];
    load(&options, &test_settings::invoker()).0
}

/// Whether `key` matches the public key that ssh-keygen wrote beside it.
fn is_its_own(key: &PrivateKey, path: &Path) -> bool {
    let public = fs::read_to_string(with_suffix(path, ".pub")).unwrap();
    key_line::parse(&public).unwrap().key_data() == key.public_key().key_data()
}

#[tokio::test]
async fn plain_keys_of_every_type_and_format() {
    for kind in [
        &["-t", "ed25519"][..],
        &["-t", "ecdsa", "-b", "256"],
        &["-t", "ecdsa", "-b", "384"],
        &["-t", "ecdsa", "-b", "521"],
        &["-t", "rsa", "-b", "2048"],
        &["-t", "rsa", "-b", "2048", "-m", "PEM"],
        &["-t", "rsa", "-b", "2048", "-m", "PKCS8"],
        &["-t", "ecdsa", "-b", "256", "-m", "PEM"],
        &["-t", "ecdsa", "-b", "384", "-m", "PKCS8"],
    ] {
        let (_keep, path) = key_file(&[kind, &["-N", ""]].concat());
        let (key, seen) = load_with(&path, &[]).await;
        assert!(is_its_own(&key.unwrap(), &path), "{kind:?}");
        assert!(seen.is_empty());
        // The public key is also known without the .pub file.
        fs::remove_file(with_suffix(&path, ".pub")).unwrap();
        assert!(identities(&path)[0].public.key().is_some(), "{kind:?}");
    }
}

#[tokio::test]
async fn encrypted_keys_ask_for_their_passphrase() {
    for kind in [
        &["-t", "ed25519"][..],
        &["-t", "ecdsa"],
        &["-t", "rsa", "-b", "2048"],
        &["-t", "ed25519", "-Z", "aes256-gcm@openssh.com"],
        &["-t", "ed25519", "-Z", "chacha20-poly1305@openssh.com"],
        &["-t", "rsa", "-b", "2048", "-m", "PEM"],
        &["-t", "rsa", "-b", "2048", "-m", "PKCS8"],
        &["-t", "ecdsa", "-m", "PKCS8"],
    ] {
        let (_keep, path) = key_file(&[kind, &["-N", PASSPHRASE]].concat());
        let (key, seen) = load_with(&path, &["wrong", PASSPHRASE]).await;
        assert!(is_its_own(&key.unwrap(), &path), "{kind:?}");
        let prompt = format!("Enter passphrase for key '{}': ", path.display());
        assert_eq!(seen, [prompt.clone(), prompt]);
    }
}

#[tokio::test]
async fn the_passphrase_is_asked_for_as_often_as_configured() {
    let (_keep, path) = key_file(&["-t", "ed25519", "-N", PASSPHRASE]);
    let (key, seen) = load_with(&path, &["1", "2", "3", PASSPHRASE]).await;
    assert!(matches!(key, Err(IdentityError::NoPassphrase(_))));
    assert_eq!(seen.len(), 3);
    let (key, seen) = load_with(&path, &["", PASSPHRASE]).await;
    assert!(matches!(key, Err(IdentityError::NoPassphrase(_))));
    assert_eq!(seen.len(), 1, "an empty one gives up");
    let (key, _) = load_with(&path, &[]).await;
    assert!(matches!(key, Err(IdentityError::NoPassphrase(_))));
}

#[tokio::test]
async fn an_encryption_that_is_not_supported_is_named_instead_of_asked_about() {
    let (_keep, path) = key_file(&["-t", "ecdsa", "-m", "PEM", "-N", PASSPHRASE]);
    let (key, seen) = load_with(&path, &[PASSPHRASE]).await;
    let text = key.unwrap_err().to_string();
    assert!(text.contains("AES-128-CBC (EC PRIVATE KEY)"), "{text}");
    assert!(seen.is_empty());
}

#[tokio::test]
async fn a_key_that_others_can_read_is_ignored() {
    let (_keep, path) = key_file(&["-t", "ed25519", "-N", ""]);
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    let (key, seen) = load_with(&path, &[]).await;
    assert!(matches!(key, Err(IdentityError::Permissions(_))));
    let expected = format!(
        "@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@\n\
         @         WARNING: UNPROTECTED PRIVATE KEY FILE!          @\n\
         @@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@\n\
         Permissions 0640 for '{}' are too open.\n\
         It is required that your private key files are NOT accessible by others.\n\
         This private key will be ignored.",
        path.display()
    );
    assert_eq!(seen, [expected]);
    // A key of another user is not checked for permissions.
    let prompter = Prompter::scripted(Script::new(&[]));
    let options = test_settings::options();
    let mut other = test_settings::invoker();
    other.uid = nix::unistd::Uid::from_raw(54321);
    assert!(
        load_private(&path, &other, &options, &prompter)
            .await
            .is_ok()
    );
}

#[test]
fn the_public_half_comes_from_where_ssh_takes_it() {
    let (_keep, path) = key_file(&["-t", "rsa", "-b", "2048", "-m", "PEM", "-N", PASSPHRASE]);
    let public = with_suffix(&path, ".pub");
    assert!(identities(&path)[0].public.key().is_some());
    // The configured file may be the public key itself, for a key in the agent.
    assert!(identities(&public)[0].public.key().is_some());
    fs::remove_file(&public).unwrap();
    assert!(identities(&path)[0].public.key().is_none());
    fs::remove_file(&path).unwrap();
    assert!(matches!(identities(&path)[0].public, Public::Unknown));
    // OpenSSH's own format has the public key unencrypted.
    let (_keep, path) = key_file(&["-t", "ed25519", "-N", PASSPHRASE]);
    fs::remove_file(with_suffix(&path, ".pub")).unwrap();
    assert!(identities(&path)[0].public.key().is_some());
}

#[test]
fn certificates_beside_the_key_and_by_name() {
    let (directory, path) = key_file(&["-t", "ed25519", "-N", ""]);
    let (_keep, authority) = key_file(&["-t", "ed25519", "-N", ""]);
    run(Command::new("ssh-keygen")
        .args(["-q", "-I", "test", "-n", "alice", "-s"])
        .arg(&authority)
        .arg(with_suffix(&path, ".pub")));
    let found = identities(&path);
    assert_eq!(found.len(), 2);
    assert!(matches!(found[1].public, Public::Certificate(_)));
    assert_eq!(found[1].path, path, "the private key signs for it");
    assert_eq!(found[0].public.key(), found[1].public.key());

    let named = directory.path().join("named.pub");
    fs::rename(directory.path().join("id-cert.pub"), &named).unwrap();
    let mut options = test_settings::options();
    options.identity_files = vec![path.clone()];
    options.certificate_files = vec![named, path.with_file_name("absent")];
    let (identities, certificates) = load(&options, &test_settings::invoker());
    assert_eq!((identities.len(), certificates.len()), (1, 1));
}

#[tokio::test]
async fn rubbish_is_refused_in_words() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("id");
    for content in [
        "",
        "hello",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIB\n-----END RSA PRIVATE KEY-----\n",
        "-----BEGIN RSA PRIVATE KEY-----\nDEK-Info: AES-128-CBC,00\n\nMIIB\n",
    ] {
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let (key, _) = load_with(&path, &["x", "y", "z"]).await;
        let error = key.unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()), "{error}");
    }
}
