//! Demonstrates a VPN to a network behind a bastion, from setup to cleanup:
//!
//! ```text
//!   laptop 192.0.2.1 ── 192.0.2.2 bastion 198.51.100.1 ── 198.51.100.2 LAN host
//! ```

use anyhow::Result;
use netns_tests::lab::child;
use netns_tests::lab::topology::{self, Subnet};
use netns_tests::program::vpn;
use netns_tests::program::vpn::Device;
use netns_tests::traffic::iperf3::{self, Direction, Flow};
use netns_tests::{Before, Client, traffic};
use nix::sys::signal::Signal;

const ARGUMENTS: [&str; 5] = [
    "bastion",
    "--route",
    "198.51.100.0/24",
    "--route",
    "2001:db8:64::/64",
];
const LAN4: &str = "198.51.100.2";
const LAN6: &str = "2001:db8:64::2";

fn say(text: &str) {
    println!("demo: {text}");
}

fn main() -> Result<()> {
    child::print_nothing();
    Client::Sshvpn.program()?;
    say("three hosts, each in its own namespaces:");
    println!("        laptop 192.0.2.1 ── 192.0.2.2 bastion 198.51.100.1 ── 198.51.100.2 LAN host");
    println!(
        "        the bastion runs the distribution's sshd; the LAN host has no route to the laptop"
    );
    let lab = topology::subnet()?;
    let laptop = &lab.direct.laptop;
    let before = Before::of(&[laptop, &lab.direct.bastion, &lab.lan])?;
    traffic::no_ping(laptop, LAN4)?;
    say("the laptop cannot reach the LAN host");

    say(&format!("laptop# sshvpn up {}", ARGUMENTS.join(" ")));
    let up = vpn::up(laptop, &ARGUMENTS)?;
    for line in up.stderr().lines() {
        println!("        {line}");
    }
    let rows = measure(&lab)?;

    say("Ctrl-C");
    let written = up.stderr().len();
    let output = up.end_with(Signal::SIGINT)?;
    for line in output.stderr.get(written..).unwrap_or_default().lines() {
        println!("        {line}");
    }
    before.is_back()?;
    say("addresses, routes, rules, settings and firewalls of all three are as before");
    drop(before);
    drop(lab);
    say("the hosts are gone; measured from the laptop to the LAN host:\n");
    for (what, figure) in rows {
        println!("  {what:<28}{figure:>16}");
    }
    Ok(())
}

/// Measures between the laptop and the LAN host; returns the rows of a table.
fn measure(lab: &Subnet) -> Result<Vec<(&'static str, String)>> {
    let laptop = &lab.direct.laptop;
    let mut rows = vec![(
        "MTU of the tunnel",
        format!("{} bytes", Device::only(laptop)?.mtu),
    )];
    for (what, address) in [("round trip, IPv4", LAN4), ("round trip, IPv6", LAN6)] {
        say(&format!("laptop# ping {address}"));
        traffic::ping(laptop, address)?;
        let time = traffic::round_trip(laptop, address)?;
        rows.push((what, format!("{:.2} ms", time.as_secs_f64() * 1000.0)));
    }
    for (what, direction, option) in [
        ("TCP to the LAN host", Direction::Up, ""),
        ("TCP from the LAN host", Direction::Down, " -R"),
    ] {
        say(&format!("laptop# iperf3 -c {LAN4} -t 3{option}"));
        let flow = Flow {
            direction,
            seconds: 3,
            pace: None,
        };
        let figures = iperf3::measure(laptop, &lab.lan, LAN4, flow)?;
        rows.push((what, format!("{:.0} Mbit/s", figures.bits_per_second / 1e6)));
    }
    Ok(rows)
}
