//! Login shells, and what startup files print and set.

use anyhow::Result;

use super::{ALL, NOPASSWD, Oddity, USUAL, Way};

fn greeting(file: &'static str, text: &'static str) -> Result<()> {
    Oddity {
        files: Box::leak(Box::new([(file, text)])),
        ..USUAL
    }
    .works(ALL)
}

#[test]
fn a_bashrc_that_prints_a_line() -> Result<()> {
    greeting(".bashrc", "echo Welcome to the bastion\n")
}

#[test]
fn a_bashrc_that_prints_no_line_end() -> Result<()> {
    greeting(".bashrc", "printf 'last login: today; '\n")
}

#[test]
fn an_ssh_rc_that_prints_many_lines() -> Result<()> {
    greeting(".ssh/rc", "seq 300; printf 'and no line end'\n")
}

/// Settings that break careless scripts.
#[test]
fn a_bashrc_that_sets_options_and_aliases() -> Result<()> {
    greeting(
        ".bashrc",
        "set -euf; export SHELLOPTS CDPATH=/:/usr ENV=/dev/null GREP_OPTIONS=-n IFS=:\n\
         shopt -s expand_aliases; alias ls='ls -F' rm='rm -i' grep='grep -n'\n\
         umask 000; export LC_ALL=de_DE.ISO-8859-1 LANG=ja_JP.eucJP\n",
    )
}

#[test]
fn a_umask_that_permits_nothing() -> Result<()> {
    greeting(".bashrc", "umask 0777\n")
}

#[test]
fn a_path_without_sbin() -> Result<()> {
    greeting(".bashrc", "PATH=/usr/bin:/bin\nunset HOME USER LOGNAME\n")
}

fn shell(shell: &'static str) -> Result<()> {
    Oddity { shell, ..USUAL }.works(ALL)
}

#[test]
fn csh() -> Result<()> {
    shell("/bin/tcsh")
}

#[test]
fn zsh() -> Result<()> {
    shell("/bin/zsh")
}

#[test]
fn fish() -> Result<()> {
    shell("/usr/bin/fish")
}

/// Alpine's: every program of the login is busybox's, and `sh` is its ash.
#[test]
fn busybox_alone() -> Result<()> {
    Oddity {
        shell: "/run/busybox/ash",
        busybox: &[
            "ash",
            "sh",
            "awk",
            "cat",
            "cut",
            "grep",
            "head",
            "id",
            "ip",
            "mkdir",
            "mktemp",
            "rm",
            "rmdir",
            "sed",
            "sha256sum",
            "tr",
            "uname",
            "chmod",
            "ls",
            "env",
        ],
        beyond: true,
        ..USUAL
    }
    .works(ALL)
}

/// The home's directory does not exist.
#[test]
fn no_home() -> Result<()> {
    Oddity {
        login: "alice",
        sudoers: NOPASSWD,
        made: "rm -r /run/home/alice",
        ..USUAL
    }
    .works(ALL)
}

/// sshd before OpenSSH 7.7 names the tunnel's device to no session.
#[test]
fn no_name_of_the_device() -> Result<()> {
    Oddity {
        shell: "/run/home/root/old-sshd",
        files: &[(
            "old-sshd",
            "#!/bin/sh\nunset SSH_TUNNEL\nexec /bin/sh \"$@\"\n",
        )],
        ..USUAL
    }
    .works(&[Way::Tun])
}

fn sessions(most: &'static str) -> Result<()> {
    Oddity {
        sshd: Box::leak(Box::new([("MaxSessions", most)])),
        ..USUAL
    }
    .works(ALL)
}

#[test]
fn two_sessions_at_a_time() -> Result<()> {
    sessions("2")
}

#[test]
fn one_session_at_a_time() -> Result<()> {
    sessions("1")
}
