use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::config::keys::key_blob::KeyBlob;
use crate::config::serve::settings::ClientMatch;
use crate::types::Unit;

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
const OTHER: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK2pr+Bfus1hvPof4Wb/plZCzSbqadHH0u+/f4ODtKnE";
const FINGERPRINT: &str = "SHA256:T7SvZ2cslqpPj6nKzitCBHHlpVF3r3MvLwmFL0fk0IE";

fn blob(text: &str) -> KeyBlob {
    let (kind, text) = text.split_once(' ').unwrap();
    KeyBlob::parse(kind, text).unwrap()
}

/// A policy with these lines, in which `KEY` and `OTHER` stand for keys.
fn policy_with(lines: &str, change: impl FnOnce(&mut ServeSettings)) -> (Policy, Vec<Warning>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("authorized_keys");
    fs::write(&path, lines.replace("KEY", KEY).replace("OTHER", OTHER)).unwrap();
    let mut settings = ServeSettings {
        authorized_keys: vec![path],
        ..ServeSettings::default()
    };
    change(&mut settings);
    Policy::load(&settings).unwrap()
}

fn policy(lines: &str) -> Policy {
    policy_with(lines, |_| ()).0
}

fn judge_from(policy: &Policy, key: &str, peer: &str, now: u64) -> Result<Grant, Denial> {
    policy.judge(&Attempt {
        user: "alice",
        peer: SocketAddr::new(peer.parse().unwrap(), 40000),
        credential: &Credential::Key(blob(key)),
        touched: true,
        now: UNIX_EPOCH + Duration::from_secs(now),
    })
}

fn judge(policy: &Policy) -> Result<Grant, Denial> {
    judge_from(policy, KEY, "192.0.2.1", 1_000_000_000)
}

fn granted(lines: &str) -> Grant {
    judge(&policy(lines)).unwrap()
}

/// The grant from a line and one rule about its key.
fn granted_with(lines: &str, rule: ClientRule) -> Grant {
    let about_the_key = ClientRule {
        who: ClientMatch {
            key: Some(FINGERPRINT.to_owned()),
            ..ClientMatch::default()
        },
        ..rule
    };
    let (policy, _) = policy_with(lines, |settings| settings.clients = vec![about_the_key]);
    judge(&policy).unwrap()
}

fn tunnel_rule() -> ClientRule {
    ClientRule {
        tunnel: vec![Mode::PointToPoint],
        ..ClientRule::default()
    }
}

#[test]
fn a_key_that_no_file_has_stays_out() {
    let policy = policy("OTHER");
    assert_eq!(judge(&policy), Err(Denial::UnknownKey));
    let grant = judge_from(&policy, OTHER, "192.0.2.1", 0).unwrap();
    assert_eq!(grant.identity.user, "alice");
    assert_eq!(grant.identity.fingerprint, blob(OTHER).fingerprint());
    assert_eq!(grant.identity.certificate, None);
}

#[test]
fn a_key_alone_is_a_login_and_nothing_else() {
    let grant = granted("KEY");
    assert_eq!(grant.tunnel, None);
    assert_eq!(grant.open, ForwardRule::Nothing);
    assert_eq!(grant.listen, ForwardRule::Nothing);
}

#[test]
fn a_line_with_tunnel_grants_one() {
    let any = granted("tunnel=\"any\" KEY").tunnel.unwrap();
    assert_eq!(any.unit, None);
    assert_eq!(any.modes, [Mode::PointToPoint, Mode::Ethernet]);
    let five = granted("tunnel=\"5\" KEY").tunnel.unwrap();
    assert_eq!(five.unit, Unit::new(5).ok());
}

#[test]
fn units_that_a_line_or_a_rule_names_are_reserved() {
    let lines = "tunnel=\"5\" KEY\ntunnel=\"any\" OTHER\ncert-authority,tunnel=\"6\" OTHER\n\
                 tunnel=\"8\",no-such-option KEY";
    let rule = ClientRule {
        unit: Unit::new(7).ok(),
        ..tunnel_rule()
    };
    let (policy, _) = policy_with(lines, |settings| settings.clients = vec![rule]);
    let reserved = policy.reserved_units().iter().map(|unit| unit.get());
    assert_eq!(reserved.collect::<Vec<_>>(), [5, 6, 7]);
}

