//! Draws the plot: two bars for each row, TCP up and down, on a logarithmic axis.

use std::fmt::Write as _;

use crate::bench::column::Column;
use crate::bench::results::Results;
use crate::bench::row::Row;

/// The start of the bars and the length of the axis, in pixels.
const LEFT: f64 = 190.0;
const WIDTH: f64 = 520.0;
/// Space to the right for a bar's figure, in pixels.
const RIGHT: f64 = 70.0;
const TOP: f64 = 56.0;
/// The height of a bar and the step from row to row.
const BAR: f64 = 11.0;
const STEP: f64 = 34.0;

/// Colours that are distinct on light and dark pages and for colour-blind readers; the text's
/// colour follows the reader's preference.
const STYLE: &str = "text{font:12px sans-serif;fill:#24292f}\
    .figure{font-size:10px}.axis{stroke:#8c959f;stroke-width:1}.grid{stroke:#8c959f;stroke-width:1;opacity:.35}\
    .up{fill:#3b7dd8}.down{fill:#e08a2e}\
    @media(prefers-color-scheme:dark){text{fill:#d0d7de}}";

/// The plot; `None` if neither direction was measured.
pub fn plot(results: &Results) -> Option<String> {
    let bars = [
        (Column::TcpUp, "up", "TCP up"),
        (Column::TcpDown, "down", "TCP down"),
    ];
    let rows: Vec<Row> = results
        .rows()
        .into_iter()
        .filter(|row| bars.iter().any(|bar| results.median(*row, bar.0).is_some()))
        .collect();
    let figures = rows
        .iter()
        .flat_map(|row| bars.map(|bar| results.median(*row, bar.0)));
    let axis = Axis::over(figures.flatten())?;
    let bottom = TOP + STEP * rows.len() as f64;
    let mut text = String::new();
    let _ = writeln!(
        text,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" role=\"img\" \
         aria-label=\"Throughput of each way in Mbit/s\"><style>{STYLE}</style>",
        LEFT + WIDTH + RIGHT,
        bottom + 40.0
    );
    write_legend(&mut text, &bars);
    write_axis(&mut text, &axis, bottom);
    for (number, row) in rows.iter().enumerate() {
        let top = TOP + STEP * number as f64;
        let _ = writeln!(
            text,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            top + BAR + 4.0,
            row.title()
        );
        for (place, (column, class, _)) in bars.into_iter().enumerate() {
            if let Some(figure) = results.median(*row, column) {
                write_bar(&mut text, &axis, class, top + BAR * place as f64, figure);
            }
        }
    }
    text.push_str("</svg>\n");
    Some(text)
}

/// A logarithmic axis between two powers of ten.
struct Axis {
    first: i32,
    last: i32,
}

impl Axis {
    /// An axis that covers all `figures` above zero.
    fn over(figures: impl Iterator<Item = f64>) -> Option<Self> {
        let mut axis: Option<Self> = None;
        for figure in figures.filter(|figure| figure.is_finite() && *figure > 0.0) {
            let (below, above) = (figure.log10().floor() as i32, figure.log10().ceil() as i32);
            let axis = axis.get_or_insert(Self {
                first: below,
                last: above,
            });
            axis.first = axis.first.min(below);
            axis.last = axis.last.max(above).max(axis.first + 1);
        }
        axis
    }

    /// The position of `figure`, in pixels from the left.
    fn place(&self, figure: f64) -> f64 {
        let decades = f64::from(self.last - self.first);
        let position = (figure.log10() - f64::from(self.first)) / decades;
        LEFT + WIDTH * position.clamp(0.0, 1.0)
    }
}

fn write_legend(text: &mut String, bars: &[(Column, &str, &str)]) {
    for (number, (_, class, title)) in bars.iter().enumerate() {
        let left = LEFT + 110.0 * number as f64;
        let _ = writeln!(
            text,
            "<rect class=\"{class}\" x=\"{left}\" y=\"14\" width=\"12\" height=\"12\"/>\
             <text x=\"{}\" y=\"24\">{title}</text>",
            left + 18.0
        );
    }
}

fn write_axis(text: &mut String, axis: &Axis, bottom: f64) {
    for power in axis.first..=axis.last {
        let figure = 10_f64.powi(power);
        let left = axis.place(figure);
        let class = if power == axis.first { "axis" } else { "grid" };
        let _ = writeln!(
            text,
            "<line class=\"{class}\" x1=\"{left:.1}\" x2=\"{left:.1}\" y1=\"{}\" y2=\"{bottom}\"/>\
             <text x=\"{left:.1}\" y=\"{}\" text-anchor=\"middle\">{figure}</text>",
            TOP - 8.0,
            bottom + 16.0
        );
    }
    let _ = writeln!(
        text,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">Mbit/s, median, logarithmic</text>",
        LEFT + WIDTH / 2.0,
        bottom + 34.0
    );
}

fn write_bar(text: &mut String, axis: &Axis, class: &str, top: f64, figure: f64) {
    let end = axis.place(figure);
    let _ = writeln!(
        text,
        "<rect class=\"{class}\" x=\"{LEFT}\" y=\"{top}\" width=\"{:.1}\" height=\"{}\"/>\
         <text x=\"{:.1}\" y=\"{}\" class=\"figure\">{figure:.0}</text>",
        end - LEFT,
        BAR - 1.0,
        end + 4.0,
        top + BAR - 1.5
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::example;

    #[test]
    fn a_bar_is_as_long_as_its_figure() {
        let axis = Axis::over([500.0, 10_000.0].into_iter());
        let axis = axis.expect("an axis");
        assert_eq!((axis.first, axis.last), (2, 4));
        assert_eq!(axis.place(100.0), LEFT);
        assert_eq!(axis.place(1000.0), LEFT + WIDTH / 2.0);
        assert_eq!(axis.place(10_000.0), LEFT + WIDTH);
    }

    #[test]
    fn one_figure_that_is_a_power_of_ten_has_an_axis() {
        let axis = Axis::over([1000.0].into_iter()).expect("an axis");
        assert!(axis.last > axis.first);
        assert!(Axis::over([0.0].into_iter()).is_none());
    }

    #[test]
    fn every_element_is_closed_and_every_row_named() {
        let plot = plot(&example()).expect("a plot");
        assert_eq!(
            plot.matches("<text").count(),
            plot.matches("</text>").count()
        );
        for row in [Row::Veth, Row::SshTunnel, Row::UpTun] {
            assert!(plot.contains(row.title()), "{plot}");
        }
        // Two of the legend, and one bar per row, as only one direction was measured.
        assert_eq!(plot.matches("<rect").count(), 5, "{plot}");
        assert!(plot.starts_with("<svg ") && plot.ends_with("</svg>\n"));
    }

    #[test]
    fn without_throughput_there_is_no_plot() {
        let mut results = Results::default();
        results.add(Row::UpTun, Column::PingWorst, 1.0);
        assert_eq!(plot(&results), None);
    }
}
