//! In a new network namespace each, tests that a tunnel's changes are undone and nothing else is
//! touched.

use std::net::IpAddr;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::host::change::kind::link_of;
use crate::host::change::protection::{Difference, Ipv6};
use crate::host::change::sysctl::SysctlKey;
use crate::host::change::{firewall, link};
use crate::host::error::Refusal;
use crate::host::journal::Entry;
use crate::host::journal::recovery::Recovery;
use crate::host::test_host::{
    Host, apply_all, everything, mtu, name, pair, route, snapshot, wait_for_routes_of,
};
use crate::host::test_namespace::{self, ip};

#[test]
fn everything_is_made_and_undone() {
    test_namespace::run(async {
        let host = Host::with_tun();
        let before = snapshot();
        let mut state = host.begin().await;
        apply_all(&mut state, everything()).await;
        let now = snapshot();
        for there in [
            "inet 10.77.0.0 peer 10.77.0.1/32",
            "inet6 fd77::1 peer fd77::2/128",
            "10.78.0.5/24",
            "mtu 9000",
            "qlen 60",
            "gso_max_size 40000",
            "addrgenmode none",
            "fd80::/64 dev sshvpn0",
            "10.81.0.0/16 dev sshvpn0 proto static scope link src 10.77.0.0 metric 50",
            "10.82.0.0/16 via 10.78.0.1",
        ] {
            // This version of `ip -d addr` does not print the generation mode.
            assert!(
                now.contains(there) || ip("-d link").contains(there),
                "{there} in {now}"
            );
        }
        let to = |text: &str| state.netlink().route_to(text.parse::<IpAddr>().unwrap());
        assert_eq!(to("10.80.1.1").await.unwrap().device_name, "sshvpn0");
        assert_eq!(
            to("10.82.1.1").await.unwrap().gateway,
            Some("10.78.0.1".parse().unwrap())
        );
        assert_eq!(
            to("fd77::2").await.unwrap().source,
            Some("fd77::1".parse().unwrap())
        );
        let report = state.undo().await;
        assert!(report.is_clean() && report.gone.is_empty(), "{report:?}");
        assert_eq!(report.undone.len(), everything().len());
        assert_eq!(snapshot(), before);
        assert!(host.files().is_empty());
    });
}

#[test]
fn death_between_journal_and_change_is_undone_too() {
    test_namespace::run(async {
        let host = Host::with_tun();
        let before = snapshot();
        for change in everything() {
            let mut state = host.begin().await;
            let link = link_of(&state.netlink, &state.journal).await.unwrap();
            let entry = change.plan(&state.netlink, &link).await.unwrap().unwrap();
            state.journal.record(entry).unwrap();
            drop(state);
            let recovered = host.recover().await;
            let Recovery::Undone(report) = &recovered[0].outcome else {
                panic!("{recovered:?}");
            };
            assert_eq!(
                (report.is_clean(), report.gone.len()),
                (true, 1),
                "{report:?}"
            );
            assert_eq!(snapshot(), before);
        }
    });
}

#[test]
fn a_device_that_went_away_took_everything_along() {
    test_namespace::run(async {
        let host = Host::with_tun();
        let mut state = host.begin().await;
        apply_all(&mut state, everything()).await;
        ip("link del sshvpn0");
        assert!(matches!(
            state.apply(Change::LinkUp).await,
            Err(NetError::NoInterface(_))
        ));
        let report = state.undo().await;
        assert!(report.is_clean() && report.undone.is_empty(), "{report:?}");
        assert!(host.files().is_empty());
    });
}

#[test]
fn another_device_of_the_same_name_is_not_touched() {
    test_namespace::run(async {
        let host = Host::with_tun();
        let mut state = host.begin().await;
        apply_all(&mut state, everything()).await;
        ip("link del sshvpn0");
        ip("tuntap add dev sshvpn0 mode tun");
        ip("link set sshvpn0 up mtu 9000");
        ip("addr add 10.77.0.0 peer 10.77.0.1 dev sshvpn0");
        let before = snapshot();
        assert!(state.undo().await.is_clean());
        assert_eq!(snapshot(), before);
    });
}

#[test]
fn what_was_there_before_is_refused_and_stays() {
    test_namespace::run(async {
        let host = Host::with_tun();
        ip("link add v0 type veth peer name v1");
        ip("link set v0 up");
        ip("link set sshvpn0 up");
        ip("addr add 10.77.0.0 peer 10.77.0.1 dev sshvpn0");
        ip("addr add fd77::1 peer fd77::2 dev sshvpn0 nodad");
        wait_for_routes_of(&["fd77::1"]);
        ip("route add 10.80.0.0/16 dev sshvpn0 proto static");
        ip("route add 10.90.0.0/16 dev v0");
        ip("-6 route add fd90::/64 dev v0");
        let before = snapshot();
        let mut state = host.begin().await;
        for change in [
            pair("10.77.0.0", "10.77.0.1"),
            pair("fd77::1", "fd77::2"),
            route("10.80.0.0/16"),
            route("10.90.0.0/16"),
            route("fd90::/64"),
        ] {
            let error = state.apply(change).await.unwrap_err();
            assert!(matches!(error, NetError::Exists { .. }), "{error}");
            assert!(state.journal.entries().is_empty());
        }
        let report = state.undo().await;
        assert!(report.is_clean() && report.undone.is_empty(), "{report:?}");
        assert_eq!(snapshot(), before);
    });
}