#[test]
fn a_security_key_that_nobody_touched_needs_a_line_that_says_so() {
    let untouched = |lines: &str| {
        policy(lines).judge(&Attempt {
            user: "alice",
            peer: "192.0.2.1:40000".parse().unwrap(),
            credential: &Credential::Key(blob(KEY)),
            touched: false,
            now: UNIX_EPOCH,
        })
    };
    for line in [
        "no-touch-required KEY",
        "touch-required,no-touch-required KEY",
    ] {
        assert!(untouched(line).is_ok(), "{line}");
    }
    for lines in [
        "KEY",
        "no-touch-required,touch-required KEY",
        // The first line that permits the login decides.
        "KEY\nno-touch-required KEY",
    ] {
        assert_eq!(untouched(lines), Err(Denial::NotTouched), "{lines}");
    }
}

/// As in OpenSSH since 10.5; before, `restrict` left tunnels alone.
#[test]
fn restrict_also_stops_tunnels() {
    assert_eq!(granted("restrict KEY").tunnel, None);
    // A rule about the key does not grant one either.
    assert_eq!(granted_with("restrict KEY", tunnel_rule()).tunnel, None);
    assert_eq!(
        granted_with("restrict,pty,port-forwarding KEY", tunnel_rule()).tunnel,
        None
    );
    assert!(granted_with("KEY", tunnel_rule()).tunnel.is_some());
}

/// Unlike OpenSSH 10.5, where `restrict` forbids tunnels whatever `tunnel=` says: on a
/// server for tunnels, a line that names a tunnel is meant to grant it.
#[test]
fn a_tunnel_on_the_line_of_restrict_is_given_unlike_openssh_10_5() {
    for line in ["restrict,tunnel=\"7\" KEY", "tunnel=\"7\",restrict KEY"] {
        let tunnel = granted(line).tunnel.expect(line);
        assert_eq!(tunnel.unit, Unit::new(7).ok(), "{line}");
    }
    // What the line does not name stays forbidden.
    let granted = granted("restrict,tunnel=\"any\" KEY");
    assert!(granted.tunnel.is_some());
    assert_eq!(granted.open, ForwardRule::Nothing);
    assert_eq!(granted.listen, ForwardRule::Nothing);
}

/// As in OpenSSH since 10.4; before, DisableForwarding left tunnels alone.
#[test]
fn disable_forwarding_also_disables_tunnels() {
    let line = "tunnel=\"any\",port-forwarding,permitopen=\"a:1\" KEY";
    let before = granted(line);
    assert!(before.tunnel.is_some() && before.open != ForwardRule::Nothing);
    let rule = ClientRule {
        permit_open: vec![Place::parse_open("b:2").unwrap()],
        ..tunnel_rule()
    };
    let (policy, _) = policy_with(line, |settings| {
        settings.disable_forwarding = true;
        settings.clients = vec![rule];
    });
    let after = judge(&policy).unwrap();
    assert_eq!(after.tunnel, None);
    assert_eq!(after.open, ForwardRule::Nothing);
    assert_eq!(after.listen, ForwardRule::Nothing);
}

#[test]
fn forwards_are_what_the_line_and_the_rule_say() {
    let place = |text: &str| Place::parse_open(text).unwrap();
    let places = |list: &[&str]| ForwardRule::Places(list.iter().map(|text| place(text)).collect());
    let rule = || ClientRule {
        permit_open: vec![place("r:1")],
        permit_listen: vec![place("r:2")],
        ..ClientRule::default()
    };
    let nothing = || ForwardRule::Nothing;
    let anything = || ForwardRule::Anything;
    for (line, alone, with_rule) in [
        (
            "KEY",
            (nothing(), nothing()),
            (places(&["r:1"]), places(&["r:2"])),
        ),
        (
            "no-port-forwarding KEY",
            (nothing(), nothing()),
            (nothing(), nothing()),
        ),
        (
            "restrict KEY",
            (nothing(), nothing()),
            (nothing(), nothing()),
        ),
        (
            "restrict,permitopen=\"a:1\" KEY",
            (nothing(), nothing()),
            (nothing(), nothing()),
        ),
        (
            "port-forwarding KEY",
            (anything(), anything()),
            (anything(), anything()),
        ),
        (
            "restrict,port-forwarding KEY",
            (anything(), anything()),
            (anything(), anything()),
        ),
        (
            "port-forwarding,restrict KEY",
            (nothing(), nothing()),
            (nothing(), nothing()),
        ),
        (
            "permitopen=\"a:1\",permitopen=\"a:2\" KEY",
            (places(&["a:1", "a:2"]), nothing()),
            (places(&["a:1", "a:2", "r:1"]), places(&["r:2"])),
        ),
        (
            "port-forwarding,permitlisten=\"8080\" KEY",
            (anything(), places(&["*:8080"])),
            (anything(), places(&["*:8080", "r:2"])),
        ),
    ] {
        let grant = granted(line);
        assert_eq!((grant.open, grant.listen), alone, "{line}");
        let grant = granted_with(line, rule());
        assert_eq!((grant.open, grant.listen), with_rule, "{line} with a rule");
    }
}

