//! Tests of clients that log in, transfer data and leave.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::forwards::ForwardKind;
use super::session::TunnelTraffic;
use super::*;
use crate::config::serve::settings::AuditSettings;
use crate::pump::{Counters, Dropped};
use crate::server::login::grant::{CertificateIdentity, Identity};
use crate::server::report::audit::event::{Asked, TunnelFacts};
use crate::types::{Mode, UnitRequest};

pub fn limits() -> ClientLimits {
    ClientLimits {
        clients: 3,
        per_key: 2,
        channels: 8,
        upload: None,
        download: None,
    }
}

pub fn identity(user: &str) -> Identity {
    Identity {
        user: user.to_owned(),
        fingerprint: "SHA256:AAAA".to_owned(),
        certificate: Some(CertificateIdentity {
            key_id: "laptop".to_owned(),
            serial: 7,
            authority: "SHA256:CCCC".to_owned(),
        }),
    }
}

pub fn log_in(registry: &Arc<Registry>, user: &str) -> Result<LiveSession, Full> {
    add(registry, &identity(user))
}

fn add(registry: &Arc<Registry>, identity: &Identity) -> Result<LiveSession, Full> {
    registry.add(&Login {
        connection: registry.connection(),
        identity,
        peer: "192.0.2.7:4000".parse().unwrap(),
        software: "SSH-2.0-test",
        now: SystemTime::now(),
    })
}

fn audit_to(path: &Path) -> Audit {
    let settings = AuditSettings {
        file: Some(path.to_owned()),
        journald: false,
    };
    Audit::open(&settings).unwrap()
}

pub fn quiet() -> Arc<Registry> {
    let audit = audit_to(Path::new("/dev/null"));
    Registry::new(&limits(), audit, SystemTime::now())
}

pub fn facts() -> TunnelFacts {
    TunnelFacts {
        device: "tun3".parse().unwrap(),
        mode: Mode::PointToPoint,
        addresses: vec!["10.9.0.2".parse().unwrap()],
        mtu: 1500,
    }
}

/// A tunnel of the session, and the counters that its data path would use.
pub fn tunnel(session: &Session) -> Arc<[Counters; 2]> {
    let counters = Arc::new([Counters::default(), Counters::default()]);
    let read = Arc::clone(&counters);
    session.tunnel_up(
        facts(),
        Box::new(move || TunnelTraffic {
            upload: read[0].snapshot(),
            download: read[1].snapshot(),
        }),
    );
    counters
}

#[test]
fn a_session_is_there_until_its_guard_is_dropped() {
    let registry = quiet();
    let session = log_in(&registry, "alice").unwrap();
    let counters = tunnel(&session);
    counters[0].passed(1000);
    let shared = session.share();
    let view = registry.view();
    assert_eq!(view.sessions.len(), 1);
    assert_eq!(view.sessions[0].traffic.upload.bytes, 1000);
    assert_eq!(view.sessions[0].tunnel, Some(facts()));
    drop(session);
    // A late task still holds the session.
    assert_eq!(shared.who().user.as_str(), "alice");
    let view = registry.view();
    assert_eq!(
        (view.sessions.len(), registry.live(), view.logins),
        (0, 0, 1)
    );
    assert_eq!(view.traffic.upload.bytes, 1000);
}

#[test]
fn clients_are_limited_in_all_and_by_key() {
    let registry = quiet();
    let other = Identity {
        fingerprint: "SHA256:BBBB".to_owned(),
        ..identity("bob")
    };
    let first = log_in(&registry, "alice").unwrap();
    let _second = log_in(&registry, "alice, by another name").unwrap();
    assert_eq!(log_in(&registry, "alice").err(), Some(Full::Key));
    let _third = add(&registry, &other).unwrap();
    assert_eq!(add(&registry, &other).err(), Some(Full::Clients));
    drop(first);
    let _fourth = add(&registry, &other).unwrap();
    let more = ClientLimits {
        clients: 4,
        per_key: 3,
        ..limits()
    };
    registry.set_limits(&more);
    let _fifth = log_in(&registry, "alice").unwrap();
    let view = registry.view();
    let failed: Vec<_> = view.failed.into_iter().collect();
    assert_eq!(
        failed,
        [("too-many-clients", 1), ("too-many-of-this-key", 1)]
    );
    assert_eq!(view.logins, 5);
}

