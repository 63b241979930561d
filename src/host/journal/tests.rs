//! The journal file: complete at every moment, private, and never undone unless this program wrote
//! it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use crate::host::change::sysctl::SysctlKey;
use crate::host::change::{InterfaceAddress, TunnelRoute, firewall, link, shared_sysctl};
use crate::host::plan::facts::{AddressFacts, AddressGeneration};

struct Place {
    _parent: tempfile::TempDir,
    directory: RuntimeDir,
}

impl Place {
    fn new() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let directory = RuntimeDir::at(&parent.path().join("run")).unwrap();
        Self {
            _parent: parent,
            directory,
        }
    }

    fn create(&self) -> Journal {
        let name = "sshvpn0".parse().unwrap();
        Journal::create(&self.directory, &name, Some(InterfaceIndex(7))).unwrap()
    }

    fn stale(&self) -> Vec<Stale> {
        take_stale(&self.directory).unwrap()
    }

    /// The result of reading a stale file with this text.
    fn read(&self, text: &[u8]) -> Result<Journal, JournalError> {
        let path = self.directory.path().join("sshvpn0.json");
        fs::write(path, text).unwrap();
        let mut stale = self.stale();
        assert_eq!(stale.len(), 1);
        stale.remove(0).journal
    }
}

fn entries() -> Vec<Entry> {
    vec![
        Entry::LinkUp(link::up::Made {
            ipv6_before: vec![AddressFacts {
                index: InterfaceIndex(7),
                address: "fd00::1".parse().unwrap(),
                prefix: 64,
                peer: None,
                no_dad: false,
            }],
        }),
        Entry::Mtu(link::mtu::Made {
            before: 1500,
            set: 9000,
        }),
        Entry::AddressGenerationNone(link::address_generation::Made {
            before: AddressGeneration(3),
        }),
        Entry::Address(link::address::Made {
            address: InterfaceAddress::PointToPoint {
                local: "10.0.0.0".parse().unwrap(),
                peer: "10.0.0.1".parse().unwrap(),
            },
        }),
        Entry::Address(link::address::Made {
            address: InterfaceAddress::Network("10.0.0.1/30".parse().unwrap()),
        }),
        Entry::Route(link::route::Made {
            route: TunnelRoute::to("fd00::/64".parse().unwrap()),
        }),
        Entry::Sysctl(link::sysctl::Made {
            key: "net/ipv4/conf/sshvpn0/rp_filter".parse().unwrap(),
            before: "1".to_owned(),
            set: "2".to_owned(),
        }),
        Entry::SharedSysctl(shared_sysctl::Made {
            setting: "net/ipv6/conf/all/forwarding"
                .parse::<SysctlKey>()
                .and_then(TryInto::try_into)
                .unwrap(),
            before: "0".to_owned(),
            same_before: vec!["eth0.7".parse().unwrap()],
        }),
        Entry::FirewallTable(firewall::MadeTable {}),
        Entry::ForwardAccept(firewall::MadeAccept { ipv6: true }),
        Entry::Bridge(link::bridge::Made {
            before: None,
            set: InterfaceIndex(9),
        }),
        Entry::Group(link::group::Made { before: 0, set: 5 }),
    ]
}

#[test]
fn what_was_recorded_is_read_back_in_order() {
    let place = Place::new();
    let mut journal = place.create();
    for entry in entries() {
        journal.record(entry).unwrap();
    }
    journal
        .record(Entry::TxQueueLength(link::queue_length::Made {
            before: 1,
            set: 2,
        }))
        .unwrap();
    journal.withdraw_last().unwrap();
    let owner = journal.owner().clone();
    drop(journal);
    let stale = place.stale().remove(0).journal.unwrap();
    assert_eq!(stale.entries(), entries());
    assert_eq!(
        (stale.interface(), stale.index()),
        ("sshvpn0", Some(InterfaceIndex(7)))
    );
    assert_eq!(stale.owner(), &owner);
    stale.remove().unwrap();
    assert!(place.stale().is_empty());
}

#[test]
fn the_file_is_private_and_alone() {
    let place = Place::new();
    let mut journal = place.create();
    journal
        .record(Entry::Mtu(link::mtu::Made { before: 1, set: 2 }))
        .unwrap();
    let files = place.directory.names("").unwrap();
    assert_eq!(files, ["sshvpn0.json"]);
    let file = fs::metadata(place.directory.path().join(&files[0])).unwrap();
    assert_eq!(file.permissions().mode() & 0o7777, 0o600);
    journal.remove().unwrap();
}

