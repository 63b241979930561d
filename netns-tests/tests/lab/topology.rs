//! Tests of the lab: hosts are private, snapshots show every change, and nothing is left behind.
//!
//! ```text
//!   one wan 192.0.2.1 ── 192.0.2.2 wan other
//! ```

use std::fs;
use std::panic;
use std::path::Path;

use anyhow::{Result, ensure};
use netns_tests::attack::fault::{self, Calls, Fault, RemoteCommands};
use netns_tests::lab::sshd::{Privilege, add_account};
use netns_tests::{Before, Host, connect, traffic};

#[test]
fn a_change_of_any_kind_is_seen() -> Result<()> {
    let host = Host::new("one")?;
    let changes = [
        "ip address add 10.1.0.1/24 dev lo",
        "ip route add blackhole 10.2.0.0/24",
        "ip -6 route add blackhole fd01::/64",
        "ip route add blackhole default table 77",
        "ip rule add fwmark 7 table 77",
        "ip -6 rule add fwmark 7 table 77",
        "echo 1 >/proc/sys/net/ipv4/ip_forward",
        "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding",
        "echo 2 >/proc/sys/net/ipv4/conf/lo/rp_filter",
        "nft add table inet mine",
        "iptables-nft -A INPUT -j ACCEPT",
        "mkdir -p /run/sshvpn; touch /run/sshvpn/x.json",
        "echo nameserver 10.0.0.1 >/etc/resolv.conf",
        "ip tuntap add dev tun9 mode tun",
        "sleep 1000 >/dev/null 2>&1 &",
    ];
    for change in changes {
        let before = Before::of(&[&host])?;
        ensure!(
            before.differences()?.is_empty(),
            "{change}: it changes by itself"
        );
        host.sh(change)?;
        ensure!(!before.differences()?.is_empty(), "not seen: {change}");
    }
    Ok(())
}

#[test]
fn hosts_reach_each_other_and_nothing_else() -> Result<()> {
    let (one, other) = (Host::new("one")?, Host::new("other")?);
    connect(
        (&one, "wan", &["192.0.2.1/24"]),
        (&other, "wan", &["192.0.2.2/24"]),
    )?;
    traffic::ping(&one, "192.0.2.2")?;
    traffic::no_ping(&one, "192.0.2.3")?;
    traffic::echo_every_size((&one, "192.0.2.1"), (&other, "192.0.2.2"), 0..=100)
}

#[test]
fn accounts_and_files_are_private() -> Result<()> {
    let host = Host::new("one")?;
    add_account(&host, "svalice", Privilege::Sudo)?;
    ensure!(host.sh("su svalice -c 'sudo -n id -u'")? == "0\n");
    ensure!(
        !fs::read_to_string("/etc/passwd")?.contains("svalice"),
        "the account is on the machine"
    );
    host.sh("mkdir -p /run/sshvpn; touch /run/sshvpn/lab-was-here /etc/lab-was-here")?;
    ensure!(
        !Path::new("/run/sshvpn/lab-was-here").exists() && !Path::new("/etc/lab-was-here").exists()
    );
    Ok(())
}

#[test]
fn nothing_is_left_after_a_panic() -> Result<()> {
    let failed = panic::catch_unwind(|| -> u32 {
        let host = Host::new("one").expect("a host");
        let _sleep = host.spawn(&["sleep", "1000"]).expect("a process");
        panic!("{}", host.init_pid())
    });
    let message = failed.expect_err("it panicked");
    let pid = message
        .downcast_ref::<String>()
        .expect("the message is a pid");
    ensure!(
        !Path::new("/proc").join(pid).exists(),
        "the init {pid} is still there"
    );
    Ok(())
}

#[test]
fn system_calls_fail_when_told_to() -> Result<()> {
    let host = Host::new("one")?;
    let command = ["mkdir".to_owned(), "/run/lab/directory".to_owned()];
    let mkdir = Calls {
        names: "mkdir",
        file: None,
    };
    let fails = host.run(&fault::at_system_call(Fault::Fails, mkdir, 1, &command))?;
    ensure!(
        fails.code() == 1 && fails.stderr.contains("not permitted"),
        "{fails:?}"
    );
    ensure!(fault::was_injected(&host)?);
    let killed = host.run(&fault::at_system_call(Fault::Kills, mkdir, 1, &command))?;
    ensure!(killed.code() == 137, "{killed:?}");
    let passes = host.run(&fault::at_system_call(Fault::Fails, mkdir, 2, &command))?;
    ensure!(
        passes.code() == 0 && !fault::was_injected(&host)?,
        "{passes:?}"
    );
    Ok(())
}

#[test]
fn remote_commands_fail_when_told_to() -> Result<()> {
    let host = Host::new("one")?;
    let commands = RemoteCommands::on(&host)?;
    host.sh("ip link; nft list ruleset; sysctl net.ipv4.ip_forward")?;
    commands.fail_at(2, Fault::Fails)?;
    host.sh("ip link")?;
    ensure!(host.sh("nft list ruleset").is_err(), "the second one works");
    host.sh("sysctl net.ipv4.ip_forward")?;
    ensure!(commands.disarm()? == 3);
    host.sh("nft list ruleset")?;
    Ok(())
}
