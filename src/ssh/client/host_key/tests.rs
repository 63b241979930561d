//! The decision about a host key: every setting with every state of the known_hosts files,
//! and the texts for the user. Debian's ssh 9.2 printed the expected texts in the same
//! situations.

use std::fs;

use super::case::{Case, KEY, OTHER};
use super::known_hosts::KnownHosts;
use super::*;
use crate::config::ssh::options::{Proxy, StrictHostKeyChecking};
use crate::ssh::test_settings;

const FINGERPRINT: &str = "SHA256:T7SvZ2cslqpPj6nKzitCBHHlpVF3r3MvLwmFL0fk0IE";
const RULER: &str = "@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@";

fn question(host: &str, address: &str, names: &str) -> String {
    format!(
        "The authenticity of host '{host} ({address})' can't be established.\n\
         ED25519 key fingerprint is {FINGERPRINT}.\n\
         {names}\n\
         Are you sure you want to continue connecting (yes/no/[fingerprint])? "
    )
}

const NO_OTHER: &str = "This key is not known by any other names.";
const AGAIN: &str = "Please type 'yes', 'no' or the fingerprint: ";
use StrictHostKeyChecking::{AcceptNew, Ask, No, Yes};

#[tokio::test]
async fn a_known_key_passes_silently_whatever_the_strictness() {
    for strict in [Yes, Ask, AcceptNew, No] {
        let case = Case::new(&format!("server {OTHER}\nserver {KEY}\n"), strict, &[]);
        assert_eq!(case.present(KEY).await.unwrap(), HostTrust::Verified);
        assert!(case.seen().is_empty());
    }
}

#[tokio::test]
async fn a_new_key_is_asked_about_and_added() {
    let case = Case::new("", Ask, &["maybe", "yes"]);
    assert_eq!(case.present(KEY).await.unwrap(), HostTrust::Verified);
    assert_eq!(
        case.seen(),
        [
            question("server", "192.0.2.1", NO_OTHER),
            AGAIN.to_owned(),
            "Warning: Permanently added 'server' (ED25519) to the list of known hosts.".to_owned(),
        ]
    );
    assert_eq!(case.script.echoes(), [true, true]);
    assert_eq!(case.file(), format!("server {KEY}\n"));
}

#[tokio::test]
async fn the_fingerprint_is_an_answer_and_another_one_is_not() {
    let case = Case::new("", Ask, &[FINGERPRINT]);
    case.present(KEY).await.unwrap();
    let wrong = FINGERPRINT.to_lowercase();
    let case = Case::new("", Ask, &[&wrong, "no"]);
    let refused = case.present(KEY).await.unwrap_err();
    assert_eq!(refused.to_string(), "Host key verification failed.");
    assert_eq!(case.seen()[1], AGAIN);
    assert_eq!(case.file(), "");
}

#[tokio::test]
async fn without_anybody_to_ask_a_new_key_is_refused() {
    let case = Case::new("", Ask, &[]);
    assert!(case.present(KEY).await.is_err());
    assert!(case.seen().is_empty());
    assert_eq!(case.file(), "");
}

#[tokio::test]
async fn an_answering_machine_is_not_asked_for_ever() {
    let answers = ["secret"; 50];
    let case = Case::new("", Ask, &answers);
    assert!(case.present(KEY).await.is_err());
}

#[tokio::test]
async fn strict_yes_refuses_a_new_key() {
    let mut case = Case::new("", Yes, &["yes"]);
    case.options.port = 2222;
    assert!(case.present(KEY).await.is_err());
    assert_eq!(
        case.seen(),
        ["No ED25519 host key is known for [server]:2222 and you have requested strict checking."]
    );
}

#[tokio::test]
async fn accept_new_and_no_take_a_new_key() {
    for strict in [AcceptNew, No] {
        let mut case = Case::new("", strict, &[]);
        case.options.port = 2222;
        case.options.hash_known_hosts = true;
        assert_eq!(case.present(KEY).await.unwrap(), HostTrust::Verified);
        assert!(case.file().starts_with("|1|"), "{}", case.file());
        let known = KnownHosts::load(&case.options.user_known_hosts, &test_settings::invoker());
        assert_eq!(known.about("[server]:2222").keys.len(), 1);
    }
}