#[test]
fn a_journal_that_is_held_is_not_stale_and_cannot_be_begun_twice() {
    let place = Place::new();
    let mut journal = place.create();
    assert!(place.stale().is_empty());
    journal
        .record(Entry::Mtu(link::mtu::Made { before: 1, set: 2 }))
        .unwrap();
    assert!(place.stale().is_empty());
    let again = Journal::create(
        &place.directory,
        &"sshvpn0".parse().unwrap(),
        Some(InterfaceIndex(7)),
    );
    assert!(matches!(again, Err(JournalError::Busy { .. })));
    drop(journal);
    let taken = place.stale();
    assert_eq!(taken.len(), 1);
    assert!(
        place.stale().is_empty(),
        "the process that takes a stale journal holds it"
    );
}

#[test]
fn what_is_not_a_journal_is_set_aside_and_kept() {
    let place = Place::new();
    for (number, broken) in [
        &b""[..],
        b"{",
        b"[]",
        b"\xff\xfe",
        b"{\"version\":1}",
        b"{\"version\":\"1\"}",
        b"{\"version\":-1}",
        &vec![b' '; SIZE_LIMIT as usize + 1],
    ]
    .into_iter()
    .enumerate()
    {
        let error = place.read(broken).unwrap_err();
        let JournalError::SetAside { aside, .. } = &error else {
            panic!("{error}");
        };
        assert!(error.to_string().contains(aside), "{error}");
        assert_eq!(aside.ends_with(".json.bad"), number == 0, "{aside}");
        assert_eq!(fs::read(aside).unwrap(), broken);
        assert!(place.stale().is_empty());
        place.create().remove().unwrap();
    }
    let newer = format!(r#"{{"version":{},"whatever":[]}}"#, VERSION + 1);
    let future = place.read(newer.as_bytes()).unwrap_err();
    assert!(matches!(future, JournalError::Version { .. }), "{future}");
    assert!(future.to_string().contains("nothing in it was undone"));
}

#[test]
fn what_an_earlier_program_wrote_is_read() {
    let place = Place::new();
    let mut journal = place.create();
    journal
        .record(Entry::Mtu(link::mtu::Made { before: 1, set: 2 }))
        .unwrap();
    drop(journal);
    let path = place.directory.path().join("sshvpn0.json");
    let text = fs::read_to_string(path).unwrap();
    for version in 1..VERSION {
        let earlier = text.replace(
            &format!("\"version\":{VERSION}"),
            &format!("\"version\":{version}"),
        );
        assert_ne!(earlier, text);
        let journal = place.read(earlier.as_bytes()).unwrap();
        assert_eq!(
            journal.entries(),
            [Entry::Mtu(link::mtu::Made { before: 1, set: 2 })]
        );
    }
}

/// Every kind of entry, as the first program of format version 4 wrote it.
#[test]
fn entries_keep_their_form() {
    let place = Place::new();
    let mut journal = place.create();
    let owner = serde_json::to_string(journal.owner()).unwrap();
    journal
        .record(Entry::Mtu(link::mtu::Made { before: 1, set: 2 }))
        .unwrap();
    drop(journal);
    let changes = [
        r#"{"change":"link-up","ipv6_before":[{"index":7,"address":"fd00::1","prefix":64,"peer":null,"no_dad":false}]}"#,
        r#"{"change":"mtu","before":1500,"set":9000}"#,
        r#"{"change":"tx-queue-length","before":1000,"set":500}"#,
        r#"{"change":"gso-max-size","before":65536,"set":64000}"#,
        r#"{"change":"address-generation-none","before":3}"#,
        r#"{"change":"bridge","before":null,"set":9}"#,
        r#"{"change":"guarded-port","before":{"learning":true,"locked":null,"isolated":false},"set":{"learning":false,"locked":null,"isolated":true},"stations":[[2,0,0,0,0,1]]}"#,
        r#"{"change":"group","before":0,"set":5}"#,
        r#"{"change":"address","address":{"point-to-point":{"local":"10.0.0.0","peer":"10.0.0.1"}}}"#,
        r#"{"change":"address","address":{"network":"10.0.0.1/30"}}"#,
        r#"{"change":"route","route":{"destination":"fd00::/64","gateway":null,"source":null,"metric":50}}"#,
        r#"{"change":"sysctl","key":"net/ipv4/conf/sshvpn0/rp_filter","before":"1","set":"2"}"#,
        r#"{"change":"shared-sysctl","setting":"net/ipv6/conf/all/forwarding","before":"0","same_before":["eth0.7"]}"#,
        r#"{"change":"firewall-table"}"#,
        r#"{"change":"forward-accept","ipv6":true}"#,
        r#"{"change":"firewall-rules","ipv6":false}"#,
        r#"{"change":"name-servers","way":{"by":"resolved"}}"#,
        r#"{"change":"name-servers","way":{"by":"file","path":"/etc/resolv.conf"}}"#,
    ];
    let journal = |changes: &[&str]| {
        let changes = changes.join(",");
        let text = format!(
            r#"{{"version":4,"interface":"sshvpn0","index":7,"owner":{owner},"changes":[{changes}]}}"#
        );
        place.read(text.as_bytes())
    };
    let entries = journal(&changes).unwrap().entries().to_vec();
    assert_eq!(entries.len(), changes.len());
    for (entry, text) in entries.iter().zip(changes) {
        assert_eq!(serde_json::to_string(entry).unwrap(), text);
        let also = text.replace(r#"{"change""#, r#"{"also":1,"change""#);
        // An old program did not refuse an unknown field beside a change without any.
        if text != changes[13] {
            assert!(journal(&[&also]).is_err(), "{also}");
        }
    }
}

#[test]
fn an_unknown_change_spoils_the_whole_journal() {
    let place = Place::new();
    let mut journal = place.create();
    journal
        .record(Entry::Mtu(link::mtu::Made { before: 1, set: 2 }))
        .unwrap();
    drop(journal);
    let path = place.directory.path().join("sshvpn0.json");
    let text = fs::read_to_string(path).unwrap();
    assert!(place.read(text.as_bytes()).is_ok());
    for (from, to) in [
        ("\"mtu\"", "\"delete-everything\""),
        ("\"before\":1", "\"before\":-1"),
        ("\"before\":1", "\"before\":1,\"also\":2"),
    ] {
        let changed = text.replace(from, to);
        assert_ne!(changed, text);
        assert!(place.read(changed.as_bytes()).is_err(), "{changed}");
    }
}

#[test]
fn links_and_foreign_files_are_ignored() {
    let place = Place::new();
    drop(place.create());
    let path = place.directory.path().join("sshvpn0.json");
    let elsewhere = place.directory.path().join("elsewhere");
    fs::rename(&path, &elsewhere).unwrap();
    symlink(&elsewhere, &path).unwrap();
    assert!(place.stale().is_empty());
    let name = "sshvpn0".parse().unwrap();
    let create = Journal::create(&place.directory, &name, Some(InterfaceIndex(7)));
    assert!(matches!(create, Err(JournalError::Corrupt { .. })));
    fs::remove_file(&path).unwrap();
    fs::rename(&elsewhere, &path).unwrap();
    std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
    assert!(place.stale().is_empty());
}

#[test]
fn a_half_written_file_does_no_harm() {
    let place = Place::new();
    let mut journal = place.create();
    journal
        .record(Entry::Mtu(link::mtu::Made { before: 1, set: 2 }))
        .unwrap();
    drop(journal);
    fs::write(place.directory.path().join("sshvpn0.json.new"), "{\"ver").unwrap();
    let stale = place.stale();
    assert_eq!(stale.len(), 1);
    assert_eq!(stale[0].journal.as_ref().unwrap().entries().len(), 1);
    assert_eq!(place.directory.names("").unwrap(), ["sshvpn0.json"]);
}

#[test]
fn a_journal_that_would_not_be_read_back_is_not_written() {
    let place = Place::new();
    let mut journal = place.create();
    let many = vec![Entry::Mtu(link::mtu::Made { before: 1, set: 2 }); 40_000];
    assert!(matches!(
        journal.replace(many),
        Err(JournalError::Full { .. })
    ));
    assert!(journal.entries().is_empty());
    journal
        .record(Entry::Mtu(link::mtu::Made { before: 1, set: 2 }))
        .unwrap();
    journal.remove().unwrap();
}
