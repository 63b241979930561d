//! Tests that need a home and a system directory of their own.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::*;
use crate::config::ssh::defaults;
use crate::config::ssh::tokens::tests::alice;

/// Reads a home and a system directory with these files.
fn read_home(user: &str, system: &str) -> Result<SshValues, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let (home, etc) = (directory.path().join("home"), directory.path().join("etc"));
    fs::create_dir_all(home.join(".ssh/conf.d/2")).unwrap();
    fs::create_dir_all(&etc).unwrap();
    fs::write(home.join(".ssh/config"), user).unwrap();
    fs::write(home.join(".ssh/conf.d/1"), "User one\nSendEnv A\n").unwrap();
    fs::write(home.join(".ssh/conf.d/.hidden"), "Port 99\n").unwrap();
    fs::write(etc.join("ssh_config"), system).unwrap();
    fs::write(etc.join("more"), "Port 7\n").unwrap();
    let invoker = Invoker {
        uid: nix::unistd::geteuid(),
        home,
        via_sudo: false,
        ..alice()
    };
    let args = SshArgs {
        destination: "box".into(),
        ..SshArgs::default()
    };
    read_below(&etc, &args, &invoker, &defaults::values())
}

#[test]
fn the_users_file_comes_before_the_systems() {
    let values = read_home(
        "Include conf.d/*\nHost x\n",
        "User two\nSendEnv B\nInclude more\n",
    );
    let values = values.unwrap();
    assert_eq!(values.first("user"), Some("one"));
    assert_eq!(values.all("sendenv"), ["A", "B"]);
    assert_eq!(values.first("port"), Some("7"));
    let tilde = read_home("Include ~/.ssh/conf.d/?\n", "").unwrap();
    assert_eq!(tilde.first("user"), Some("one"));
    let tokens = read_home("Include ${SSHVPN_NO_SUCH_VARIABLE}\n", "");
    assert!(tokens.is_err());
    assert!(read_home("", "Include ~/x\n").is_err());
}

#[test]
fn errors_say_where() {
    let error = read_home("# x\n\nFoo bar\n", "").unwrap_err().to_string();
    assert!(
        error.ends_with("/.ssh/config line 3: unknown option foo"),
        "{error}"
    );
    let error = read_home("", "Match exec %z\n").unwrap_err().to_string();
    assert!(
        error.contains("/ssh_config line 1: ") && error.contains("%z"),
        "{error}"
    );
}

#[test]
fn what_others_can_write_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(".ssh/config");
    fs::create_dir(directory.path().join(".ssh")).unwrap();
    fs::write(&file, "Port 1\n").unwrap();
    let invoker = Invoker {
        uid: nix::unistd::geteuid(),
        home: directory.path().to_owned(),
        via_sudo: false,
        ..alice()
    };
    let args = SshArgs {
        destination: "box".into(),
        ..SshArgs::default()
    };
    let read = || read_below(directory.path(), &args, &invoker, &defaults::values());
    for (mode, accepted) in [(0o600, true), (0o644, true), (0o620, false), (0o602, false)] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let permitted = !matches!(read(), Err(ConfigError::Permissions { .. }));
        assert_eq!(permitted, accepted, "{mode:o}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_file_panics(text in prop::collection::vec(
        "(Host|Match|Port|User|IdentityFile|SetEnv|SendEnv|Ciphers|ProxyJump|RekeyLimit|HostName|UserKnownHostsFile|\\PC{0,6})[ =\"]{0,2}[!*?%~${}\\[a-z0-9,:+^\"é-]{0,12}",
        0..6,
    )) {
        let _ = read_home(&text.join("\n"), "");
    }
}
