//! Prints the table for a terminal: a line per row, and columns in as many blocks as the width
//! needs.

use std::fmt::Write as _;

use crate::bench::column::Column;
use crate::bench::results::{Results, multiple};
use crate::bench::row::Row;

/// Characters in a line.
const WIDTH: usize = 118;
/// Characters between columns.
const GAP: usize = 3;

/// The table as text.
pub fn table(results: &Results) -> String {
    let rows = results.rows();
    let names = names(results, &rows);
    let columns = results.columns();
    let columns: Vec<Vec<String>> = columns
        .iter()
        .map(|column| lines(results, &rows, *column))
        .collect();
    let mut text = String::new();
    let mut rest = columns.as_slice();
    while !rest.is_empty() {
        let mut used = width(&names);
        let fits = |column: &&Vec<String>| {
            used += GAP + width(column);
            used <= WIDTH
        };
        let count = rest.iter().take_while(fits).count().max(1);
        let (part, later) = rest.split_at(count);
        write_part(&mut text, &names, part);
        rest = later;
    }
    text
}

/// The first column.
fn names(results: &Results, rows: &[Row]) -> Vec<String> {
    let name = |row: &Row| match results.mtu(*row) {
        Some(mtu) => format!("{}, MTU {mtu}", row.title()),
        None => row.title().to_owned(),
    };
    let head = [String::new(), String::new()];
    head.into_iter().chain(rows.iter().map(name)).collect()
}

/// A column: its head, then a line for each row.
fn lines(results: &Results, rows: &[Row], column: Column) -> Vec<String> {
    let description = column.description();
    let head = [description.title, description.unit].map(str::to_owned);
    let line = |row: &Row| {
        let Some(cell) = results.cell(*row, column) else {
            return "-".to_owned();
        };
        match cell.to_ssh {
            Some(ratio) => format!("{} {:>6}", cell.figures, multiple(ratio)),
            None => cell.figures,
        }
    };
    head.into_iter().chain(rows.iter().map(line)).collect()
}

fn write_part(text: &mut String, names: &[String], columns: &[Vec<String>]) {
    for (number, name) in names.iter().enumerate() {
        let mut line = format!("  {name:<0$}", width(names));
        for column in columns {
            let cell = column.get(number).map_or("", String::as_str);
            let _ = write!(line, "{:GAP$}{cell:>1$}", "", width(column));
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text.push('\n');
}

fn width(column: &[String]) -> usize {
    let lengths = column.iter().map(|cell| cell.chars().count());
    lengths.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::example;

    #[test]
    fn cells_stand_below_their_heads() {
        let expected = "
                                                      TCP up            ping p99, idle
                                                      Mbit/s                        ms
  no tunnel (veth)                 10000 (9000–11000)  20.0×                         -
  ssh -w                                500 (400–600)  1.00×   8.00 (8.00–8.00)  1.00×
  sshvpn up --via tun, MTU 16380     5000 (5000–5000)  10.0×   2.00 (2.00–2.00) 0.250×

";
        assert_eq!(table(&example()), expected.trim_start_matches('\n'));
    }

    #[test]
    fn no_line_is_longer_than_a_terminal() {
        let mut results = example();
        for column in Column::ALL {
            results.add(Row::UpTun, column, 12_345.0);
        }
        let text = table(&results);
        for line in text.lines() {
            assert!(line.chars().count() <= WIDTH + 2, "{line}");
        }
        for column in Column::ALL {
            assert!(text.contains(column.description().title), "{text}");
        }
    }

    #[test]
    fn without_figures_there_is_no_table() {
        assert_eq!(table(&Results::default()), "");
    }
}
