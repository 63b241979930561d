//! Benchmarks many clients of one `sshvpn serve`: the time to connect, the cost of idle clients,
//! and each one's share when some are busy.
//!
//! ```text
//!   options ─► rounds ─► counts ─► fleet     the clients, connected at once
//!                                    │
//!      load     their traffic        └► figure ─► table, goals
//! ```
//!
//! The clients are the distribution's ssh, each with its own key and device, all on the laptop:
//! they share the machine with the server.

pub mod figure;
pub mod fleet;
pub mod load;
pub mod table;

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::bench::clients::figure::{Figure, Figures};
use crate::bench::clients::fleet::Fleet;
use crate::bench::network::{Kind, Network};
use crate::bench::options::Options;
use crate::bench::served;
use crate::lab::state::Before;
use crate::traffic::iperf3::Direction;
use crate::wait::until;

/// Busy clients in the measurement of shares.
const BUSY: usize = 8;
/// Limit for the server's memory to settle after the logins.
const REST_LIMIT: Duration = Duration::from_secs(30);
/// The interval between two checks of that.
const REST_INTERVAL: Duration = Duration::from_secs(1);
/// The memory has settled if it changes by at most one part in this many.
const REST: u64 = 200;

/// Measures each number of clients in `counts` and prints the table.
pub fn run(counts: &[usize], options: &Options) -> Result<()> {
    served::is_available()?;
    let network = Network::new(Kind::Plain, options.congestion.as_deref())?;
    let mut figures = Figures::default();
    for round in 1..=options.rounds {
        for count in counts.iter().copied() {
            let found = measure(&network, count, options.seconds)
                .with_context(|| format!("{count} clients"))?;
            println!(
                "bench: round {round} of {}: {count} clients: {}",
                options.rounds,
                table::list(&found)
            );
            figures.add(count, &found);
        }
    }
    println!(
        "\nclients of one server, connected at once: ssh -w at MTU 1500 into sshvpn serve, \
         all on one machine; median (least–most)\n\n{}",
        table::terminal(&figures)
    );
    let goals = figures.check_goals();
    if !goals.is_empty() {
        println!("goals:\n{}", goals.trim_end());
    }
    if let Some(prefix) = &options.output {
        let path = format!("{}-clients.md", prefix.display());
        let page = table::page(&figures, options, &goals);
        fs::write(&path, page).with_context(|| format!("writing {path}"))?;
        println!("bench: written: {path}");
    }
    Ok(())
}

/// One server with `count` clients, from its start to its end.
fn measure(network: &Network, count: usize, seconds: u32) -> Result<Vec<(Figure, f64)>> {
    let hosts = [&network.lab.laptop, &network.lab.bastion];
    fleet::prepare(&network.lab.laptop, count)?;
    let before = Before::of(&hosts)?;
    let mut found = Vec::new();
    let fleet = Fleet::open(network, count)?;
    let clients = count as f64;
    found.push((Figure::Connected, fleet.connected.as_secs_f64()));
    found.push((
        Figure::Login,
        fleet.login_time.as_secs_f64() * 1e3 / clients,
    ));
    let at_rest = rest(&fleet)?;
    let grown = at_rest.saturating_sub(fleet.memory_before) as f64;
    found.push((Figure::Memory, grown / clients / 1024.0));
    found.push((Figure::Idle, idle(&fleet, seconds)?));
    for (direction, figure) in [(Direction::Up, Figure::Up), (Direction::Down, Figure::Down)] {
        let among = load::one_among_pings(&fleet, direction, seconds)?;
        found.push((figure, among.bits_per_second / 1e6));
        if let (Direction::Down, Some(pings)) = (direction, among.pings) {
            found.push((Figure::Loss, pings.lost_percent));
            found.push((Figure::Ping, pings.p99));
        }
    }
    if count >= BUSY {
        found.push((Figure::Fairness, load::share(&fleet, BUSY, seconds)?));
    }
    fleet.close()?;
    before.is_back()?;
    Ok(found)
}

/// The server's memory in bytes, once it has settled.
fn rest(fleet: &Fleet<'_>) -> Result<u64> {
    let mut last = fleet.memory()?;
    let mut at = std::time::Instant::now();
    until("the server is at rest", REST_LIMIT, || {
        if at.elapsed() < REST_INTERVAL {
            return None;
        }
        at = std::time::Instant::now();
        let now = fleet.memory().ok()?;
        let is_still = now.abs_diff(last) <= now / REST;
        last = now;
        is_still.then_some(())
    })?;
    Ok(last)
}

/// The server's CPU time without traffic, in milliseconds per second.
fn idle(fleet: &Fleet<'_>, seconds: u32) -> Result<f64> {
    let before = fleet.cpu()?;
    thread::sleep(Duration::from_secs(seconds.into())); // what is measured
    let spent = fleet.cpu()?.saturating_sub(before);
    Ok(spent.as_secs_f64() * 1e3 / f64::from(seconds))
}
