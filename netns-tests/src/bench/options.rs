//! The command line of the benchmark.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

use crate::bench::column::Column;
use crate::bench::row::Row;

/// The text of `--help`.
pub const USAGE: &str = "\
usage: scripts/bench [OPTION]...

  --rows NAME,...      ways to measure [default: those of sshvpn and ssh]
  --columns NAME,...   figures to measure, by name or group [default: tcp-up,tcp-down]
  --peers              other VPNs too; installs them from packages or by cargo
  --clients N,...      instead: N clients of one sshvpn serve at once, such as 1,8,50,200
  --all                every column, and every way that is installed
  --rounds N           [default: 5]
  --seconds N          duration of each transfer [default: 3]
  --congestion NAME    TCP congestion control of all hosts, such as cubic [default: this
                       machine's]
  --write              the tables and a plot as docs/benchmark.md and .svg
  --output PREFIX      the same as PREFIX.md and PREFIX.svg; of clients, PREFIX-clients.md
";

/// The output file of `--write`, without its extension.
const DOCUMENT: &str = "docs/benchmark";

/// The rows, the columns, the number of rounds and the output files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The rows, in the order of the table.
    pub rows: Vec<Row>,
    /// The columns, in the order of the table.
    pub columns: Vec<Column>,
    /// If not empty: measures these numbers of clients of one server instead; ascending.
    pub clients: Vec<usize>,
    /// The number of measurements of each figure.
    pub rounds: u32,
    /// The duration of a transfer, in seconds.
    pub seconds: u32,
    /// The congestion control of the hosts; `None` for that of this machine.
    pub congestion: Option<String>,
    /// Files to write, without their extensions.
    pub output: Option<PathBuf>,
}

/// The parsed command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Print the help.
    Usage,
    /// Measure.
    Measure(Options),
}

impl Request {
    /// Parses the words after the program's name.
    pub fn parse<S: Into<String>>(words: impl IntoIterator<Item = S>) -> Result<Self> {
        let mut words = words.into_iter().map(Into::into);
        let (mut rows, mut columns, mut clients) = (None, None, Vec::new());
        let (mut peers, mut all) = (false, false);
        let mut congestion = None;
        let (mut rounds, mut seconds, mut output) = (5, 3, None);
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .with_context(|| format!("{word} needs a value"))
            };
            match word.as_str() {
                "--rows" => rows = Some(self::rows(&value()?)?),
                "--columns" => columns = Some(self::columns(&value()?)?),
                "--clients" => clients = counts(&value()?)?,
                "--peers" => peers = true,
                "--all" => all = true,
                "--rounds" => rounds = number(&word, &value()?)?,
                "--seconds" => seconds = number(&word, &value()?)?,
                "--congestion" => congestion = Some(name(&value()?)?),
                "--write" => output = Some(DOCUMENT.into()),
                "--output" => output = Some(value()?.into()),
                "--help" | "-h" => return Ok(Self::Usage),
                _ => bail!("'{word}' is not an option\n{USAGE}"),
            }
        }
        let peers = peers || all;
        let usual_rows = || Row::ALL.into_iter().filter(|row| peers || !row.is_peer());
        let usual_columns = if all {
            Column::ALL.into()
        } else {
            vec![Column::TcpUp, Column::TcpDown]
        };
        Ok(Self::Measure(Options {
            rows: rows.unwrap_or_else(|| usual_rows().collect()),
            columns: columns.unwrap_or(usual_columns),
            clients,
            rounds,
            seconds,
            congestion,
            output,
        }))
    }
}

fn rows(list: &str) -> Result<Vec<Row>> {
    let row = |word: &str| {
        let names = || Row::ALL.map(Row::name).join(", ");
        Row::named(word).with_context(|| format!("no row '{word}'; there are {}", names()))
    };
    let mut rows = list.split(',').map(row).collect::<Result<Vec<_>>>()?;
    rows.sort_unstable();
    rows.dedup();
    Ok(rows)
}

