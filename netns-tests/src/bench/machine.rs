//! Describes the machine of the benchmark.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use crate::bench::peers::program;
use crate::bench::row::Row;
use crate::program::client::Client;

/// A Markdown list: hardware, kernel, and the versions of the programs.
/// `congestion` is the congestion control of the hosts, if it is not that of the machine.
pub fn describe(rows: &[Row], congestion: Option<&str>) -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut facts = vec![
        ("date", first_line("date", &["-u", "+%F"])),
        ("processor", processor(&cpu)),
        ("memory", gibibytes(&memory)),
        ("kernel", Some(format!("Linux {}", kernel.trim()))),
        (
            "TCP congestion control",
            congestion.map(str::to_owned).or_else(machines_congestion),
        ),
        ("OpenSSH", first_line("/usr/bin/ssh", &["-V"])),
        ("iperf3", first_line("iperf3", &["--version"])),
    ];
    if let Ok(sshvpn) = Client::Sshvpn.program() {
        facts.push(("sshvpn", first_line(&sshvpn, &["--version"])));
    }
    for row in rows.iter().filter(|row| row.is_peer()) {
        let name = match row {
            Row::BoringTun => "boringtun-cli",
            _ => row.name(),
        };
        let version = program(name).ok();
        let version = version.and_then(|path| first_line(&path, &["--version"]));
        facts.push((row.name(), version));
    }
    let mut text = String::new();
    for (what, fact) in facts {
        let fact = fact.unwrap_or_else(|| "unknown".into());
        let _ = writeln!(text, "- {what}: {fact}");
    }
    text
}

/// The congestion control of new connections, on which the effect of loss depends.
fn machines_congestion() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").ok()?;
    Some(text.trim().to_owned())
}

/// The model of the processors and their number, from /proc/cpuinfo.
fn processor(cpuinfo: &str) -> Option<String> {
    let names = cpuinfo
        .lines()
        .filter_map(|line| line.strip_prefix("model name"));
    let mut names = names.filter_map(|rest| rest.split_once(':'));
    let (_, model) = names.next()?;
    let count = 1 + names.count();
    Some(format!("{}, {count} cores seen", model.trim()))
}

/// The total memory, from /proc/meminfo.
fn gibibytes(meminfo: &str) -> Option<String> {
    let mut lines = meminfo.lines();
    let value = lines.find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: f64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(format!("{:.0} GiB", kibibytes / f64::from(1 << 20)))
}

/// The first line that a command prints, on either stream.
fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let mut lines = text.lines().map(str::trim);
    lines.find(|line| !line.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_named_and_counted() {
        let cpuinfo = "processor\t: 0\nmodel name\t: A B\n\nprocessor\t: 1\nmodel name\t: A B\n";
        assert_eq!(processor(cpuinfo).as_deref(), Some("A B, 2 cores seen"));
        assert_eq!(processor("flags: x\n"), None);
    }

    #[test]
    fn memory_is_rounded() {
        let text = "MemTotal:       24683600 kB\nMemFree: 1 kB\n";
        assert_eq!(gibibytes(text).as_deref(), Some("24 GiB"));
    }
}
