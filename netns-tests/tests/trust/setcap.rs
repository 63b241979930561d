//! A program file with CAP_NET_ADMIN gives its users tunnels of their own, and nothing else of that
//! capability.

use anyhow::{Context, Result, ensure};
use netns_tests::lab::sshd::{Privilege, add_account, as_user};
use netns_tests::program::vpn;
use netns_tests::{Client, Host, Output, PATIENCE, until};
use nix::sys::signal::Signal;

/// The program with the capability.
const PROGRAM: &str = "/run/lab/sshvpn";

/// A host with the accounts alice and bob.
fn host() -> Result<Host> {
    let host = Host::new("shared")?;
    for user in ["alice", "bob"] {
        add_account(&host, user, Privilege::None)?;
        host.sh(&format!(
            "install -d -m 700 -o {user} /run/user/$(id -u {user})"
        ))?;
    }
    let program = Client::Sshvpn.program()?;
    host.sh(&format!(
        "cp {program} {PROGRAM}; setcap cap_net_admin+ep {PROGRAM}"
    ))?;
    Ok(host)
}

fn as_alice(host: &Host, line: &str) -> Result<Output> {
    let line = format!("export XDG_RUNTIME_DIR=/run/user/2001; {line}");
    host.run(&as_user("alice", &["sh".into(), "-c".into(), line]))
}

/// Forges a journal with these changes, of a dead process, in alice's directory.
fn forge(host: &Host, interface: &str, index: &str, changes: &str) -> Result<()> {
    let boot = host.read("/proc/sys/kernel/random/boot_id")?;
    let namespace = host.sh("stat -Lc %i /proc/self/ns/net")?;
    let journal = format!(
        r#"{{"version":4,"interface":"{interface}","index":{index},"owner":{{"pid":1,"start_time":1,"boot_id":"{}","network_namespace":{}}},"changes":[{changes}]}}"#,
        boot.trim(),
        namespace.trim()
    );
    host.write("/run/lab/journal", &journal)?;
    host.sh(&format!(
        "install -d -m 700 -o alice /run/user/2001/sshvpn; \
         install -m 600 -o alice /run/lab/journal /run/user/2001/sshvpn/{interface}.json"
    ))?;
    Ok(())
}

fn index(host: &Host, interface: &str) -> Result<String> {
    let index = host.read(&format!("/sys/class/net/{interface}/ifindex"))?;
    Ok(index.trim().to_owned())
}

/// Installs a `resolvconf` of alice's that records its capabilities and its environment.
fn false_resolvconf(host: &Host) -> Result<()> {
    let script = "#!/bin/sh\\n(grep Cap /proc/self/status; env) >>/run/lab/ran\\n";
    host.sh(&format!(
        "install -d -o alice /run/lab/bin; : >/run/lab/ran; chmod 666 /run/lab/ran; \
         printf '{script}' >/run/lab/bin/resolvconf; chmod 755 /run/lab/bin/resolvconf"
    ))?;
    Ok(())
}

const RESOLVCONF: &str = r#"{"change":"name-servers","way":{"by":"resolvconf"}}"#;

#[test]
fn no_server_runs_by_a_capability_of_the_file() -> Result<()> {
    let host = host()?;
    false_resolvconf(&host)?;
    forge(&host, "sshvpn0", "null", RESOLVCONF)?;
    host.sh("install -o alice -m 600 /dev/null /run/home/alice/keys")?;
    let server = host.spawn(&as_user(
        "alice",
        &[
            "sh".into(),
            "-c".into(),
            format!(
                "XDG_RUNTIME_DIR=/run/user/2001 PATH=/run/lab/bin:$PATH exec {PROGRAM} serve \
                 --listen 127.0.0.1:2222 --host-key ~/host_key --authorized-keys ~/keys"
            ),
        ],
    ))?;
    until("its end, or that it listens", PATIENCE, || {
        (server.has_ended() || server.stderr().contains("listening")).then_some(())
    })?;
    if server.is_running() {
        server.signal(Signal::SIGTERM)?;
    }
    let output = server.wait(PATIENCE)?;
    let ran = host.read("/run/lab/ran")?;
    ensure!(ran.is_empty(), "alice's program ran with: {ran}");
    vpn::fails_clearly(&output, Some(1), &["serve", "file capabilities"])
}

