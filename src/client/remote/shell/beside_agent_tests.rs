//! `hold.sh` and an sshvpn agent on one host, with the same settings: whatever the order of their
//! starts and ends, the last one restores the original values.

use std::fs;
use std::path::Path;

use super::hold_tests::{DIRECTORY, in_every_shell, nothing_left, run, sysctl};
use crate::host::change::Change;
use crate::host::journal::recovery::{Recoverer, recover_stale};
use crate::host::journal::runtime_dir::RuntimeDir;
use crate::host::journal::state::HostState;
use tokio::runtime::{Builder, Runtime};

const FILES: [(&str, u32); 3] = [
    ("net/ipv4/conf/eth1/forwarding", 1),
    ("net/ipv6/conf/eth1/accept_ra", 2),
    ("net/ipv6/conf/all/forwarding", 1),
];

fn values() -> Vec<String> {
    let also = [
        "net/ipv6/conf/eth2/forwarding",
        "net/ipv6/conf/lo/forwarding",
    ];
    let files = FILES.iter().map(|(file, _)| *file);
    files.chain(also).map(sysctl).collect()
}

/// Runs the agent's part on its own runtime.
struct Agent {
    runtime: Runtime,
    state: HostState,
}

fn directory() -> RuntimeDir {
    RuntimeDir::at(Path::new(DIRECTORY)).unwrap()
}

fn agent(device: &str) -> Agent {
    run(&format!("ip tuntap add dev {device} mode tun"));
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let state = runtime.block_on(async {
        let name = device.parse().unwrap();
        let mut state = HostState::begin(&directory(), &name).await.unwrap();
        for (file, _) in FILES {
            let key: crate::host::change::sysctl::SysctlKey = file.parse().unwrap();
            let setting = Change::Shared(key.try_into().unwrap());
            state.apply(setting).await.unwrap();
        }
        state
    });
    Agent { runtime, state }
}

impl Agent {
    fn ends(self) {
        let report = self.runtime.block_on(self.state.undo());
        assert!(report.is_clean(), "{report:?}");
        directory().remove_if_empty().unwrap();
    }
}

/// The second of two interfaces forwards IPv6 by its own setting.
fn host() -> Vec<String> {
    run("ip link add eth1 type veth peer name eth2");
    fs::write("/proc/sys/net/ipv4/conf/eth1/forwarding", "0").unwrap();
    fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "0").unwrap();
    fs::write("/proc/sys/net/ipv6/conf/eth2/forwarding", "1").unwrap();
    values()
}

const SET: [&str; 5] = ["1", "2", "1", "1", "1"];

#[test]
fn the_last_of_both_gives_back_whoever_came_first() {
    for (agent_first, agent_last) in [(true, true), (true, false), (false, true), (false, false)] {
        in_every_shell(move |shell| {
            let before = host();
            let early = agent_first.then(|| agent("tun0"));
            let mut held = shell.hold();
            for (file, value) in FILES {
                held.hold(file, value);
            }
            let agent = early.unwrap_or_else(|| agent("tun0"));
            assert_eq!(values(), SET);
            if agent_last {
                held.ends();
                assert_eq!(values(), SET);
                agent.ends();
            } else {
                agent.ends();
                assert_eq!(values(), SET);
                held.ends();
            }
            assert_eq!(values(), before, "{agent_first} {agent_last}");
            nothing_left();
        });
    }
}

#[test]
fn a_killed_agent_is_waited_for() {
    in_every_shell(|shell| {
        let before = host();
        drop(agent("tun0"));
        let mut held = shell.hold();
        for (file, value) in FILES {
            held.hold(file, value);
        }
        held.ends();
        assert_eq!(values(), SET, "its recovery gives back");
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let recovered = runtime
            .block_on(recover_stale(&directory(), Recoverer::Other))
            .unwrap();
        assert_eq!(recovered.len(), 1);
        assert_eq!(values(), before);
    });
}
