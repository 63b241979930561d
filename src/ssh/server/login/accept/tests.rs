//! Logins with the distribution's ssh.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;
use crate::ssh::server::login::credential::Credential;
use crate::ssh::server::test_lab::{HANGS, Lab};

#[tokio::test]
async fn keys_of_every_kind_come_in() {
    let lab = Lab::new().await;
    let kinds: [&[&str]; 6] = [
        &["-t", "ed25519"],
        &["-t", "ecdsa", "-b", "256"],
        &["-t", "ecdsa", "-b", "384"],
        &["-t", "ecdsa", "-b", "521"],
        &["-t", "rsa", "-b", "2048"],
        &["-t", "rsa", "-b", "3072"],
    ];
    for (number, kind) in kinds.iter().enumerate() {
        let name = format!("key{number}");
        lab.key(&name, kind);
        lab.know(&name);
        let _ssh = lab.ssh(&[&name], &["-N"]);
        let login = lab.login().await;
        assert_eq!(*login.grant, "alice", "{kind:?}");
        assert_eq!(login.user, "alice");
        assert!(matches!(login.credential, Credential::Key(_)));
        let identification = login.connection.identification();
        assert!(identification.starts_with("SSH-2.0-OpenSSH"));
        assert!(!login.connection.is_sshvpn());
    }
    assert_eq!(lab.gate.failures(), Vec::<String>::new());
    assert_eq!(lab.gate.begun(), kinds.len(), "once for each");
    // One call for the offer, one for the verified key.
    assert_eq!(lab.gate.judged(), 2 * kinds.len());
}

#[tokio::test]
async fn an_rsa_host_key_is_shown_with_either_hash() {
    for bits in ["2048", "4096"] {
        let mut lab = Lab::new().await;
        lab.known_key("alice");
        lab.host_key(&["-t", "rsa", "-b", bits]);
        for algorithm in ["rsa-sha2-512", "rsa-sha2-256"] {
            let only = format!("HostKeyAlgorithms={algorithm}");
            let _ssh = lab.ssh(&["alice"], &["-N", "-o", &only]);
            lab.login().await;
        }
        let ssh = lab.ssh(&["alice"], &["-N", "-o", "HostKeyAlgorithms=ssh-rsa"]);
        assert!(matches!(
            lab.accept().await.err(),
            Some(LoginFailure::Algorithms(_))
        ));
        assert_eq!(ssh.ended().await.code, Some(255));
    }
}

#[tokio::test]
async fn a_certificate_comes_in_by_its_authority() {
    let lab = Lab::new().await;
    for (kind, authority_kind) in [
        (&["-t", "ed25519"][..], &["-t", "ed25519"][..]),
        (&["-t", "rsa", "-b", "2048"], &["-t", "rsa", "-b", "2048"]),
        (&["-t", "ecdsa"], &["-t", "ecdsa", "-b", "384"]),
    ] {
        let (key, authority) = (kind[1], &format!("authority-{}", kind[1]));
        lab.key(key, kind);
        lab.key(authority, authority_kind);
        lab.know(authority);
        lab.certify(authority, key, &["-n", "alice,bob", "-z", "7"]);
        let _ssh = lab.ssh(&[key], &["-N"]);
        let login = lab.login().await;
        let Credential::Certificate(certificate) = login.credential else {
            panic!("{key}: a plain key");
        };
        assert_eq!(certificate.key_id, key);
        assert_eq!(certificate.serial, 7);
        assert_eq!(certificate.principals, ["alice", "bob"]);
        assert!(
            certificate
                .extensions
                .contains(&("permit-pty".to_owned(), String::new()))
        );
    }
}

#[tokio::test]
async fn a_certificate_that_is_no_good_does_not_come_in() {
    let lab = Lab::new().await;
    lab.key("authority", &["-t", "ed25519"]);
    lab.know("authority");
    lab.key("other", &["-t", "ed25519"]);
    lab.key("sha1", &["-t", "rsa", "-b", "2048"]);
    lab.know("sha1");
    let cases: [(&str, &str, &[&str], &str); 3] = [
        ("authority", "expired", &["-V", "20200101:20200102"], ""),
        ("other", "stranger", &[], "a certificate"),
        ("sha1", "old", &["-t", "ssh-rsa"], "SHA-1"),
    ];
    for (authority, name, arguments, failure) in cases {
        let name = &format!("{name}-user");
        lab.key(name, &["-t", "ed25519"]);
        lab.certify(authority, name, arguments);
        let before = lab.gate.failures().len();
        let ssh = lab.ssh(&[name], &["-N"]);
        let refused = lab.accept().await.err().unwrap();
        assert!(matches!(refused, LoginFailure::Failed(_)), "{refused}");
        assert_eq!(ssh.ended().await.code, Some(255));
        let failures = lab.gate.failures()[before..].join("; ");
        assert!(failures.contains(failure), "{name}: {failures}");
    }
}

