//! Tests of the policy with certificates.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::config::serve::settings::ClientMatch;
use crate::types::Unit;

const AUTHORITY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK2pr+Bfus1hvPof4Wb/plZCzSbqadHH0u+/f4ODtKnE";

fn blob(text: &str) -> KeyBlob {
    let (kind, text) = text.split_once(' ').unwrap();
    KeyBlob::parse(kind, text).unwrap()
}

/// A certificate of alice, valid from 1000 to 2000 s after 1970.
fn certificate() -> UserCertificate {
    UserCertificate {
        key: blob(KEY),
        authority: blob(AUTHORITY),
        key_id: "alice@example".into(),
        serial: 7,
        principals: vec!["alice".into(), "staff".into()],
        valid_after: Duration::from_secs(1000),
        valid_before: Duration::from_secs(2000),
        critical_options: Vec::new(),
        extensions: vec![
            ("permit-pty".into(), String::new()),
            ("permit-port-forwarding".into(), String::new()),
        ],
    }
}

fn changed(change: impl FnOnce(&mut UserCertificate)) -> UserCertificate {
    let mut certificate = certificate();
    change(&mut certificate);
    certificate
}

/// A policy with authorized_keys lines, or with the authority in a file of its own.
fn policy(lines: Option<&str>, change: impl FnOnce(&mut ServeSettings)) -> Policy {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys");
    let mut settings = ServeSettings {
        authorized_keys: Vec::new(),
        ..ServeSettings::default()
    };
    match lines {
        Some(lines) => {
            fs::write(&path, lines.replace("CA", AUTHORITY).replace("KEY", KEY)).unwrap();
            settings.authorized_keys = vec![path];
        }
        None => {
            fs::write(&path, format!("# ours\n{AUTHORITY} the authority\n")).unwrap();
            settings.user_authorities = vec![path];
        }
    }
    change(&mut settings);
    let (policy, warnings) = Policy::load(&settings).unwrap();
    assert_eq!(warnings, []);
    policy
}

fn trusting() -> Policy {
    policy(None, |_| ())
}

fn judge_at(
    policy: &Policy,
    certificate: UserCertificate,
    user: &str,
    peer: &str,
    now: u64,
) -> Result<Grant, Denial> {
    policy.judge(&Attempt {
        user,
        peer: SocketAddr::new(peer.parse().unwrap(), 40000),
        credential: &Credential::Certificate(Box::new(certificate)),
        touched: true,
        now: UNIX_EPOCH + Duration::from_secs(now),
    })
}

fn judge(policy: &Policy, certificate: UserCertificate) -> Result<Grant, Denial> {
    judge_at(policy, certificate, "alice", "192.0.2.1", 1500)
}

#[test]
fn a_certificate_of_a_trusted_authority_lets_in_and_is_in_the_log() {
    let grant = judge(&trusting(), certificate()).unwrap();
    assert_eq!(grant.identity.fingerprint, blob(KEY).fingerprint());
    let shown = grant.identity.certificate.unwrap();
    assert_eq!((shown.key_id.as_str(), shown.serial), ("alice@example", 7));
    assert_eq!(shown.authority, blob(AUTHORITY).fingerprint());
    assert_eq!(grant.tunnel, None);
    assert_eq!(grant.open, ForwardRule::Nothing);
}

#[test]
fn authorities_that_nobody_trusts_vouch_for_nobody() {
    // As a plain key, the authority does not count as one.
    for lines in ["", "CA", "KEY", "cert-authority KEY"] {
        let denial = judge(&policy(Some(lines), |_| ()), certificate()).unwrap_err();
        assert!(
            matches!(denial, Denial::UnknownAuthority { .. }),
            "{lines}: {denial}"
        );
    }
    // A trusted authority is not a key that may log in.
    let plain = Credential::Key(blob(AUTHORITY));
    let denial = trusting().judge(&Attempt {
        user: "alice",
        peer: "192.0.2.1:1".parse().unwrap(),
        credential: &plain,
        touched: true,
        now: UNIX_EPOCH,
    });
    assert_eq!(denial, Err(Denial::UnknownKey));
}

#[test]
fn validity_is_from_inclusive_to_exclusive() {
    let policy = trusting();
    let at = |now| judge_at(&policy, certificate(), "alice", "192.0.2.1", now);
    assert_eq!(at(999), Err(Denial::NotYetValid));
    assert!(at(1000).is_ok() && at(1999).is_ok());
    assert_eq!(at(2000), Err(Denial::CertificateExpired));
    let always = changed(|certificate| {
        certificate.valid_after = Duration::ZERO;
        certificate.valid_before = Duration::from_secs(u64::MAX);
    });
    assert!(judge(&policy, always).is_ok());
}

