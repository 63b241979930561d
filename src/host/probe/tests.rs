//! In new namespaces, asks hosts that answer, refuse, report and are silent.

use std::fs;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{Answer, Probe, Report, connects, echo};
use crate::host::test_namespace::{self, ip};

const SHORT: Duration = Duration::from_millis(400);
const LONG: Duration = Duration::from_secs(5);

fn probe<'a>(target: &str, interface: &'a str) -> Probe<'a> {
    Probe {
        target: target.parse().unwrap(),
        interface,
        hop_limit: None,
    }
}

/// The groups that may have ping sockets: none, as in a new namespace, and all.
const PING_GROUPS: [&str; 2] = ["1 0", "0 2147483647"];

fn furnish(ping_groups: &str) {
    fs::write("/proc/sys/net/ipv4/ping_group_range", ping_groups).unwrap();
    ip("link set lo up");
    ip("link add v0 type veth peer name v1");
    ip("link set v0 up");
    ip("link set v1 up");
    ip("addr add 192.0.2.1/24 dev v0");
    ip("addr add 2001:db8::1/64 dev v0 nodad");
}

#[test]
fn a_host_that_is_there_answers() {
    for ping_groups in PING_GROUPS {
        test_namespace::run(async {
            furnish(ping_groups);
            for target in ["127.0.0.1", "::1"] {
                let answer = echo(probe(target, "lo"), LONG).await;
                assert!(matches!(answer, Answer::Answered), "{target}: {answer:?}");
                assert!(connects(target.parse().unwrap(), "lo", LONG).await);
            }
        });
    }
}

#[test]
fn a_host_that_is_not_there_is_silent() {
    for ping_groups in PING_GROUPS {
        test_namespace::run(async {
            furnish(ping_groups);
            for target in ["192.0.2.7", "2001:db8::7"] {
                let answer = echo(probe(target, "v0"), SHORT).await;
                assert!(matches!(answer, Answer::Silence), "{target}: {answer:?}");
                assert!(!connects(target.parse().unwrap(), "v0", SHORT).await);
            }
            let answer = echo(probe("192.0.2.7", "none"), SHORT).await;
            assert!(!answer.is_from("192.0.2.7".parse().unwrap()), "{answer:?}");
        });
    }
}

#[test]
fn codes_have_their_words() {
    for (ipv6, kind, code, report) in [
        (false, 3, 0, Report::NoRoute),
        (false, 3, 1, Report::NoHost),
        (false, 3, 13, Report::Prohibited),
        (false, 11, 0, Report::Expired),
        (true, 1, 0, Report::NoRoute),
        (true, 1, 1, Report::Prohibited),
        (true, 1, 3, Report::NoHost),
        (true, 3, 0, Report::Expired),
        (true, 2, 0, Report::Other { kind: 2, code: 0 }),
    ] {
        assert_eq!(Report::of(ipv6, kind, code), report, "{ipv6} {kind} {code}");
    }
}

/// A namespace beside this thread's, for as long as the value lives.
struct Beside(Child);

impl Beside {
    fn new() -> Self {
        let mut command = Command::new("unshare");
        command.args(["--net", "cat"]).stdin(Stdio::piped());
        command.stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // cat runs once the namespace is there.
        child.stdin.as_mut().unwrap().write_all(b"1").unwrap();
        let mut echoed = [0];
        let output = child.stdout.as_mut().unwrap();
        output.read_exact(&mut echoed).unwrap();
        Beside(child)
    }

    fn sh(&self, line: &str) {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.0.id().to_string()]);
        let status = command.args(["sh", "-euc", line]).status().unwrap();
        assert!(status.success(), "{line}");
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_report_has_its_sender_and_reason() {
    for ping_groups in PING_GROUPS {
        test_namespace::run(async {
            furnish(ping_groups);
            let router = Beside::new();
            ip(&format!("link set v1 netns {}", router.0.id()));
            router.sh(
                "ip link set lo up; ip addr add 192.0.2.2/24 dev v1
                 ip addr add 2001:db8::2/64 dev v1 nodad; ip link set v1 up
                 echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
                 ip route add prohibit 10.1.0.0/16; ip -6 route add prohibit fd01::/16
                 ip link add d0 type veth peer name d1; ip link set d0 up; ip link set d1 up
                 ip route add 10.2.0.0/16 dev d0; ip -6 route add fd02::/16 dev d0",
            );
            ip("route add 10.0.0.0/8 via 192.0.2.2");
            ip("-6 route add fd00::/8 via 2001:db8::2");
            for (target, limit, expected, by) in [
                ("10.1.0.1", None, Report::Prohibited, "192.0.2.2"),
                ("10.2.0.1", Some(1), Report::Expired, "192.0.2.2"),
                ("10.3.0.1", None, Report::NoRoute, "192.0.2.2"),
                ("fd01::1", None, Report::Prohibited, "2001:db8::2"),
                ("fd02::1", Some(1), Report::Expired, "2001:db8::2"),
                ("fd03::1", None, Report::NoRoute, "2001:db8::2"),
            ] {
                let question = Probe {
                    hop_limit: limit,
                    ..probe(target, "v0")
                };
                let answer = echo(question, LONG).await;
                assert!(answer.is_from(by.parse().unwrap()), "{target}: {answer:?}");
                let is_expected =
                    matches!(answer, Answer::Reported { report, .. } if report == expected);
                assert!(is_expected, "{target}: {answer:?}");
            }
        });
    }
}
