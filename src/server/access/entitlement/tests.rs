use std::fs;
use std::net::IpAddr;
use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::config::keys::key_blob::KeyBlob;
use crate::config::serve::settings::{ClientMatch, ClientRule, ServeSettings};
use crate::server::access::access_rules::{Membership, Terms};
use crate::server::login::grant::Group;
use crate::types::{Mode, Unit};

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
const FINGERPRINT: &str = "SHA256:T7SvZ2cslqpPj6nKzitCBHHlpVF3r3MvLwmFL0fk0IE";

/// The rules from one line about the key, and from the changed settings.
fn policy_with(line: &str, change: impl FnOnce(&mut ServeSettings)) -> Policy {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("authorized_keys");
    fs::write(&path, line.replace("KEY", KEY)).unwrap();
    let mut settings = ServeSettings {
        authorized_keys: vec![path],
        ..ServeSettings::default()
    };
    change(&mut settings);
    Policy::load(&settings).unwrap().0
}

fn policy(line: &str) -> Policy {
    policy_with(line, |_| ())
}

/// The same, with one rule about the key.
fn ruled(rule: ClientRule) -> Policy {
    policy_with("tunnel=\"any\" KEY", |settings| {
        settings.clients = vec![ClientRule {
            who: ClientMatch {
                key: Some(FINGERPRINT.to_owned()),
                ..ClientMatch::default()
            },
            ..rule
        }];
    })
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_000_000_000)
}

/// A client that logged in with the key under `policy`.
fn logged_in(policy: &Policy) -> Arc<Entitlement> {
    let (kind, text) = KEY.split_once(' ').unwrap();
    let entry = Entry {
        user: "alice".to_owned(),
        peer: "192.0.2.1:40000".parse().unwrap(),
        credential: Credential::Key(KeyBlob::parse(kind, text).unwrap()),
        touched: true,
    };
    let grant = policy.judge(&Attempt {
        user: &entry.user,
        peer: entry.peer,
        credential: &entry.credential,
        touched: entry.touched,
        now: now(),
    });
    let reach = Arc::new(Reachability::default());
    Entitlement::new(
        ConnectionId::of_test(1),
        entry,
        grant.unwrap().into(),
        reach,
    )
}

/// Registers the tunnel tun7 with these addresses.
fn hold(entitlement: &Arc<Entitlement>, policy: &Policy, addresses: &[&str]) -> (Held, Membership) {
    hold_as(entitlement, policy, Mode::PointToPoint, addresses)
}

fn hold_as(
    entitlement: &Arc<Entitlement>,
    policy: &Policy,
    mode: Mode,
    addresses: &[&str],
) -> (Held, Membership) {
    let grant = entitlement.grant().tunnel.clone().unwrap();
    let addresses: Vec<IpAddr> = addresses.iter().map(|it| it.parse().unwrap()).collect();
    let terms = Terms {
        addresses: addresses.clone(),
        routes: grant.routes.clone(),
        groups: grant.groups.clone(),
        ..Terms::default()
    };
    let (_, membership) = entitlement.reach.join(entitlement.id, terms);
    let tunnel = TunnelHeld {
        device: format!("{}7", mode.prefix()).parse().unwrap(),
        mode,
        premade: false,
        addresses,
        grant,
    };
    (entitlement.hold_tunnel(tunnel, policy).unwrap(), membership)
}

fn said(judged: Result<(), Revocation>) -> String {
    judged.map_or_else(|revocation| revocation.to_string(), |()| String::new())
}

