//! The figures of a run, and their ratios.

use std::collections::BTreeMap;

use crate::bench::column::Column;
use crate::bench::row::Row;
use crate::bench::statistics::Series;

/// All measured figures.
#[derive(Debug, Default)]
pub struct Results {
    figures: BTreeMap<(Row, Column), Series>,
    mtus: BTreeMap<Row, u32>,
    /// The rows that were left out, with the reason.
    pub left_out: Vec<(Row, String)>,
}

/// One cell of the table.
#[derive(Debug, PartialEq)]
pub struct Cell {
    /// The median, the minimum and the maximum.
    pub figures: String,
    /// The median divided by that of `ssh -w`.
    pub to_ssh: Option<f64>,
    /// The median divided by that without a tunnel.
    pub to_veth: Option<f64>,
}

impl Results {
    /// Adds a figure.
    pub fn add(&mut self, row: Row, column: Column, figure: f64) {
        self.figures.entry((row, column)).or_default().push(figure);
    }

    /// Sets the MTU of a row's device.
    pub fn set_mtu(&mut self, row: Row, mtu: u32) {
        if mtu != 0 {
            self.mtus.insert(row, mtu);
        }
    }

    /// The MTU of a row's device, if it has one.
    pub fn mtu(&self, row: Row) -> Option<u32> {
        self.mtus.get(&row).copied()
    }

    /// The rows that have a figure, in the order of the table.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = self.figures.keys().map(|(row, _)| *row).collect();
        rows.dedup();
        rows
    }

    /// The columns that have a figure, in the order of the table.
    pub fn columns(&self) -> Vec<Column> {
        let is_measured = |column: &Column| {
            let mut keys = self.figures.keys();
            keys.any(|(_, measured)| measured == column)
        };
        Column::ALL.into_iter().filter(is_measured).collect()
    }

    /// The median of a row's figures.
    pub fn median(&self, row: Row, column: Column) -> Option<f64> {
        self.figures.get(&(row, column))?.median()
    }

    /// The median of `row` divided by that of `reference`.
    pub fn ratio(&self, row: Row, reference: Row, column: Column) -> Option<f64> {
        let ratio = self.median(row, column)? / self.median(reference, column)?;
        ratio.is_finite().then_some(ratio)
    }

    /// The cell; `None` if it was not measured.
    pub fn cell(&self, row: Row, column: Column) -> Option<Cell> {
        let series = self.figures.get(&(row, column))?;
        let digits = column.description().digits;
        let median = series.median()?;
        let (least, most) = (series.least()?, series.most()?);
        Some(Cell {
            figures: format!("{median:.digits$} ({least:.digits$}–{most:.digits$})"),
            to_ssh: self.ratio(row, Row::SshTunnel, column),
            to_veth: self.ratio(row, Row::Veth, column),
        })
    }
}

/// A ratio with three significant digits.
pub fn multiple(ratio: f64) -> String {
    let digits = match ratio {
        ratio if ratio >= 100.0 => 0,
        ratio if ratio >= 10.0 => 1,
        ratio if ratio >= 1.0 => 2,
        _ => 3,
    };
    format!("{ratio:.digits$}×")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Results of three rows in two columns, one of which is empty for one row.
    pub(crate) fn example() -> Results {
        let mut results = Results::default();
        for figure in [10_000.0, 11_000.0, 9_000.0] {
            results.add(Row::Veth, Column::TcpUp, figure);
        }
        for figure in [500.0, 400.0, 600.0] {
            results.add(Row::SshTunnel, Column::TcpUp, figure);
        }
        results.add(Row::SshTunnel, Column::PingWorst, 8.0);
        results.add(Row::UpTun, Column::TcpUp, 5000.0);
        results.add(Row::UpTun, Column::PingWorst, 2.0);
        results.set_mtu(Row::UpTun, 16380);
        results.set_mtu(Row::SshTunnel, 0);
        results
            .left_out
            .push((Row::UpAgent, "this sshvpn has no --via agent".into()));
        results
    }

    #[test]
    fn a_cell_has_the_middle_the_spread_and_the_ratios() {
        let cell = example().cell(Row::UpTun, Column::TcpUp);
        let expected = Cell {
            figures: "5000 (5000–5000)".into(),
            to_ssh: Some(10.0),
            to_veth: Some(0.5),
        };
        assert_eq!(cell, Some(expected));
        let cell = example().cell(Row::SshTunnel, Column::TcpUp);
        let figures = cell.map(|cell| cell.figures);
        assert_eq!(figures.as_deref(), Some("500 (400–600)"));
    }

    #[test]
    fn what_was_not_measured_is_not_there() {
        let results = example();
        assert_eq!(results.cell(Row::Veth, Column::PingWorst), None);
        assert_eq!(results.rows(), [Row::Veth, Row::SshTunnel, Row::UpTun]);
        assert_eq!(results.columns(), [Column::TcpUp, Column::PingWorst]);
        assert_eq!(results.mtu(Row::SshTunnel), None);
        let cell = results.cell(Row::UpTun, Column::PingWorst);
        assert_eq!(cell.and_then(|cell| cell.to_veth), None);
    }

    #[test]
    fn ratios_have_three_figures() {
        assert_eq!(multiple(123.4), "123×");
        assert_eq!(multiple(16.74), "16.7×");
        assert_eq!(multiple(1.0), "1.00×");
        assert_eq!(multiple(0.1666), "0.167×");
    }
}
