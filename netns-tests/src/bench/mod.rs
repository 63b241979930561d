//! The benchmark: compares the ways from the laptop to the bastion.
//!
//! ```text
//!   options ─► rounds ─► networks ─► rows      so other load of the machine
//!                                      │       affects all rows alike
//!      network   the link between the hosts
//!      row       opened by opened (ssh, sshvpn), served (into sshvpn serve)
//!                or peers (other VPNs)
//!      measure   the figures of an open row, by column
//!                (iperf3, udp, latency, usage)
//!      results   all figures ─► terminal, markdown, svg, goals
//!      clients   many clients of one server, in a separate table
//! ```
//!
//! However the program ends, its hosts end, and with them all that it made.

pub mod clients;
pub mod column;
pub mod goals;
pub mod latency;
pub mod machine;
pub mod markdown;
pub mod measure;
pub mod network;
pub mod opened;
pub mod options;
pub mod peers;
pub mod results;
pub mod row;
pub mod served;
pub mod statistics;
pub mod svg;
pub mod terminal;
pub mod udp;
pub mod usage;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::bench::column::Column;
use crate::bench::measure::{Found, Visit};
use crate::bench::network::{Kind, Network};
use crate::bench::options::Options;
use crate::bench::results::Results;
use crate::bench::row::Row;
use crate::lab::state::Before;

/// Failures after which a row is left out; more than one, so that a long run on a busy machine
/// does not lose a row by a single failure.
const FAILURES: usize = 2;

/// A benchmark run.
struct Run<'a> {
    options: &'a Options,
    rows: Vec<Row>,
    /// The rows of failed measurements.
    failed: Vec<Row>,
    networks: BTreeMap<Kind, Network>,
    results: Results,
}

/// Measures as `options` say, prints the table and writes the files.
pub fn run(options: &Options) -> Result<()> {
    if !options.clients.is_empty() {
        return clients::run(&options.clients, options);
    }
    let mut run = Run {
        options,
        rows: Vec::new(),
        failed: Vec::new(),
        networks: BTreeMap::new(),
        results: Results::default(),
    };
    run.choose_rows();
    ensure!(!run.rows.is_empty(), "nothing to measure");
    for round in 1..=options.rounds {
        for kind in [Kind::Plain, Kind::Bottleneck, Kind::Distant] {
            for row in run.rows.clone() {
                if let Err(error) = run.visit(round, kind, row) {
                    run.note_failure(kind, row, &error);
                }
            }
        }
    }
    run.print();
    run.write()?;
    let ours = run.failed.iter().filter(|row| !row.is_peer());
    let mut ours: Vec<&str> = ours.map(|row| row.title()).collect();
    ours.sort_unstable();
    ours.dedup();
    ensure!(ours.is_empty(), "failed: {}", ours.join(", "));
    Ok(())
}

impl Run<'_> {
    /// Selects the rows that this machine can measure, and reports why it cannot measure the
    /// others.
    fn choose_rows(&mut self) {
        for row in self.options.rows.iter().copied() {
            match row.is_available() {
                Ok(()) => self.rows.push(row),
                Err(error) => self.leave_out(row, format!("{error:#}")),
            }
        }
    }

    fn leave_out(&mut self, row: Row, reason: String) {
        println!("bench: left out: {}: {reason}", row.title());
        self.results.left_out.push((row, reason));
    }

    /// Handles a failed measurement: makes the network anew, since its state may have changed, and
    /// leaves the row out if it fails again.
    fn note_failure(&mut self, kind: Kind, row: Row, error: &anyhow::Error) {
        self.networks.remove(&kind);
        self.failed.push(row);
        let times = self.failed.iter().filter(|other| **other == row).count();
        let extent = if times < FAILURES {
            "one visit"
        } else {
            self.rows.retain(|other| *other != row);
            "from here on"
        };
        let reason = format!("{error:#}");
        let words: Vec<&str> = reason.split_whitespace().collect();
        self.leave_out(row, format!("{extent}: {}", words.join(" ")));
    }

    /// Runs one round of one row on one network, if a column of that network is requested.
    fn visit(&mut self, round: u32, kind: Kind, row: Row) -> Result<()> {
        let options = self.options;
        let is_wanted = |column: &Column| column.description().network == kind && row.has(*column);
        let columns = options.columns.iter().copied().filter(is_wanted);
        let columns: Vec<Column> = columns.collect();
        if columns.is_empty() {
            return Ok(());
        }
        let (found, mtu) = measure(self.network(kind)?, kind, row, &columns, options.seconds)?;
        if row.is_peer() {
            // Another VPN may not restore the host's state.
            self.networks.remove(&kind);
        }
        println!(
            "bench: round {round} of {}: {}: {}",
            options.rounds,
            row.title(),
            list(&found)
        );
        self.results.set_mtu(row, mtu);
        for (column, figure) in found {
            self.results.add(row, column, figure);
        }
        Ok(())
    }

    /// The network of this kind, made at its first use.
    fn network(&mut self, kind: Kind) -> Result<&Network> {
        let congestion = self.options.congestion.as_deref();
        match self.networks.entry(kind) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => Ok(entry.insert(Network::new(kind, congestion)?)),
        }
    }

    fn print(&self) {
        println!(
            "\nAES-128-GCM wherever ssh is used; median (least–most), and the median as a \
             multiple of that of ssh -w\n\n{}",
            terminal::table(&self.results).trim_end()
        );
        let goals = goals::check(&self.results);
        if !goals.is_empty() {
            println!("\ngoals:\n{}", goals.trim_end());
        }
    }

    fn write(&self) -> Result<()> {
        let Some(prefix) = &self.options.output else {
            return Ok(());
        };
        let (page, plot) = (with_extension(prefix, "md"), with_extension(prefix, "svg"));
        let name = Path::new(&plot).file_name().unwrap_or_default();
        let name = name.to_string_lossy();
        let machine = machine::describe(&self.results.rows(), self.options.congestion.as_deref());
        let text = markdown::page(&self.results, self.options, &machine, &name);
        write_file(&page, &text)?;
        match svg::plot(&self.results) {
            Some(text) => write_file(&plot, &text),
            None => Ok(()),
        }
    }
}

/// Opens `row`, measures it and closes it; afterwards the hosts have to be in their earlier state,
/// unless the row is another VPN.
fn measure(
    network: &Network,
    kind: Kind,
    row: Row,
    columns: &[Column],
    seconds: u32,
) -> Result<(Found, u32)> {
    let hosts = [&network.lab.laptop, &network.lab.bastion];
    let before = if row.is_peer() {
        None
    } else {
        Some(Before::of(&hosts)?)
    };
    let opened = row.open(network).context("opening it")?;
    let mtu = opened.mtu;
    let visit = Visit {
        network,
        opened: &opened,
        columns,
        seconds,
    };
    let found = visit.measure(kind)?;
    opened.close().context("closing it")?;
    if let Some(before) = before {
        before.is_back()?;
    }
    Ok((found, mtu))
}

/// The figures in one line.
fn list(found: &Found) -> String {
    let mut text = String::new();
    for (column, figure) in found {
        let description = column.description();
        let digits = description.digits;
        let _ = write!(text, "  {} {figure:.digits$}", description.name);
    }
    text.trim_start().to_owned()
}

/// Appends an extension to `prefix`, also if it contains dots.
fn with_extension(prefix: &Path, extension: &str) -> String {
    format!("{}.{extension}", prefix.display())
}

fn write_file(path: &str, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("writing {path}"))?;
    println!("bench: written: {path}");
    Ok(())
}
