//! Measures an open row: all figures of its network.

use std::thread;

use anyhow::{Context, Result, ensure};

use crate::bench::column::Column;
use crate::bench::latency;
use crate::bench::network::{Kind, Network};
use crate::bench::opened::Opened;
use crate::bench::statistics::Series;
use crate::bench::udp;
use crate::bench::usage::{Usage, peak_memory};
use crate::traffic::iperf3::{self, Direction, Figures, Flow};

/// Streams of the column with several streams.
const STREAMS: u32 = 8;
/// Seconds of load before a ping counts.
const WARM_UP: u32 = 1;
/// Seconds by which the load outlasts the pings.
const OUTLAST: u32 = 1;

/// An open row and the requested columns.
pub struct Visit<'a> {
    /// The network.
    pub network: &'a Network,
    /// The open row.
    pub opened: &'a Opened,
    /// The requested columns; those of other networks are skipped.
    pub columns: &'a [Column],
    /// The duration of a transfer, in seconds.
    pub seconds: u32,
}

/// Figures, each with its column.
pub type Found = Vec<(Column, f64)>;

impl Visit<'_> {
    /// Measures the requested columns of this `kind` of network.
    pub fn measure(&self, kind: Kind) -> Result<Found> {
        let mut found = Vec::new();
        match kind {
            Kind::Plain => {
                self.throughput(&mut found)?;
                self.memory(&mut found)?;
                self.datagrams(&mut found)?;
                let start = self.opened.start.map(|start| start.as_secs_f64());
                found.extend(start.map(|start| (Column::Start, start)));
            }
            Kind::Bottleneck => self.round_trips(&mut found)?,
            Kind::Distant => self.goodput(&mut found)?,
        }
        found.retain(|(column, _)| self.columns.contains(column));
        Ok(found)
    }

    fn wants(&self, columns: &[Column]) -> bool {
        columns.iter().any(|column| self.columns.contains(column))
    }

    /// Measures TCP and its cost. Peak memory is measured last, after both directions.
    fn throughput(&self, found: &mut Found) -> Result<()> {
        use Column as C;
        let memory = [C::MemoryLocal, C::MemoryRemote];
        for (direction, columns) in [
            (Direction::Up, [C::TcpUp, C::CpuUp, C::MachineUp]),
            (Direction::Down, [C::TcpDown, C::CpuDown, C::MachineDown]),
        ] {
            if !self.wants(&columns) && !self.wants(&memory) {
                continue;
            }
            let before = Usage::now(self.network)?;
            let figures = self.transfer(direction, 1)?;
            let spent = Usage::now(self.network)?.since(&before);
            let gigabytes = figures.bytes as f64 / 1e9;
            let costs = [spent.tunnel, spent.machine].map(|time| time.as_secs_f64() / gigabytes);
            let rate = figures.bits_per_second / 1e6;
            found.extend(columns.into_iter().zip([rate, costs[0], costs[1]]));
        }
        for (column, direction, streams) in [
            (C::TcpEight, Direction::Up, STREAMS),
            (C::TcpBoth, Direction::Both, 1),
        ] {
            if self.wants(&[column]) {
                let figures = self.transfer(direction, streams)?;
                found.push((column, figures.bits_per_second / 1e6));
            }
        }
        Ok(())
    }

    /// Runs one transfer, and checks that the cable carried at least as many bytes.
    fn transfer(&self, direction: Direction, streams: u32) -> Result<Figures> {
        let lab = &self.network.lab;
        let flow = Flow {
            direction,
            seconds: self.seconds,
            pace: None,
        };
        let before = self.on_the_wire()?;
        let figures = iperf3::measure_streams(
            &lab.laptop,
            &lab.bastion,
            self.opened.target(),
            flow,
            streams,
        )
        .context("TCP")?;
        let wire = self.on_the_wire()? - before;
        ensure!(
            wire > figures.bytes,
            "{} bytes arrived, but {wire} were on the wire",
            figures.bytes
        );
        Ok(figures)
    }

    /// The bytes on the laptop's cable, in both directions.
    fn on_the_wire(&self) -> Result<u64> {
        let count = |name: &str| -> Result<u64> {
            let path = format!("/sys/class/net/wan/statistics/{name}");
            Ok(self.network.lab.laptop.read(&path)?.trim().parse()?)
        };
        Ok(count("tx_bytes")? + count("rx_bytes")?)
    }

    fn memory(&self, found: &mut Found) -> Result<()> {
        let lab = &self.network.lab;
        for (column, host) in [
            (Column::MemoryLocal, &lab.laptop),
            (Column::MemoryRemote, &lab.bastion),
        ] {
            if self.wants(&[column]) {
                found.push((column, peak_memory(host)? as f64 / f64::from(1 << 20)));
            }
        }
        Ok(())
    }

    fn datagrams(&self, found: &mut Found) -> Result<()> {
        let lab = &self.network.lab;
        let local = (&lab.laptop, self.opened.local.as_str());
        let remote = (&lab.bastion, self.opened.serve.as_str());
        for (column, from, to) in [
            (Column::UdpUp, local, remote),
            (Column::UdpDown, remote, local),
        ] {
            if self.wants(&[column]) {
                let rate = udp::measure(from, to).context("UDP")?;
                found.push((column, rate / 1e3));
            }
        }
        Ok(())
    }

    fn round_trips(&self, found: &mut Found) -> Result<()> {
        use Column as C;
        for (load, columns) in [
            (None, [C::PingMedian, C::PingWorst]),
            (Some(Direction::Up), [C::PingUpMedian, C::PingUpWorst]),
            (Some(Direction::Down), [C::PingDownMedian, C::PingDownWorst]),
        ] {
            if !self.wants(&columns) {
                continue;
            }
            let times = self.pings_under(load)?;
            let figures = [50, 99].map(|percent| times.percentile(percent));
            let pairs = columns.into_iter().zip(figures);
            found.extend(pairs.filter_map(|(column, figure)| Some((column, figure?))));
        }
        Ok(())
    }

    /// Round-trip times during a transfer in `direction`.
    fn pings_under(&self, load: Option<Direction>) -> Result<Series> {
        let lab = &self.network.lab;
        let remote = self.opened.connect.as_str();
        let Some(direction) = load else {
            return latency::measure(&lab.laptop, remote, 0, self.seconds);
        };
        let flow = Flow {
            direction,
            seconds: WARM_UP + self.seconds + OUTLAST,
            pace: None,
        };
        thread::scope(|scope| {
            let load = scope.spawn(|| iperf3::measure(&lab.laptop, &lab.bastion, remote, flow));
            let times = latency::measure(&lab.laptop, remote, WARM_UP, self.seconds);
            match load.join() {
                Ok(figures) => figures.context("the load")?,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            times
        })
    }

    fn goodput(&self, found: &mut Found) -> Result<()> {
        for (column, loss) in [
            (Column::DelayLossless, 0),
            (Column::DelayLossTenth, 10),
            (Column::DelayLossOne, 100),
        ] {
            if self.wants(&[column]) {
                self.network.set_loss(loss)?;
                let figures = self.transfer(Direction::Up, 1);
                self.network.set_loss(0)?;
                found.push((column, figures?.bits_per_second / 1e6));
            }
        }
        Ok(())
    }
}
