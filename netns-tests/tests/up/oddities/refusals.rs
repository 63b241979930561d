//! Logins that run no command: the remote host's own words are in the error.

use anyhow::Result;

use super::{ALL, Oddity, USUAL};

const ALICE: Oddity = Oddity {
    login: "alice",
    ..USUAL
};

#[test]
fn a_login_shell_that_refuses() -> Result<()> {
    Oddity {
        shell: "/usr/sbin/nologin",
        ..ALICE
    }
    .fails(ALL, &["This account is currently not available."])
}

#[test]
fn a_login_shell_that_says_nothing() -> Result<()> {
    Oddity {
        shell: "/bin/false",
        ..ALICE
    }
    .fails(ALL, &["it ended with code 1", "runs no commands"])
}

#[test]
fn maintenance() -> Result<()> {
    Oddity {
        files: &[("/etc/nologin", "Down until noon, ask Bob\n")],
        ..ALICE
    }
    .fails(ALL, &["Down until noon, ask Bob"])
}

#[test]
fn an_expired_password() -> Result<()> {
    Oddity {
        made: "sed -i 's,^alice:.*,alice:*:0:0:99999:7:::,' /etc/shadow",
        ..ALICE
    }
    .fails(ALL, &["password has expired"])
}

#[test]
fn a_forced_command() -> Result<()> {
    Oddity {
        sshd: &[("ForceCommand", "echo Backups only")],
        ..ALICE
    }
    .fails(ALL, &["Backups only", "ForceCommand"])
}

#[test]
fn a_forced_command_that_says_nothing() -> Result<()> {
    Oddity {
        sshd: &[("ForceCommand", "true")],
        ..ALICE
    }
    .fails(ALL, &["it ended with code 0", "ForceCommand"])
}

/// A command of `authorized_keys` that prints without end, and no line.
#[test]
fn a_forced_command_that_does_not_stop() -> Result<()> {
    Oddity {
        sshd: &[("ForceCommand", "head -c 1000000 /dev/zero")],
        ..ALICE
    }
    .fails(ALL, &["ForceCommand"])
}