#[test]
fn the_login_is_judged_as_if_it_were_now() {
    let before = policy("tunnel=\"any\" KEY");
    let entitlement = logged_in(&before);
    let _held = hold(&entitlement, &before, &["10.9.0.7"]);
    for (line, expected) in [
        ("tunnel=\"any\" KEY", ""),
        ("tunnel=\"7\",port-forwarding KEY", ""),
        ("tunnel=\"any\",from=\"192.0.2.0/24\" KEY", ""),
        ("", "is in no authorized_keys file"),
        (
            "command=\"true\",tunnel=\"any\" KEY",
            "is refused because of an error in the line",
        ),
        (
            "tunnel=\"any\",from=\"198.51.100.0/24\" KEY",
            "does not permit 192.0.2.1",
        ),
        (
            "tunnel=\"any\",expiry-time=\"20000101Z\" KEY",
            "its expiry-time= has passed",
        ),
        (
            "tunnel=\"8\" KEY",
            "the unit of tun7 is not granted any more",
        ),
        (
            "tunnel=\"any\" KEY\ncert-authority,tunnel=\"7\" KEY",
            "the unit of tun7 is not granted any more",
        ),
        ("tunnel=\"any\" KEY\ncert-authority,tunnel=\"8\" KEY", ""),
        ("KEY", "tun7 is not granted"),
        ("restrict KEY", "tun7 is not granted"),
    ] {
        let judged = said(entitlement.judge_again(&policy(line), now()));
        assert_eq!(judged.is_empty(), expected.is_empty(), "{line}: {judged}");
        assert!(judged.contains(expected), "{line}: {judged}");
    }
    let off = policy_with("tunnel=\"any\" KEY", |settings| {
        settings.disable_forwarding = true;
    });
    assert!(said(entitlement.judge_again(&off, now())).contains("tun7 is not granted"));
    // A client without a tunnel loses none, and gets none either.
    let idle = logged_in(&before);
    assert_eq!(idle.judge_again(&off, now()), Ok(()));
    assert_eq!(idle.grant().tunnel, None);
}

#[test]
fn an_address_stays_unless_another_is_given_or_somebody_else_has_it() {
    let given = |addresses: &[&str]| {
        ruled(ClientRule {
            addresses: addresses.iter().map(|it| it.parse().unwrap()).collect(),
            ..ClientRule::default()
        })
    };
    for (before, held, after, stays) in [
        (&[][..], "10.9.0.7", &[][..], true),
        (&[], "10.9.0.7", &["10.9.0.7"], true),
        (&[], "10.9.0.7", &["10.9.0.5"], false),
        (&[], "10.9.0.7", &["fd00::5"], true),
        (&["10.9.0.5"], "10.9.0.5", &["10.9.0.5"], true),
        // A second connection of a key has an address of the pool.
        (&["10.9.0.5"], "10.9.0.7", &["10.9.0.5"], true),
        (&["10.9.0.5"], "10.9.0.5", &["10.9.0.6"], false),
        (&["10.9.0.5"], "10.9.0.5", &[], false),
    ] {
        let rules = given(before);
        let entitlement = logged_in(&rules);
        let _held = hold(&entitlement, &rules, &[held]);
        let judged = entitlement.judge_again(&given(after), now());
        assert_eq!(
            judged.is_ok(),
            stays,
            "{before:?} {held} {after:?}: {judged:?}"
        );
    }
    let anybody = policy("tunnel=\"any\" KEY");
    let entitlement = logged_in(&anybody);
    let _held = hold(&entitlement, &anybody, &["10.9.0.7"]);
    let of_another = policy_with("tunnel=\"any\" KEY", |settings| {
        settings.clients = vec![ClientRule {
            who: ClientMatch {
                key: Some("SHA256:other".to_owned()),
                ..ClientMatch::default()
            },
            addresses: vec!["10.9.0.7".parse().unwrap()],
            ..ClientRule::default()
        }];
    });
    let judged = said(entitlement.judge_again(&of_another, now()));
    assert!(judged.contains("10.9.0.7"), "{judged}");
}

