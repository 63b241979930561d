//! Logs in files and sockets of the test's own.

use std::collections::BTreeMap;
use std::fs;
use std::io::{IoSliceMut, Read};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::time::UNIX_EPOCH;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde_json::{Value, json};

use super::event::{Asked, Who};
use super::*;
use crate::server::report::registry::Registry;
use crate::server::report::registry::tests::{identity, limits, log_in};
use crate::types::{Mode, UnitRequest};

const PATIENCE: Duration = Duration::from_secs(30);

fn settings(file: &Path) -> AuditSettings {
    AuditSettings {
        file: Some(file.to_owned()),
        journald: false,
    }
}

fn stopped(reason: &str) -> Event {
    Event::ServerStopped {
        reason: reason.into(),
    }
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_record_is_one_line_of_json() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.log");
    let audit = Audit::open(&settings(&path)).unwrap();
    let registry = Registry::new(&limits(), audit.clone(), SystemTime::now());
    let connection = registry.connection();
    let peer: SocketAddr = "[::ffff:192.0.2.7]:4000".parse().unwrap();
    let mut who = Who::from(&identity("mal\"lory\n\u{1b}[2J"));
    who.user = format!("{}{}", who.user.as_str(), "x".repeat(100_000)).into();
    let event = Event::LoginDenied {
        connection,
        peer: peer.into(),
        who,
        reason: "no such key".into(),
    };
    let time = UNIX_EPOCH + Duration::from_millis(1_700_000_000_250);
    audit.record_at(event, time);
    assert!(audit.close(PATIENCE));
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let text = fs::read_to_string(&path).unwrap();
    assert!(
        text.starts_with(
            r#"{"version":1,"time":"2023-11-14T22:13:20.250Z","event":"login-denied""#
        )
    );
    assert!(text.len() < 1000 && text.lines().count() == 1, "{text}");
    let record = &lines(&path)[0];
    assert_eq!(record["peer_address"], "192.0.2.7");
    assert_eq!(record["peer_port"], 4000);
    assert_eq!(record["connection"], connection.to_string());
    assert_eq!(record["fingerprint"], "SHA256:AAAA");
    assert_eq!(record["certificate"]["serial"], 7);
    let user = record["user"].as_str().unwrap();
    assert!(user.starts_with("mal\"lory\n\u{1b}[2J"));
}

#[test]
fn a_file_that_was_moved_away_is_opened_anew_on_request() {
    let directory = tempfile::tempdir().unwrap();
    let [path, old] = ["audit.log", "audit.log.1"].map(|name| directory.path().join(name));
    let audit = Audit::open(&settings(&path)).unwrap();
    audit.record(stopped("one"));
    fs::rename(&path, &old).unwrap();
    audit.reopen(&settings(&path));
    while !path.exists() {
        std::thread::yield_now();
    }
    audit.record(stopped("two"));
    // If the new file cannot be opened, the old one stays in use.
    audit.reopen(&settings(&directory.path().join("no/such/directory")));
    audit.record(stopped("three"));
    assert!(audit.close(PATIENCE));
    let reasons = |path| -> Vec<String> {
        let reason = |line: &Value| line["reason"].as_str().unwrap().to_owned();
        lines(path).iter().map(reason).collect()
    };
    assert_eq!(
        [reasons(&old), reasons(&path)].concat(),
        ["one", "two", "three"]
    );
    assert_eq!(reasons(&path).last().unwrap(), "three");
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error_that_names_it() {
    let error = Audit::open(&settings(Path::new("/no/such/audit.log"))).unwrap_err();
    assert!(error.to_string().contains("/no/such/audit.log"), "{error}");
}

/// The server may have rights to write that a user who can place a symlink there lacks.
#[test]
fn a_link_that_others_could_have_made_is_not_followed() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let directory = tempfile::tempdir().unwrap();
    let (open, target) = (
        directory.path().join("open"),
        directory.path().join("target"),
    );
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).unwrap();
    symlink(&target, open.join("audit.log")).unwrap();
    let error = Audit::open(&settings(&open.join("audit.log"))).unwrap_err();
    assert!(
        error.to_string().contains("other users can write"),
        "{error}"
    );
    assert!(!target.exists());
}

