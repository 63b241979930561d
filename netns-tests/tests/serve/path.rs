//! `sshvpn up` to `sshvpn serve` checks the path before it says "up".
//!
//! ```text
//!   laptop: sshvpn up ══ SSH ══ bastion: sshvpn serve ── lan host 198.51.100.2
//! ```

use anyhow::{Result, ensure};
use netns_tests::program::vpn::{self, fails_clearly};
use netns_tests::serve::Serve;
use netns_tests::serve::lab::{LAN, ServeLab};
use netns_tests::{Before, traffic};
use nix::sys::signal::Signal;

const NETWORK: &str = "198.51.100.0/24";
const CONFIG: &str = "[network]\nroute = [\"198.51.100.0/24\"]\n";

#[test]
fn the_path_is_checked() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let _server = Serve::default().config(CONFIG).start(&lab.bastion)?;
    let before = Before::of(&[&lab.laptop])?;
    let strict = ["bastion", "--route", NETWORK, "--strict"];
    let up = vpn::up(&lab.laptop, &strict)?;
    ensure!(!up.stderr().contains("warning"), "{}", up.stderr());
    traffic::ping(&lab.laptop, LAN)?;
    let output = up.end_with(Signal::SIGINT)?;
    ensure!(output.code() == 0, "{output:?}");
    before.is_back()?;

    lab.laptop.sh(&format!(
        "ip link add tailscale0 type veth peer name beyond; ip link set tailscale0 up; \
         ip link set beyond up; ip route add {NETWORK} dev tailscale0 table 52; \
         ip rule add priority 5270 lookup 52"
    ))?;
    let before = Before::of(&[&lab.laptop])?;
    let part = "the policy rule with priority 5270 looks in table 52 first";
    let up = vpn::up(&lab.laptop, &["bastion", "--route", NETWORK])?;
    let said = up.stderr();
    ensure!(
        said.contains(&format!("do not take the tunnel: {part}")),
        "{said}"
    );
    up.end_with(Signal::SIGINT)?;
    let output = lab.laptop.run(&vpn::command(&strict)?)?;
    fails_clearly(&output, Some(1), &["refused by --strict", part])?;
    before.is_back()
}