#[test]
fn a_users_own_device_gets_its_settings_back() {
    test_namespace::run(async {
        let host = Host::with_tun();
        ip("link set sshvpn0 mtu 1400 txqueuelen 33");
        ip("addr add 10.5.0.1/24 dev sshvpn0");
        // The kernel drops this address when the link goes down again. (With nodad: the end of
        // duplicate address detection would change the snapshot at any time.)
        ip("addr add fd05::1/64 dev sshvpn0 nodad");
        let before = snapshot();
        let mut state = host.begin().await;
        apply_all(&mut state, everything()).await;
        assert!(state.undo().await.is_clean());
        assert_eq!(snapshot(), before);

        ip("link set sshvpn0 up");
        // The first IPv6 address on a link that is up adds the route ff00::/8.
        ip("addr add fd06::1/64 dev sshvpn0 nodad");
        wait_for_routes_of(&["fd05::1", "fd06::1"]);
        let before = snapshot();
        let mut state = host.begin().await;
        apply_all(&mut state, everything()).await;
        assert!(state.undo().await.is_clean());
        assert_eq!(snapshot(), before, "a link that was up stays up");
    });
}

#[test]
fn what_somebody_else_changed_since_is_left_and_reported() {
    test_namespace::run(async {
        let host = Host::with_tun();
        let mut state = host.begin().await;
        let rp_filter = SysctlKey::ipv4(&name(), "rp_filter").unwrap();
        apply_all(&mut state, everything()).await;
        ip("link set sshvpn0 mtu 4000");
        rp_filter.write("1").unwrap();
        let report = state.undo().await;
        assert_eq!(report.left.len(), 2, "{report:?}");
        assert!(
            report
                .left
                .iter()
                .any(|text| text == "MTU 9000 of sshvpn0: it is now 4000")
        );
        assert_eq!(rp_filter.read().unwrap(), "1");
        assert!(ip("link show sshvpn0").contains("mtu 4000"));
        assert!(host.files().is_empty());
    });
}

#[test]
fn what_is_as_wanted_already_is_not_undone() {
    test_namespace::run(async {
        let host = Host::with_tun();
        ip("link set sshvpn0 up mtu 9000 txqueuelen 60 addrgenmode none");
        let mut state = host.begin().await;
        apply_all(
            &mut state,
            vec![
                Change::LinkUp,
                mtu(9000),
                Change::TxQueueLength(60),
                Change::AddressGenerationNone,
            ],
        )
        .await;
        assert!(state.journal.entries().is_empty());
        assert!(state.undo().await.undone.is_empty());
        assert!(ip("link show sshvpn0").contains("mtu 9000"));
    });
}

#[test]
fn refusals_say_why_and_leave_no_entry() {
    test_namespace::run(async {
        let host = Host::with_tun();
        ip("link add v0 type veth peer name v1");
        let veth = HostState::begin(&host.directory, &"v0".parse().unwrap()).await;
        assert!(matches!(veth, Err(NetError::NotTunnel(_))));
        let none = HostState::begin(&host.directory, &"none".parse().unwrap()).await;
        assert!(matches!(none, Err(NetError::NoInterface(_))));

        let mut state = host.begin().await;
        let foreign = Change::Sysctl {
            key: "net/ipv4/conf/all/rp_filter".parse().unwrap(),
            value: "1".to_owned(),
        };
        assert!(matches!(
            state.apply(foreign).await,
            Err(NetError::ForeignSysctl { .. })
        ));
        let refusal = |error: NetError| error.refusal().unwrap();
        let down = state.apply(route("10.80.0.0/16")).await.unwrap_err();
        assert_eq!(refusal(down), Refusal::DeviceDown);
        SysctlKey::ipv6(&name(), "disable_ipv6")
            .unwrap()
            .write("1")
            .unwrap();
        let disabled = state.apply(pair("fd77::1", "fd77::2")).await.unwrap_err();
        assert_eq!(refusal(disabled), Refusal::Ipv6Disabled);
        assert!(state.journal.entries().is_empty());
        SysctlKey::ipv6(&name(), "disable_ipv6")
            .unwrap()
            .write("0")
            .unwrap();
        state.apply(pair("fd77::1", "fd77::2")).await.unwrap();
        let small = state.apply(mtu(1000)).await.unwrap_err();
        assert!(matches!(small, NetError::MtuUnderIpv6 { .. }));
        assert!(state.undo().await.is_clean());
    });
}

