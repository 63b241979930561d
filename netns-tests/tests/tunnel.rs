//! `-w` against a stock sshd: point-to-point, ethernet, units and `any`.
//!
//! ```text
//!   laptop wan 192.0.2.1 ──────── 192.0.2.2 wan bastion
//!   client tunL  ═════════ SSH ═════════ tunR sshd
//!          10.99.0.1/30                  10.99.0.2/30
//!          fd99::1/64                    fd99::2/64
//! ```

use anyhow::Result;
use netns_tests::tunnel::{Mode, Tunnel};
use netns_tests::{Client, topology, traffic, with_each_client};

with_each_client!(point_to_point, ethernet, any_unit);

fn point_to_point(client: Client) -> Result<()> {
    let lab = topology::direct()?;
    let tunnel = Tunnel {
        client,
        mode: Mode::PointToPoint,
        ..Tunnel::default()
    };
    let _up = tunnel.open(&lab.laptop, &lab.bastion)?;
    traffic::ping(&lab.laptop, "10.99.0.2")?;
    traffic::ping(&lab.laptop, "fd99::2")?;
    traffic::ping(&lab.bastion, "10.99.0.1")
}
fn ethernet(client: Client) -> Result<()> {
    let lab = topology::direct()?;
    let tunnel = Tunnel {
        client,
        mode: Mode::Ethernet,
        ..Tunnel::default()
    };
    let _up = tunnel.open(&lab.laptop, &lab.bastion)?;
    traffic::ping(&lab.laptop, "10.99.0.2")?;
    traffic::ping(&lab.laptop, "fd99::2")?;
    traffic::ping(&lab.bastion, "10.99.0.1")
}
fn any_unit(client: Client) -> Result<()> {
    let lab = topology::direct()?;
    let tunnel = Tunnel {
        client,
        units: "any:any",
        ..Tunnel::default()
    };
    let _up = tunnel.open(&lab.laptop, &lab.bastion)?;
    traffic::ping(&lab.laptop, "10.99.0.2")
}