#[test]
fn the_user_has_to_be_a_principal_and_there_has_to_be_one() {
    let policy = trusting();
    let as_user = |user| judge_at(&policy, certificate(), user, "192.0.2.1", 1500);
    assert!(as_user("alice").is_ok() && as_user("staff").is_ok());
    for user in ["bob", "Alice", "ali*", ""] {
        let denial = as_user(user).unwrap_err();
        assert!(
            matches!(denial, Denial::OtherPrincipal { .. }),
            "{user}: {denial}"
        );
    }
    let for_all = changed(|certificate| certificate.principals.clear());
    assert_eq!(judge(&policy, for_all.clone()), Err(Denial::NoPrincipals));
    let by_line = self::policy(Some("cert-authority,principals=\"alice\" CA"), |_| ());
    assert_eq!(judge(&by_line, for_all), Err(Denial::NoPrincipals));
}

#[test]
fn a_line_with_principals_wants_one_of_them_in_place_of_the_user() {
    let by_line = policy(Some("cert-authority,principals=\"admin,staff\" CA"), |_| ());
    assert!(judge_at(&by_line, certificate(), "whoever", "192.0.2.1", 1500).is_ok());
    let only_alice = changed(|certificate| certificate.principals = vec!["alice".into()]);
    let denial = judge(&by_line, only_alice).unwrap_err();
    assert!(denial.to_string().contains("admin or staff"), "{denial}");
    let without = policy(Some("cert-authority CA"), |_| ());
    assert!(judge(&without, certificate()).is_ok());
    assert!(judge_at(&without, certificate(), "bob", "192.0.2.1", 1500).is_err());
}

#[test]
fn an_authority_may_have_several_lines_and_a_file() {
    let lines = "cert-authority,principals=\"admin\",tunnel=\"1\" CA\n\
                 cert-authority,from=\"10.0.0.0/8\" CA\n\
                 cert-authority,principals=\"staff\",tunnel=\"2\" CA\n";
    let tunnel = judge(&policy(Some(lines), |_| ()), certificate())
        .unwrap()
        .tunnel;
    assert_eq!(tunnel.unwrap().unit, Unit::new(2).ok());
    // The denial has the first reason.
    let nobody = changed(|certificate| certificate.principals = vec!["x".into()]);
    let denial = judge(&policy(Some(lines), |_| ()), nobody).unwrap_err();
    assert!(matches!(denial, Denial::OtherPrincipal { .. }), "{denial}");
}

#[test]
fn critical_options_are_kept_to_or_refused() {
    let policy = trusting();
    let with = |name: &str, data: &str| {
        changed(|certificate| {
            certificate
                .critical_options
                .push((name.into(), data.into()))
        })
    };
    let from = |list: &str, peer: &str| {
        judge_at(&policy, with("source-address", list), "alice", peer, 1500)
    };
    assert!(from("192.0.2.0/24", "192.0.2.1").is_ok());
    assert!(from("10.0.0.0/8,192.0.2.1", "::ffff:192.0.2.1").is_ok());
    assert!(matches!(
        from("10.0.0.0/8", "192.0.2.1"),
        Err(Denial::Source { .. })
    ));
    for wrong in ["", "*", "192.0.2.1/24", "192.0.2.*", "192.0.2.1,host"] {
        let denial = from(wrong, "192.0.2.1").unwrap_err();
        assert!(
            matches!(denial, Denial::MalformedOption { .. }),
            "{wrong}: {denial}"
        );
    }
    for name in ["force-command", "verify-required", "no-such-thing@example"] {
        let denial = judge(&policy, with(name, "x")).unwrap_err();
        let expected = Denial::CriticalOption { name: name.into() };
        assert_eq!(denial, expected);
    }
}

#[test]
fn extensions_permit_forwards_and_unknown_ones_nothing() {
    let lines = "cert-authority,tunnel=\"any\",port-forwarding CA";
    let policy = policy(Some(lines), |_| ());
    let with = judge(&policy, certificate()).unwrap();
    assert_eq!(
        (with.open, with.listen),
        (ForwardRule::Anything, ForwardRule::Anything)
    );
    let bare = changed(|certificate| {
        certificate.extensions = vec![("new@example".into(), "data".into())];
    });
    let without = judge(&policy, bare).unwrap();
    assert_eq!(
        (without.open, without.listen),
        (ForwardRule::Nothing, ForwardRule::Nothing)
    );
    assert!(without.tunnel.is_some());
    let corrupt = changed(|certificate| {
        certificate.extensions = vec![("permit-port-forwarding".into(), "x".into())];
    });
    let denial = judge(&policy, corrupt).unwrap_err();
    assert!(matches!(denial, Denial::MalformedOption { .. }), "{denial}");
}