/// The settings of a device of the user's are restored, after a crash too.
#[test]
fn protection_is_put_back() {
    test_namespace::run(async {
        let host = Host::with_tun();
        let accept_ra = SysctlKey::ipv6(&name(), "accept_ra").unwrap();
        accept_ra.write("2").unwrap();
        let before = snapshot();
        for recovered in [false, true] {
            let mut state = host.begin().await;
            apply_all(&mut state, vec![Change::Protection(Ipv6::Off)]).await;
            assert_eq!(accept_ra.read().unwrap(), "0");
            let set = Difference::of("sshvpn0", Ipv6::Off);
            assert!(set.differing.is_empty(), "{set:?}");
            assert_eq!(state.journal.entries().len(), 8);
            // A second time changes nothing.
            apply_all(&mut state, vec![Change::Protection(Ipv6::Off)]).await;
            assert_eq!(state.journal.entries().len(), 8);
            match recovered {
                false => assert!(state.undo().await.is_clean()),
                true => {
                    drop(state);
                    host.recover().await;
                }
            }
            assert_eq!(snapshot(), before);
        }
    });
}

#[test]
fn ipv6_stays_on_a_device_that_has_an_address() {
    test_namespace::run(async {
        let host = Host::with_tun();
        ip("link set sshvpn0 up");
        ip("address add fd77::5/64 dev sshvpn0 nodad");
        let mut state = host.begin().await;
        apply_all(&mut state, vec![Change::Protection(Ipv6::Off)]).await;
        assert!(ip("address show sshvpn0").contains("fd77::5"));
        assert!(Difference::of("sshvpn0", Ipv6::On).differing.is_empty());
        assert!(state.undo().await.is_clean());
        assert!(ip("address show sshvpn0").contains("fd77::5"));
    });
}

/// A user who is not root recovers a dead process's journal: the user's own device gets its
/// settings back, the other changes stay journalled for root.
#[test]
fn what_takes_root_stays_in_the_journal() {
    test_namespace::run(async {
        ip("tuntap add dev sshvpn0 mode tun user root");
        let host = Host::new();
        let disabled = SysctlKey::ipv6(&name(), "disable_ipv6").unwrap();
        let mut state = host.begin().await;
        apply_all(&mut state, vec![Change::Protection(Ipv6::Off)]).await;
        assert_eq!(disabled.read().unwrap(), "1");
        let forwarding = Entry::Sysctl(link::sysctl::Made {
            key: SysctlKey::ipv4(&name(), "forwarding").unwrap(),
            before: "1".to_owned(),
            set: "0".to_owned(),
        });
        let beyond = [Entry::FirewallTable(firewall::MadeTable {}), forwarding];
        for entry in &beyond {
            state.journal.record(entry.clone()).unwrap();
        }
        let HostState { netlink, journal } = state;
        let report = undo_and_close(&netlink, journal, UndoScope::OwnDevices).await;
        assert_eq!(disabled.read().unwrap(), "0");
        assert!(
            report.left.is_empty() && report.failed.is_empty(),
            "{report:?}"
        );
        assert_eq!(report.beyond.len(), beyond.len(), "{report:?}");
        let text = std::fs::read_to_string(host.journal_path()).unwrap();
        assert!(text.contains("firewall-table") && text.contains("ipv4/conf/sshvpn0/forwarding"));
        assert!(!text.contains("disable_ipv6"), "{text}");
        std::fs::remove_file(host.journal_path()).unwrap();
        // The device of another user is left alone.
        ip("link del sshvpn0");
        ip("tuntap add dev sshvpn0 mode tun user 2001");
        let mut state = host.begin().await;
        apply_all(&mut state, vec![Change::LinkUp]).await;
        let HostState { netlink, journal } = state;
        let report = undo_and_close(&netlink, journal, UndoScope::OwnDevices).await;
        assert_eq!(
            report.beyond,
            ["sshvpn0 up: 'sshvpn0' belongs to another user"]
        );
        assert!(netlink.link_by_name("sshvpn0").await.unwrap().up);
    });
}

#[test]
fn a_link_local_address_is_not_ipv6_that_was_given() {
    test_namespace::run(async {
        let host = Host::with_tun();
        ip("link set sshvpn0 up addrgenmode none");
        ip("address add fe80::1/64 dev sshvpn0 nodad");
        let mut state = host.begin().await;
        apply_all(&mut state, vec![Change::Protection(Ipv6::Off)]).await;
        let disabled = SysctlKey::ipv6(&name(), "disable_ipv6").unwrap();
        assert_eq!(disabled.read().unwrap(), "1");
        assert!(state.undo().await.is_clean());
        assert_eq!(disabled.read().unwrap(), "0");
    });
}

/// /proc/sys is read-only, as in most containers: the link is set up all the same, and changes that
/// were not made are not journalled.
#[test]
fn read_only_settings_are_no_failure() {
    test_namespace::run(async {
        let host = Host::with_tun();
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).unwrap();
        for command in [
            "--make-rprivate /",
            "--bind /proc/sys /proc/sys",
            "-o remount,ro,bind /proc/sys",
        ] {
            let words = command.split(' ');
            let done = Command::new("mount").args(words).status().unwrap();
            assert!(done.success(), "mount {command}");
        }
        let mut state = host.begin().await;
        apply_all(
            &mut state,
            vec![Change::Protection(Ipv6::Off), Change::LinkUp],
        )
        .await;
        assert_eq!(state.journal.entries().len(), 1);
        assert!(state.undo().await.is_clean());
    });
}
