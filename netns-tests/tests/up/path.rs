//! `sshvpn up` checks the path before it says "up": what takes packets elsewhere, drops or refuses
//! them is a warning, and with `--strict` an error.
//!
//! ```text
//!   laptop wan 192.0.2.1 ── 192.0.2.2 wan bastion lan 198.51.100.1   ── 198.51.100.2  lan host
//!   sshvpn up  sshvpn0 ═ SSH ═ tunN  sshd             2001:db8:64::1 ── 2001:db8:64::2
//! ```

use anyhow::{Result, ensure};
use netns_tests::lab::topology::{self, Subnet};
use netns_tests::program::vpn::{self, fails_clearly};
use netns_tests::{Before, Carrier, Child, Host, traffic, with_each_carrier};
use nix::sys::signal::Signal;

with_each_carrier!(
    a_sound_path_causes_no_warning,
    the_policy_rule_of_another_vpn_is_named,
    a_rule_that_refuses_is_named,
    a_route_that_takes_the_connection_ends_the_attempt,
    a_host_that_drops_pings_is_no_fault,
    a_host_that_answers_nothing_is_reported,
    a_refusal_behind_the_tunnel_is_reported,
    an_overlap_is_an_error_when_strict,
);

const LAN4: &str = "198.51.100.0/24";
const LAN6: &str = "2001:db8:64::/64";
const HOST4: &str = "198.51.100.2";
const HOST6: &str = "2001:db8:64::2";
const ROUTES: [&str; 5] = ["bastion", "--route", LAN4, "--route", LAN6];

fn lab(carrier: Carrier) -> Result<Subnet> {
    let lab = topology::subnet()?;
    carrier.prepare(&lab.direct.bastion)?;
    Ok(lab)
}

fn warnings(up: &Child) -> Vec<String> {
    let said = up.stderr();
    let warnings = said.lines().filter(|line| line.contains("warning:"));
    warnings.map(str::to_owned).collect()
}

fn ends(up: Child) -> Result<()> {
    let output = up.end_with(Signal::SIGINT)?;
    ensure!(output.code() == 0, "{output:?}");
    Ok(())
}

/// Fails with `--strict` and each of `parts`.
fn refused(carrier: Carrier, host: &Host, arguments: &[&str], parts: &[&str]) -> Result<()> {
    let arguments = [arguments, &["--strict"]].concat();
    let command = vpn::command(&carrier.arguments(&arguments))?;
    let output = host.run(&command)?;
    fails_clearly(&output, Some(1), &["refused by --strict"])?;
    fails_clearly(&output, None, parts)
}

fn a_sound_path_causes_no_warning(carrier: Carrier) -> Result<()> {
    let lab = lab(carrier)?;
    let laptop = &lab.direct.laptop;
    let before = Before::of(&[laptop, &lab.direct.bastion, &lab.lan])?;
    for arguments in [
        &["bastion", "--strict"][..],
        &[&ROUTES[..], &["--strict"]].concat(),
    ] {
        let up = carrier.up(laptop, arguments)?;
        ensure!(warnings(&up).is_empty(), "{}", up.stderr());
        ends(up)?;
    }
    before.is_back()
}

fn the_policy_rule_of_another_vpn_is_named(carrier: Carrier) -> Result<()> {
    let lab = lab(carrier)?;
    let laptop = &lab.direct.laptop;
    laptop.sh(&format!(
        "ip link add tailscale0 type veth peer name beyond; ip link set tailscale0 up; ip link set beyond up
         ip route add {LAN4} dev tailscale0 table 52; ip rule add priority 5270 lookup 52
         ip -6 route add {LAN6} dev tailscale0 table 52; ip -6 rule add priority 5270 lookup 52"
    ))?;
    let before = Before::of(&[laptop, &lab.direct.bastion])?;
    let up = carrier.up(laptop, &ROUTES)?;
    let found = warnings(&up);
    ensure!(found.len() == 2, "{}", up.stderr());
    for (warning, network, family) in [(&found[0], LAN4, ""), (&found[1], LAN6, " -6")] {
        for part in [
            format!(
                "(route {network}) do not take the tunnel: the policy rule with priority 5270 looks in table 52 first, which has a route {network} on tailscale0"
            ),
            format!("ip{family} rule add to {network} lookup main priority 5269"),
            "--exclude".to_owned(),
        ] {
            ensure!(warning.contains(&part), "'{part}' is missing: {warning}");
        }
    }
    ends(up)?;
    before.is_back()?;
    let parts = ["priority 5270", "1 more"];
    refused(carrier, laptop, &ROUTES, &parts)?;
    before.is_back()?;
    // The advice helps.
    laptop.sh(&format!(
        "ip rule add to {LAN4} lookup main priority 5269; ip -6 rule add to {LAN6} lookup main priority 5269"
    ))?;
    let up = carrier.up(laptop, &[&ROUTES[..], &["--strict"]].concat())?;
    traffic::ping(laptop, HOST4)?;
    traffic::ping(laptop, HOST6)?;
    ends(up)
}

fn a_rule_that_refuses_is_named(carrier: Carrier) -> Result<()> {
    let lab = lab(carrier)?;
    let laptop = &lab.direct.laptop;
    laptop.sh(&format!(
        "ip rule add to {LAN4} prohibit priority 77
         ip -6 route add unreachable {LAN6} table 52; ip -6 rule add priority 5270 lookup 52"
    ))?;
    let up = carrier.up(laptop, &ROUTES)?;
    let found = warnings(&up).join("\n");
    for part in [
        "the policy rule with priority 77 refuses them",
        "the route 2001:db8:64::/64 of table 52 refuses them",
    ] {
        ensure!(found.contains(part), "'{part}' is missing: {found}");
    }
    ends(up)
}

