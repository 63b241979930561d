//! Passwords and dialogues, against a server within the test process with invented users
//! and questions.

use std::borrow::Cow;
use std::sync::{Arc, Mutex};

use russh::keys::{Algorithm, PrivateKey};
use russh::server::{self, Auth, Response};
use russh::{MethodKind, MethodSet};

use super::{AuthError, authenticate};
use crate::config::ssh::options::{SshOptions, StrictHostKeyChecking};
use crate::ssh::client::host_key::HostTrust;
use crate::ssh::client::prompt::Prompter;
use crate::ssh::client::prompt::script::Script;
use crate::ssh::client::test_server::connect;
use crate::ssh::test_settings;

/// The server's keyboard-interactive dialogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialogue {
    /// Name, then a code: `alice` and `123`.
    TwoQuestions,
    /// A refusal without a question.
    Refusal,
    /// Rounds without questions, for ever.
    Endless,
}

/// A server that accepts the password `secret`.
#[derive(Clone)]
struct Host {
    methods: &'static [MethodKind],
    dialogue: Dialogue,
    /// Whether the server also requires keyboard-interactive after the password.
    two_factors: bool,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Host {
    fn new(methods: &'static [MethodKind]) -> Self {
        Self {
            methods,
            dialogue: Dialogue::TwoQuestions,
            two_factors: false,
            requests: Arc::default(),
        }
    }

    fn note(&self, request: &str) {
        self.requests.lock().unwrap().push(request.to_owned());
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// Logs in as alice with the answers of `script`.
    async fn log_in(
        &self,
        change: impl FnOnce(&mut SshOptions),
        trust: HostTrust,
        script: &Script,
    ) -> Result<(), AuthError> {
        let key = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519);
        let config = server::Config {
            keys: vec![key.unwrap()],
            methods: MethodSet::from(self.methods),
            auth_rejection_time: std::time::Duration::ZERO,
            ..server::Config::default()
        };
        let (local, remote) = tokio::io::duplex(1 << 16);
        let serving = server::run_stream(Arc::new(config), remote, self.clone());
        let session = tokio::spawn(async move { serving.await.unwrap().await });
        let mut options = test_settings::options();
        options.strict_host_key_checking = StrictHostKeyChecking::AcceptNew;
        options.user_known_hosts = vec!["/dev/null".into()];
        change(&mut options);
        let quiet = Prompter::scripted(Script::new(&[]));
        let (mut handle, _) = connect(local, &options, &quiet, None).await.unwrap();
        let prompter = Prompter::scripted(script.clone());
        let invoker = test_settings::invoker();
        // On a separate task, because the future must be Send.
        let outcome = tokio::spawn(async move {
            authenticate(&mut handle, trust, &options, &invoker, &prompter).await
        });
        let outcome = outcome.await.unwrap();
        session.abort();
        outcome
    }
}

/// The questions of [`Dialogue::TwoQuestions`].
fn questions() -> Auth {
    let prompts = [
        (Cow::from("Name: \x1b[31m"), true),
        (Cow::from("Code: "), false),
    ];
    Auth::Partial {
        name: "Login".into(),
        instructions: "Look at\x07 your token".into(),
        prompts: prompts.to_vec().into(),
    }
}

impl server::Handler for Host {
    type Error = russh::Error;

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, russh::Error> {
        self.note(&format!("password {user} {password}"));
        match (password, self.two_factors) {
            ("secret", false) => Ok(Auth::Accept),
            ("secret", true) => Ok(Auth::Reject {
                proceed_with_methods: Some(MethodSet::from(&[MethodKind::KeyboardInteractive][..])),
                partial_success: true,
            }),
            // Without a list, russh would remove the method.
            _ => Ok(Auth::Reject {
                proceed_with_methods: Some(MethodSet::from(self.methods)),
                partial_success: false,
            }),
        }
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        user: &str,
        _submethods: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, russh::Error> {
        let empty = Auth::Partial {
            name: "".into(),
            instructions: "".into(),
            prompts: Cow::Borrowed(&[]),
        };
        let Some(response) = response else {
            self.note(&format!("dialogue {user}"));
            return Ok(match self.dialogue {
                Dialogue::TwoQuestions => questions(),
                Dialogue::Refusal => Auth::reject(),
                Dialogue::Endless => empty,
            });
        };
        if self.dialogue == Dialogue::Endless {
            return Ok(empty);
        }
        let answers: Vec<String> = response
            .map(|answer| String::from_utf8_lossy(&answer).into_owned())
            .collect();
        self.note(&format!("answers {}", answers.join(" ")));
        match answers == ["alice", "123"] {
            true => Ok(Auth::Accept),
            false => Ok(Auth::reject()),
        }
    }
}

const PASSWORD: &[MethodKind] = &[MethodKind::Password];
const DIALOGUE: &[MethodKind] = &[MethodKind::KeyboardInteractive];
const BOTH: &[MethodKind] = &[MethodKind::Password, MethodKind::KeyboardInteractive];

#[tokio::test]
async fn a_password_is_asked_for_until_it_is_right() {
    let host = Host::new(PASSWORD);
    let script = Script::new(&["wrong", "secret"]);
    let outcome = host.log_in(|_| {}, HostTrust::Verified, &script).await;
    assert!(outcome.is_ok(), "{outcome:?}");
    assert_eq!(
        script.seen(),
        [
            "alice@server's password: ",
            "Permission denied, please try again.",
            "alice@server's password: ",
        ]
    );
    assert_eq!(script.echoes(), [false, false]);
    assert_eq!(
        host.requests(),
        ["password alice wrong", "password alice secret"]
    );
}

#[tokio::test]
async fn passwords_end_with_number_of_password_prompts() {
    let host = Host::new(PASSWORD);
    let script = Script::new(&["1", "2", "3", "secret"]);
    let aliased = |options: &mut SshOptions| {
        options.number_of_password_prompts = 2;
        options.host_key_alias = Some("cluster".into());
    };
    let refused = host.log_in(aliased, HostTrust::Verified, &script).await;
    let text = refused.unwrap_err().to_string();
    assert_eq!(text, "alice@server: Permission denied (password).");
    assert_eq!(script.seen()[0], "alice@cluster's password: ");
    assert_eq!(host.requests().len(), 2);
}

#[tokio::test]
async fn without_anybody_to_ask_no_password_is_sent() {
    let host = Host::new(BOTH);
    let batch = |options: &mut SshOptions| options.batch_mode = true;
    let script = Script::new(&["secret"; 9]);
    assert!(
        host.log_in(batch, HostTrust::Verified, &script)
            .await
            .is_err()
    );
    let host_password = Host::new(PASSWORD);
    let nobody = Script::new(&[]);
    let refused = host_password
        .log_in(|_| {}, HostTrust::Verified, &nobody)
        .await;
    assert!(matches!(refused, Err(AuthError::Denied { .. })));
    assert!(host.requests().is_empty() && host_password.requests().is_empty());
}

#[tokio::test]
async fn a_server_that_is_not_verified_gets_no_secret() {
    let host = Host::new(BOTH);
    let script = Script::new(&["secret"; 9]);
    let refused = host.log_in(|_| {}, HostTrust::Unverified, &script).await;
    assert!(matches!(refused, Err(AuthError::Denied { .. })));
    assert!(host.requests().is_empty());
    assert!(script.seen().is_empty());
}

#[tokio::test]
async fn a_dialogue_shows_what_the_server_says_without_its_control_characters() {
    let host = Host::new(DIALOGUE);
    let script = Script::new(&["alice", "123"]);
    let outcome = host.log_in(|_| {}, HostTrust::Verified, &script).await;
    assert!(outcome.is_ok(), "{outcome:?}");
    assert_eq!(
        script.seen(),
        [
            "Login",
            "Look at your token",
            "(alice@server) Name: [31m",
            "(alice@server) Code: ",
        ]
    );
    assert_eq!(script.echoes(), [true, false]);
    assert_eq!(host.requests(), ["dialogue alice", "answers alice 123"]);
}

#[tokio::test]
async fn a_dialogue_is_had_again_but_not_for_ever() {
    let host = Host::new(DIALOGUE);
    let script = Script::new(&["alice", "1", "alice", "2", "alice", "3", "alice", "123"]);
    let refused = host.log_in(|_| {}, HostTrust::Verified, &script).await;
    let text = refused.unwrap_err().to_string();
    assert_eq!(
        text,
        "alice@server: Permission denied (keyboard-interactive)."
    );
    assert_eq!(script.echoes().len(), 6);
}

#[tokio::test]
async fn a_dialogue_without_anybody_is_not_had_again() {
    let host = Host::new(DIALOGUE);
    let nobody = Script::new(&[]);
    let refused = host.log_in(|_| {}, HostTrust::Verified, &nobody).await;
    assert!(matches!(refused, Err(AuthError::Denied { .. })));
    assert_eq!(host.requests(), ["dialogue alice", "answers  "]);
}

#[tokio::test]
async fn a_refusal_without_a_question_ends_the_method() {
    let mut host = Host::new(BOTH);
    host.dialogue = Dialogue::Refusal;
    let script = Script::new(&["secret"]);
    let outcome = host.log_in(|_| {}, HostTrust::Verified, &script).await;
    assert!(outcome.is_ok(), "{outcome:?}");
    assert_eq!(host.requests(), ["dialogue alice", "password alice secret"]);
}

#[tokio::test]
async fn endless_rounds_come_to_an_end() {
    let mut host = Host::new(DIALOGUE);
    host.dialogue = Dialogue::Endless;
    let script = Script::new(&[]);
    let refused = host.log_in(|_| {}, HostTrust::Verified, &script).await;
    assert!(matches!(refused, Err(AuthError::TooManyQuestions { .. })));
}

#[tokio::test]
async fn a_partial_success_goes_on_with_what_is_left() {
    let mut host = Host::new(PASSWORD);
    host.two_factors = true;
    let script = Script::new(&["secret", "alice", "123"]);
    let outcome = host.log_in(|_| {}, HostTrust::Verified, &script).await;
    assert!(outcome.is_ok(), "{outcome:?}");
    assert_eq!(host.requests().len(), 3);
}

#[tokio::test]
async fn the_order_of_methods_is_the_users() {
    let host = Host::new(BOTH);
    let preferred = |options: &mut SshOptions| {
        options.preferred_authentications = vec!["password".into(), "keyboard-interactive".into()];
    };
    let script = Script::new(&["1", "2", "3", "alice", "123"]);
    let outcome = host.log_in(preferred, HostTrust::Verified, &script).await;
    assert!(outcome.is_ok(), "{outcome:?}");
    assert_eq!(
        host.requests()[3..],
        ["dialogue alice", "answers alice 123"]
    );
}
