//! Prompts through an askpass program, and prompts that are not possible.

use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::ssh::test_settings::{self, invoker};

/// A directory with an askpass program that runs `script`.
fn program(script: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("askpass");
    test_settings::write_program(&path, script);
    (directory, path)
}

fn prompter(options: &SshOptions, environment: &[(&str, &str)]) -> Prompter {
    Prompter::with_environment(options, &invoker(), |name| {
        let found = environment.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| value.into())
    })
}

fn forced(path: &std::path::Path) -> Prompter {
    let options = test_settings::options();
    let path = path.to_str().unwrap();
    prompter(
        &options,
        &[("SSH_ASKPASS", path), ("SSH_ASKPASS_REQUIRE", "force")],
    )
}

#[tokio::test]
async fn askpass_gets_the_prompt_and_its_first_line_is_the_answer() {
    let (_keep, path) = program("printf '%s, %s\\nmore\\n' \"$1\" \"${SSH_ASKPASS_PROMPT-none}\"");
    let prompter = forced(&path);
    let answer = prompter.secret("Password\x1b[1m: ").await.unwrap();
    assert_eq!(answer.expose(), "Password[1m: , none");
}

#[tokio::test]
async fn askpass_that_fails_gives_up_and_one_that_is_missing_is_named() {
    let (_keep, path) = program("echo nothing; exit 1");
    let refused = forced(&path).secret("?").await;
    assert!(matches!(refused, Err(PromptError::GivenUp)));
    let missing = forced(&path.with_file_name("absent")).secret("?").await;
    let text = missing.unwrap_err().to_string();
    assert!(text.contains("absent"), "{text}");
}

#[tokio::test]
async fn askpass_is_told_when_a_yes_or_no_is_wanted() {
    let (_keep, path) = program("test \"$SSH_ASKPASS_PROMPT\" = confirm");
    assert!(forced(&path).confirm("Allow? ").await.unwrap());
    let (_keep, path) = program("exit 1");
    assert!(!forced(&path).confirm("Allow? ").await.unwrap());
    let (_keep, path) = program("echo no");
    assert!(!forced(&path).confirm("Allow? ").await.unwrap());
}

#[tokio::test]
async fn batch_mode_asks_nobody() {
    let (_keep, path) = program("echo never");
    let mut options = test_settings::options();
    options.batch_mode = true;
    let path = path.to_str().unwrap();
    let prompter = prompter(
        &options,
        &[("SSH_ASKPASS", path), ("SSH_ASKPASS_REQUIRE", "force")],
    );
    assert!(matches!(
        prompter.secret("?").await,
        Err(PromptError::Unattended)
    ));
    assert!(!prompter.confirm("?").await.unwrap());
}

#[test]
fn when_askpass_is_used() {
    use super::askpass::{Askpass, Preference};
    let preference = |environment: &[(&str, &str)]| {
        let askpass = Askpass::new(&invoker(), |name| {
            let found = environment.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| value.into())
        });
        askpass.preference()
    };
    let require = "SSH_ASKPASS_REQUIRE";
    assert_eq!(preference(&[]), Preference::Never);
    assert_eq!(preference(&[("DISPLAY", "")]), Preference::Never);
    assert_eq!(
        preference(&[("DISPLAY", ":0")]),
        Preference::WithoutTerminal
    );
    assert_eq!(
        preference(&[("WAYLAND_DISPLAY", "wayland-0")]),
        Preference::WithoutTerminal
    );
    assert_eq!(
        preference(&[("DISPLAY", ":0"), (require, "never")]),
        Preference::Never
    );
    assert_eq!(preference(&[(require, "prefer")]), Preference::Never);
    assert_eq!(
        preference(&[("DISPLAY", ":0"), (require, "Prefer")]),
        Preference::First
    );
    assert_eq!(preference(&[(require, "force")]), Preference::First);
}
