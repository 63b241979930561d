//! New keys every megabyte, while TCP flows at a steady pace and a
//! numbered datagram goes and comes every millisecond: none is lost.
//!
//! ```text
//!   laptop wan 192.0.2.1 ──────────── 192.0.2.2 wan bastion
//!   client tun3 10.99.0.1/30 ═ SSH ═ 10.99.0.2/30 tun7 sshd
//!      iperf3 -c ───────────────────────────▶ iperf3 -s
//!      numbers  ────────────────────────────▶ echo
//! ```

use anyhow::{Result, ensure};
use netns_tests::iperf3::{self, Direction, Flow};
use netns_tests::sshd::Sshd;
use netns_tests::traffic::Counted;
use netns_tests::tunnel::{FAR, NEAR, Tunnel};
use netns_tests::{Client, topology, traffic, with_each_client};

with_each_client!(upwards, downwards);

/// Slow enough to leave the queues short between two rekeys, so that whatever
/// is lost, a rekey has lost.
const PACE: u64 = 30_000_000;

fn upwards(client: Client) -> Result<()> {
    loses_nothing(client, Direction::Up)
}

fn downwards(client: Client) -> Result<()> {
    loses_nothing(client, Direction::Down)
}

fn loses_nothing(client: Client, direction: Direction) -> Result<()> {
    let lab = topology::direct_with(&Sshd::default().set("LogLevel", "DEBUG1"))?;
    let tunnel = Tunnel {
        client,
        arguments: &["-o", "RekeyLimit=1M"],
        ..Tunnel::default()
    };
    let open = tunnel.open(&lab.laptop, &lab.bastion)?;
    // Room for what arrives while the ends compute their keys.
    lab.laptop.sh("ip link set tun3 txqueuelen 4000")?;
    lab.bastion.sh("ip link set tun7 txqueuelen 4000")?;
    traffic::ping(&lab.laptop, FAR[0])?;
    let (counted, figures) =
        Counted::during((&lab.laptop, NEAR[0]), (&lab.bastion, FAR[0]), || {
            let flow = Flow {
                direction,
                seconds: 5,
                pace: Some(PACE),
            };
            iperf3::measure(&lab.laptop, &lab.bastion, FAR[0], flow)
        })?;
    ensure!(open.is_running(), "the client has ended");
    let megabytes = usize::try_from(figures.bytes >> 20)?;
    let keys = lab
        .sshd
        .stderr()
        .matches("SSH2_MSG_NEWKEYS received")
        .count();
    println!(
        "{keys} times new keys in {megabytes} MB; {} datagrams",
        counted.sent
    );
    ensure!(megabytes >= 3, "only {megabytes} MB passed");
    ensure!(
        keys > megabytes / 2,
        "only {keys} times new keys in {megabytes} MB"
    );
    ensure!(
        counted.sent > 1000,
        "only {} datagrams were sent",
        counted.sent
    );
    ensure!(
        counted.lost.is_empty(),
        "lost of {}: {:?}",
        counted.sent,
        counted.lost
    );
    ensure!(
        counted.reordered == 0,
        "{} of {} came late",
        counted.reordered,
        counted.sent
    );
    Ok(())
}