#[test]
fn the_authoritys_line_is_kept_to() {
    let line = "cert-authority,from=\"192.0.2.0/24\",expiry-time=\"19700101002700Z\",restrict,\
                tunnel=\"5\" CA";
    let policy = policy(Some(line), |_| ());
    let at = |peer, now| judge_at(&policy, certificate(), "alice", peer, now);
    let grant = at("192.0.2.1", 1620).unwrap();
    assert_eq!(grant.tunnel.unwrap().unit, Unit::new(5).ok());
    assert_eq!(grant.open, ForwardRule::Nothing);
    assert!(matches!(at("192.0.2.1", 1621), Err(Denial::Expired { .. })));
    assert!(matches!(at("10.0.0.1", 1500), Err(Denial::Source { .. })));
}

#[test]
fn a_refused_line_of_an_authority_lets_nobody_in() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys");
    let lines = format!("cert-authority,command=\"id\" {AUTHORITY}\ncert-authority {AUTHORITY}\n");
    fs::write(&path, lines).unwrap();
    let settings = ServeSettings {
        authorized_keys: vec![path],
        ..ServeSettings::default()
    };
    let (policy, warnings) = Policy::load(&settings).unwrap();
    assert_eq!(warnings.len(), 1);
    let denial = judge(&policy, certificate()).unwrap_err();
    assert!(matches!(denial, Denial::RefusedLine { .. }), "{denial}");
}

#[test]
fn rules_match_certificates_by_id_and_by_a_name_that_is_vouched_for() {
    let rule = |user: Option<&str>, id: Option<&str>, unit| ClientRule {
        who: ClientMatch {
            user: user.map(str::to_owned),
            certificate: id.map(str::to_owned),
            ..ClientMatch::default()
        },
        tunnel: vec![Mode::PointToPoint],
        unit: Unit::new(unit).ok(),
        ..ClientRule::default()
    };
    let unit = |rules: Vec<ClientRule>, lines: Option<&str>, user: &str| {
        let policy = policy(lines, |settings| settings.clients = rules);
        let grant = judge_at(&policy, certificate(), user, "192.0.2.1", 1500).unwrap();
        grant.tunnel.and_then(|tunnel| tunnel.unit).map(Unit::get)
    };
    let by_id = || {
        vec![
            rule(None, Some("bob@example"), 1),
            rule(None, Some("alice@example"), 2),
        ]
    };
    assert_eq!(unit(by_id(), None, "alice"), Some(2));
    let by_name = || vec![rule(Some("staff"), None, 3), rule(Some("alice"), None, 4)];
    assert_eq!(unit(by_name(), None, "alice"), Some(4));
    assert_eq!(unit(by_name(), None, "staff"), Some(3));
    // Here the client only claims the name: the line lists no such principal.
    let line = Some("cert-authority,principals=\"alice\" CA");
    assert_eq!(unit(vec![rule(Some("root"), None, 5)], line, "root"), None);
    // The authority gave itself this name, but is trusted only with another one.
    assert_eq!(unit(by_name(), line, "staff"), None);
    assert_eq!(unit(by_name(), line, "alice"), Some(4));
}

