//! The goals of the project, and their check against the measured figures.

use std::fmt::Write as _;

use crate::bench::column::Column;
use crate::bench::results::{Results, multiple};
use crate::bench::row::Row;

/// A figure or a ratio, and its bound.
struct Goal {
    row: Row,
    column: Column,
    /// The row that the figure is divided by, if the goal is a ratio.
    reference: Option<Row>,
    bound: Bound,
}

#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

const fn ratio(row: Row, reference: Row, column: Column, bound: Bound) -> Goal {
    Goal {
        row,
        column,
        reference: Some(reference),
        bound,
    }
}

const fn figure(row: Row, column: Column, bound: Bound) -> Goal {
    Goal {
        row,
        column,
        reference: None,
        bound,
    }
}

/// All goals of the project.
const GOALS: [Goal; 22] = {
    use Bound::{AtLeast, AtMost};
    use Column as C;
    use Row::{Serve, SshForward, SshTunnel, SshTunnelServe, SshvpnTunnel, UpAgent, UpTun};
    [
        ratio(UpAgent, SshTunnel, C::TcpUp, AtLeast(9.0)),
        ratio(UpAgent, SshTunnel, C::TcpDown, AtLeast(13.0)),
        ratio(UpAgent, SshForward, C::TcpUp, AtLeast(0.85)),
        ratio(UpAgent, SshForward, C::TcpDown, AtLeast(1.0)),
        ratio(UpTun, SshTunnel, C::TcpUp, AtLeast(4.0)),
        ratio(UpTun, SshTunnel, C::TcpDown, AtLeast(6.0)),
        ratio(SshvpnTunnel, SshTunnel, C::TcpUp, AtLeast(1.1)),
        ratio(SshvpnTunnel, SshTunnel, C::TcpDown, AtLeast(1.1)),
        ratio(UpAgent, SshTunnel, C::UdpUp, AtLeast(3.0)),
        ratio(UpAgent, SshTunnel, C::UdpDown, AtLeast(3.0)),
        ratio(UpAgent, SshTunnel, C::CpuUp, AtMost(1.0 / 6.0)),
        ratio(UpAgent, SshTunnel, C::CpuDown, AtMost(1.0 / 6.0)),
        figure(UpAgent, C::MemoryLocal, AtMost(40.0)),
        figure(UpAgent, C::MemoryRemote, AtMost(40.0)),
        ratio(UpAgent, SshTunnel, C::PingUpWorst, AtMost(0.5)),
        ratio(UpAgent, SshTunnel, C::PingDownWorst, AtMost(0.5)),
        ratio(Serve, SshTunnel, C::TcpUp, AtLeast(12.0)),
        ratio(Serve, SshTunnel, C::TcpDown, AtLeast(16.0)),
        ratio(Serve, SshForward, C::TcpUp, AtLeast(1.1)),
        ratio(Serve, SshForward, C::TcpDown, AtLeast(1.1)),
        ratio(SshTunnelServe, SshTunnel, C::TcpUp, AtLeast(1.3)),
        ratio(SshTunnelServe, SshTunnel, C::TcpDown, AtLeast(1.3)),
    ]
};

impl Goal {
    /// The result line, if the figure was measured.
    fn check(&self, results: &Results) -> Option<String> {
        let description = self.column.description();
        let row = self.row.title();
        let (value, subject) = match self.reference {
            Some(reference) => (
                results.ratio(self.row, reference, self.column)?,
                format!("{row} ÷ {}", reference.title()),
            ),
            None => (results.median(self.row, self.column)?, row.to_owned()),
        };
        let show = |value: f64| match self.reference {
            Some(_) => multiple(value),
            None => format!("{value:.1} {}", description.unit),
        };
        let (reached, sign, bound) = match self.bound {
            Bound::AtLeast(bound) => (value >= bound, '≥', bound),
            Bound::AtMost(bound) => (value <= bound, '≤', bound),
        };
        let verdict = if reached { "reached" } else { "NOT reached" };
        Some(format!(
            "{subject}, {}: {} ({sign} {}: {verdict})",
            description.title,
            show(value),
            show(bound)
        ))
    }
}

/// The results for the measured goals, one per line.
pub fn check(results: &Results) -> String {
    let mut text = String::new();
    for line in GOALS.iter().filter_map(|goal| goal.check(results)) {
        let _ = writeln!(text, "  {line}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::example;

    #[test]
    fn only_what_was_measured_is_checked() {
        let text = check(&example());
        let expected = "  sshvpn up --via tun ÷ ssh -w, TCP up: 10.0× (≥ 4.00×: reached)\n";
        assert_eq!(text, expected);
        assert_eq!(check(&Results::default()), "");
    }

    #[test]
    fn bounds_hold_in_their_direction() {
        let mut results = example();
        results.add(Row::UpAgent, Column::TcpUp, 4400.0);
        results.add(Row::UpAgent, Column::MemoryRemote, 41.0);
        results.add(Row::UpAgent, Column::MemoryLocal, 40.0);
        results.add(Row::SshTunnel, Column::CpuUp, 6.0);
        results.add(Row::UpAgent, Column::CpuUp, 0.5);
        let text = check(&results);
        for line in [
            "TCP up: 8.80× (≥ 9.00×: NOT reached)",
            "peak RSS, remote end: 41.0 MiB (≤ 40.0 MiB: NOT reached)",
            "peak RSS, local end: 40.0 MiB (≤ 40.0 MiB: reached)",
            "CPU up, both ends: 0.083× (≤ 0.167×: reached)",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
