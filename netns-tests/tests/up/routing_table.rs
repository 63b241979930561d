//! `sshvpn up` on hosts whose interfaces and routing tables are unusual: names that are not UTF-8,
//! and the table of an internet router.
//!
//! ```text
//!   laptop wan 192.0.2.1 ── 192.0.2.2 wan bastion lan 198.51.100.1   ── 198.51.100.2  lan host
//!   sshvpn up  sshvpn0 ═ SSH ═ tunN  sshd             2001:db8:64::1 ── 2001:db8:64::2
//! ```

use anyhow::{Context, Result, ensure};
use netns_tests::lab::topology;
use netns_tests::program::vpn;
use netns_tests::{Before, Carrier, Child, Host, PATIENCE, traffic, with_each_carrier};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

with_each_carrier!(
    a_name_that_is_not_utf8_is_no_fault,
    a_table_of_250000_routes_is_read,
);

const LAN4: &str = "198.51.100.0/24";

/// An interface whose name is no UTF-8, with an address and a route.
fn odd_name(host: &Host, network: &str) -> Result<()> {
    host.sh(&format!(
        r#"name=$(printf 'v\351\377'); ip link add name "$name" type veth peer name other
           ip link set dev "$name" up; ip link set dev other up
           ip address add {network}.1/24 dev "$name"; ip route add {network}.128/25 dev "$name""#
    ))?;
    Ok(())
}

fn a_name_that_is_not_utf8_is_no_fault(carrier: Carrier) -> Result<()> {
    let lab = topology::subnet()?;
    carrier.prepare(&lab.direct.bastion)?;
    let (laptop, bastion) = (&lab.direct.laptop, &lab.direct.bastion);
    odd_name(laptop, "172.31.7")?;
    odd_name(bastion, "172.31.8")?;
    let before = Before::of(&[laptop, bastion])?;
    // The route contains the odd interface's network, which has to be seen for that.
    let up = comes_up(
        carrier,
        laptop,
        &[
            "bastion",
            "--route",
            LAN4,
            "--route",
            "172.31.0.0/16",
            "--route",
            "172.31.8.0/24",
        ],
    )?;
    traffic::ping(laptop, "198.51.100.2")?;
    let said = up.stderr();
    let part = "contains the local network 172.31.7.0/24 on v\u{fffd}\u{fffd}";
    ensure!(said.contains(part), "'{part}' is missing: {said}");
    let output = up.end_with(Signal::SIGINT)?;
    ensure!(output.code() == 0, "{output:?}");
    before.is_back()
}

/// Adds 250,000 routes to a table of its own.
fn many_routes(host: &Host) -> Result<()> {
    let line = r#"awk 'BEGIN { for (a = 20; a < 24; a++) for (b = 0; b < 250; b++) for (c = 0; c < 250; c++)
                      print "route add " a "." b "." c ".0/24 via 192.0.2.7 table 77" }' >/run/routes
                  ip -batch /run/routes; ip route show table 77 | wc -l"#;
    let count = host
        .spawn(&["bash", "-euc", line])?
        .wait(6 * PATIENCE)?
        .ok()?;
    ensure!(count.trim() == "250000", "{count} routes");
    Ok(())
}

/// The peak memory of a process, in KiB.
fn peak(pid: Pid) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("no VmHWM")?.parse()?)
}

fn a_table_of_250000_routes_is_read(carrier: Carrier) -> Result<()> {
    let lab = topology::subnet()?;
    carrier.prepare(&lab.direct.bastion)?;
    let laptop = &lab.direct.laptop;
    let up = comes_up(carrier, laptop, &["bastion", "--route", LAN4])?;
    let usual = peak(up.pid())?;
    up.end_with(Signal::SIGINT)?;
    many_routes(laptop)?;
    let up = comes_up(carrier, laptop, &["bastion", "--route", LAN4])?;
    let more = peak(up.pid())?.saturating_sub(usual);
    traffic::ping(laptop, "198.51.100.2")?;
    up.end_with(Signal::SIGINT)?;
    // About 400 bytes a route; their messages take more than that by themselves.
    ensure!(more < 100 * 1024, "{more} KiB more than without the table");
    Ok(())
}

/// Starts `sshvpn up`, which takes longer here than usually, and waits until it is up.
fn comes_up(carrier: Carrier, host: &Host, arguments: &[&str]) -> Result<Child> {
    let child = host.spawn(&vpn::command(&carrier.arguments(arguments))?)?;
    child.wait_for_line("up:", 3 * PATIENCE)?;
    Ok(child)
}
