//! What sudo permits, and what it says.

use anyhow::Result;

use super::{AGENTS, ALL, NOPASSWD, Oddity, USUAL, Way};

const ALICE: Oddity = Oddity {
    login: "alice",
    ..USUAL
};

fn sudo(sudoers: &'static str) -> Oddity {
    Oddity { sudoers, ..ALICE }
}

#[test]
fn sudo_with_a_terminal_of_its_own() -> Result<()> {
    sudo("Defaults use_pty\nalice ALL=(ALL) NOPASSWD: ALL\n").works(ALL)
}

#[test]
fn sudo_that_records_what_is_printed() -> Result<()> {
    sudo("Defaults use_pty, log_output, log_input, iolog_dir=/run/sudo-io\nalice ALL=(ALL) NOPASSWD: ALL\n")
        .works(ALL)
}

#[test]
fn sudo_that_lectures() -> Result<()> {
    sudo("Defaults lecture=always, lecture_file=/etc/hosts\nalice ALL=(ALL) NOPASSWD: ALL\n")
        .works(ALL)
}

const ASKS: &[&str] = &["sudo asks for a password there", "a password is required"];

#[test]
fn sudo_that_asks_for_a_password() -> Result<()> {
    sudo("alice ALL=(ALL) ALL\n").fails(&[Way::Tun, Way::Push], ASKS)
}

const TERMINAL: &[&str] = &[
    "sudo wants a terminal there (requiretty)",
    "you must have a tty to run sudo",
];

#[test]
fn sudo_that_wants_a_terminal() -> Result<()> {
    sudo("Defaults requiretty\nalice ALL=(ALL) NOPASSWD: ALL\n").fails(ALL, TERMINAL)
}

/// sudo asks for a password before it says that there is no right.
#[test]
fn a_login_without_any_right() -> Result<()> {
    ALICE.fails(
        &[Way::Tun, Way::Push],
        &["sudo -n", "a password is required"],
    )
}

#[test]
fn a_login_whose_password_sudo_does_not_want_and_that_may_do_nothing() -> Result<()> {
    sudo("Defaults:alice !authenticate\nbob ALL=(ALL) ALL\n").fails(
        &[Way::Tun, Way::Push],
        &["sudo refuses alice there", "is not in the sudoers file"],
    )
}

#[test]
fn no_sudo_at_all() -> Result<()> {
    Oddity {
        made: "mount --bind /dev/null /usr/bin/sudo",
        ..ALICE
    }
    .fails(&[Way::Tun, Way::Push], &["there is no sudo"])
}

/// `sudo -n true` is refused where one command is permitted.
#[test]
fn sudo_for_the_agent_alone() -> Result<()> {
    sudo("alice ALL=(root) NOPASSWD: /usr/local/sbin/sshvpn agent\n").works(&[Way::Agent])
}

#[test]
fn hidden_processes() -> Result<()> {
    Oddity {
        sudoers: NOPASSWD,
        made: "mount -o remount,hidepid=2 /proc",
        beyond: true,
        ..ALICE
    }
    .works(ALL)
}

#[test]
fn an_agent_without_rights_says_so() -> Result<()> {
    sudo("alice ALL=(ALL) ALL\n").fails(&AGENTS[..1], &["root"])
}
