//! The key exchanges with an ssh program that does not know ML-KEM, and with one that does.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::config::ssh::ask_ssh;
use crate::config::ssh::tokens::tests::alice;

const OLD: &str = "sntrup761x25519-sha512,curve25519-sha256,ecdh-sha2-nistp256";
const NEW: &str =
    "mlkem768x25519-sha256,sntrup761x25519-sha512,curve25519-sha256,ecdh-sha2-nistp256";

/// The list for the file `config` and the options `-o`, from this host's ssh, with ML-KEM.
fn list(config: &str, options: &[&str]) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config");
    fs::write(&file, config).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let args = SshArgs {
        destination: "box".into(),
        config_file: Some(file),
        options: options.iter().map(|&option| option.to_owned()).collect(),
        ..SshArgs::default()
    };
    let invoker = Invoker {
        uid: nix::unistd::geteuid(),
        via_sudo: false,
        ..alice()
    };
    let answer = ask_ssh::ask("ssh", &args, &invoker).unwrap().unwrap();
    let list = answer.values.first(KEX).unwrap().split(',');
    list.map(str::to_owned).collect()
}

#[test]
fn the_users_word_holds() {
    let minus = "KexAlgorithms=-mlkem768x25519-sha256";
    for (config, options, first, has_ml_kem) in [
        // Nothing is said.
        ("", &[][..], None, true),
        (
            "Host other\nKexAlgorithms curve25519-sha256\n",
            &[],
            None,
            true,
        ),
        // It is taken out.
        ("", &[minus], None, false),
        ("", &["KexAlgorithms -mlkem*"], None, false),
        ("KexAlgorithms -mlkem768x25519-sha256\n", &[], None, false),
        (
            "Host b*\nKexAlgorithms \"-mlkem*,ecdh-*\"\n",
            &[],
            None,
            false,
        ),
        // The list of the command line comes first.
        (
            "KexAlgorithms curve25519-sha256\n",
            &["kexalgorithms=-ecdh-*", minus],
            None,
            true,
        ),
        // Others are taken out, put first or added.
        ("KexAlgorithms -sntrup*\n", &[], None, true),
        (
            "KexAlgorithms ^curve25519-sha256\n",
            &[],
            Some("curve25519-sha256"),
            true,
        ),
        (
            "KexAlgorithms +diffie-hellman-group14-sha1\n",
            &[],
            None,
            true,
        ),
        // A whole list.
        (
            "KexAlgorithms ecdh-sha2-nistp256,curve25519-sha256\n",
            &[],
            Some("ecdh-sha2-nistp256"),
            false,
        ),
        (
            "",
            &["KexAlgorithms=sntrup761x25519-sha512@openssh.com,curve25519-sha256"],
            Some("sntrup761x25519-sha512@openssh.com"),
            false,
        ),
        // It is named.
        (
            "",
            &["KexAlgorithms=curve25519-sha256,mlkem768x25519-sha256"],
            Some("curve25519-sha256"),
            true,
        ),
        (
            "KexAlgorithms ecdh-sha2-nistp256\n",
            &["KexAlgorithms=mlkem768x25519-sha256"],
            Some("mlkem768x25519-sha256"),
            true,
        ),
        (
            "",
            &["KexAlgorithms=^ecdh-sha2-nistp256,mlkem768x25519-sha256"],
            Some("ecdh-sha2-nistp256"),
            true,
        ),
        ("", &["KexAlgorithms=+mlkem768x25519-sha256"], None, true),
    ] {
        let list = list(config, options);
        let case = format!("{config} {options:?}: {list:?}");
        assert_eq!(list.iter().any(|name| name == ML_KEM), has_ml_kem, "{case}");
        if let Some(first) = first {
            assert_eq!(list[0], first, "{case}");
        }
    }
}

#[test]
fn a_name_that_ssh_refuses_is_still_refused() {
    let args = SshArgs {
        destination: "box".into(),
        config_file: Some("none".into()),
        options: vec!["KexAlgorithms=mlkem768x25519-sha256,no-such-exchange".into()],
        ..SshArgs::default()
    };
    let invoker = Invoker {
        via_sudo: false,
        ..alice()
    };
    let error = ask_ssh::ask("ssh", &args, &invoker).unwrap_err();
    assert!(error.to_string().contains("no-such-exchange"), "{error}");
}

/// A command of `Match exec` runs once, in ssh.
#[test]
fn no_command_runs_twice() {
    let directory: TempDir = tempfile::tempdir().unwrap();
    let mark = directory.path().join("mark");
    list(
        &format!("Match exec \"echo >>{}\"\nPort 23\n", mark.display()),
        &[],
    );
    assert_eq!(lines(&mark), 1);
}

fn lines(file: &Path) -> usize {
    fs::read_to_string(file).unwrap().lines().count()
}

#[test]
fn a_word_completes_the_list_that_ssh_made_of_it() {
    let complete = |word, listed| complete(word, listed, OLD, NEW);
    assert_eq!(complete("-mlkem*", OLD).as_deref(), Some(OLD));
    assert_eq!(complete("-zz", OLD).as_deref(), Some(NEW));
    // Another line applies to ssh.
    assert_eq!(complete("-mlkem*", "curve25519-sha256"), None);
    assert_eq!(
        complete("mlkem768x25519-sha256", "curve25519-sha256").as_deref(),
        Some("mlkem768x25519-sha256")
    );
}

#[test]
fn a_program_that_knows_it_decides_alone() {
    let mut answer = SshAnswer {
        values: SshValues::from([(KEX, vec![OLD.to_owned()])]),
        defaults: SshValues::from([(KEX, vec![NEW.to_owned()])]),
    };
    let args = SshArgs::default();
    let ml_kem = MlKem::of(&answer.defaults);
    ml_kem.add(&mut answer, &args, &alice());
    assert_eq!(ml_kem, MlKem::Known);
    assert_eq!(answer.values.first(KEX), Some(OLD));
}
