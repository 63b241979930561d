//! A server's socket, queried as the command line does.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use tokio::task::spawn_blocking;

use super::*;
use crate::config::serve::settings::AuditSettings;
use crate::pump::Dropped;
use crate::server::admission::Admission;
use crate::server::admission::tests::settings;
use crate::server::report::audit::Audit;
use crate::server::report::registry::Registry;
use crate::server::report::registry::tests::{limits, log_in, tunnel};
use crate::server::report::status::StatusSocket;
use crate::server::report::status::watched::Watched;

/// A server with three leases and no client.
pub fn watched() -> Arc<Watched> {
    let audit = Audit::open(&AuditSettings {
        file: Some("/dev/null".into()),
        journald: false,
    })
    .unwrap();
    let started = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let registry = Registry::new(&limits(), audit.clone(), started);
    let admission = Admission::new(&settings());
    let listen = vec!["[::]:2222".parse().unwrap()];
    Watched::new(registry, admission, audit, started, listen, || 3)
}

fn runtime_dir(parent: &Path) -> RuntimeDir {
    RuntimeDir::at(&parent.join("sshvpn")).unwrap()
}

fn told(directory: &RuntimeDir, json: bool) -> Result<String, StatusError> {
    let mut text = String::new();
    show_from(directory, json, |shown| {
        text.push_str(shown);
        Ok(())
    })?;
    Ok(text)
}

async fn ask_about(directory: &RuntimeDir, json: bool) -> Result<String, StatusError> {
    let directory = directory.clone();
    spawn_blocking(move || told(&directory, json))
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_server_tells_who_is_there() {
    let parent = tempfile::tempdir().unwrap();
    let (directory, watched) = (runtime_dir(parent.path()), watched());
    let _socket = StatusSocket::start(&directory, 2222, Arc::clone(&watched)).unwrap();
    let empty = ask_about(&directory, false).await.unwrap();
    assert_eq!(
        empty,
        format!(
            "sshvpn serve, process {}, on [::]:2222, since 2023-11-14 22:13\n\
             0 logged in, 0 logins in all, 0 B up, 0 B down\n",
            std::process::id()
        )
    );
    let session = log_in(&watched.registry, "ali\u{1b}ce").unwrap();
    let counters = tunnel(&session);
    counters[0].passed(1500);
    counters[1].passed_many(2, 30_000_000);
    counters[1].dropped(Dropped::QueueFull);
    watched.reloaded(vec!["192.0.2.1:22".parse().unwrap()]);
    let table = ask_about(&directory, false).await.unwrap();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 4, "{table}");
    assert!(lines[0].contains("on 192.0.2.1:22") && lines[0].ends_with("reloaded once"));
    assert_eq!(
        lines[1],
        "1 logged in, 1 logins in all, 1.5 kB up, 30 MB down"
    );
    let row: Vec<&str> = lines[3]
        .split("  ")
        .filter(|cell| !cell.is_empty())
        .collect();
    let row: Vec<&str> = row.into_iter().map(str::trim).collect();
    assert_eq!(
        [&row[..5], &row[6..]].concat(),
        [
            "ali\\u{1b}ce",
            "SHA256:AAAA",
            "192.0.2.7:4000",
            "tun3",
            "10.9.0.2",
            "1.5 kB",
            "30 MB",
            "1"
        ]
    );
    assert_eq!(
        lines[2].find("DEVICE"),
        lines[3].find("tun3"),
        "columns stand below each other:\n{table}"
    );
    let json = ask_about(&directory, true).await.unwrap();
    let document: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json.lines().count(), 1);
    assert_eq!(document["version"], 1);
    assert_eq!(document["server"]["reloads"], 1);
    assert_eq!(document["server"]["started"], "2023-11-14T22:13:20.000Z");
    let shown = &document["sessions"][0];
    assert_eq!(shown["user"], "ali\u{1b}ce");
    assert_eq!(shown["tunnel"]["mode"], "point-to-point");
    assert_eq!(shown["download"]["dropped"]["queue full"], 1);
    assert_eq!(document["totals"]["download"]["bytes"], 30_000_000);
    assert_eq!(document["totals"]["leases"], 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn all_servers_are_asked_and_none_is_an_error() {
    let parent = tempfile::tempdir().unwrap();
    let directory = runtime_dir(parent.path());
    let nobody = ask_about(&directory, true).await.unwrap_err();
    assert!(matches!(nobody, StatusError::NoServer), "{nobody}");
    let first = StatusSocket::start(&directory, 22, watched()).unwrap();
    let second = StatusSocket::start(&directory, 2222, watched()).unwrap();
    let both = ask_about(&directory, true).await.unwrap();
    assert_eq!(both.lines().count(), 2);
    drop((first, second));
    assert!(ask_about(&directory, false).await.is_err());
    directory.remove_if_empty().unwrap();
    assert!(!directory.path().exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn many_who_connect_and_do_not_read_hold_up_nobody_for_long() {
    let parent = tempfile::tempdir().unwrap();
    let (directory, watched) = (runtime_dir(parent.path()), watched());
    let _socket = StatusSocket::start(&directory, 22, watched).unwrap();
    let path = directory.path().join("serve-22.sock");
    let silent: Vec<UnixStream> = (0..50)
        .map(|_| UnixStream::connect(&path).unwrap())
        .collect();
    let begin = Instant::now();
    assert!(ask_about(&directory, true).await.is_ok());
    assert!(begin.elapsed() < PATIENCE);
    drop(silent);
}

#[test]
fn what_answers_with_something_else_is_named() {
    let parent = tempfile::tempdir().unwrap();
    let directory = runtime_dir(parent.path());
    let path = directory.path().join("serve-1.sock");
    let listener = UnixListener::bind(path).unwrap();
    let here = network_namespace().unwrap();
    let later = format!(r#"{{"version":2,"server":{{"network_namespace":{here}}}}}"#);
    let elsewhere = r#"{"version":1,"server":{"network_namespace":1}}"#;
    for (answer, json, expected) in [
        ("", false, "cannot read the status"),
        ("[1]", true, "another version"),
        (later.as_str(), false, "another version"),
        (elsewhere, true, "no 'sshvpn serve'"),
    ] {
        let failed = std::thread::scope(|scope| {
            scope.spawn(|| {
                use std::io::Write;
                let (mut stream, _) = listener.accept().unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            });
            told(&directory, json).unwrap_err().to_string()
        });
        assert!(failed.contains(expected), "{answer}: {failed}");
    }
}