#[test]
fn a_rule_adds_its_settings_to_the_tunnel() {
    let rule = ClientRule {
        unit: Unit::new(7).ok(),
        addresses: vec!["10.9.0.7".parse().unwrap()],
        sources: vec!["10.7.0.0/16".parse().unwrap()],
        routes: Some(vec!["10.1.0.0/16".parse().unwrap()]),
        groups: vec!["office".into(), "office".into()],
        upload: Some(1),
        ..tunnel_rule()
    };
    let grant = granted_with("KEY", rule.clone());
    assert_eq!((grant.upload, grant.download), (Some(1), None));
    let tunnel = grant.tunnel.unwrap();
    assert_eq!(tunnel.modes, [Mode::PointToPoint]);
    assert_eq!(tunnel.unit, Unit::new(7).ok());
    assert_eq!(tunnel.addresses, rule.addresses);
    assert_eq!(tunnel.sources, rule.sources);
    assert_eq!(Some(tunnel.routes), rule.routes);
    assert_eq!(tunnel.groups.len(), 1);
    // The line's unit applies; the modes are the rule's, since a line names none.
    let both = granted_with("tunnel=\"5\" KEY", rule).tunnel.unwrap();
    assert_eq!(both.unit, Unit::new(5).ok());
    assert_eq!(both.modes, [Mode::PointToPoint]);
}

#[test]
fn what_no_rule_says_is_the_servers() {
    let (policy, _) = policy_with("tunnel=\"any\" KEY", |settings| {
        settings.network.routes = vec!["10.0.0.0/8".parse().unwrap()];
        settings.limits.upload = Some(5);
        settings.limits.download = Some(6);
        settings.clients = vec![ClientRule {
            download: Some(7),
            ..ClientRule::default()
        }];
    });
    let grant = judge(&policy).unwrap();
    assert_eq!((grant.upload, grant.download), (Some(5), Some(7)));
    let tunnel = grant.tunnel.unwrap();
    assert_eq!(tunnel.routes, ["10.0.0.0/8".parse().unwrap()]);
    // An empty list of routes is a list, and replaces the server's.
    let rule = ClientRule {
        routes: Some(Vec::new()),
        ..ClientRule::default()
    };
    let tunnel = granted_with("tunnel=\"any\" KEY", rule).tunnel.unwrap();
    assert!(tunnel.routes.is_empty());
}

#[test]
fn the_first_rule_that_matches_counts_and_a_claimed_name_matches_none() {
    let about = |who: ClientMatch, unit: u32| ClientRule {
        who,
        unit: Unit::new(unit).ok(),
        ..tunnel_rule()
    };
    let named = |user: &str, key: Option<&str>| ClientMatch {
        user: Some(user.to_owned()),
        key: key.map(str::to_owned),
        ..ClientMatch::default()
    };
    let (policy, _) = policy_with("KEY", |settings| {
        settings.clients = vec![
            about(named("alice", None), 1),
            about(named("bob", Some(FINGERPRINT)), 2),
            about(named("alice", Some("SHA256:other")), 3),
            about(named("alice", Some(FINGERPRINT)), 4),
            about(ClientMatch::default(), 5),
        ];
    });
    let tunnel = judge(&policy).unwrap().tunnel.unwrap();
    assert_eq!(tunnel.unit, Unit::new(4).ok());
}

