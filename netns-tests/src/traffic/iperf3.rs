//! Measures throughput, by iperf3.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::lab::host::Host;
use crate::wait::PATIENCE;
use std::time::Duration;

/// The direction of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client of iperf3.
    Up,
    /// To the client of iperf3.
    Down,
    /// Both ways at once.
    Both,
}

/// The target of a measurement.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The address that the client connects to.
    pub connect: &'a str,
    /// The address that the server listens on: another one if connections are forwarded.
    pub serve: &'a str,
}

/// The server's port.
pub const PORT: u16 = 5201;

/// The parameters of a measurement.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    /// The direction.
    pub direction: Direction,
    /// The duration in seconds.
    pub seconds: u32,
    /// The rate in bits per second; `None` is unlimited.
    pub pace: Option<u64>,
}

/// The result of TCP; the sum of both directions if there are two.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// Bits received per second.
    pub bits_per_second: f64,
    /// Bytes received.
    pub bytes: u64,
    /// Segments that the sender retransmitted.
    pub retransmits: u64,
}

/// Measures `flow`, one stream, from `from` to `to`, reached at `address`.
pub fn measure(from: &Host, to: &Host, address: &str, flow: Flow) -> Result<Figures> {
    let target = Target {
        connect: address,
        serve: address,
    };
    measure_streams(from, to, target, flow, 1)
}

/// Measures `flow` with `streams` streams at once, from `from` to `target` at `to`.
pub fn measure_streams(
    from: &Host,
    to: &Host,
    target: Target<'_>,
    flow: Flow,
    streams: u32,
) -> Result<Figures> {
    let server = to.spawn(&["iperf3", "-s", "-1", "--forceflush", "-B", target.serve])?;
    server.wait_for_line("Server listening", PATIENCE)?;
    let mut command = ["iperf3", "-J", "-c", target.connect]
        .map(str::to_owned)
        .to_vec();
    command.extend(["-t".into(), flow.seconds.to_string()]);
    command.extend(["-P".into(), streams.to_string()]);
    match flow.direction {
        Direction::Up => {}
        Direction::Down => command.push("-R".into()),
        Direction::Both => command.push("--bidir".into()),
    }
    if let Some(pace) = flow.pace {
        command.extend(["-b".into(), pace.to_string()]);
    }
    let limit = PATIENCE + Duration::from_secs(flow.seconds.into());
    let output = from.spawn(&command)?.wait(limit)?;
    let figures =
        figures(&output.stdout).with_context(|| format!("iperf3 from {}", from.name()))?;
    // Its port has to be free before the next one starts.
    server.wait(PATIENCE)?;
    Ok(figures)
}

/// Parses iperf3's JSON.
pub fn figures(json: &str) -> Result<Figures> {
    let report: Value = serde_json::from_str(json).context("iperf3 gave no JSON")?;
    if let Some(error) = report["error"].as_str() {
        bail!("{error}");
    }
    let end = &report["end"];
    let mut figures = Figures {
        bits_per_second: 0.0,
        bytes: 0,
        retransmits: 0,
    };
    for way in ["", "_bidir_reverse"] {
        let received = &end[format!("sum_received{way}")];
        let sent = &end[format!("sum_sent{way}")];
        if received.is_null() && !way.is_empty() {
            continue;
        }
        let rate = received["bits_per_second"].as_f64();
        figures.bits_per_second += rate.context("no bits_per_second")?;
        figures.bytes += received["bytes"].as_u64().context("no bytes")?;
        figures.retransmits += sent["retransmits"].as_u64().context("no retransmits")?;
    }
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_are_added_up() -> Result<()> {
        let one = r#"{"end": {"sum_sent": {"retransmits": 2},
            "sum_received": {"bits_per_second": 8e6, "bytes": 1000}}}"#;
        let figures_of_one = figures(one)?;
        assert_eq!(figures_of_one.bytes, 1000);
        assert_eq!(figures_of_one.retransmits, 2);
        let both = r#"{"end": {"sum_sent": {"retransmits": 2},
            "sum_received": {"bits_per_second": 8e6, "bytes": 1000},
            "sum_sent_bidir_reverse": {"retransmits": 1},
            "sum_received_bidir_reverse": {"bits_per_second": 1e6, "bytes": 10}}}"#;
        let both = figures(both)?;
        assert_eq!(both.bytes, 1010);
        assert_eq!(both.retransmits, 3);
        assert!((both.bits_per_second - 9e6).abs() < 1.0);
        Ok(())
    }

    #[test]
    fn an_error_is_told() {
        let error = figures(r#"{"error": "no route"}"#).map_err(|error| error.to_string());
        assert_eq!(error.map(|_| ()), Err("no route".to_owned()));
        assert!(figures("{}").is_err());
    }
}