fn columns(list: &str) -> Result<Vec<Column>> {
    let mut columns = Vec::new();
    for word in list.split(',') {
        let named = Column::named(word);
        let names = || {
            Column::ALL
                .map(|column| column.description().name)
                .join(", ")
        };
        ensure!(
            !named.is_empty(),
            "no column '{word}'; there are {}",
            names()
        );
        columns.extend(named);
    }
    columns.sort_unstable();
    columns.dedup();
    Ok(columns)
}

/// Parses numbers of clients: at least one, and at most as many as the network has addresses.
fn counts(list: &str) -> Result<Vec<usize>> {
    let count = |word: &str| {
        let count = word.parse().with_context(|| format!("--clients {word}"))?;
        ensure!((1..=1000).contains(&count), "--clients takes 1 to 1000");
        Ok(count)
    };
    let mut counts = list.split(',').map(count).collect::<Result<Vec<_>>>()?;
    counts.sort_unstable();
    counts.dedup();
    Ok(counts)
}

/// The name of a congestion control.
fn name(text: &str) -> Result<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    ensure!(
        !text.is_empty() && text.bytes().all(plain),
        "--congestion '{text}' is not the name of a congestion control"
    );
    Ok(text.to_owned())
}

fn number(option: &str, value: &str) -> Result<u32> {
    let number = value.parse().with_context(|| format!("{option} {value}"))?;
    ensure!(number > 0, "{option} has to be at least 1");
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Result<Options> {
        match Request::parse(line.split_whitespace())? {
            Request::Measure(options) => Ok(options),
            Request::Usage => bail!("usage"),
        }
    }

    #[test]
    fn without_words_it_is_the_short_run_without_peers() -> Result<()> {
        let options = options("")?;
        assert_eq!(options.columns, [Column::TcpUp, Column::TcpDown]);
        assert!(options.rows.contains(&Row::Veth) && !options.rows.contains(&Row::OpenVpn));
        assert_eq!(
            (options.rounds, options.seconds, options.output),
            (5, 3, None)
        );
        Ok(())
    }

    #[test]
    fn rows_and_columns_are_chosen_by_name() -> Result<()> {
        let options = options("--columns udp,tcp-up,udp-up --rows up-tun,ssh-w,up-tun")?;
        assert_eq!(options.rows, [Row::SshTunnel, Row::UpTun]);
        let expected = [Column::TcpUp, Column::UdpUp, Column::UdpDown];
        assert_eq!(options.columns, expected);
        Ok(())
    }

    #[test]
    fn all_means_all_unless_something_is_named() -> Result<()> {
        let everything = options("--all")?;
        assert_eq!(everything.columns, Column::ALL);
        assert_eq!(everything.rows, Row::ALL);
        assert_eq!(options("--peers")?.rows, Row::ALL);
        assert_eq!(options("--all --rows veth")?.rows, [Row::Veth]);
        Ok(())
    }

    #[test]
    fn clients_are_counted_from_few_to_many() -> Result<()> {
        assert_eq!(options("--clients 200,1,8,8")?.clients, [1, 8, 200]);
        assert!(options("")?.clients.is_empty());
        Ok(())
    }

    #[test]
    fn files_are_written_only_on_request() -> Result<()> {
        assert_eq!(options("--write")?.output, Some(DOCUMENT.into()));
        assert_eq!(options("--output x/y")?.output, Some("x/y".into()));
        Ok(())
    }

    #[test]
    fn the_congestion_control_is_the_machines_unless_it_is_named() -> Result<()> {
        assert_eq!(options("")?.congestion, None);
        let named = options("--congestion cubic")?.congestion;
        assert_eq!(named.as_deref(), Some("cubic"));
        Ok(())
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "--rounds 0",
            "--rounds",
            "--seconds x",
            "--rows nobody",
            "--columns",
            "--columns ,",
            "--clients 0",
            "--clients many",
            "--clients",
            "--fast",
            "--congestion",
            "--congestion x;y",
        ] {
            assert!(options(line).is_err(), "{line}");
        }
        assert_eq!(Request::parse(["-h"]).ok(), Some(Request::Usage));
    }
}
