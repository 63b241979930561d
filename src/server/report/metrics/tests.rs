//! Tests of the metrics over TCP.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::*;
use crate::pump::Dropped;
use crate::server::admission::{Offence, Refused};
use crate::server::report::registry::outcome::LoginFailed;
use crate::server::report::registry::tests::{log_in, tunnel};
use crate::server::report::status::show::tests::watched;

const PATIENCE: Duration = Duration::from_secs(30);

async fn start() -> (Arc<Watched>, MetricsListener) {
    let watched = watched();
    let anywhere = "127.0.0.1:0".parse().unwrap();
    let listener = MetricsListener::start(anywhere, &[], Arc::clone(&watched)).await;
    (watched, listener.unwrap())
}

/// Sends a request and returns everything up to the end of the connection.
async fn exchange(listener: &MetricsListener, request: &str) -> String {
    let mut stream = TcpStream::connect(listener.address()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    timeout(PATIENCE, read).await.unwrap().unwrap();
    answer
}

async fn scrape(listener: &MetricsListener) -> BTreeMap<String, f64> {
    let answer = exchange(listener, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    assert!(
        head.contains("content-type: text/plain; version=0.0.4"),
        "{head}"
    );
    let mut samples = BTreeMap::new();
    for line in body.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        let before = samples.insert(name.to_owned(), value.parse().unwrap());
        assert!(before.is_none(), "{name} is there twice");
    }
    samples
}

#[tokio::test]
async fn what_happened_is_counted() {
    let (watched, listener) = start().await;
    let registry = &watched.registry;
    let peer = "198.51.100.1:9".parse().unwrap();
    registry.refused(peer, Refused::Penalty(Offence::AuthFail), Instant::now());
    let failed = LoginFailed::Protocol("no SSH".to_owned());
    registry.failed(registry.connection(), peer, "HTTP", &failed);
    let startup = watched.admission.admit(peer.ip(), Instant::now()).unwrap();
    let session = log_in(registry, "ali\"ce\n").unwrap();
    let counters = tunnel(&session);
    counters[0].passed(1500);
    counters[1].dropped_many(Dropped::QueueFull, 4);
    let samples = scrape(&listener).await;
    let client = r#"fingerprint="SHA256:AAAA",user="ali\"ce\n""#;
    for (name, value) in [
        (
            r#"sshvpn_serve_connections_total{outcome="login"}"#.to_owned(),
            1.0,
        ),
        (
            r#"sshvpn_serve_connections_total{outcome="failed"}"#.to_owned(),
            1.0,
        ),
        (
            r#"sshvpn_serve_connections_refused_total{reason="penalty-authfail"}"#.to_owned(),
            1.0,
        ),
        (
            r#"sshvpn_serve_logins_failed_total{reason="protocol"}"#.to_owned(),
            1.0,
        ),
        ("sshvpn_serve_logins_total".to_owned(), 1.0),
        ("sshvpn_serve_sessions".to_owned(), 1.0),
        ("sshvpn_serve_tunnels".to_owned(), 1.0),
        ("sshvpn_serve_startups".to_owned(), 1.0),
        ("sshvpn_serve_leases".to_owned(), 3.0),
        ("sshvpn_serve_audit_records_lost_total".to_owned(), 0.0),
        (
            r#"sshvpn_serve_bytes_total{direction="upload"}"#.to_owned(),
            1500.0,
        ),
        (
            r#"sshvpn_serve_packets_dropped_total{direction="download",reason="queue full"}"#
                .to_owned(),
            4.0,
        ),
        (format!("sshvpn_serve_client_sessions{{{client}}}"), 1.0),
        (
            format!("sshvpn_serve_client_bytes_total{{{client},direction=\"upload\"}}"),
            1500.0,
        ),
        ("process_start_time_seconds".to_owned(), 1_700_000_000.0),
    ] {
        assert_eq!(samples.get(&name), Some(&value), "{name}: {samples:#?}");
    }
    assert!(samples["process_resident_memory_bytes"] > 100_000.0);
    drop((session, startup));
    let samples = scrape(&listener).await;
    assert_eq!(samples["sshvpn_serve_sessions"], 0.0);
    assert_eq!(
        samples[r#"sshvpn_serve_bytes_total{direction="upload"}"#],
        1500.0
    );
    assert_eq!(
        samples[&format!("sshvpn_serve_client_sessions{{{client}}}")],
        0.0
    );
}

#[tokio::test]
async fn the_document_has_every_metric() {
    let document = include_str!("../../../../docs/serve-records.md");
    let page = page::render(&watched(), Instant::now());
    let families = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let names: Vec<&str> = families.filter_map(|line| line.split(' ').next()).collect();
    assert!(names.len() > 20);
    for name in names {
        assert!(document.contains(&format!("`{name}`")), "{name}");
    }
}

#[tokio::test]
async fn there_is_nothing_else_and_nothing_to_change() {
    let (_watched, listener) = start().await;
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "404"),
        (
            "GET /metrics/../etc HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "404",
        ),
        (
            "POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
            "405",
        ),
        ("HEAD /metrics HTTP/1.0\r\n\r\n", "200"),
        ("\x16\x03\x01\r\n\r\n", "400"),
        // A web page of that name, pointed at this host.
        (
            "GET /metrics HTTP/1.1\r\nHost: attacker.example:9\r\n\r\n",
            "421",
        ),
        (
            "GET http://attacker.example/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "421",
        ),
    ] {
        let answer = exchange(&listener, request).await;
        let line = answer.lines().next().unwrap();
        assert!(line.contains(status), "{request}: {line}");
        assert!(!answer.contains("sshvpn_serve_"), "{request}");
    }
    let huge = format!(
        "GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n",
        "x".repeat(REQUEST)
    );
    assert!(exchange(&listener, &huge).await.starts_with("HTTP/1.1 431"));
}

#[tokio::test]
async fn an_address_is_free_once_its_listener_has_stopped() {
    let (watched, listener) = start().await;
    let address = listener.address();
    listener.stop().await;
    let names = ["gateway.example".parse().unwrap()];
    let again = MetricsListener::start(address, &names, watched).await;
    let request = "GET /metrics HTTP/1.1\r\nHost: gateway.example\r\n\r\n";
    let answer = exchange(&again.unwrap(), request).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let (watched, listener) = start().await;
    let taken = MetricsListener::start(listener.address(), &[], watched).await;
    let error = taken.unwrap_err().to_string();
    assert!(error.contains(&listener.address().to_string()), "{error}");
}