#[test]
fn from_and_expiry_are_kept_to() {
    let policy = policy("from=\"192.0.2.0/24,!192.0.2.9\",expiry-time=\"20300102Z\" KEY");
    let at = |peer: &str, now: u64| judge_from(&policy, KEY, peer, now);
    // The last second is still valid, as with sshd.
    let last = 1_893_542_400;
    assert!(at("192.0.2.1", last).is_ok());
    assert!(at("::ffff:192.0.2.1", last).is_ok());
    assert!(matches!(at("192.0.2.9", last), Err(Denial::Source { .. })));
    assert!(matches!(
        at("2001:db8::1", last),
        Err(Denial::Source { .. })
    ));
    assert!(matches!(
        at("192.0.2.1", last + 1),
        Err(Denial::Expired { .. })
    ));
}

#[test]
fn a_later_line_of_the_same_key_may_let_it_in() {
    let policy = policy("from=\"10.0.0.0/8\",tunnel=\"1\" KEY\ntunnel=\"2\" KEY\n");
    let unit = |peer| {
        judge_from(&policy, KEY, peer, 0)
            .unwrap()
            .tunnel
            .unwrap()
            .unit
    };
    assert_eq!(unit("10.1.2.3"), Unit::new(1).ok());
    assert_eq!(unit("192.0.2.1"), Unit::new(2).ok());
}

#[test]
fn a_refused_line_is_told_and_no_laxer_line_lets_the_key_in() {
    let lines = "OTHER\ncommand=\"id\" KEY\ntunnel=\"any\" KEY\n";
    let (policy, warnings) = policy_with(lines, |_| ());
    let told: Vec<String> = warnings.iter().map(Warning::to_string).collect();
    assert_eq!(told.len(), 1);
    assert!(
        told[0].contains("authorized_keys:2: command=") && told[0].contains("permits no login")
    );
    let denial = judge(&policy).unwrap_err().to_string();
    assert!(
        denial.contains("authorized_keys:2") && denial.contains("command="),
        "{denial}"
    );
    assert!(judge_from(&policy, OTHER, "192.0.2.1", 0).is_ok());
}

#[test]
fn an_authority_does_not_log_in_itself() {
    assert_eq!(
        judge(&policy("cert-authority KEY")),
        Err(Denial::UnknownKey)
    );
}

#[test]
fn a_revoked_key_stays_out() {
    let directory = tempfile::tempdir().unwrap();
    let list = directory.path().join("revoked");
    fs::write(&list, format!("{KEY}\n")).unwrap();
    let (policy, _) = policy_with("KEY\nOTHER", |settings| {
        settings.revoked_keys = Some(list.clone());
    });
    assert_eq!(judge(&policy), Err(Denial::Revoked { what: "key" }));
    assert!(judge_from(&policy, OTHER, "192.0.2.1", 0).is_ok());
}

#[test]
fn files_that_cannot_be_relied_on_are_errors_and_missing_keys_a_warning() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let load = |change: &dyn Fn(&mut ServeSettings)| {
        let mut settings = ServeSettings {
            authorized_keys: vec![path("none")],
            ..ServeSettings::default()
        };
        change(&mut settings);
        Policy::load(&settings)
    };
    let (policy, warnings) = load(&|_| ()).unwrap();
    assert_eq!(judge(&policy), Err(Denial::UnknownKey));
    assert!(warnings[0].to_string().contains("no such file"));
    fs::write(path("open"), "").unwrap();
    fs::set_permissions(path("open"), fs::Permissions::from_mode(0o666)).unwrap();
    fs::write(path("garbage"), "garbage\n").unwrap();
    fs::write(path("options"), format!("cert-authority {KEY}\n")).unwrap();
    for (name, said) in [
        ("none", "no such file"),
        ("open", "chmod go-w"),
        ("garbage", "line 1"),
    ] {
        let error = load(&|settings| settings.revoked_keys = Some(path(name))).unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
        let error = load(&|settings| settings.user_authorities = vec![path(name)]).unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
    }
    let error = load(&|settings| settings.authorized_keys = vec![path("open")]).unwrap_err();
    assert!(error.to_string().contains("chmod go-w"), "{error}");
    let error = load(&|settings| settings.user_authorities = vec![path("options")]).unwrap_err();
    assert!(
        error.to_string().contains("options have no effect"),
        "{error}"
    );
}
