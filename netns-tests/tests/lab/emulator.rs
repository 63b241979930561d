//! The emulator of a long cable has the set delay and the set loss.
//!
//! ```text
//!   laptop wan 192.0.2.1 ── left  middle  right ── 192.0.2.2 wan bastion
//!                           └ 20 ms each way ┘
//! ```

use std::time::Duration;

use anyhow::{Result, ensure};
use netns_tests::bench::network::{Kind, Network};
use netns_tests::emulator::Emulator;
use netns_tests::traffic::iperf3::{self, Direction, Flow};
use netns_tests::wait::{self, PATIENCE};
use netns_tests::{Host, connect, traffic};

const DELAY: Duration = Duration::from_millis(20);
const REMOTE: &str = "192.0.2.2";

#[test]
fn every_frame_arrives_after_the_delay() -> Result<()> {
    let (laptop, middle, bastion) = (
        Host::new("laptop")?,
        Host::new("middle")?,
        Host::new("bastion")?,
    );
    connect((&laptop, "wan", &["192.0.2.1/24"]), (&middle, "left", &[]))?;
    connect(
        (&middle, "right", &[]),
        (&bastion, "wan", &["192.0.2.2/24"]),
    )?;
    traffic::no_ping(&laptop, REMOTE)?;
    let emulator = Emulator::join(&middle, "left", "right", DELAY)?;
    traffic::ping(&laptop, REMOTE)?;
    let time = traffic::round_trip(&laptop, REMOTE)?;
    ensure!(time >= 2 * DELAY, "a round trip takes {time:?}");
    traffic::echo_every_size((&laptop, "192.0.2.1"), (&bastion, REMOTE), 0..=200)?;
    // Super-frames, whose checksums the kernel leaves to the device, pass as well.
    let flow = Flow {
        direction: Direction::Up,
        seconds: 1,
        pace: Some(50_000_000),
    };
    let figures = iperf3::measure(&laptop, &bastion, REMOTE, flow)?;
    ensure!(figures.bytes > 1_000_000, "{figures:?}");
    ensure!(emulator.dropped() == 0, "{} dropped", emulator.dropped());
    ensure!(emulator.carried() > 400, "{} carried", emulator.carried());
    drop(emulator);
    traffic::no_ping(&laptop, REMOTE)
}

#[test]
fn packets_are_lost_at_will() -> Result<()> {
    let network = Network::new(Kind::Distant)?;
    let laptop = &network.lab.laptop;
    traffic::ping(laptop, REMOTE)?;
    let lost = |count: &str| -> Result<u32> {
        let command = ["ping", "-n", "-q", "-i0.002", "-W1", "-c", count, REMOTE];
        let text = laptop.run(&command)?.stdout;
        let mut words = text.split(", ");
        let loss = words.find_map(|words| words.strip_suffix("% packet loss"));
        let loss: f64 = loss.unwrap_or("none").parse()?;
        Ok(loss as u32)
    };
    // On a busy machine an answer may be too late for ping, though not lost.
    let nothing_lost = || {
        wait::until("a hundred pings, all answered", PATIENCE, || {
            lost("100").ok().filter(|lost| *lost == 0)
        })
    };
    nothing_lost()?;
    // A round trip is lost if either direction loses it: three of four.
    network.set_loss(5_000)?;
    let half = lost("1000")?;
    ensure!((60..90).contains(&half), "{half} % lost");
    network.set_loss(0)?;
    nothing_lost()?;
    Ok(())
}

/// Counts the super-frames that arrive at the bastion.
const SUPER_FRAMES: &str = "table netdev seen { chain in {
    type filter hook ingress device wan priority -10
    meta length > 1500 counter
    }
}";

/// A super-frame passes whole without loss, and as single segments with loss.
#[test]
fn segments_are_lost_one_by_one() -> Result<()> {
    let network = Network::new(Kind::Distant)?;
    let (laptop, bastion) = (&network.lab.laptop, &network.lab.bastion);
    let super_frames = |loss| -> Result<u64> {
        network.set_loss(loss)?;
        bastion.sh(&format!("nft '{SUPER_FRAMES}'"))?;
        let flow = Flow {
            direction: Direction::Up,
            seconds: 1,
            pace: Some(50_000_000),
        };
        let figures = iperf3::measure(laptop, bastion, REMOTE, flow)?;
        ensure!(figures.bytes > 1_000_000, "{figures:?}");
        let rules = bastion.sh("nft list table netdev seen; nft delete table netdev seen")?;
        let mut words = rules
            .split_whitespace()
            .skip_while(|word| *word != "packets");
        Ok(words.nth(1).unwrap_or("none").parse()?)
    };
    let (whole, cut, again) = (super_frames(0)?, super_frames(10)?, super_frames(0)?);
    ensure!(whole > 100 && again > 100, "{whole}, {again} without loss");
    ensure!(cut == 0, "{cut} with loss");
    let rules = bastion.sh("nft list ruleset")?;
    ensure!(rules.trim().is_empty(), "left: {rules}");
    Ok(())
}
