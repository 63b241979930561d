//! A host for tests in a network namespace: its own runtime directory, every change that a tunnel
//! makes, and a snapshot of the state.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use tempfile::TempDir;

use super::change::sysctl::SysctlKey;
use super::change::{Change, InterfaceAddress, TunnelRoute};
use super::journal::recovery::{Recovered, Recoverer, recover_stale};
use super::journal::runtime_dir::RuntimeDir;
use super::journal::state::HostState;
use super::test_namespace::ip;
use crate::types::{InterfaceName, Mode, Mtu};

pub fn name() -> InterfaceName {
    "sshvpn0".parse().unwrap()
}

pub fn network(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

pub fn mtu(bytes: u32) -> Change {
    Change::Mtu(Mtu::new(bytes, Mode::PointToPoint).unwrap())
}

pub fn pair(local: &str, peer: &str) -> Change {
    Change::Address(InterfaceAddress::PointToPoint {
        local: local.parse().unwrap(),
        peer: peer.parse().unwrap(),
    })
}

pub fn route(destination: &str) -> Change {
    Change::Route(TunnelRoute::to(network(destination)))
}

/// Every change that a tunnel makes to its interface.
pub fn everything() -> Vec<Change> {
    vec![
        Change::AddressGenerationNone,
        Change::TxQueueLength(60),
        Change::GsoMaxSize(40_000),
        Change::Group(9),
        mtu(9000),
        Change::Sysctl {
            key: SysctlKey::ipv4(&name(), "rp_filter").unwrap(),
            value: "2".to_owned(),
        },
        Change::LinkUp,
        pair("10.77.0.0", "10.77.0.1"),
        pair("fd77::1", "fd77::2"),
        Change::Address(InterfaceAddress::Network(network("10.78.0.5/24"))),
        route("10.80.0.0/16"),
        route("fd80::/64"),
        Change::Route(TunnelRoute {
            source: Some("10.77.0.0".parse().unwrap()),
            metric: Some(50),
            ..TunnelRoute::to(network("10.81.0.0/16"))
        }),
        Change::Route(TunnelRoute {
            gateway: Some("10.78.0.1".parse().unwrap()),
            ..TunnelRoute::to(network("10.82.0.0/16"))
        }),
        route("0.0.0.0/1"),
        route("8000::/1"),
    ]
}

/// The runtime directory of one test, and a namespace state to compare.
pub struct Host {
    _parent: TempDir,
    pub directory: RuntimeDir,
}

impl Host {
    pub fn new() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let directory = RuntimeDir::at(&parent.path().join("run")).unwrap();
        Self {
            _parent: parent,
            directory,
        }
    }

    pub fn with_tun() -> Self {
        ip("tuntap add dev sshvpn0 mode tun");
        Self::new()
    }

    pub async fn begin(&self) -> HostState {
        HostState::begin(&self.directory, &name()).await.unwrap()
    }

    pub async fn recover(&self) -> Vec<Recovered> {
        recover_stale(&self.directory, Recoverer::Other)
            .await
            .unwrap()
    }

    pub fn files(&self) -> Vec<String> {
        self.directory.names("").unwrap()
    }

    /// The only journal.
    pub fn journal_path(&self) -> PathBuf {
        let files = self.files();
        assert_eq!(files.len(), 1, "{files:?}");
        self.directory.path().join(&files[0])
    }
}

/// The output of `ip` and the values in /proc/sys for this namespace. The queueing discipline is
/// left out: a link gets it when it first comes up and never loses it.
pub fn snapshot() -> String {
    let mut text: Vec<String> = [
        "-d addr",
        "route show table all",
        "-6 route show table all",
        "rule",
        "-6 rule",
    ]
    .map(ip)
    .to_vec();
    for family in ["ipv4", "ipv6"] {
        text.push(settings(
            Path::new("/proc/sys/net")
                .join(family)
                .join("conf/sshvpn0")
                .as_path(),
        ));
    }
    let text = text.join("\n");
    let words: Vec<&str> = text.split(' ').collect();
    let kept: Vec<&str> = words
        .iter()
        .enumerate()
        .filter(|(at, _)| *at == 0 || words[at - 1] != "qdisc")
        .map(|(_, word)| *word)
        .collect();
    kept.join(" ")
}

fn settings(directory: &Path) -> String {
    let mut lines: Vec<String> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .map(|path| format!("{} {:?}", path.display(), fs::read_to_string(&path).ok()))
        .collect();
    lines.sort();
    lines.join("\n")
}

/// Waits until the kernel has the routes of IPv6 addresses on a link that is up:
/// it adds them in a task of its own, even without detection of duplicates.
pub fn wait_for_routes_of(addresses: &[&str]) {
    let end = Instant::now() + Duration::from_secs(20);
    for address in addresses {
        while !ip("-6 route show table local").contains(&format!("local {address} dev")) {
            assert!(Instant::now() < end, "no route of {address}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

pub async fn apply_all(state: &mut HostState, changes: Vec<Change>) {
    for change in changes {
        let text = format!("{change:?}");
        state
            .apply(change)
            .await
            .unwrap_or_else(|error| panic!("{text}: {error}"));
    }
}
