//! Logins to the distribution's sshd with every type of key.

use std::fs;

use super::AuthError;
use crate::ssh::client::prompt::Prompter;
use crate::ssh::client::prompt::script::Script;
use crate::ssh::client::test_server::{
    Server, add_to_agent, logged, nobody, start_agent, with_keys,
};
use crate::ssh::test_settings;

const PASSPHRASE: &str = "correct horse";

#[tokio::test]
async fn plain_keys_of_every_type() {
    for kind in [
        &["-t", "ed25519"][..],
        &["-t", "ecdsa", "-b", "256"],
        &["-t", "ecdsa", "-b", "384"],
        &["-t", "ecdsa", "-b", "521"],
        &["-t", "rsa", "-b", "2048"],
    ] {
        let server = Server::new("");
        server.key("id", &[kind, &["-N", ""]].concat());
        server.authorize("id");
        let outcome = server.log_in(&with_keys(&server, &["id"]), &nobody()).await;
        assert!(outcome.is_ok(), "{kind:?}: {outcome:?}\n{}", server.log());
    }
}

#[tokio::test]
async fn rsa_keys_follow_pubkey_accepted_algorithms() {
    let server = Server::new("LogLevel DEBUG1");
    server.key("id", &["-t", "rsa", "-b", "2048", "-N", ""]);
    server.authorize("id");
    let mut options = with_keys(&server, &["id"]);
    options.pubkey_accepted_algorithms = vec!["rsa-sha2-256".into()];
    server.log_in(&options, &nobody()).await.unwrap();
    assert!(
        server.log().contains("pkalg rsa-sha2-256"),
        "{}",
        server.log()
    );
    options.pubkey_accepted_algorithms = vec!["ssh-ed25519".into()];
    let refused = server.log_in(&options, &nobody()).await;
    assert!(matches!(refused, Err(AuthError::Denied { .. })));
}

#[tokio::test]
async fn an_encrypted_key_asks_only_when_the_server_takes_it() {
    let server = Server::new("");
    for name in ["id", "other"] {
        server.key(name, &["-t", "ed25519", "-N", PASSPHRASE]);
    }
    server.authorize("id");
    let script = Script::new(&["wrong", PASSPHRASE]);
    let prompter = Prompter::scripted(script.clone());
    let options = with_keys(&server, &["other", "id"]);
    server.log_in(&options, &prompter).await.unwrap();
    let prompt = format!(
        "Enter passphrase for key '{}': ",
        server.path("id").display()
    );
    assert!(script.seen().ends_with(&[prompt.clone(), prompt]));
    assert_eq!(script.echoes(), [false, false]);
}

#[tokio::test]
async fn an_askpass_program_gives_the_passphrase() {
    let server = Server::new("");
    server.key("id", &["-t", "ed25519", "-N", PASSPHRASE]);
    server.authorize("id");
    let program = server.path("askpass");
    let asked = server.path("asked");
    let script = format!("echo \"$1\" >> {}; echo '{PASSPHRASE}'", asked.display());
    test_settings::write_program(&program, &script);
    let options = with_keys(&server, &["id"]);
    let prompter =
        Prompter::with_environment(&options, &test_settings::invoker(), |name| match name {
            "SSH_ASKPASS" => Some(program.clone().into()),
            "SSH_ASKPASS_REQUIRE" => Some("force".into()),
            _ => None,
        });
    server.log_in(&options, &prompter).await.unwrap();
    let asked = fs::read_to_string(asked).unwrap();
    assert!(asked.starts_with("Enter passphrase for key '"), "{asked}");
    assert_eq!(asked.lines().count(), 1);
}

#[tokio::test]
async fn the_agent_signs_for_keys_whose_files_are_gone() {
    let server = Server::new("");
    let socket = server.path("agent");
    let _agent = start_agent(&socket).await;
    for (name, kind) in [("one", "ed25519"), ("two", "ecdsa"), ("three", "rsa")] {
        let path = server.key(name, &["-t", kind, "-N", ""]);
        add_to_agent(&socket, &path);
        fs::remove_file(&path).unwrap();
    }
    for name in ["one", "two", "three"] {
        fs::write(server.path("authorized"), "").unwrap();
        server.authorize(name);
        let mut options = server.options();
        options.identity_agent = Some(socket.clone());
        let outcome = server.log_in(&options, &nobody()).await;
        assert!(outcome.is_ok(), "{name}: {outcome:?}\n{}", server.log());
        // With IdentitiesOnly, the .pub file selects the key.
        options.identities_only = true;
        let refused = server.log_in(&options, &nobody()).await;
        assert!(matches!(refused, Err(AuthError::Denied { .. })), "{name}");
        options.identity_files = vec![server.path(&format!("{name}.pub"))];
        server.log_in(&options, &nobody()).await.unwrap();
    }
}