#[test]
fn a_rule_can_be_about_the_certificates_of_one_authority() {
    let ours = blob(AUTHORITY).fingerprint();
    let rule = |authority: &str, user: Option<&str>, id: Option<&str>, unit| ClientRule {
        who: ClientMatch {
            authority: Some(authority.to_owned()),
            user: user.map(str::to_owned),
            certificate: id.map(str::to_owned),
            key: None,
        },
        tunnel: vec![Mode::PointToPoint],
        unit: Unit::new(unit).ok(),
        ..ClientRule::default()
    };
    let unit = |rule: ClientRule, user: &str| {
        let line = Some("cert-authority,principals=\"alice\" CA");
        let policy = policy(line, |settings| settings.clients = vec![rule]);
        let grant = judge_at(&policy, certificate(), user, "192.0.2.1", 1500).unwrap();
        grant.tunnel.and_then(|tunnel| tunnel.unit).map(Unit::get)
    };
    assert_eq!(unit(rule(&ours, None, None, 1), "whoever"), Some(1));
    let other = blob(KEY).fingerprint();
    assert_eq!(unit(rule(&other, None, None, 2), "alice"), None);
    assert_eq!(
        unit(rule(&ours, None, Some("alice@example"), 3), "alice"),
        Some(3)
    );
    assert_eq!(
        unit(rule(&other, None, Some("alice@example"), 4), "alice"),
        None
    );
    assert_eq!(
        unit(rule(&ours, None, Some("bob@example"), 5), "alice"),
        None
    );
    // The authority does not vouch for a name that the client only claims.
    assert_eq!(unit(rule(&ours, Some("alice"), None, 6), "alice"), Some(6));
    assert_eq!(unit(rule(&ours, Some("root"), None, 7), "root"), None);

    let path = Path::new("serve.toml");
    for lines in [Some("cert-authority CA"), None] {
        let with = |authority: &str| {
            policy(lines, |settings| {
                settings.clients = vec![rule(authority, None, None, 1)];
            })
            .idle_rules(path)
        };
        assert_eq!(with(&ours), []);
        let warning = with(&other).first().unwrap().to_string();
        assert!(
            warning.contains(&other) && warning.starts_with("serve.toml: "),
            "{warning}"
        );
    }
}

#[test]
fn a_security_key_need_not_be_touched_where_line_and_certificate_say_so() {
    let says = |lines: Option<&str>, extension: bool| {
        let shown = changed(|certificate| {
            if extension {
                let flag = ("no-touch-required".to_owned(), String::new());
                certificate.extensions.push(flag);
            }
        });
        let judged = policy(lines, |_| ()).judge(&Attempt {
            user: "alice",
            peer: "192.0.2.1:40000".parse().unwrap(),
            credential: &Credential::Certificate(Box::new(shown)),
            touched: false,
            now: UNIX_EPOCH + Duration::from_secs(1500),
        });
        match judged {
            Err(denial) => assert_eq!(denial, Denial::NotTouched),
            Ok(_) => return true,
        }
        false
    };
    let line = Some("cert-authority,no-touch-required CA");
    assert!(says(line, true) && says(None, true));
    assert!(!says(line, false) && !says(None, false));
    assert!(!says(Some("cert-authority CA"), true));
}

#[test]
fn a_plain_key_is_of_no_authority() {
    let policy = policy(Some("KEY"), |settings| {
        settings.clients = vec![ClientRule {
            who: ClientMatch {
                authority: Some(blob(AUTHORITY).fingerprint()),
                ..ClientMatch::default()
            },
            tunnel: vec![Mode::PointToPoint],
            ..ClientRule::default()
        }];
    });
    let grant = policy.judge(&Attempt {
        user: "alice",
        peer: "192.0.2.1:40000".parse().unwrap(),
        credential: &Credential::Key(blob(KEY)),
        touched: true,
        now: std::time::UNIX_EPOCH,
    });
    assert_eq!(grant.unwrap().tunnel, None);
}

#[test]
fn a_key_revocation_list_reaches_keys_authorities_serials_and_ids() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::write(path("ca.pub"), AUTHORITY).unwrap();
    for (specification, revoked) in [
        (format!("key: {KEY}\n"), Some("key")),
        (format!("sha256: {KEY}\n"), Some("key")),
        (
            format!("sha1: {AUTHORITY}\n"),
            Some("key of the certificate's authority"),
        ),
        ("serial: 7\n".to_owned(), Some("certificate")),
        ("serial: 5-9\n".to_owned(), Some("certificate")),
        ("id: alice@example\n".to_owned(), Some("certificate")),
        ("serial: 8\nid: bob@example\n".to_owned(), None),
    ] {
        fs::write(path("specification"), &specification).unwrap();
        let made = Command::new("ssh-keygen")
            .args(["-q", "-k", "-f"])
            .arg(path("krl"))
            .arg("-s")
            .arg(path("ca.pub"))
            .arg(path("specification"))
            .status();
        assert!(made.unwrap().success());
        let policy = policy(None, |settings| settings.revoked_keys = Some(path("krl")));
        let judged = judge(&policy, certificate());
        match revoked {
            Some(what) => assert_eq!(judged, Err(Denial::Revoked { what }), "{specification}"),
            None => assert!(judged.is_ok(), "{specification}"),
        }
    }
}
