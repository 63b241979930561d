//! Throughput, by iperf3.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::host::Host;
use crate::wait::PATIENCE;
use std::time::Duration;

/// Which way the data goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the host that asks.
    Up,
    /// To the host that asks.
    Down,
}

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    /// Which way.
    pub direction: Direction,
    /// For how long.
    pub seconds: u32,
    /// At which pace in bits a second; without one, as fast as it goes.
    pub pace: Option<u64>,
}

/// One TCP stream's figures.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// What arrived, in bits a second.
    pub bits_per_second: f64,
    /// What arrived, in bytes.
    pub bytes: u64,
    /// Segments that the sender sent again.
    pub retransmits: u64,
}

/// Measures `flow` from `from` to `to`, reached at `address`.
pub fn measure(from: &Host, to: &Host, address: &str, flow: Flow) -> Result<Figures> {
    let server = to.spawn(&["iperf3", "-s", "-1", "--forceflush", "-B", address])?;
    server.wait_for_line("Server listening", PATIENCE)?;
    let mut command = vec![
        "iperf3".to_owned(),
        "-J".into(),
        "-c".into(),
        address.into(),
    ];
    command.extend(["-t".into(), flow.seconds.to_string()]);
    if flow.direction == Direction::Down {
        command.push("-R".into());
    }
    if let Some(pace) = flow.pace {
        command.extend(["-b".into(), pace.to_string()]);
    }
    let limit = PATIENCE + Duration::from_secs(flow.seconds.into());
    let output = from.spawn(&command)?.wait(limit)?;
    figures(&output.stdout).with_context(|| format!("iperf3 from {}", from.name()))
}

fn figures(json: &str) -> Result<Figures> {
    let report: Value = serde_json::from_str(json).context("iperf3 gave no JSON")?;
    if let Some(error) = report["error"].as_str() {
        bail!("{error}");
    }
    let end = &report["end"];
    let received = &end["sum_received"];
    Ok(Figures {
        bits_per_second: received["bits_per_second"]
            .as_f64()
            .context("no bits_per_second")?,
        bytes: received["bytes"].as_u64().context("no bytes")?,
        retransmits: end["sum_sent"]["retransmits"]
            .as_u64()
            .context("no retransmits")?,
    })
}
