//! In a new network namespace each, tests that a dead tunnel's changes are undone and a running
//! one's are not.

use std::fs;

use super::*;
use crate::host::change::{Change, link};
use crate::host::journal::Entry;
use crate::host::journal::state::HostState;
use crate::host::plan::facts::InterfaceIndex;
use crate::host::test_host::{Host, apply_all, everything, mtu, name, snapshot};
use crate::host::test_namespace::{self, ip};

#[test]
fn death_after_any_step_is_undone_by_the_next_start() {
    test_namespace::run(async {
        let host = Host::with_tun();
        let before = snapshot();
        for steps in 0..=everything().len() {
            let mut state = host.begin().await;
            apply_all(&mut state, everything().into_iter().take(steps).collect()).await;
            drop(state);
            let recovered = host.recover().await;
            assert_eq!(recovered.len(), 1);
            let Recovery::Undone(report) = &recovered[0].outcome else {
                panic!("{recovered:?}");
            };
            assert_eq!(
                (report.is_clean(), report.undone.len()),
                (true, steps),
                "{report:?}"
            );
            assert_eq!(snapshot(), before, "after {steps} steps");
            assert!(host.files().is_empty());
        }
    });
}

#[test]
fn a_running_tunnel_is_neither_recovered_nor_begun_again() {
    test_namespace::run(async {
        let host = Host::with_tun();
        let mut state = host.begin().await;
        state.apply(Change::LinkUp).await.unwrap();
        assert!(host.recover().await.is_empty());
        let busy = HostState::begin(&host.directory, &name())
            .await
            .unwrap_err();
        assert!(
            busy.to_string().contains("is already up, held by process"),
            "{busy}"
        );
        state.apply(mtu(9000)).await.unwrap();
        assert!(
            host.recover().await.is_empty(),
            "the lock goes on with each new file"
        );
        drop(state);
        let stale = HostState::begin(&host.directory, &name())
            .await
            .unwrap_err();
        assert!(stale.to_string().contains("sshvpn cleanup"), "{stale}");
        assert_eq!(host.recover().await.len(), 1);
        host.begin().await.undo().await;
    });
}

#[test]
fn the_journal_of_another_namespace_is_left_alone() {
    test_namespace::run(async {
        let host = Host::with_tun();
        let mut state = host.begin().await;
        state.apply(Change::LinkUp).await.unwrap();
        drop(state);
        let there = &host;
        test_namespace::run(async move {
            ip("tuntap add dev sshvpn0 mode tun");
            ip("link set sshvpn0 up");
            let recovered = there.recover().await;
            assert!(matches!(
                recovered[0].outcome,
                Recovery::OtherNamespace { .. }
            ));
            assert!(ip("link show sshvpn0").contains(",UP"));
            // The other namespace's tunnel of the same name has its own journal.
            let state = there.begin().await;
            assert_eq!(there.files().len(), 2);
            state.undo().await;
        });
        assert!(matches!(
            host.recover().await[0].outcome,
            Recovery::Undone(_)
        ));
        assert!(!ip("link show sshvpn0").contains(",UP"));
    });
}

#[test]
fn the_journal_of_an_earlier_boot_is_removed() {
    test_namespace::run(async {
        let host = Host::with_tun();
        let mut state = host.begin().await;
        state.apply(Change::LinkUp).await.unwrap();
        let boot = Owner::current().unwrap().boot_id;
        drop(state);
        let path = host.journal_path();
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace(&boot, "earlier")).unwrap();
        assert!(matches!(
            host.recover().await[0].outcome,
            Recovery::EarlierBoot
        ));
        assert!(host.files().is_empty());
        assert!(
            ip("link show sshvpn0").contains(",UP"),
            "nothing was undone"
        );
    });
}

#[test]
fn a_forged_entry_for_another_interface_is_not_executed() {
    test_namespace::run(async {
        let host = Host::with_tun();
        ip("link set lo up");
        let mut journal =
            Journal::create(&host.directory, &name(), Some(InterfaceIndex(2))).unwrap();
        journal
            .record(Entry::Sysctl(link::sysctl::Made {
                key: "net/ipv4/conf/lo/rp_filter".parse().unwrap(),
                before: "1".to_owned(),
                set: "0".to_owned(),
            }))
            .unwrap();
        drop(journal);
        let path = host.journal_path();
        let Recovery::Undone(report) = &host.recover().await[0].outcome else {
            panic!("it is a sound journal");
        };
        assert_eq!(report.failed.len(), 1);
        let text = fs::read_to_string(&path).unwrap();
        let lo = text.replace(
            "\"interface\":\"sshvpn0\",\"index\":2",
            "\"interface\":\"lo\",\"index\":1",
        );
        assert_ne!(lo, text);
        let text = lo.replace(
            "\"changes\":[",
            "\"changes\":[{\"change\":\"link-up\",\"ipv6_before\":[]},",
        );
        fs::write(&path, text).unwrap();
        let Recovery::Undone(report) = &host.recover().await[0].outcome else {
            panic!("it is a sound journal");
        };
        assert_eq!(report.left.len(), 2, "{report:?}");
        assert!(ip("link show lo").contains(",UP"));
    });
}
