//! Tests with programs that record their input in place of the resolvers' programs; and the file,
//! with tunnels that end in every way.

use super::*;
use crate::host::change::Change;
use crate::host::journal::recovery::{Recoverer, Recovery, recover_stale};
use crate::host::journal::state::HostState;
use crate::host::test_host::Host;
use crate::host::test_namespace::{self, ip};
use crate::ssh::test_settings::write_program;
use tempfile::TempDir;

const BEFORE: &str = "nameserver 192.0.2.53\n";

fn name_servers(servers: &[&str], domains: &[&str]) -> NameServers {
    NameServers {
        servers: servers
            .iter()
            .map(|server| server.parse().unwrap())
            .collect(),
        domains: domains
            .iter()
            .map(|domain| domain.parse().unwrap())
            .collect(),
    }
}

/// A program that records its arguments and its input, and then runs `script`.
fn noting(script: &str) -> (TempDir, Program, impl Fn() -> String) {
    let directory = tempfile::tempdir().unwrap();
    let notes = directory.path().join("notes");
    let program = directory.path().join("program");
    let note = format!("echo \"$@\" >>{0}; cat >>{0}; {script}", notes.display());
    write_program(&program, &note);
    let read = move || fs::read_to_string(&notes).unwrap_or_default();
    (directory, Program::at(program), read)
}

#[tokio::test]
async fn resolved_is_told_of_the_interface_alone() {
    let answer = "[ $# -gt 2 ] || echo 'Link 3 (sshvpn0):'";
    let (_directory, program, notes) = noting(answer);
    let corp = name_servers(&["10.1.0.1", "fd00::1"], &["corp.example", "lab"]);
    tell_resolved(&program, "sshvpn0", &corp).await.unwrap();
    let told = "dns sshvpn0\ndns sshvpn0 10.1.0.1 fd00::1\ndomain sshvpn0 corp.example lab\n\
                default-route sshvpn0 no\n";
    assert_eq!(notes(), told);

    let (_directory, program, notes) = noting(answer);
    let all = name_servers(&["10.1.0.1"], &[]);
    tell_resolved(&program, "sshvpn0", &all).await.unwrap();
    assert!(notes().ends_with("domain sshvpn0 ~.\ndefault-route sshvpn0 yes\n"));
    assert_eq!(
        revert_resolved(&program, "sshvpn0").await.unwrap(),
        Outcome::Undone
    );
    assert!(notes().ends_with("\nrevert sshvpn0\n"));
}

#[tokio::test]
async fn settings_of_somebody_else_stay() {
    let (_directory, program, notes) = noting("echo 'Link 3 (tun7): 9.9.9.9 fe80::1%3'");
    let error = tell_resolved(&program, "tun7", &name_servers(&["10.1.0.1"], &[])).await;
    let error = error.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("tun7 already has name servers (9.9.9.9")
    );
    assert!(error.nothing_changed());
    assert_eq!(notes(), "dns tun7\n");
}

#[tokio::test]
async fn resolvconf_gets_a_record() {
    let (_directory, program, notes) = noting("true");
    let corp = name_servers(&["10.1.0.1", "fd00::1"], &["corp.example", "lab"]);
    tell_resolvconf(&program, "sshvpn0", &corp).await.unwrap();
    let told = "-a vpn.sshvpn0\nnameserver 10.1.0.1\nnameserver fd00::1\nsearch corp.example lab\n";
    assert_eq!(notes(), told);
    assert_eq!(
        revert_resolvconf(&program, "sshvpn0").await.unwrap(),
        Outcome::Undone
    );
    assert_eq!(notes(), format!("{told}-d vpn.sshvpn0\n"));
    let gone = "echo 'No resolv.conf for interface vpn.sshvpn0' >&2; exit 1";
    let (_directory, program, _) = noting(gone);
    assert_eq!(
        revert_resolvconf(&program, "sshvpn0").await.unwrap(),
        Outcome::Gone
    );
    let (_directory, program, _) = noting("echo locked >&2; exit 1");
    let error = revert_resolvconf(&program, "sshvpn0").await.unwrap_err();
    assert!(error.to_string().ends_with("says: locked"), "{error}");
}