#[tokio::test]
async fn the_agents_connection_is_bound_to_the_session() {
    // The agent hides a key for another destination once it knows the session.
    let server = Server::new("");
    let socket = server.path("agent");
    let _agent = start_agent(&socket).await;
    let path = server.key("id", &["-t", "ed25519", "-N", ""]);
    server.authorize("id");
    let host = fs::read_to_string(server.path("host.pub")).unwrap();
    for (hosts, expected) in [("elsewhere", false), ("here", true)] {
        server.key(hosts, &["-t", "ed25519", "-N", ""]);
        let public = match expected {
            true => host.clone(),
            false => fs::read_to_string(server.path("elsewhere.pub")).unwrap(),
        };
        fs::write(server.path("destinations"), format!("{hosts} {public}")).unwrap();
        crate::ssh::client::test_server::run(
            std::process::Command::new("ssh-add")
                .args(["-q", "-h", hosts, "-H"])
                .arg(server.path("destinations"))
                .arg(&path)
                .env("SSH_AUTH_SOCK", &socket),
        );
        let mut options = server.options();
        options.identity_agent = Some(socket.clone());
        let outcome = server.log_in(&options, &nobody()).await;
        assert_eq!(outcome.is_ok(), expected, "{outcome:?}\n{}", server.log());
    }
}

#[tokio::test]
async fn an_agent_that_is_not_there_is_no_error() {
    let server = Server::new("");
    server.key("id", &["-t", "ed25519", "-N", ""]);
    server.authorize("id");
    let mut options = with_keys(&server, &["id"]);
    options.identity_agent = Some(server.path("absent"));
    server.log_in(&options, &nobody()).await.unwrap();
}

#[tokio::test]
async fn two_keys_where_the_server_wants_two() {
    let server = Server::new("LogLevel VERBOSE\nAuthenticationMethods publickey,publickey");
    for name in ["one", "two"] {
        server.key(name, &["-t", "ed25519", "-N", ""]);
        server.authorize(name);
    }
    let outcome = server
        .log_in(&with_keys(&server, &["one", "two"]), &nobody())
        .await;
    assert!(outcome.is_ok(), "{outcome:?}\n{}", server.log());
    assert_eq!(logged(&server, "Partial publickey"), 1, "{}", server.log());
    // A single key is not accepted twice.
    let outcome = server
        .log_in(&with_keys(&server, &["one"]), &nobody())
        .await;
    let text = outcome.unwrap_err().to_string();
    let user = test_settings::invoker().name;
    assert_eq!(
        text,
        format!("{user}@127.0.0.1: Permission denied (publickey).")
    );
}

#[tokio::test]
async fn the_refusal_is_worded_as_by_ssh() {
    let server = Server::new("");
    server.key("id", &["-t", "ed25519", "-N", ""]);
    let options = with_keys(&server, &["id"]);
    let text = server.log_in(&options, &nobody()).await.unwrap_err();
    let user = &options.user;
    let expected = format!("{user}@127.0.0.1: Permission denied (publickey).");
    assert_eq!(text.to_string(), expected);
}

#[tokio::test]
async fn a_missing_key_is_named_and_an_unprotected_one_ignored() {
    use std::os::unix::fs::PermissionsExt;
    let server = Server::new("");
    let path = server.key("id", &["-t", "ed25519", "-N", ""]);
    server.authorize("id");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let script = Script::new(&[]);
    let prompter = Prompter::scripted(script.clone());
    let options = with_keys(&server, &["absent", "id"]);
    assert!(server.log_in(&options, &prompter).await.is_err());
    let seen = script.seen().join("\n");
    let missing = format!(
        "no such identity: {}: No such file or directory\n",
        server.path("absent").display()
    );
    assert!(seen.contains(&missing), "{seen}");
    assert!(seen.contains("UNPROTECTED PRIVATE KEY FILE!"), "{seen}");
}

#[tokio::test]
async fn one_try_too_many_ends_with_advice() {
    let server = Server::new("MaxAuthTries 2");
    let names = ["a", "b", "c", "d"];
    for name in names {
        server.key(name, &["-t", "ed25519", "-N", ""]);
    }
    let refused = server.log_in(&with_keys(&server, &names), &nobody()).await;
    let error = refused.unwrap_err();
    assert!(
        matches!(error, AuthError::Disconnected { tries: 2, .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("IdentitiesOnly"), "{error}");
}

#[tokio::test]
async fn each_key_is_offered_once() {
    let server = Server::new("LogLevel DEBUG1\nMaxAuthTries 20");
    let socket = server.path("agent");
    let _agent = start_agent(&socket).await;
    let path = server.key("id", &["-t", "ed25519", "-N", ""]);
    fs::copy(&path, server.path("copy")).unwrap();
    add_to_agent(&socket, &path);
    let mut options = with_keys(&server, &["id", "id", "copy"]);
    options.identity_agent = Some(socket);
    assert!(server.log_in(&options, &nobody()).await.is_err());
    let tries = logged(&server, "test pkalg ssh-ed25519 pkblob");
    assert_eq!(tries, 1, "{}", server.log());
}

#[tokio::test]
async fn a_user_with_a_wrong_passphrase_gets_on_to_the_next_key() {
    let server = Server::new("");
    server.key("locked", &["-t", "ed25519", "-N", PASSPHRASE]);
    server.key("open", &["-t", "ed25519", "-N", ""]);
    server.authorize("locked");
    server.authorize("open");
    let script = Script::new(&["1", "2", "3"]);
    let options = with_keys(&server, &["locked", "open"]);
    let prompter = Prompter::scripted(script.clone());
    server.log_in(&options, &prompter).await.unwrap();
    assert_eq!(script.echoes().len(), 3);
}