#[test]
fn a_full_disk_costs_records_and_says_so_in_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.log");
    // Every write to it fails with ENOSPC.
    let audit = Audit::open(&settings(Path::new("/dev/full"))).unwrap();
    for number in 0..5 {
        audit.record(stopped(&number.to_string()));
    }
    while audit.lost() < 5 {
        std::thread::yield_now();
    }
    audit.reopen(&settings(&path));
    audit.record(stopped("room again"));
    assert!(audit.close(PATIENCE));
    let lines = lines(&path);
    assert_eq!(lines[0]["event"], "records-lost");
    assert_eq!(lines[0]["count"], 5);
    assert_eq!(lines[1]["reason"], "room again");
    assert_eq!(lines.len(), 2);
    assert_eq!(audit.lost(), 5, "what says so is no loss");
}

#[test]
fn a_line_that_was_torn_spoils_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(
        file::FileSink::open(&path).is_err(),
        "a pipe without a reader is refused"
    );
    let mut reader = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let mut sink = file::FileSink::open(&path).unwrap();
    // A pipe of one page takes only part of a longer line.
    nix::fcntl::fcntl(&reader, nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    let listen: Vec<SocketAddr> = vec!["192.0.2.1:2222".parse().unwrap(); 1000];
    let record = |event| Record::new(event, UNIX_EPOCH.into());
    assert!(
        sink.write(&record(Event::ServerReloaded { listen }))
            .is_err()
    );
    assert!(sink.write(&record(stopped("full"))).is_err());
    let mut torn = [0; 4096];
    reader.read_exact(&mut torn).unwrap();
    sink.write(&record(stopped("after"))).unwrap();
    let mut text = vec![0; 4096];
    let length = reader.read(&mut text).unwrap();
    let text = std::str::from_utf8(&text[..length]).unwrap();
    let last: Value = serde_json::from_str(text.lines().nth(1).unwrap()).unwrap();
    assert_eq!(last["reason"], "after");
}

#[test]
fn a_queue_that_is_full_makes_nobody_wait() {
    let shared = Arc::new(Shared::default());
    let audit = Audit {
        log: Arc::new(Log {
            shared: Arc::clone(&shared),
        }),
    };
    // No record is written yet.
    for _ in 0..QUEUE + 3 {
        audit.record(stopped("crowd"));
    }
    assert_eq!(audit.lost(), 3);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.log");
    let nowhere = Path::new("");
    let outlets = Outlets::open(&settings(&path), nowhere).unwrap();
    let writer = std::thread::spawn(move || writer::run(&shared, outlets, Path::new("")));
    assert!(audit.close(PATIENCE));
    writer.join().unwrap();
    let lines = lines(&path);
    assert_eq!(lines.len(), QUEUE + 1);
    assert_eq!(lines[QUEUE]["count"], 3);
    audit.record(stopped("too late"));
    assert_eq!(audit.lost(), 4);
}

/// The fields of a datagram, parsed by the rules of the protocol.
fn fields(mut datagram: &[u8]) -> BTreeMap<String, Vec<String>> {
    let mut fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
    while !datagram.is_empty() {
        let end = datagram.iter().position(|byte| *byte == b'\n').unwrap();
        let (line, rest) = (&datagram[..end], &datagram[end + 1..]);
        let (name, value) = match line.iter().position(|byte| *byte == b'=') {
            Some(sign) => {
                datagram = rest;
                (&line[..sign], &line[sign + 1..])
            }
            None => {
                let (length, rest) = rest.split_at(8);
                let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
                assert_eq!(rest[length], b'\n');
                datagram = &rest[length + 1..];
                (line, &rest[..length])
            }
        };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        fields.entry(text(name)).or_default().push(text(value));
    }
    fields
}

#[test]
fn the_journal_gets_fields() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let journal = UnixDatagram::bind(&path).unwrap();
    journal.set_read_timeout(Some(PATIENCE)).unwrap();
    let only_journald = AuditSettings {
        file: None,
        journald: true,
    };
    let audit = Audit::open_beside(&only_journald, &path).unwrap();
    let registry = Registry::new(&limits(), audit.clone(), SystemTime::now());
    let session = log_in(&registry, "al\nice").unwrap();
    session.refused(
        Asked::tunnel(Mode::Ethernet, UnitRequest::Any),
        "no tunnel is granted",
    );
    let receive = || {
        let mut buffer = vec![0; 65536];
        let length = journal.recv(&mut buffer).unwrap();
        fields(&buffer[..length])
    };
    let login = receive();
    assert_eq!(login["SSHVPN_EVENT"], ["login"]);
    assert_eq!(login["SSHVPN_USER"], ["al\nice"]);
    assert_eq!(login["SSHVPN_FINGERPRINT"], ["SHA256:AAAA"]);
    assert_eq!(login["SSHVPN_CERTIFICATE_KEY_ID"], ["laptop"]);
    assert_eq!(login["PRIORITY"], ["6"]);
    assert_eq!(login["SYSLOG_IDENTIFIER"], ["sshvpn"]);
    assert_eq!(
        login["MESSAGE"],
        [
            "al\\u{a}ice (certificate \"laptop\", serial 7) logged in from 192.0.2.7:4000 with SSH-2.0-test"
        ]
    );
    let refused = receive();
    assert_eq!(refused["PRIORITY"], ["5"]);
    assert_eq!(refused["SSHVPN_REQUEST"], ["tunnel"]);
    assert_eq!(refused["SSHVPN_REASON"], ["no tunnel is granted"]);
    for _ in 0..2 {
        drop(session.forward(
            crate::server::report::registry::forwards::ForwardKind::Open,
            "db",
            1,
        ));
    }
    drop(session);
    let ended = receive();
    assert_eq!(ended["SSHVPN_EVENT"], ["session"]);
    assert_eq!(ended["SSHVPN_REQUESTS_TUNNEL_REFUSED"], ["1"]);
    let forward: Value = serde_json::from_str(&ended["SSHVPN_FORWARDS"][0]).unwrap();
    assert_eq!(forward["connections"], 2);
}