#[test]
fn networks_behind_a_client_have_to_stay_its_own() {
    let with = |sources: &[&str]| {
        ruled(ClientRule {
            sources: sources.iter().map(|it| it.parse().unwrap()).collect(),
            ..ClientRule::default()
        })
    };
    let before = with(&["192.168.7.0/24"]);
    for (after, stays) in [
        (&["192.168.7.0/24", "192.168.9.0/24"][..], true),
        (&["192.168.0.0/16"], true),
        (&["192.168.7.0/25"], false),
        (&[], false),
    ] {
        let entitlement = logged_in(&before);
        let _held = hold(&entitlement, &before, &["10.9.0.7"]);
        let judged = entitlement.judge_again(&with(after), now());
        assert_eq!(judged.is_ok(), stays, "{after:?}: {judged:?}");
    }
}

#[test]
fn forwards_have_to_stay_permitted_as_long_as_they_are_there() {
    let before = policy("permitopen=\"db:5432\",permitopen=\"*:443\",permitlisten=\"8080\" KEY");
    let entitlement = logged_in(&before);
    let without_db = policy("permitopen=\"*:443\",permitlisten=\"8080\" KEY");
    let open = entitlement.hold_open("db", 5432).unwrap();
    let listener = entitlement.hold_listener("localhost", 8080).unwrap();
    assert!(entitlement.hold_open("db", 22).is_none());
    let judged = said(entitlement.judge_again(&without_db, now()));
    assert!(judged.contains("forward db:5432"), "{judged}");
    drop(open);
    assert_eq!(entitlement.judge_again(&without_db, now()), Ok(()));
    // No connection to that place is permitted from then on.
    assert!(entitlement.hold_open("db", 5432).is_none());
    let none = policy("KEY");
    assert!(said(entitlement.judge_again(&none, now())).contains("localhost:8080"));
    drop(listener);
    assert_eq!(entitlement.judge_again(&none, now()), Ok(()));
}

#[test]
fn what_was_named_stays_as_long_as_it_is_named() {
    let before = policy("permitopen=\"10.9.0.8:22\",permitlisten=\"0.0.0.0:8080\" KEY");
    let wider = policy("permitopen=\"*:22\",permitlisten=\"8080\" KEY");
    let entitlement = logged_in(&before);
    let everywhere = entitlement.hold_listener("0.0.0.0", 8080).unwrap();
    // A new listener would listen on loopback only.
    assert!(said(entitlement.judge_again(&wider, now())).contains("0.0.0.0:8080"));
    drop(everywhere);
    let another_client = entitlement.hold_open("10.9.0.8", 22).unwrap();
    assert!(said(entitlement.judge_again(&wider, now())).contains("10.9.0.8:22"));
    drop(another_client);
    assert_eq!(entitlement.judge_again(&wider, now()), Ok(()));
    let _here = entitlement.hold_listener("0.0.0.0", 8080).unwrap();
    // A wider grant revokes nothing.
    let more = policy("permitlisten=\"8080\",permitlisten=\"0.0.0.0:8080\" KEY");
    assert_eq!(entitlement.judge_again(&more, now()), Ok(()));
    assert_eq!(entitlement.judge_again(&wider, now()), Ok(()));
}

#[test]
fn a_connection_by_a_group_ends_with_the_group() {
    let member = |groups: &[&str]| {
        ruled(ClientRule {
            groups: groups.iter().map(|&name| name.to_owned()).collect(),
            permit_open: vec![
                crate::config::forward_place::Place::parse_open("*:22").unwrap(),
                crate::config::forward_place::Place::parse_open("db:22").unwrap(),
            ],
            ..ClientRule::default()
        })
    };
    let entitlement = logged_in(&member(&["office", "lab"]));
    let _named = entitlement.hold_open("db", 22).unwrap();
    assert_eq!(entitlement.judge_again(&member(&["lab"]), now()), Ok(()));
    let _by_group = entitlement.hold_open("10.9.0.8", 22).unwrap();
    assert_eq!(entitlement.judge_again(&member(&["lab"]), now()), Ok(()));
    assert!(entitlement.judge_again(&member(&[]), now()).is_err());
}

