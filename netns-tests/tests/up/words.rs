//! What `sshvpn up` says of routes that it refuses: the cause in right words, and advice that works
//! when it is followed.
//!
//! ```text
//!   laptop wan 192.0.2.1 ── 192.0.2.2 wan bastion lan 198.51.100.1   ── 198.51.100.2  lan host
//!   sshvpn up  sshvpn0 ═ SSH ═ tunN  sshd             2001:db8:64::1 ── 2001:db8:64::2
//! ```

use anyhow::{Context, Result, bail, ensure};
use netns_tests::lab::topology;
use netns_tests::program::vpn::{self, fails_clearly};
use netns_tests::{Before, Carrier, PATIENCE, traffic, with_each_carrier};
use nix::sys::signal::Signal;

with_each_carrier!(
    another_tunnel_is_no_local_network,
    the_advice_for_everything_works,
);

const LAN4: &str = "198.51.100.0/24";

/// A second `up` for the same route: the first one's tunnel is called a tunnel.
fn another_tunnel_is_no_local_network(carrier: Carrier) -> Result<()> {
    let lab = topology::subnet()?;
    carrier.prepare(&lab.direct.bastion)?;
    let laptop = &lab.direct.laptop;
    let first = carrier.up(laptop, &["bastion", "--route", LAN4])?;
    let before = Before::of(&[laptop])?;
    for (routes, advice) in [
        (&["--route", LAN4][..], "or leave out that route"),
        (&["--route", "198.51.100.0/25"], "or leave out that route"),
        (
            &["--route", LAN4, "--route", "10.7.0.0/16"],
            "or add --exclude 198.51.100.0/24",
        ),
    ] {
        let arguments = [&["bastion"], routes].concat();
        let output = laptop.run(&vpn::command(&carrier.arguments(&arguments))?)?;
        let part = "by a tunnel on sshvpn0 already; end that tunnel";
        fails_clearly(&output, Some(1), &[part, advice])?;
        ensure!(!output.stderr.contains("local network"), "{output:?}");
        before.is_back()?;
    }
    let wider = carrier.up(laptop, &["bastion", "--route", "198.51.0.0/16"])?;
    let part = "contains 198.51.100.0/24, which stays with the tunnel on sshvpn0";
    ensure!(wider.stderr().contains(part), "{}", wider.stderr());
    wider.end_with(Signal::SIGINT)?;
    first.end_with(Signal::SIGINT)?;
    Ok(())
}

/// The way from `--route 0.0.0.0/0` to a tunnel for everything: each error's advice is followed.
fn the_advice_for_everything_works(carrier: Carrier) -> Result<()> {
    let lab = topology::subnet()?;
    carrier.prepare(&lab.direct.bastion)?;
    let laptop = &lab.direct.laptop;
    laptop.sh("ip route add default via 192.0.2.2")?;
    lab.direct
        .bastion
        .sh("ip route add default via 198.51.100.2")?;
    let mut routes = vec!["0.0.0.0/0".to_owned()];
    let mut excludes = Vec::new();
    for _ in 0..4 {
        let mut arguments = vec!["bastion", "-o", "AddressFamily=inet"];
        arguments.extend(routes.iter().flat_map(|route| ["--route", route]));
        arguments.extend(
            excludes
                .iter()
                .flat_map(|network: &String| ["--exclude", network]),
        );
        let up = laptop.spawn(&vpn::command(&carrier.arguments(&arguments))?)?;
        if up.wait_for_line("up:", PATIENCE).is_ok() {
            traffic::ping(laptop, "198.51.100.2")?;
            up.end_with(Signal::SIGINT)?;
            return Ok(());
        }
        let said = up.stderr();
        if let Some(network) = after(&said, "add --exclude ") {
            excludes.push(network);
        } else {
            let first = after(&said, "ask for its halves: ").with_context(|| said.clone())?;
            let second = after(&said, &format!("{first} and ")).with_context(|| said.clone())?;
            routes = vec![first, second];
        }
    }
    bail!("four times advised, and not up: {routes:?} without {excludes:?}")
}

/// The word that follows `lead`.
fn after(text: &str, lead: &str) -> Option<String> {
    let rest = text.split(lead).nth(1)?;
    rest.split_whitespace().next().map(str::to_owned)
}