#[test]
fn no_sum_ever_falls() {
    let registry = quiet();
    let (first, second) = (
        log_in(&registry, "a").unwrap(),
        log_in(&registry, "a").unwrap(),
    );
    let counters = tunnel(&first);
    counters[1].passed_many(10, 10_000);
    tunnel(&second)[1].passed(1);
    assert_eq!(registry.view().traffic.download.packets, 11);
    // The data path takes a packet back.
    counters[1].taken_back(1500, Dropped::DeviceDown);
    let view = registry.view();
    assert_eq!(view.traffic.download.packets, 11);
    assert_eq!(view.traffic.download.dropped["device down"], 1);
    drop(first);
    let view = registry.view();
    assert_eq!(view.traffic.download.bytes, 10_001);
    assert_eq!(view.clients.len(), 1);
    assert_eq!(view.clients[0].live, 1);
    assert_eq!(view.clients[0].traffic, view.traffic);
    drop(second);
    assert_eq!(registry.view().clients[0].traffic, view.traffic);
}

#[test]
fn a_client_may_have_one_tunnel_after_another() {
    let registry = quiet();
    let session = log_in(&registry, "alice").unwrap();
    for _ in 0..20 {
        tunnel(&session)[0].passed(100);
        session.tunnel_down();
        assert!(session.view().tunnel.is_none());
    }
    tunnel(&session)[0].passed(100);
    assert_eq!(session.view().traffic.upload.packets, 21);
    assert!(session.record(SystemTime::now()).tunnels.len() <= 8);
}

#[test]
fn clients_that_are_gone_are_forgotten_at_last() {
    let registry = quiet();
    for number in 0..1500 {
        drop(log_in(&registry, &format!("user{number}")).unwrap());
    }
    let clients = registry.view().clients;
    assert_eq!(clients.len(), 1024);
    let known = |user: &str| clients.iter().any(|view| view.client.user.as_str() == user);
    assert!(known("user1499") && !known("user0"));
}

#[test]
fn a_client_that_asks_without_end_fills_no_disk() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.log");
    let audit = audit_to(&path);
    let registry = Registry::new(&limits(), audit.clone(), SystemTime::now());
    let session = log_in(&registry, "mallory").unwrap();
    for _ in 0..100_000 {
        let host = "everywhere".into();
        session.refused(Asked::Open { host, port: 25 }, "not permitted");
    }
    let tallies = session.view().tallies.by_kind();
    assert_eq!(tallies["open"].refused, 100_000);
    drop(session);
    assert!(audit.close(Duration::from_secs(30)));
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.lines().count() < 10_000 && audit.lost() == 0);
}

#[test]
fn the_end_of_a_session_is_all_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.log");
    let audit = audit_to(&path);
    let registry = Registry::new(&limits(), audit.clone(), SystemTime::now());
    let session = log_in(&registry, "alice").unwrap();
    session.granted(Asked::tunnel(Mode::PointToPoint, UnitRequest::Any));
    let counters = tunnel(&session);
    counters[0].passed_many(3, 3000);
    counters[0].dropped(Dropped::Malformed);
    counters[1].passed(200);
    session.refused(
        Asked::Open {
            host: "db".into(),
            port: 5432,
        },
        "not permitted",
    );
    let forward = session.forward(ForwardKind::Listen, "localhost", 8080);
    forward.downloaded(70);
    session.ending("client closed the connection");
    session.ending("a later reason");
    drop(session);
    registry.refused(
        "198.51.100.1:9".parse().unwrap(),
        Refused::Startups,
        Instant::now(),
    );
    assert!(audit.close(Duration::from_secs(30)));
    let text = fs::read_to_string(&path).unwrap();
    let records: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let events: Vec<&str> = records
        .iter()
        .map(|record| record["event"].as_str().unwrap())
        .collect();
    assert_eq!(
        events,
        [
            "login",
            "request-granted",
            "tunnel-up",
            "request-refused",
            "session",
            "connection-refused"
        ]
    );
    for record in &records[..5] {
        assert_eq!(record["connection"], records[0]["connection"]);
        assert_eq!(record["user"], "alice");
    }
    let session = &records[4];
    assert_eq!(session["peer_address"], "192.0.2.7");
    assert_eq!(session["software"], "SSH-2.0-test");
    assert_eq!(session["certificate"]["authority"], "SHA256:CCCC");
    assert_eq!(session["requests"]["tunnel"]["granted"], 1);
    assert_eq!(session["requests"]["open"]["refused"], 1);
    assert_eq!(session["tunnels"][0]["device"], "tun3");
    assert_eq!(session["tunnels"][0]["addresses"][0], "10.9.0.2");
    assert_eq!(session["upload"]["bytes"], 3000);
    assert_eq!(session["upload"]["dropped"]["malformed"], 1);
    assert_eq!(session["download"]["packets"], 1);
    assert_eq!(session["forwards"][0]["download"], 70);
    assert_eq!(session["reason"], "client closed the connection");
    assert!(session["duration"].as_f64().unwrap() >= 0.0);
    assert!(session["start"].as_str().unwrap() <= session["end"].as_str().unwrap());
    assert_eq!(records[5]["reason"], "max-startups");
}
