//! Measures the cost of a tunnel: the CPU time and memory of its processes.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::bench::network::Network;
use crate::lab::host::{Host, Process};

/// Ticks of CPU time per second in /proc, the same on all architectures (proc(5), USER_HZ).
const TICKS: u64 = 100;

/// The CPU time up to a moment.
pub struct Usage {
    ends: [BTreeMap<u32, u64>; 2],
    machine: u64,
}

/// The CPU time between two moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent {
    /// Of the tunnel's processes on both hosts.
    pub tunnel: Duration,
    /// Of the whole machine, including the kernel and the measuring programs.
    pub machine: Duration,
}

impl Usage {
    /// The CPU time so far.
    pub fn now(network: &Network) -> Result<Self> {
        Ok(Self {
            ends: [
                ticks_of(&network.lab.laptop)?,
                ticks_of(&network.lab.bastion)?,
            ],
            machine: busy_ticks(&fs::read_to_string("/proc/stat")?)?,
        })
    }

    /// The CPU time since `earlier`.
    pub fn since(&self, earlier: &Self) -> Spent {
        let pairs = self.ends.iter().zip(&earlier.ends);
        let tunnel = pairs
            .flat_map(|(now, before)| {
                let before = |pid| before.get(pid).copied().unwrap_or(0);
                now.iter()
                    .map(move |(pid, ticks)| ticks.saturating_sub(before(pid)))
            })
            .sum();
        Spent {
            tunnel: duration(tunnel),
            machine: duration(self.machine.saturating_sub(earlier.machine)),
        }
    }
}

/// The sum of the peak resident memory, in bytes, of the tunnel's processes on `host`. Shared
/// memory is counted once per process.
pub fn peak_memory(host: &Host) -> Result<u64> {
    let mut sum = 0;
    for process in processes(host)? {
        let status = host.read(&format!("/proc/{}/status", process.pid))?;
        sum += peak(&status).with_context(|| process.command)?;
    }
    Ok(sum)
}

/// The tunnel's processes on `host`, without the measuring programs and the listening sshd.
fn processes(host: &Host) -> Result<Vec<Process>> {
    let is_other = |command: &str| {
        let is_probe = ["iperf3 ", "ping "].map(|start| command.starts_with(start));
        is_probe.contains(&true) || command.contains("[listener]")
    };
    let mut processes = host.processes()?;
    processes.retain(|process| !is_other(&process.command));
    Ok(processes)
}

fn ticks_of(host: &Host) -> Result<BTreeMap<u32, u64>> {
    let mut ticks = BTreeMap::new();
    for process in processes(host)? {
        // A process that has ended meanwhile has no file.
        if let Ok(text) = host.read(&format!("/proc/{}/stat", process.pid)) {
            ticks.insert(process.pid, process_ticks(&text)?);
        }
    }
    Ok(ticks)
}

/// User and system time in ticks from /proc/PID/stat, fields 14 and 15 of proc(5).
fn process_ticks(stat: &str) -> Result<u64> {
    // The name, field 2, may contain any byte, but no later field has a parenthesis.
    let (_, fields) = stat.rsplit_once(") ").context("a stat without name")?;
    let mut times = fields.split(' ').skip(11);
    let mut next = || -> Result<u64> { Ok(times.next().context("a short stat")?.parse()?) };
    Ok(next()? + next()?)
}

/// All times except idle and iowait from the first line of /proc/stat.
fn busy_ticks(stat: &str) -> Result<u64> {
    let line = stat.lines().next().context("an empty /proc/stat")?;
    let fields = line.strip_prefix("cpu ").context("no cpu line")?;
    let mut busy = 0;
    // The fields after the eighth are parts of the first two.
    for (place, field) in fields.split_whitespace().take(8).enumerate() {
        if !matches!(place, 3 | 4) {
            busy += field.parse::<u64>()?;
        }
    }
    Ok(busy)
}

/// VmHWM from /proc/PID/status, in bytes.
fn peak(status: &str) -> Result<u64> {
    memory(status, "VmHWM:")
}

/// VmRSS from /proc/PID/status, in bytes.
pub fn resident(status: &str) -> Result<u64> {
    memory(status, "VmRSS:")
}

fn memory(status: &str, name: &'static str) -> Result<u64> {
    let mut lines = status.lines();
    let value = lines
        .find_map(|line| line.strip_prefix(name))
        .context(name)?;
    let kibibytes = value.trim().strip_suffix(" kB").context(name)?;
    Ok(kibibytes.trim().parse::<u64>()? * 1024)
}

/// User and system time from /proc/PID/stat.
pub fn cpu_time(stat: &str) -> Result<Duration> {
    Ok(duration(process_ticks(stat)?))
}

fn duration(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 1000 / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name() -> Result<()> {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4 10 20 30 40 123 45 6 7 20 0 1 0 99\n";
        assert_eq!(process_ticks(stat)?, 168);
        assert!(process_ticks("7 (a) S 1 2").is_err());
        Ok(())
    }

    #[test]
    fn waiting_is_not_busy_and_guests_count_once() -> Result<()> {
        let stat = "cpu  1 2 4 1000 2000 8 16 32 64 128\ncpu0 9 9 9 9 9 9 9 9 9 9\n";
        assert_eq!(busy_ticks(stat)?, 63);
        assert!(busy_ticks("").is_err());
        Ok(())
    }

    #[test]
    fn memory_is_in_bytes() -> Result<()> {
        assert_eq!(resident("VmHWM:\t    1024 kB\nVmRSS:\t 1 kB\n")?, 1024);
        assert_eq!(
            peak("Name:\tx\nVmHWM:\t    1024 kB\nVmRSS:\t 1 kB\n")?,
            1 << 20
        );
        Ok(())
    }

    #[test]
    fn what_is_new_counts_from_its_start() {
        let usage = |local: &[(u32, u64)], remote: &[(u32, u64)], machine| Usage {
            ends: [local, remote].map(|end| end.iter().copied().collect()),
            machine,
        };
        let before = usage(&[(2, 100), (3, 7)], &[], 1000);
        let after = usage(&[(2, 150)], &[(9, 25)], 1200);
        let spent = Spent {
            tunnel: Duration::from_millis(750),
            machine: Duration::from_secs(2),
        };
        assert_eq!(after.since(&before), spent);
    }
}