#[tokio::test]
async fn who_tries_too_many_keys_is_disconnected() {
    let mut lab = Lab::new().await;
    lab.settings.max_auth_tries = 3;
    lab.known_key("good");
    let wrong = ["wrong1", "wrong2", "wrong3", "wrong4"];
    for name in wrong {
        lab.key(name, &["-t", "ed25519"]);
    }
    let _ssh = lab.ssh(&["wrong1", "wrong2", "good"], &["-N"]);
    lab.login().await;

    let ssh = lab.ssh(&["wrong1", "wrong2", "wrong3", "good"], &["-N"]);
    assert_eq!(lab.accept().await.err(), Some(LoginFailure::Failed(3)));
    let ended = ssh.ended().await;
    assert!(ended.errors.contains("Too many auth"), "{}", ended.errors);
    assert_eq!(ended.code, Some(255));
}

#[tokio::test]
async fn only_keys_are_offered_and_nothing_else_succeeds() {
    let lab = Lab::new().await;
    let ssh = lab.ssh(&[], &["-N", "-o", "PubkeyAuthentication=no"]);
    assert_eq!(lab.accept().await.err(), Some(LoginFailure::NoAttempt));
    let ended = ssh.ended().await;
    assert!(
        ended.errors.contains("Permission denied (publickey)."),
        "{}",
        ended.errors
    );
}

#[tokio::test]
async fn a_weak_key_is_not_even_judged() {
    let lab = Lab::new().await;
    let arguments = ["-t", "rsa", "-b", "1024"];
    lab.key("weak", &arguments);
    lab.know("weak");
    let ssh = lab.ssh(&["weak"], &["-N", "-o", "RequiredRSASize=1024"]);
    assert_eq!(lab.accept().await.err(), Some(LoginFailure::Failed(1)));
    assert_eq!(lab.gate.judged(), 0);
    assert!(lab.gate.failures()[0].contains("2048"));
    assert_eq!(ssh.ended().await.code, Some(255));
}

#[tokio::test]
async fn the_grace_time_ends_a_silent_connection_at_any_stage() {
    let mut lab = Lab::new().await;
    lab.settings.grace_time = Some(Duration::from_millis(300));
    for said in ["", "SSH-2.0-OpenSSH_9", "SSH-2.0-OpenSSH_9.2\r\n"] {
        let mut stream = TcpStream::connect(lab.address()).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        let result = lab.accept().await;
        assert_eq!(result.err(), Some(LoginFailure::GraceTime(0)), "{said}");
        // The server closes the connection.
        let closed = timeout(HANGS, read_to_end(stream)).await;
        closed.expect("the connection is left open");
    }
}

#[tokio::test]
async fn what_is_no_ssh_is_told_from_who_leaves() {
    let lab = Lab::new().await;
    for garbage in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"\r\n",
        b"\0\0\0\0\0\0\0\n",
        &[b'A'; 5000],
        b"SSH-1.5-old\r\n",
    ] {
        let mut stream = TcpStream::connect(lab.address()).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        let result = lab.accept().await;
        assert!(
            matches!(result, Err(LoginFailure::Protocol(_))),
            "{:?}",
            result.err()
        );
    }
    drop(TcpStream::connect(lab.address()).await.unwrap());
    assert_eq!(lab.accept().await.err(), Some(LoginFailure::NoAttempt));
}

#[tokio::test]
async fn without_a_common_algorithm_there_is_no_login() {
    let lab = Lab::new().await;
    let ssh = lab.ssh(
        &[],
        &["-N", "-o", "KexAlgorithms=diffie-hellman-group14-sha256"],
    );
    let result = lab.accept().await;
    assert!(
        matches!(&result, Err(LoginFailure::Algorithms(text)) if text.contains("group14")),
        "{:?}",
        result.err()
    );
    assert_eq!(ssh.ended().await.code, Some(255));
}

async fn read_to_end(mut stream: TcpStream) {
    use tokio::io::AsyncReadExt;
    let mut rest = Vec::new();
    // A reset is an end too.
    let _ = stream.read_to_end(&mut rest).await;
}