#[test]
fn a_tunnel_that_comes_up_is_held_to_the_latest_rules() {
    let before = policy("tunnel=\"any\" KEY");
    let entitlement = logged_in(&before);
    let tunnel = TunnelHeld {
        device: "tun7".parse().unwrap(),
        mode: Mode::PointToPoint,
        premade: false,
        addresses: Vec::new(),
        grant: entitlement.grant().tunnel.clone().unwrap(),
    };
    let eight = policy("tunnel=\"8\" KEY");
    entitlement.judge_again(&eight, now()).unwrap();
    let unit = entitlement.grant().tunnel.clone().unwrap().unit;
    assert_eq!(unit, Some(Unit::new(8).unwrap()));
    let held = entitlement.hold_tunnel(tunnel.clone(), &eight);
    assert!(matches!(held, Err(Revocation::Unit(_))));
    entitlement.judge_again(&before, now()).unwrap();
    drop(entitlement.hold_tunnel(tunnel.clone(), &before).unwrap());
    // An existing device counts as granted by a grant of its unit.
    let premade = TunnelHeld {
        premade: true,
        ..tunnel.clone()
    };
    let held = entitlement.hold_tunnel(premade.clone(), &before);
    assert!(matches!(held, Err(Revocation::Unit(_))));
    let seven = policy("tunnel=\"7\" KEY");
    entitlement.judge_again(&seven, now()).unwrap();
    drop(entitlement.hold_tunnel(premade, &seven).unwrap());
    // A client that has left is not judged.
    assert_eq!(entitlement.judge_again(&eight, now()), Ok(()));
    entitlement.judge_again(&before, now()).unwrap();
    entitlement.dismiss(&Dismissal::AccessWithdrawn);
    let held = entitlement.hold_tunnel(tunnel, &before);
    assert!(matches!(held, Err(Revocation::Dismissed)));
}

#[tokio::test]
async fn a_dismissal_is_heard_before_and_after() {
    let entitlement = logged_in(&policy("KEY"));
    let early = tokio::spawn({
        let entitlement = Arc::clone(&entitlement);
        async move { entitlement.dismissed().await }
    });
    let why = Dismissal::ServerStopping("maintenance".to_owned());
    entitlement.dismiss(&why);
    assert_eq!(early.await.unwrap(), why);
    assert_eq!(entitlement.dismissed().await, why);
    assert_eq!(why.to_string(), "maintenance");
}

#[test]
fn routes_and_groups_of_a_live_tunnel_follow_the_rules() {
    let with = |routes: &[&str], groups: &[&str]| {
        ruled(ClientRule {
            routes: Some(routes.iter().map(|it| it.parse().unwrap()).collect()),
            groups: groups.iter().map(|&name| name.to_owned()).collect(),
            ..ClientRule::default()
        })
    };
    let before = with(&["10.20.0.0/16"], &["office"]);
    let entitlement = logged_in(&before);
    let (_held, _membership) = hold(&entitlement, &before, &["10.9.0.7"]);
    let groups = |names: &[&str]| names.iter().map(|&name| Group(name.to_owned())).collect();
    let told = || entitlement.reach.terms_of(entitlement.id).unwrap();
    assert_eq!(told().groups, groups(&["office"]));
    entitlement
        .judge_again(&with(&["10.30.0.0/16"], &["lab"]), now())
        .unwrap();
    assert_eq!(told().routes, ["10.30.0.0/16".parse().unwrap()]);
    assert_eq!(told().groups, groups(&["lab"]));
    entitlement.dismiss(&Dismissal::AccessWithdrawn);
    assert!(told().routes.is_empty() && told().groups.is_empty());
    // A bridge port that joined the ports of its groups stays there.
    let bridged = logged_in(&before);
    let _held = hold_as(&bridged, &before, Mode::Ethernet, &["10.9.0.7"]);
    let same = with(&["10.30.0.0/16"], &["office"]);
    assert_eq!(bridged.judge_again(&same, now()), Ok(()));
    for other in [&["office", "lab"][..], &["lab"], &[]] {
        let judged = said(bridged.judge_again(&with(&[], other), now()));
        assert!(judged.contains("tap7 is on one link"), "{judged}");
    }
}
