//! Prints the figures of many clients as a table, for a terminal and as Markdown.

use std::fmt::Write as _;

use crate::bench::clients::figure::{Figure, Figures};
use crate::bench::options::Options;

/// Characters between columns.
const GAP: usize = 3;

/// The figures in one line.
pub fn list(found: &[(Figure, f64)]) -> String {
    let show = |(figure, value): &(Figure, f64)| {
        let words = figure.words();
        let digits = words.digits;
        format!("{} {value:.digits$} {}", words.title, words.unit)
    };
    found.iter().map(show).collect::<Vec<_>>().join(", ")
}

/// The columns that have figures.
fn columns(figures: &Figures) -> Vec<Figure> {
    let counts = figures.counts();
    let is_measured = |figure: &Figure| {
        let mut counts = counts.iter();
        counts.any(|count| figures.cell(*count, *figure).is_some())
    };
    Figure::ALL.into_iter().filter(is_measured).collect()
}

/// The table for a terminal: a line per figure and a column per number of clients, since a line
/// has no room for all figures.
pub fn terminal(figures: &Figures) -> String {
    let counts = figures.counts();
    let mut lines = vec![vec!["clients".to_owned()]];
    lines[0].extend(counts.iter().map(usize::to_string));
    for figure in columns(figures) {
        let words = figure.words();
        let mut line = vec![format!("{}, {}", words.title, words.unit)];
        let cell = |count: &usize| figures.cell(*count, figure).unwrap_or_else(|| "-".into());
        line.extend(counts.iter().map(cell));
        lines.push(line);
    }
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let mut text = String::new();
    for line in &lines {
        for (column, cell) in line.iter().enumerate() {
            let width = width(column);
            let _ = match column {
                0 => write!(text, "  {cell:<width$}"),
                _ => write!(text, "{:GAP$}{cell:>width$}", ""),
            };
        }
        text.push('\n');
    }
    text
}

/// The Markdown page: a table with a line per number of clients, the meaning of its columns, and
/// the goals.
pub fn page(figures: &Figures, options: &Options, goals: &str) -> String {
    let mut text = format!(
        "# Many clients\n\nWritten by `scripts/bench --clients`: `ssh -w` at MTU 1500 into one \
         `sshvpn serve`, server and clients on one machine, {} rounds, {} s for each transfer. \
         A cell has the median (least–most).\n\n| clients |",
        options.rounds, options.seconds
    );
    let columns = columns(figures);
    for figure in &columns {
        let words = figure.words();
        let _ = write!(text, " {}, {} |", words.title, words.unit);
    }
    let _ = writeln!(text, "\n|---|{}", "---|".repeat(columns.len()));
    for count in figures.counts() {
        let _ = write!(text, "| {count} |");
        for figure in &columns {
            let cell = figures.cell(count, *figure);
            let _ = write!(text, " {} |", cell.unwrap_or_else(|| "–".into()));
        }
        text.push('\n');
    }
    text.push('\n');
    for figure in &columns {
        let words = figure.words();
        let _ = writeln!(text, "- {}: {}.", words.title, words.meaning);
    }
    if !goals.is_empty() {
        text.push_str("\n## Goals\n\n");
        for line in goals.lines() {
            let _ = writeln!(text, "- {}", line.trim());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::clients::figure::tests::example;

    #[test]
    fn cells_stand_below_their_heads() {
        let expected = "
  clients                             8                 200
  connect all, s   1.00 (1.00–1.00)   25.00 (20.00–30.00)
  RSS, idle, KiB/client               -   1025 (1025–1025)
";
        let found = terminal(&example());
        let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(squeeze(&found), squeeze(expected));
        let widths: Vec<usize> = found.lines().map(|line| line.chars().count()).collect();
        assert!(widths.windows(2).all(|pair| pair[0] == pair[1]), "{found}");
    }

    #[test]
    fn a_page_has_a_line_for_each_count_and_says_what_it_means() {
        let options = Options {
            rows: Vec::new(),
            columns: Vec::new(),
            clients: vec![8, 200],
            rounds: 2,
            seconds: 3,
            congestion: None,
            output: None,
        };
        let page = page(&example(), &options, "  all is well\n");
        for part in [
            "| clients | connect all, s | RSS, idle, KiB/client |\n|---|---|---|\n| 8 |",
            "| 200 | 25.00 (20.00–30.00) | 1025 (1025–1025) |",
            "- connect all: from the start",
            "## Goals\n\n- all is well\n",
        ] {
            assert!(page.contains(part), "{part} is missing in\n{page}");
        }
    }
}
