//! An observer of the wire sees only SSH and address resolution.
//!
//! ```text
//!   laptop wan 192.0.2.1 ────┬─────── 192.0.2.2 wan bastion
//!   client tun3 10.99.0.1/30 │ SSH ═ 10.99.0.2/30 tun7 sshd
//!                         tcpdump
//! ```

use anyhow::{Result, ensure};
use netns_tests::lab::topology;
use netns_tests::program::tunnel::{LOCAL, REMOTE, Tunnel};
use netns_tests::traffic::capture::Capture;
use netns_tests::{Client, traffic, with_each_client};

with_each_client!(only_ssh);

fn only_ssh(client: Client) -> Result<()> {
    let lab = topology::direct()?;
    let capture = Capture::start(&lab.bastion, "wan")?;
    let _open = Tunnel {
        client,
        ..Tunnel::default()
    }
    .open(&lab.laptop, &lab.bastion)?;
    for (local, remote) in LOCAL.iter().zip(REMOTE) {
        traffic::ping(&lab.laptop, remote)?;
        traffic::ping(&lab.bastion, local)?;
    }
    traffic::echo_every_size((&lab.laptop, LOCAL[0]), (&lab.bastion, REMOTE[0]), 0..=200)?;
    capture.end()?.shows_only_ssh()
}

/// Validates the check: a ping beside the tunnel is noticed.
#[test]
fn other_traffic_is_noticed() -> Result<()> {
    let lab = topology::direct()?;
    let capture = Capture::start(&lab.bastion, "wan")?;
    let _open = Tunnel::default().open(&lab.laptop, &lab.bastion)?;
    traffic::ping(&lab.laptop, "192.0.2.2")?;
    ensure!(capture.end()?.shows_only_ssh().is_err());
    Ok(())
}
