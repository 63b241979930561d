//! Prompts on a pseudo-terminal; the test types the answers.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::thread::{self, JoinHandle};

use nix::pty::openpty;
use nix::sys::signal::Signal;
use nix::sys::termios::{LocalFlags, tcgetattr};

use nix::unistd::Pid;

use super::*;

/// A pseudo-terminal with a prompt in progress.
struct Asking {
    keyboard: File,
    tty: File,
    withdraw: Option<OwnedFd>,
    answer: JoinHandle<Result<Secret, NoAnswer>>,
}

impl Asking {
    /// Prompts, and returns once the prompt is on the screen.
    fn start(echo: bool) -> Self {
        let pair = openpty(None, None).unwrap();
        let tty = File::from(pair.slave);
        let mut asked = tty.try_clone().unwrap();
        let (withdrawn, withdraw) = unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
        let answer = thread::spawn(move || ask(&mut asked, "Password: ", echo, withdrawn.as_fd()));
        let mut asking = Self {
            keyboard: File::from(pair.master),
            tty,
            withdraw: Some(withdraw),
            answer,
        };
        asking.shown("Password: ");
        asking
    }

    /// Reads what the terminal shows until `text` appears.
    fn shown(&mut self, text: &str) -> String {
        let mut seen = String::new();
        let mut chunk = [0; 64];
        while !seen.contains(text) {
            let count = self.keyboard.read(&mut chunk).unwrap();
            seen.push_str(std::str::from_utf8(&chunk[..count]).unwrap());
        }
        seen
    }

    fn echoes(&self) -> bool {
        tcgetattr(&self.tty)
            .unwrap()
            .local_flags
            .contains(LocalFlags::ECHO)
    }
}

#[test]
fn a_secret_is_not_echoed_and_echo_comes_back() {
    let mut asking = Asking::start(false);
    assert!(!asking.echoes());
    asking.keyboard.write_all(b"s\xc3\xa9cret\n").unwrap();
    let seen = asking.shown("\n");
    assert_eq!(seen.trim(), "");
    let Asking { tty, answer, .. } = asking;
    assert_eq!(answer.join().unwrap().unwrap().expose(), "sécret");
    let flags = tcgetattr(&tty).unwrap().local_flags;
    assert!(flags.contains(LocalFlags::ECHO));
}

#[test]
fn a_line_is_echoed() {
    let mut asking = Asking::start(true);
    assert!(asking.echoes());
    asking.keyboard.write_all(b"yes\n").unwrap();
    asking.shown("yes");
    assert_eq!(asking.answer.join().unwrap().unwrap().expose(), "yes");
}

#[test]
fn end_of_file_is_no_answer() {
    let mut asking = Asking::start(false);
    asking.keyboard.write_all(b"\x04").unwrap();
    assert!(matches!(
        asking.answer.join().unwrap(),
        Err(NoAnswer::Closed)
    ));
}

#[test]
fn an_answer_is_cut_at_the_limit() {
    let mut asking = Asking::start(false);
    asking.keyboard.write_all(&[b'x'; 2000]).unwrap();
    asking.keyboard.write_all(b"\n").unwrap();
    let answer = asking.answer.join().unwrap().unwrap();
    assert_eq!(answer.expose().len(), MAX_ANSWER);
}

#[test]
fn a_question_can_be_withdrawn() {
    let mut asking = Asking::start(false);
    drop(asking.withdraw.take());
    let Asking { tty, answer, .. } = asking;
    assert!(matches!(answer.join().unwrap(), Err(NoAnswer::Withdrawn)));
    assert!(
        tcgetattr(&tty)
            .unwrap()
            .local_flags
            .contains(LocalFlags::ECHO)
    );
}

#[tokio::test]
async fn a_signal_ends_the_question_and_is_passed_on() {
    use tokio::signal::unix::{SignalKind, signal};
    // Without this listener, the signal that is raised again would end the test itself.
    let mut hangups = signal(SignalKind::hangup()).unwrap();
    let asking = Asking::start(false);
    signal::kill(Pid::this(), Signal::SIGHUP).unwrap();
    let Asking {
        tty,
        answer,
        keyboard: _keyboard,
        withdraw: _withdraw,
    } = asking;
    assert!(matches!(answer.join().unwrap(), Err(NoAnswer::Interrupted)));
    let flags = tcgetattr(&tty).unwrap().local_flags;
    assert!(flags.contains(LocalFlags::ECHO));
    hangups.recv().await.unwrap();
}