#[test]
fn who_looks_up_names_is_seen_from_the_files() {
    let directory = tempfile::tempdir().unwrap();
    let (file, switch) = (
        directory.path().join("resolv"),
        directory.path().join("switch"),
    );
    let answers = |text: &str, services: &str| {
        fs::write(&file, text).unwrap();
        fs::write(&switch, services).unwrap();
        resolved_answers(&file, &switch)
    };
    assert!(!answers(BEFORE, "hosts: files dns\n"));
    assert!(answers(
        "options x\nnameserver 127.0.0.53\n",
        "hosts: files dns\n"
    ));
    assert!(!answers("# nameserver 127.0.0.53\n", "passwd: resolve\n"));
    assert!(answers(
        BEFORE,
        "hosts:  mymachines resolve [!UNAVAIL=return] dns\n"
    ));
    fs::remove_file(&file).unwrap();
    fs::remove_file(&switch).unwrap();
    assert!(!resolved_answers(&file, &switch));
}

/// The test's own resolver file.
fn file() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("resolv.conf");
    fs::write(&path, BEFORE).unwrap();
    (directory, path)
}

fn change(path: &Path, server: &str) -> Change {
    Change::NameServers(ResolverChange {
        name_servers: name_servers(&[server], &["corp.example"]),
        way: ResolverWay::of_file(path),
    })
}

#[test]
fn the_file_is_put_back_by_the_tunnel_or_by_the_next_start() {
    test_namespace::run(async {
        let host = Host::with_tun();
        let (_directory, path) = file();
        for killed in [false, true] {
            let mut state = host.begin().await;
            state.apply(change(&path, "10.0.0.1")).await.unwrap();
            assert!(
                fs::read_to_string(&path)
                    .unwrap()
                    .contains("nameserver 10.0.0.1\n")
            );
            let report = if killed {
                drop(state);
                // A killed tunnel's device is removed with it.
                ip("link delete sshvpn0");
                let recovered = host.recover().await.pop().unwrap();
                let Recovery::Undone(report) = recovered.outcome else {
                    panic!("{recovered:?}")
                };
                report
            } else {
                state.undo().await
            };
            assert!(report.is_clean() && report.undone.len() == 1, "{report:?}");
            assert_eq!(fs::read_to_string(&path).unwrap(), BEFORE);
            assert!(host.files().is_empty());
        }
    });
}

#[test]
fn tunnels_share_the_file_and_a_dead_one_leaves_it_to_the_other() {
    test_namespace::run(async {
        let host = Host::with_tun();
        ip("tuntap add dev sshvpn1 mode tun");
        let (_directory, path) = file();
        let second_name = "sshvpn1".parse().unwrap();
        let mut first = host.begin().await;
        let mut second = HostState::begin(&host.directory, &second_name)
            .await
            .unwrap();
        first.apply(change(&path, "10.0.0.1")).await.unwrap();
        second.apply(change(&path, "10.0.1.1")).await.unwrap();
        drop(first);
        assert_eq!(
            recover_stale(&host.directory, Recoverer::Other)
                .await
                .unwrap()
                .len(),
            1
        );
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.contains("10.0.1.1") && !text.contains("10.0.0.1"),
            "{text}"
        );
        let report = second.undo().await;
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), BEFORE);
    });
}

#[test]
fn a_file_that_cannot_be_written_is_an_error_and_nothing_else_is_touched() {
    test_namespace::run(async {
        let host = Host::with_tun();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("none/resolv.conf");
        let mut state = host.begin().await;
        let error = state.apply(change(&path, "10.0.0.1")).await.unwrap_err();
        assert!(error.to_string().contains("cannot write"), "{error}");
        let report = state.undo().await;
        assert!(report.is_clean(), "{report:?}");
        assert!(host.files().is_empty());
    });
}