/// Only the ProxyCommand knows the server's address, which the route contains.
fn a_route_that_takes_the_connection_ends_the_attempt(carrier: Carrier) -> Result<()> {
    let lab = lab(carrier)?;
    let (laptop, bastion) = (&lab.direct.laptop, &lab.direct.bastion);
    bastion
        .sh("ip address add 203.0.113.5/32 dev lo; ip address add 2001:db8:113::5/128 dev lo")?;
    laptop.sh("ip route add default via 192.0.2.2; ip -6 route add default via 2001:db8:2::2")?;
    let before = Before::of(&[laptop, bastion])?;
    for (server, route) in [
        ("203.0.113.5", "203.0.113.0/24"),
        ("[2001:db8:113::5]", "2001:db8:113::/48"),
    ] {
        let proxy = format!("ProxyCommand=socat - TCP:{server}:22");
        let arguments = [
            "elsewhere",
            "-o",
            &proxy,
            "-o",
            "HostKeyAlias=bastion",
            "--route",
            route,
        ];
        let output = laptop.run(&vpn::command(&carrier.arguments(&arguments))?)?;
        let parts = ["the address that the ProxyCommand connects to", "--exclude"];
        fails_clearly(&output, Some(255), &parts)?;
        ensure!(!output.stderr.contains("up:"), "{output:?}");
        before.is_back()?;
    }
    Ok(())
}

fn a_host_that_drops_pings_is_no_fault(carrier: Carrier) -> Result<()> {
    let lab = lab(carrier)?;
    let (laptop, bastion) = (&lab.direct.laptop, &lab.direct.bastion);
    bastion.sh(
        "echo 1 >/proc/sys/net/ipv4/icmp_echo_ignore_all; echo 1 >/proc/sys/net/ipv6/icmp/echo_ignore_all",
    )?;
    let up = carrier.up(laptop, &["bastion", "--strict"])?;
    ensure!(warnings(&up).is_empty(), "{}", up.stderr());
    ends(up)?;
    // A host that forwards, and drops all that is for itself.
    only_forwards(bastion)?;
    let up = carrier.up(laptop, &[&ROUTES[..], &["--strict"]].concat())?;
    ensure!(warnings(&up).is_empty(), "{}", up.stderr());
    traffic::ping(laptop, HOST4)?;
    ends(up)
}

fn only_forwards(bastion: &Host) -> Result<()> {
    bastion.sh("nft add table inet lab
         nft 'add chain inet lab in { type filter hook input priority 0; policy drop; }'
         nft add rule inet lab in iifname '{ lo, wan, lan }' accept")?;
    Ok(())
}

fn a_host_that_answers_nothing_is_reported(carrier: Carrier) -> Result<()> {
    let lab = lab(carrier)?;
    let (laptop, bastion) = (&lab.direct.laptop, &lab.direct.bastion);
    only_forwards(bastion)?;
    let before = Before::of(&[laptop, bastion])?;
    let up = carrier.up(laptop, &["bastion"])?;
    let found = warnings(&up);
    ensure!(found.len() == 2, "{}", up.stderr());
    for warning in &found {
        let part = "at bastion in 3 s: a firewall at bastion may drop what comes in by the tunnel";
        ensure!(warning.contains(part), "'{part}' is missing: {warning}");
    }
    ends(up)?;
    refused(
        carrier,
        laptop,
        &["bastion"],
        &["no answer through the tunnel"],
    )?;
    before.is_back()
}

fn a_refusal_behind_the_tunnel_is_reported(carrier: Carrier) -> Result<()> {
    let lab = lab(carrier)?;
    let (laptop, bastion) = (&lab.direct.laptop, &lab.direct.bastion);
    bastion.sh(&format!(
        "ip route add 198.51.101.0/24 via {HOST4}; ip -6 route add 2001:db8:65::/64 via {HOST6}"
    ))?;
    lab.lan.sh(
        "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
         ip route add prohibit 198.51.101.0/24; ip -6 route add prohibit 2001:db8:65::/64",
    )?;
    let before = Before::of(&[laptop, bastion])?;
    let arguments = [
        "bastion",
        "--route",
        "198.51.101.0/24",
        "--route",
        "2001:db8:65::/64",
    ];
    let up = carrier.up(laptop, &arguments)?;
    let found = warnings(&up).join("\n");
    for part in [
        "packets to 198.51.101.1 (route 198.51.101.0/24) are not delivered: 198.51.100.2 reports 'administratively prohibited'",
        "packets to 2001:db8:65::1 (route 2001:db8:65::/64) are not delivered: 2001:db8:64::2 reports 'administratively prohibited'",
    ] {
        ensure!(found.contains(part), "'{part}' is missing: {found}");
    }
    ends(up)?;
    refused(
        carrier,
        laptop,
        &arguments,
        &["'administratively prohibited'"],
    )?;
    before.is_back()
}

fn an_overlap_is_an_error_when_strict(carrier: Carrier) -> Result<()> {
    let lab = lab(carrier)?;
    let laptop = &lab.direct.laptop;
    laptop.sh("ip route add 198.51.100.128/25 via 192.0.2.2")?;
    let up = carrier.up(laptop, &["bastion", "--route", LAN4])?;
    ensure!(warnings(&up).is_empty(), "{}", up.stderr());
    ends(up)?;
    let part = "contains the existing route 198.51.100.128/25";
    refused(carrier, laptop, &["bastion", "--route", LAN4], &[part])?;
    let without = [
        "bastion",
        "--route",
        LAN4,
        "--exclude",
        "198.51.100.128/25",
        "--strict",
    ];
    ends(carrier.up(laptop, &without)?)
}
