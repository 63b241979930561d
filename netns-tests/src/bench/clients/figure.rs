//! The figures of many clients, and their goals.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::bench::statistics::Series;

/// One figure of a number of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)] // said by `Figure::words`
pub enum Figure {
    Connected,
    Login,
    Memory,
    Idle,
    Up,
    Down,
    Loss,
    Ping,
    Fairness,
}

/// The description of a figure.
pub struct Words {
    /// The head of its column.
    pub title: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// Decimal places.
    pub digits: usize,
    /// Its meaning.
    pub meaning: &'static str,
}

impl Figure {
    /// All figures, in the order of the table.
    pub const ALL: [Self; 9] = [
        Self::Connected,
        Self::Login,
        Self::Memory,
        Self::Idle,
        Self::Up,
        Self::Down,
        Self::Loss,
        Self::Ping,
        Self::Fairness,
    ];

    /// The description.
    pub fn words(self) -> Words {
        let (title, unit, digits, meaning) = match self {
            Self::Connected => (
                "connect all",
                "s",
                2,
                "from the start of the first client until each has its device at the server",
            ),
            Self::Login => (
                "CPU, login",
                "ms",
                1,
                "CPU time of the server for each login",
            ),
            Self::Memory => (
                "RSS, idle",
                "KiB/client",
                0,
                "by how much the server's resident memory has grown once all are in and quiet, for each",
            ),
            Self::Idle => (
                "CPU, idle",
                "ms/s",
                1,
                "CPU time of the server while nobody sends",
            ),
            Self::Up => (
                "one up",
                "Mbit/s",
                0,
                "one TCP stream from a client while all others ping the server five times a second",
            ),
            Self::Down => ("one down", "Mbit/s", 0, "the same to a client"),
            Self::Loss => ("ping loss", "%", 2, "of the pings beside the stream down"),
            Self::Ping => ("ping p99", "ms", 1, "of the same pings"),
            Self::Fairness => (
                "8 busy",
                "max/min",
                2,
                "eight clients with a TCP stream up each: what the fastest had, divided by what the slowest had",
            ),
        };
        Words {
            title,
            unit,
            digits,
            meaning,
        }
    }
}

/// An upper bound, for a number of clients.
const GOALS: [(usize, Figure, f64); 2] = [
    (200, Figure::Connected, 60.0),
    (200, Figure::Memory, 1024.0),
];

/// All measured figures.
#[derive(Debug, Default)]
pub struct Figures(BTreeMap<(usize, Figure), Series>);

impl Figures {
    /// Adds the figures of one run of `count` clients.
    pub fn add(&mut self, count: usize, found: &[(Figure, f64)]) {
        for (figure, value) in found {
            self.0.entry((count, *figure)).or_default().push(*value);
        }
    }

    /// The numbers of clients, ascending.
    pub fn counts(&self) -> Vec<usize> {
        let mut counts: Vec<usize> = self.0.keys().map(|(count, _)| *count).collect();
        counts.dedup();
        counts
    }

    /// The table's text: the median, the minimum and the maximum.
    pub fn cell(&self, count: usize, figure: Figure) -> Option<String> {
        let series = self.0.get(&(count, figure))?;
        let digits = figure.words().digits;
        let (median, least, most) = (series.median()?, series.least()?, series.most()?);
        Some(format!(
            "{median:.digits$} ({least:.digits$}–{most:.digits$})"
        ))
    }

    /// The results for the measured goals, one per line.
    pub fn check_goals(&self) -> String {
        let mut text = String::new();
        for (count, figure, bound) in GOALS {
            let series = self.0.get(&(count, figure));
            let Some(value) = series.and_then(Series::median) else {
                continue;
            };
            let Words {
                title,
                unit,
                digits,
                ..
            } = figure.words();
            let verdict = if value <= bound {
                "reached"
            } else {
                "NOT reached"
            };
            let _ = writeln!(
                text,
                "  {count} clients, {title}: {value:.digits$} {unit} (≤ {bound} {unit}: {verdict})"
            );
        }
        text
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Two runs of 200 clients and one of eight.
    pub(crate) fn example() -> Figures {
        let mut figures = Figures::default();
        for (count, connected) in [(200, 20.0), (200, 30.0), (8, 1.0)] {
            figures.add(count, &[(Figure::Connected, connected)]);
        }
        figures.add(200, &[(Figure::Memory, 1025.0)]);
        figures
    }

    #[test]
    fn goals_are_judged_by_the_median() {
        let expected = "  200 clients, connect all: 25.00 s (≤ 60 s: reached)\n  \
                        200 clients, RSS, idle: 1025 KiB/client (≤ 1024 KiB/client: NOT reached)\n";
        assert_eq!(example().check_goals(), expected);
        assert_eq!(Figures::default().check_goals(), "");
    }

    #[test]
    fn counts_are_in_order_and_cells_have_their_spread() {
        let figures = example();
        assert_eq!(figures.counts(), [8, 200]);
        let cell = figures.cell(200, Figure::Connected);
        assert_eq!(cell.as_deref(), Some("25.00 (20.00–30.00)"));
        assert_eq!(figures.cell(8, Figure::Memory), None);
    }

    #[test]
    fn the_order_of_all_is_that_of_the_table() {
        assert!(Figure::ALL.is_sorted());
    }
}