/// With a wrapper that passes the capability on as an ambient one, the file itself has none; the
/// caller's PATH and journal must not be trusted then either.
#[test]
fn a_wrapper_with_ambient_capabilities_opens_nothing() -> Result<()> {
    let host = host()?;
    false_resolvconf(&host)?;
    host.sh(&format!(
        "setcap -r {PROGRAM}; nft add table inet sshvpn_tun5"
    ))?;
    let wrapped = format!(
        "export XDG_RUNTIME_DIR=/run/user/2001 PATH=/run/lab/bin:$PATH; exec setpriv --reuid alice \
         --regid alice --init-groups --inh-caps +net_admin --ambient-caps +net_admin {PROGRAM} cleanup"
    );
    for (interface, change) in [
        ("sshvpn0", RESOLVCONF),
        ("tun5", r#"{"change":"firewall-table"}"#),
    ] {
        forge(&host, interface, "null", change)?;
        let output = host.run(&["sh".into(), "-c".into(), wrapped.clone()])?;
        ensure!(output.stderr.contains("this needs root"), "{output:?}");
        let ran = host.read("/run/lab/ran")?;
        ensure!(ran.is_empty(), "alice's program ran with: {ran}");
        ensure!(host.sh("nft list tables")?.contains("sshvpn_tun5"));
        host.sh("rm -rf /run/user/2001/sshvpn")?;
    }
    Ok(())
}

#[test]
fn programs_are_not_looked_for_where_the_caller_says() -> Result<()> {
    let host = host()?;
    false_resolvconf(&host)?;
    forge(&host, "sshvpn0", "null", RESOLVCONF)?;
    as_alice(&host, &format!("PATH=/run/lab/bin:$PATH {PROGRAM} cleanup"))?;
    let ran = host.read("/run/lab/ran")?;
    ensure!(ran.is_empty(), "alice's program ran with: {ran}");
    Ok(())
}

/// Devices of root, of bob and of no user, with addresses and routes, and settings of the host are
/// as before, whatever a journal of alice's says about them.
#[test]
fn a_forged_journal_changes_nothing_of_others() -> Result<()> {
    let host = host()?;
    host.sh(
        "ip tuntap add dev tun5 mode tun; ip tuntap add dev tun6 mode tun user bob; \
         ip tuntap add dev tun7 mode tun user alice; ip link add br0 type bridge; \
         for n in 5 6 7; do ip link set tun$n up mtu 1400; ip addr add 10.5.$n.1/24 dev tun$n; \
         ip route add 10.50.$n.0/24 dev tun$n; done; \
         echo 0 >/proc/sys/net/ipv4/conf/tun7/forwarding",
    )?;
    let look = "ip -d link; ip addr; ip route; sysctl -a 2>/dev/null | grep -E 'forward|accept_ra'; \
        nft list ruleset; cat /etc/resolv.conf";
    host.sh("nft add table inet sshvpn_tun5; nft add table ip firewall")?;
    let before = host.sh(look)?;
    let bridge = index(&host, "br0")?;
    for interface in ["tun5", "tun6", "tun7"] {
        let number = index(&host, interface)?;
        let own = interface == "tun7";
        let of_the_link = format!(
            r#"{{"change":"link-up","ipv6_before":[]}},{{"change":"mtu","before":576,"set":1400}},{{"change":"address","address":{{"network":"10.5.{n}.1/24"}}}},{{"change":"route","route":{{"destination":"10.50.{n}.0/24","gateway":null,"source":null,"metric":null}}}}"#,
            n = &interface[3..]
        );
        let root = "this needs root".to_owned();
        let foreign = format!("'{interface}' belongs to another user");
        let on_link = if own { &root } else { &foreign };
        let beyond = [
            (
                format!(r#"{{"change":"bridge","before":{bridge},"set":0}}"#),
                on_link,
            ),
            (
                r#"{"change":"group","before":77,"set":0}"#.to_owned(),
                on_link,
            ),
            (
                format!(
                    r#"{{"change":"sysctl","key":"net/ipv4/conf/{interface}/forwarding","before":"1","set":"0"}}"#
                ),
                on_link,
            ),
            (
                r#"{"change":"shared-sysctl","setting":"net/ipv6/conf/all/forwarding","before":"1","same_before":[]}"#.to_owned(),
                &root,
            ),
            (r#"{"change":"firewall-table"}"#.to_owned(), &root),
            (
                r#"{"change":"forward-accept","ipv6":false}"#.to_owned(),
                &root,
            ),
            (
                r#"{"change":"firewall-rules","ipv6":false}"#.to_owned(),
                &root,
            ),
            (
                r#"{"change":"name-servers","way":{"by":"resolved"}}"#.to_owned(),
                &root,
            ),
        ];
        let of_the_link = (of_the_link, &foreign);
        for (changes, reason) in beyond.iter().chain((!own).then_some(&of_the_link)) {
            forge(&host, interface, &number, changes)?;
            let output = as_alice(&host, &format!("{PROGRAM} cleanup"))?;
            let after = host.sh(look)?;
            ensure!(after == before, "{changes}: {output:?}\n{before}\n{after}");
            // Each entry was read, and refused with its reason.
            let refused = output.stderr.matches(reason.as_str()).count();
            ensure!(
                refused == changes.matches("\"change\"").count(),
                "{changes}: {output:?}"
            );
            host.sh("rm -rf /run/user/2001/sshvpn")?;
        }
    }
    // Changes on alice's own device are undone.
    forge(
        &host,
        "tun7",
        &index(&host, "tun7")?,
        r#"{"change":"link-up","ipv6_before":[]}"#,
    )?;
    as_alice(&host, &format!("{PROGRAM} cleanup"))?.ok()?;
    ensure!(!host.sh("ip link show tun7")?.contains(",UP"));
    Ok(())
}

/// Only its owner can use a premade device.
#[test]
fn only_ones_own_device_is_taken() -> Result<()> {
    let lab = netns_tests::lab::topology::direct()?;
    let laptop = &lab.laptop;
    for user in ["alice", "bob"] {
        add_account(laptop, user, Privilege::None)?;
    }
    laptop.sh("cp -a /run/home/root/.ssh /run/home/alice/; chown -R alice: /run/home/alice")?;
    let program = Client::Sshvpn.program()?;
    laptop.sh(&format!(
        "cp {program} {PROGRAM}; setcap cap_net_admin+ep {PROGRAM}; \
         ip tuntap add dev tun6 mode tun user bob; ip tuntap add dev tun7 mode tun user alice; \
         ip tuntap add dev tun8 mode tun user root"
    ))?;
    for unit in [6, 8] {
        let line = format!("exec {PROGRAM} -o ExitOnForwardFailure=yes -N -w {unit} root@bastion");
        let output = as_alice(laptop, &line)?;
        vpn::fails_clearly(&output, Some(255), &[&format!("tun{unit}")])?;
        let line = format!("exec {PROGRAM} up --device tun{unit} root@bastion");
        let output = as_alice(laptop, &line)?;
        vpn::fails_clearly(&output, None, &[&format!("tun{unit}")])?;
    }
    // A name that the host's firewall may have rules for.
    let output = as_alice(
        laptop,
        &format!("exec {PROGRAM} up --device docker0 root@bastion"),
    )?;
    vpn::fails_clearly(&output, None, &["docker0"])?;
    let words = [PROGRAM, "up", "--device", "tun7", "root@bastion"].map(str::to_owned);
    let up = laptop.spawn(&as_user("alice", &words))?;
    up.wait_for_line("up:", PATIENCE)?;
    ensure!(up.end_with(Signal::SIGTERM)?.code() == 0);
    let words = [PROGRAM, "up", "root@bastion"].map(str::to_owned);
    let up = laptop.spawn(&as_user("alice", &words))?;
    up.wait_for_line("up:", PATIENCE)?;
    let owner = laptop.read("/sys/class/net/sshvpn0/owner");
    ensure!(owner.context("the new device")?.trim() == "2001");
    ensure!(up.end_with(Signal::SIGTERM)?.code() == 0);
    Ok(())
}
