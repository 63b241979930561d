//! Tests of lease guards, of the file over a restart, and of concurrent leases.

use std::collections::HashSet;
use std::fs;
use std::time::Instant;

use super::*;

fn pools() -> Pools {
    Pools::new(&["10.0.0.0/16".parse().unwrap(), "fd00::/64".parse().unwrap()]).unwrap()
}

fn load(path: &Path) -> Leases {
    Leases::load(path, pools(), BTreeSet::new()).unwrap()
}

fn key(name: &str) -> LeaseKey {
    LeaseKey::from_text(name)
}

#[test]
fn an_address_comes_back_with_its_lease_and_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("leases.json");
    let leases = load(&path);
    let lease = leases
        .lease(&key("a"), &[], &["10.0.9.9".parse().unwrap()])
        .unwrap();
    let addresses = lease.addresses().to_vec();
    assert_eq!(addresses[0].client.to_string(), "10.0.9.9");
    assert_eq!(leases.in_use(), 2);
    drop(lease);
    assert_eq!(leases.in_use(), 0);
    drop(leases);
    let leases = load(&path);
    let lease = leases.lease(&key("a"), &[], &[]).unwrap();
    assert_eq!(lease.addresses(), addresses);
    leases.reload(Pools::default(), BTreeSet::new()).unwrap();
    assert_eq!(leases.in_use(), 2);
    drop(leases);
    drop(lease);
}

#[test]
fn a_crash_loses_little() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("leases.json");
    let leases = load(&path);
    let _held = leases.lease(&key("a"), &[], &[]).unwrap();
    let _other = leases.lease(&key("b"), &[], &[]).unwrap();
    // The file is written while the server runs.
    let end = Instant::now() + Duration::from_secs(20);
    while lease_file::read(&path).is_ok_and(|found| found.len() < 4) {
        assert!(Instant::now() < end, "never written");
        thread::yield_now();
    }
}

#[test]
fn what_is_closed_is_written_while_others_still_have_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("leases.json");
    let leases = Arc::new(load(&path));
    let left_behind = Arc::clone(&leases);
    let lease = leases.lease(&key("a"), &[], &[]).unwrap();
    leases.close();
    assert_eq!(lease_file::read(&path).unwrap().len(), 2);
    drop(lease);
    leases.close();
    assert_eq!(left_behind.in_use(), 0);
}

#[test]
fn a_burst_of_logins_from_many_threads_gives_each_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("leases.json");
    let leases = load(&path);
    let taken: Vec<Lease> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let leases = &leases;
                scope.spawn(move || {
                    let take = |n| {
                        leases
                            .lease(&key(&format!("{thread} {n}")), &[], &[])
                            .unwrap()
                    };
                    (0..25).map(take).collect::<Vec<Lease>>()
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    let clients: HashSet<IpAddr> = taken
        .iter()
        .flat_map(|lease| lease.addresses())
        .map(|one| one.client)
        .collect();
    assert_eq!((clients.len(), leases.in_use()), (400, 400));
    drop(leases);
    assert_eq!(lease_file::read(&path).unwrap().len(), 400);
}

#[test]
fn a_broken_file_is_set_aside() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("leases.json");
    fs::write(&path, "{\"version\":1").unwrap();
    let leases = load(&path);
    let _lease = leases.lease(&key("a"), &[], &[]).unwrap();
    drop(leases);
    let aside = directory.path().join("leases.json.broken");
    assert_eq!(fs::read_to_string(aside).unwrap(), "{\"version\":1");
    assert_eq!(lease_file::read(&path).unwrap().len(), 2);
}

#[test]
fn a_file_that_cannot_be_written_stops_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let blocked = directory.path().join("file");
    fs::write(&blocked, "").unwrap();
    let leases = load(&blocked.join("leases.json"));
    assert!(leases.lease(&key("a"), &[], &[]).is_ok());
}