#[tokio::test]
async fn the_other_names_of_a_key_are_listed() {
    let mut lines = format!("[server]:2222 {KEY}\n");
    for number in 1..=10 {
        lines.push_str(&format!("old{number},192.0.2.{number} {KEY}\n"));
    }
    let case = Case::new(&lines, Ask, &["no"]);
    assert!(case.present(KEY).await.is_err());
    let path = case.path();
    let mut names = "This host key is known by the following other names/addresses:".to_owned();
    names.push_str(&format!("\n    {path}:1: [server]:2222"));
    for number in 1..=7 {
        let line = number + 1;
        names.push_str(&format!(
            "\n    {path}:{line}: old{number},192.0.2.{number}"
        ));
    }
    names.push_str("\n    (3 additional names omitted)");
    assert_eq!(case.seen(), [question("server", "192.0.2.1", &names)]);
}

#[tokio::test]
async fn a_key_known_without_the_port_is_known() {
    let mut case = Case::new(&format!("server {KEY}\n"), Yes, &[]);
    case.options.port = 2222;
    assert_eq!(case.present(KEY).await.unwrap(), HostTrust::Verified);
    // A different key there is not a change: the other port is another host.
    let mut case = Case::new(&format!("server {OTHER}\n"), Ask, &["yes"]);
    case.options.port = 2222;
    assert_eq!(case.present(KEY).await.unwrap(), HostTrust::Verified);
    assert_eq!(
        case.seen()[0],
        question("[server]:2222", "[192.0.2.1]:2222", NO_OTHER)
    );
}

fn changed(path: &str, host: &str) -> String {
    format!(
        "{RULER}\n\
         @    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n\
         {RULER}\n\
         IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!\n\
         Someone could be eavesdropping on you right now (man-in-the-middle attack)!\n\
         It is also possible that a host key has just been changed.\n\
         The fingerprint for the ED25519 key sent by the remote host is\n\
         {FINGERPRINT}.\n\
         Please contact your system administrator.\n\
         Add correct host key in {path} to get rid of this message.\n\
         Offending ED25519 key in {path}:1\n  \
           remove with:\n  \
           ssh-keygen -f \"{path}\" -R \"{host}\""
    )
}

#[tokio::test]
async fn a_changed_key_is_refused_unless_strictness_is_off() {
    for strict in [Yes, Ask, AcceptNew] {
        let case = Case::new(&format!("server {OTHER}\n"), strict, &["yes"]);
        assert!(case.present(KEY).await.is_err());
        assert_eq!(
            case.seen(),
            [
                changed(&case.path(), "server"),
                "Host key for server has changed and you have requested strict checking."
                    .to_owned(),
            ]
        );
        assert_eq!(case.file(), format!("server {OTHER}\n"));
    }
}

#[tokio::test]
async fn a_changed_key_without_strictness_is_not_trusted() {
    let mut case = Case::new(&format!("server {OTHER}\n"), No, &[]);
    case.options.tunnel = Some(crate::types::Mode::PointToPoint);
    assert_eq!(case.present(KEY).await.unwrap(), HostTrust::Unverified);
    assert_eq!(
        case.seen()[1..],
        [
            "Password authentication is disabled to avoid man-in-the-middle attacks.",
            "Keyboard-interactive authentication is disabled to avoid man-in-the-middle attacks.",
            "Tunnel forwarding is disabled to avoid man-in-the-middle attacks.",
        ]
    );
    assert_eq!(case.file(), format!("server {OTHER}\n"));
    case.options.exit_on_forward_failure = true;
    assert!(matches!(
        case.present(KEY).await,
        Err(HostKeyError::ForwardingDisabled)
    ));
}

#[tokio::test]
async fn a_revoked_key_is_refused_even_when_it_is_known() {
    let lines = format!("@revoked * {KEY}\nserver {KEY}\n");
    let case = Case::new(&lines, Ask, &["yes"]);
    assert!(case.present(KEY).await.is_err());
    assert_eq!(
        case.seen(),
        [
            format!(
                "{RULER}\n\
                 @       WARNING: REVOKED HOST KEY DETECTED!               @\n\
                 {RULER}\n\
                 The ED25519 host key for server is marked as revoked.\n\
                 This could mean that a stolen key is being used to\n\
                 impersonate this host."
            ),
            "ED25519 host key for server was revoked and you have requested strict checking."
                .to_owned(),
        ]
    );
    let case = Case::new(&lines, No, &[]);
    assert_eq!(case.present(KEY).await.unwrap(), HostTrust::Unverified);
}