/// The file descriptor sent with the next datagram, which has no other content.
fn receive_file(journal: &UnixDatagram) -> fs::File {
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let mut buffer = [0; 16];
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let flags = MsgFlags::empty();
    let message = recvmsg::<()>(journal.as_raw_fd(), &mut parts, Some(&mut space), flags).unwrap();
    assert_eq!(message.bytes, 0);
    let Some(ControlMessageOwned::ScmRights(files)) = message.cmsgs().unwrap().next() else {
        panic!("no file");
    };
    // Through /proc, since `from_raw_fd` would need a proof of ownership.
    let file = fs::File::open(format!("/proc/self/fd/{}", files[0])).unwrap();
    nix::unistd::close(files[0]).unwrap();
    file
}

#[test]
fn a_record_of_any_length_comes_to_the_journal() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let receiver = UnixDatagram::bind(&path).unwrap();
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut journal = journald::Journal::open(&path).unwrap();
    let listen: Vec<SocketAddr> = vec!["192.0.2.1:2222".parse().unwrap(); 20_000];
    let reloaded = Record::new(Event::ServerReloaded { listen }, UNIX_EPOCH.into());
    journal.write(&reloaded).unwrap();
    let mut file = receive_file(&receiver);
    let seals = fcntl(&file, FcntlArg::F_GET_SEALS).unwrap();
    let seals = SealFlag::from_bits_retain(seals);
    assert!(seals.contains(
        SealFlag::F_SEAL_SEAL
            | SealFlag::F_SEAL_SHRINK
            | SealFlag::F_SEAL_GROW
            | SealFlag::F_SEAL_WRITE
    ));
    let mut content = Vec::new();
    file.read_to_end(&mut content).unwrap();
    let fields = fields(&content);
    assert_eq!(fields["SSHVPN_EVENT"], ["server-reloaded"]);
    assert_eq!(fields["SSHVPN_LISTEN"].len(), 20_000);
    // The next one is a datagram again.
    let stopped = Record::new(stopped("short"), UNIX_EPOCH.into());
    journal.write(&stopped).unwrap();
    let mut buffer = [0; 4096];
    assert!(receiver.recv(&mut buffer).unwrap() > 0);
}

#[test]
fn a_journal_that_takes_nothing_costs_records_only() {
    let directory = tempfile::tempdir().unwrap();
    let [path, file] = ["journal", "audit.log"].map(|name| directory.path().join(name));
    let journal = UnixDatagram::bind(&path).unwrap();
    let both = AuditSettings {
        file: Some(file.clone()),
        journald: true,
    };
    let audit = Audit::open_beside(&both, &path).unwrap();
    // No process reads it, so it is full soon.
    for _ in 0..1000 {
        audit.record(stopped("x"));
    }
    assert!(audit.close(PATIENCE));
    assert_eq!(lines(&file).len(), 1000, "the file has them all");
    assert!(audit.lost() > 0 && audit.lost() < 1000);
    drop(journal);
}

#[test]
fn without_a_journal_or_a_file_people_are_told() {
    let nothing = AuditSettings {
        file: None,
        journald: true,
    };
    let outlets = Outlets::open(&nothing, Path::new("/no/such/socket")).unwrap();
    assert!(format!("{outlets:?}").contains("Terminal"));
    let request = json!(Asked::Listen {
        host: "*".into(),
        port: 80
    });
    assert_eq!(
        request,
        json!({"request": "listen", "host": "*", "port": 80})
    );
}
