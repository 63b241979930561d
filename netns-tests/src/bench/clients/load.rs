//! The load of a fleet: pings of all clients, TCP of some.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::bench::clients::fleet::{Fleet, Member};
use crate::bench::latency;
use crate::bench::statistics::Series;
use crate::lab::child::Child;
use crate::traffic::iperf3::{self, Direction};
use crate::wait::PATIENCE;

/// Pings per second and client.
const PINGS: u32 = 5;
/// Seconds by which the stream outlasts the pings, before and after.
const MARGIN: u32 = 1;

/// The result of one busy client among others.
pub struct Among {
    /// Bits received per second of its stream.
    pub bits_per_second: f64,
    /// The pings of the other clients, if there are any.
    pub pings: Option<Pings>,
}

/// The result of all pings.
pub struct Pings {
    /// Unanswered pings, in percent.
    pub lost_percent: f64,
    /// The 99th percentile of the round-trip times, in milliseconds; a lost ping counts as one
    /// second.
    pub p99: f64,
}

/// Measures one TCP stream of the first client while all others ping.
pub fn one_among_pings(fleet: &Fleet<'_>, direction: Direction, seconds: u32) -> Result<Among> {
    let (first, others) = fleet.members.split_first().context("no client")?;
    thread::scope(|scope| {
        let stream = scope.spawn(|| stream(fleet, first, 0, direction, seconds + 2 * MARGIN));
        let pings = pings(fleet, others, seconds);
        let bits_per_second = match stream.join() {
            Ok(rate) => rate?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        Ok(Among {
            bits_per_second,
            pings: pings?,
        })
    })
}

/// The throughput of the fastest of `count` clients, each with a stream up, divided by that of the
/// slowest.
pub fn share(fleet: &Fleet<'_>, count: usize, seconds: u32) -> Result<f64> {
    let rates = thread::scope(|scope| {
        let members = fleet.members.iter().take(count).enumerate();
        let streams: Vec<_> = members
            .map(|(number, member)| {
                scope.spawn(move || stream(fleet, member, number, Direction::Up, seconds))
            })
            .collect();
        let join = |stream: thread::ScopedJoinHandle<'_, Result<f64>>| match stream.join() {
            Ok(rate) => rate,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        streams.into_iter().map(join).collect::<Result<Series>>()
    })?;
    let (least, most) = rates.least().zip(rates.most()).context("no stream")?;
    Ok(most / least)
}

/// One TCP stream between `member` and the server, on its own port, in bits per second.
fn stream(
    fleet: &Fleet<'_>,
    member: &Member,
    number: usize,
    direction: Direction,
    seconds: u32,
) -> Result<f64> {
    let port = (usize::from(iperf3::PORT) + number).to_string();
    let address = &fleet.address;
    let serve = [
        "iperf3",
        "-s",
        "-1",
        "--forceflush",
        "-B",
        address,
        "-p",
        &port,
    ];
    let server = fleet.bastion().spawn(&serve)?;
    server.wait_for_line("Server listening", PATIENCE)?;
    // Bind to the device, since the server has the same address in all tunnels.
    let from = format!("{}%{}", member.address, member.device);
    let duration = seconds.to_string();
    let mut command = vec![
        "iperf3", "-J", "-c", address, "-p", &port, "-B", &from, "-t", &duration,
    ];
    if direction == Direction::Down {
        command.push("-R");
    }
    let limit = PATIENCE + Duration::from_secs(seconds.into());
    let output = fleet.laptop.spawn(&command)?.wait(limit)?;
    let figures = iperf3::figures(&output.stdout).with_context(|| member.device.clone())?;
    server.wait(PATIENCE)?;
    Ok(figures.bits_per_second)
}

/// Pings the server from each of `members` at once.
fn pings(fleet: &Fleet<'_>, members: &[Member], seconds: u32) -> Result<Option<Pings>> {
    let count = seconds * PINGS;
    let start = |member: &Member| -> Result<Child> {
        let interval = (1.0 / f64::from(PINGS)).to_string();
        let count = count.to_string();
        let command = [
            "ping",
            "-n",
            "-W1",
            "-i",
            &interval,
            "-c",
            &count,
            "-I",
            &member.device,
            &fleet.address,
        ];
        fleet.laptop.spawn(&command)
    };
    let running = members.iter().map(start).collect::<Result<Vec<_>>>()?;
    let mut times = Series::default();
    for ping in running {
        let output = ping.wait(PATIENCE + Duration::from_secs(seconds.into()))?;
        times.extend(latency::times(&output.stdout, 0, count)?);
    }
    let Some(p99) = times.percentile(99) else {
        return Ok(None);
    };
    Ok(Some(Pings {
        lost_percent: times.share_from(latency::LOST) * 100.0,
        p99,
    }))
}