#[tokio::test]
async fn a_key_in_revoked_host_keys_is_refused_whatever_the_strictness() {
    let mut case = Case::new(&format!("server {KEY}\n"), No, &[]);
    let list = case.directory.path().join("revoked");
    fs::write(&list, format!("{KEY}\n")).unwrap();
    case.options.revoked_host_keys = vec![list.clone()];
    assert!(case.present(KEY).await.is_err());
    let expected = format!(
        "Host key ED25519 {FINGERPRINT} revoked by file {}",
        list.display()
    );
    assert_eq!(case.seen(), [expected]);
    case.options.revoked_host_keys = vec!["/nonexistent/list".into()];
    assert!(matches!(
        case.present(KEY).await,
        Err(HostKeyError::RevokedHostKeys { .. })
    ));
}

#[tokio::test]
async fn localhost_can_be_left_unchecked_but_not_under_an_alias() {
    let mut case = Case::new(&format!("server {OTHER}\n"), Yes, &[]);
    case.peer = "127.0.0.1:22";
    case.options.no_host_authentication_for_localhost = true;
    assert_eq!(case.present(KEY).await.unwrap(), HostTrust::Verified);
    case.options.host_key_alias = Some("server".into());
    assert!(case.present(KEY).await.is_err());
    case.options.host_key_alias = None;
    case.options.proxy = Some(Proxy::Command("nc %h %p".into()));
    assert!(case.present(KEY).await.is_err());
}

#[tokio::test]
async fn an_alias_is_the_name_of_the_host() {
    let mut case = Case::new(&format!("cluster {KEY}\n"), Yes, &[]);
    case.options.host_key_alias = Some("cluster".into());
    case.options.port = 2222;
    assert_eq!(case.present(KEY).await.unwrap(), HostTrust::Verified);
}

#[tokio::test]
async fn behind_a_proxy_there_is_no_address() {
    let mut case = Case::new("", Ask, &["no"]);
    case.options.proxy = Some(Proxy::Command("nc %h %p".into()));
    assert!(case.present(KEY).await.is_err());
    let expected = question("server", "<no hostip for proxy command>", NO_OTHER);
    assert_eq!(case.seen(), [expected]);
}

#[tokio::test]
async fn the_address_is_added_with_the_name_when_it_counts() {
    let mut case = Case::new("", AcceptNew, &[]);
    case.options.check_host_ip = true;
    case.present(KEY).await.unwrap();
    assert_eq!(case.file(), format!("server,192.0.2.1 {KEY}\n"));
    let mut case = Case::new(&format!("server {KEY}\n"), Yes, &[]);
    case.options.check_host_ip = true;
    case.present(KEY).await.unwrap();
    assert_eq!(case.file(), format!("server {KEY}\n192.0.2.1 {KEY}\n"));
    let added = "Warning: Permanently added the ED25519 host key for IP address '192.0.2.1' \
                 to the list of known hosts.";
    assert_eq!(case.seen(), [added]);
}

#[tokio::test]
async fn an_address_with_another_key_is_asked_about() {
    let lines = format!("server {KEY}\n192.0.2.1 {OTHER}\n");
    let mut case = Case::new(&lines, Ask, &["si", "yes"]);
    case.options.check_host_ip = true;
    case.present(KEY).await.unwrap();
    let path = case.path();
    let warning = format!(
        "Warning: the ED25519 host key for 'server' differs from the key for the IP address \
         '192.0.2.1'\nOffending key for IP in {path}:2\nMatching host key in {path}:1"
    );
    let question = "Are you sure you want to continue connecting (yes/no)? ";
    assert_eq!(
        case.seen(),
        [
            format!("{warning}\n{question}"),
            "Please type 'yes' or 'no': ".to_owned()
        ]
    );
    let mut case = Case::new(&lines, Yes, &[]);
    case.options.check_host_ip = true;
    assert!(case.present(KEY).await.is_err());
    assert_eq!(
        case.seen()[1],
        "Exiting, you have requested strict checking."
    );
}

#[tokio::test]
async fn a_short_rsa_key_is_refused() {
    let mut case = Case::new("", No, &[]);
    assert!(case.present(test_settings::RSA_KEY).await.is_ok());
    case.options.required_rsa_size = 2048;
    let refused = case.present(test_settings::RSA_KEY).await;
    let expected = "Bad server host key: Invalid key length (1024 bits, RequiredRSASize is 2048)";
    assert_eq!(refused.unwrap_err().to_string(), expected);
}

#[tokio::test]
async fn control_characters_of_a_file_do_not_reach_the_terminal() {
    let case = Case::new(&format!("evil\x1b[2J {KEY}\n"), Ask, &["no"]);
    assert!(case.present(KEY).await.is_err());
    assert!(case.seen()[0].contains(": evil[2J\n"), "{:?}", case.seen());
}
