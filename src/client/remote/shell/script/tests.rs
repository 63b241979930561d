//! Scripts by the login shells that Debian has, with and without output of startup files.

use std::io::Write;
use std::process::{Command, Stdio};

use super::super::{PROBE, holder};
use super::*;
use crate::client::remote::agent::push::PUSH;

const TRIAL: Script = Script {
    name: "sshvpn-trial",
    text: "# A 'comment' with \"quotes\" and \\n.\nprintf \"%s \" \"$0\" \"$@\"\n\
           while read -r line; do\n    echo \"got $line\"\ndone\nexit 3\n",
};

/// Shells, and how they run a command; those that are not installed are passed over.
const SHELLS: &[&str] = &[
    "sh",
    "bash",
    "busybox sh",
    "csh",
    "tcsh",
    "zsh",
    "fish",
    "mksh",
];

fn installed(shell: &str) -> bool {
    let program = shell.split(' ').next().unwrap();
    let path = std::env::var("PATH").unwrap();
    std::env::split_paths(&path).any(|directory| directory.join(program).exists())
}

#[test]
fn every_shell_passes_the_script_on() {
    let mut tried = Vec::new();
    for shell in SHELLS.iter().filter(|shell| installed(shell)) {
        for noise in ["", "hello\n", "sshvpn-begin? no\nand no line end: "] {
            let command = TRIAL.command("", &["one".to_owned(), "2".to_owned()]);
            let mut words = shell.split(' ');
            let mut child = Command::new(words.next().unwrap())
                .args(words)
                .args(["-c", &command])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut input = child.stdin.take().unwrap();
            write!(input, "{}left\nover\n", TRIAL.input()).unwrap();
            drop(input);
            let ended = child.wait_with_output().unwrap();
            let text = format!("{noise}{}", String::from_utf8(ended.stdout).unwrap());
            let said = output(&text);
            assert_eq!(
                said,
                Some("sshvpn-trial one 2 got left\ngot over\n"),
                "{shell}"
            );
            assert_eq!(ended.status.code(), Some(3), "{shell}");
        }
        let shown = print_variable("SHELL_TRIAL");
        let mut words = shell.split(' ');
        let printed = Command::new(words.next().unwrap())
            .args(words)
            .args(["-c", &shown])
            .env("SHELL_TRIAL", "tun3,tap4")
            .output()
            .unwrap();
        let text = String::from_utf8(printed.stdout).unwrap();
        assert_eq!(output(&text), Some("tun3,tap4\n"), "{shell}");
        tried.push(shell);
    }
    assert!(tried.len() >= 2, "{tried:?}");
}

/// The connection may be cut behind any byte.
#[test]
fn a_script_that_is_cut_off_does_not_run() {
    let whole = TRIAL.input();
    for length in [0, 10, whole.find("printf").unwrap() + 30, whole.len() - 1] {
        let mut child = Command::new("sh")
            .args(["-c", &TRIAL.command("", &[])])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(&whole.as_bytes()[..length]).unwrap();
        drop(input);
        let ended = child.wait_with_output().unwrap();
        assert_eq!((ended.stdout, ended.status.code()), (vec![], Some(1)));
    }
}

#[test]
fn output_without_the_marker_is_none_of_the_script() {
    for text in ["", "welcome\n", "sshvpn-begin", "x sshvpn-begin\n"] {
        assert_eq!(output(text), None, "{text:?}");
    }
    assert_eq!(
        output("a\nsshvpn-begin\r\nb\nsshvpn-begin\n"),
        Some("b\nsshvpn-begin\n")
    );
}

#[test]
fn no_script_ends_itself_early() {
    for text in [holder::HOLD, PROBE, PUSH] {
        assert!(text.lines().all(|line| line != END), "{text}");
    }
    assert!(LOADER.contains(END) && LOADER.contains(BEGIN) && !LOADER.contains('!'));
}
