//! In a new network namespace each, two tunnels take the same settings; tests that the last one
//! restores them, whether the tunnels end orderly or crash.

use std::fs;

use super::*;
use crate::host::change::Change;
use crate::host::journal::recovery::Recovery;
use crate::host::journal::state::HostState;
use crate::host::test_host::Host;
use crate::host::test_namespace::{self, ip};

fn settings() -> [SharedSetting; 3] {
    let eth = || "eth1".parse().unwrap();
    [
        SharedSetting::ForwardIpv4(eth()),
        SharedSetting::AcceptAdvertisements(eth()),
        SharedSetting::ForwardIpv6,
    ]
}

/// The values of the three settings, and of those that the kernel sets along with the last one.
fn values() -> Vec<String> {
    let mut keys: Vec<SysctlKey> = settings().iter().map(SharedSetting::key).collect();
    for name in ["default", "eth1", "eth2", "lo"] {
        keys.push(forwarding_of(&name.parse().unwrap()));
    }
    keys.iter().map(|key| key.read().unwrap()).collect()
}

/// A host with two interfaces; the second one forwards IPv6 already.
fn host() -> Host {
    ip("link add eth1 type veth peer name eth2");
    for tunnel in ["sshvpn0", "sshvpn1"] {
        ip(&format!("tuntap add dev {tunnel} mode tun"));
    }
    forwarding_of(&"eth2".parse().unwrap()).write("1").unwrap();
    Host::new()
}

async fn tunnel(host: &Host, name: &str) -> HostState {
    let mut state = HostState::begin(&host.directory, &name.parse().unwrap())
        .await
        .unwrap();
    for setting in settings() {
        state.apply(Change::Shared(setting)).await.unwrap();
    }
    state
}

const SET: [&str; 7] = ["1", "2", "1", "1", "1", "1", "1"];

#[test]
fn the_last_of_two_gives_them_back() {
    for first_goes_first in [true, false] {
        test_namespace::run(async move {
            let host = host();
            let before = values();
            let one = tunnel(&host, "sshvpn0").await;
            let other = tunnel(&host, "sshvpn1").await;
            assert_eq!(values(), SET);
            let (first, last) = match first_goes_first {
                true => (one, other),
                false => (other, one),
            };
            let report = first.undo().await;
            assert!(report.is_clean(), "{report:?}");
            assert!(report.undone[0].contains("another tunnel needs it"));
            assert_eq!(values(), SET);
            let report = last.undo().await;
            assert!(report.is_clean() && report.undone.len() == 3, "{report:?}");
            assert_eq!(values(), before);
        });
    }
}

#[test]
fn one_that_was_killed_is_recovered_while_the_other_runs() {
    test_namespace::run(async {
        let host = host();
        let before = values();
        drop(tunnel(&host, "sshvpn0").await);
        let other = tunnel(&host, "sshvpn1").await;
        ip("link del sshvpn0");
        assert_eq!(host.recover().await.len(), 1);
        assert_eq!(values(), SET);
        assert!(other.undo().await.is_clean());
        assert_eq!(values(), before);
    });
}

#[test]
fn one_that_was_killed_and_is_not_recovered_keeps_them_until_it_is() {
    test_namespace::run(async {
        let host = host();
        let before = values();
        drop(tunnel(&host, "sshvpn0").await);
        assert!(tunnel(&host, "sshvpn1").await.undo().await.is_clean());
        assert_eq!(values(), SET);
        let Recovery::Undone(report) = &host.recover().await[0].outcome else {
            panic!("it was ours");
        };
        assert!(report.is_clean() && report.undone.len() == 3, "{report:?}");
        assert_eq!(values(), before);
    });
}

#[test]
fn death_at_any_point_is_made_good() {
    test_namespace::run(async {
        let host = host();
        let before = values();
        for setting in settings() {
            let mut state = HostState::begin(&host.directory, &"sshvpn0".parse().unwrap())
                .await
                .unwrap();
            state.apply(Change::Shared(setting.clone())).await.unwrap();
            drop(state);
            // Journalled but not made yet, or partly restored: the kernel's state is the same.
            setting.key().write(&before_of(&setting)).unwrap();
            let Recovery::Undone(report) = &host.recover().await[0].outcome else {
                panic!("it was ours");
            };
            assert_eq!(
                (report.is_clean(), report.gone.len()),
                (true, 1),
                "{report:?}"
            );
            assert_eq!(values(), before, "{setting}");
        }
    });
}

fn before_of(setting: &SharedSetting) -> String {
    match setting {
        SharedSetting::AcceptAdvertisements(_) => "1",
        _ => "0",
    }
    .to_owned()
}

#[test]
fn what_is_so_already_is_not_ours_to_change() {
    test_namespace::run(async {
        let host = host();
        for setting in settings() {
            setting.key().write(setting.wanted()).unwrap();
        }
        let state = tunnel(&host, "sshvpn0").await;
        assert!(state.undo().await.undone.is_empty());
        assert_eq!(values(), SET);
    });
}

#[test]
fn what_somebody_else_changed_since_stays() {
    test_namespace::run(async {
        let host = host();
        let state = tunnel(&host, "sshvpn0").await;
        let [_, advertisements, _] = settings();
        advertisements.key().write("0").unwrap();
        let report = state.undo().await;
        assert_eq!(report.left.len(), 1, "{report:?}");
        assert_eq!(advertisements.key().read().unwrap(), "0");
        assert!(host.files().is_empty());
    });
}

#[test]
fn an_interface_that_went_away_took_its_settings_along() {
    test_namespace::run(async {
        let host = host();
        let state = tunnel(&host, "sshvpn0").await;
        ip("link del eth1");
        let report = state.undo().await;
        assert!(report.is_clean(), "{report:?}");
        assert_eq!((report.undone.len(), report.gone.len()), (1, 2));
    });
}

#[test]
fn a_setting_that_is_not_there_leaves_no_entry() {
    test_namespace::run(async {
        let host = host();
        let mut state = HostState::begin(&host.directory, &"sshvpn0".parse().unwrap())
            .await
            .unwrap();
        let none = SharedSetting::ForwardIpv4("none".parse().unwrap());
        assert!(state.apply(Change::Shared(none)).await.is_err());
        let report = state.undo().await;
        assert!(report.undone.is_empty() && report.gone.is_empty());
    });
}

#[test]
fn the_journal_of_another_namespace_or_a_broken_one_says_nothing() {
    test_namespace::run(async {
        let host = host();
        let before = values();
        fs::write(host.directory.path().join("broken.json"), "{").unwrap();
        let there = &host;
        let other = test_namespace::run(async move {
            ip("link add eth1 type veth peer name eth2");
            ip("tuntap add dev sshvpn0 mode tun");
            tunnel(there, "sshvpn0").await
        });
        let state = tunnel(&host, "sshvpn0").await;
        assert!(state.undo().await.is_clean());
        assert_eq!(values(), before);
        drop(other);
    });
}
