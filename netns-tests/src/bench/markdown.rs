//! Writes the results as a Markdown page: the machine, a table for each group of columns, the
//! goals.

use std::fmt::Write as _;

use crate::bench::column::Column;
use crate::bench::goals;
use crate::bench::options::Options;
use crate::bench::results::{Cell, Results, multiple};
use crate::bench::row::Row;

/// The title and meaning of each group of columns, by the first part of its name.
const GROUPS: [(&str, &str, &str); 8] = [
    ("tcp", "Throughput", "TCP by iperf3, what arrived."),
    (
        "udp",
        "Small datagrams",
        "UDP with payloads of 200 bytes: the most that arrive in a second while at most 1 % is lost. kpps: thousands of packets a second.",
    ),
    (
        "ping",
        "Round trips",
        "Over a cable of 100 Mbit/s with a queue of 50 ms each way, without load and beside one TCP stream through the same tunnel. p50, p99: the time that 50 % and 99 % of the round trips keep; a lost one counts as a second.",
    ),
    (
        "delay",
        "A long way, with loss",
        "Over a cable of 40 ms there and back, TCP up through the tunnel, what arrived; the kernel may keep 64 MiB of a connection on its way, at either end. The loss is below the tunnel, by chance, each way, and of single packets: in the columns with loss the hosts get segments one by one, in the one without it super-packets may arrive whole, so that column can be faster by more than what the loss takes.",
    ),
    (
        "cpu",
        "CPU time of the tunnel",
        "User and system time of the processes that make the tunnel, at both ends together (ssh or sshvpn, sshd's children, the agent), for each 10⁹ bytes that one TCP stream carried.",
    ),
    (
        "machine",
        "CPU time of the machine",
        "The same for everything that ran: the kernel and iperf3 as well.",
    ),
    (
        "rss",
        "Memory",
        "Peak resident memory of the tunnel's processes after the transfers, for each end; memory that they share is counted for each.",
    ),
    (
        "start",
        "Start",
        "From the start of the command to the first answered ping; for `ssh -w` that includes setting its addresses.",
    ),
];

/// The page. `plot` is the plot's file name, `machine` a Markdown list.
pub fn page(results: &Results, options: &Options, machine: &str, plot: &str) -> String {
    let mut text = String::from("# Benchmark\n\n");
    let _ = writeln!(
        text,
        "Written by `scripts/bench`: two hosts made of network namespaces on one machine, \
         AES-128-GCM wherever ssh is used, {} rounds in each of which every way was measured, \
         {} s for each transfer. A cell has the median (least–most) and the median as a multiple \
         of that of `ssh -w` and of that of the cable without a tunnel; – is what a way cannot \
         give: `ssh -L` and sshuttle carry connections, no pings and no datagrams.\n\n{machine}\n\
         ![Throughput of each way, TCP up and down]({plot})\n",
        options.rounds, options.seconds
    );
    let columns = results.columns();
    for (name, title, meaning) in GROUPS {
        let is_member = |column: &&Column| {
            let own = column.description().name;
            own.split('-').next() == Some(name)
        };
        let columns: Vec<Column> = columns.iter().filter(is_member).copied().collect();
        if !columns.is_empty() {
            let _ = writeln!(text, "## {title}\n\n{meaning}\n");
            write_table(&mut text, results, &columns);
        }
    }
    write_goals(&mut text, results);
    write_left_out(&mut text, results);
    text
}

fn write_table(text: &mut String, results: &Results, columns: &[Column]) {
    text.push_str("| | MTU |");
    for column in columns {
        let description = column.description();
        let _ = write!(text, " {}, {} |", description.title, description.unit);
    }
    let _ = writeln!(text, "\n|---|---|{}", "---|".repeat(columns.len()));
    for row in results.rows() {
        let cells: Vec<Option<Cell>> = columns
            .iter()
            .map(|column| results.cell(row, *column))
            .collect();
        if cells.iter().all(Option::is_none) {
            continue;
        }
        let mtu = results.mtu(row).map_or("–".into(), |mtu| mtu.to_string());
        let _ = write!(text, "| {} | {mtu} |", name(row));
        for cell in cells {
            let _ = write!(text, " {} |", cell.map_or("–".into(), |cell| show(&cell)));
        }
        text.push('\n');
    }
    text.push('\n');
}

/// A row's name, as code if it is a command.
fn name(row: Row) -> String {
    if row == Row::Veth {
        row.title().to_owned()
    } else {
        format!("`{}`", row.title())
    }
}

fn show(cell: &Cell) -> String {
    let ratios = [(cell.to_ssh, "ssh -w"), (cell.to_veth, "veth")];
    let ratios: Vec<String> = ratios
        .into_iter()
        .filter_map(|(ratio, reference)| Some(format!("{} {reference}", multiple(ratio?))))
        .collect();
    if ratios.is_empty() {
        return cell.figures.clone();
    }
    format!("{}<br>{}", cell.figures, ratios.join(", "))
}

fn write_goals(text: &mut String, results: &Results) {
    let goals = goals::check(results);
    if goals.is_empty() {
        return;
    }
    text.push_str("## Goals\n\n");
    for line in goals.lines() {
        let _ = writeln!(text, "- {}", line.trim());
    }
    text.push('\n');
}

fn write_left_out(text: &mut String, results: &Results) {
    if results.left_out.is_empty() {
        return;
    }
    text.push_str("## Not measured\n\n");
    for (row, reason) in &results.left_out {
        let _ = writeln!(text, "- {}: {reason}", name(*row));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::example;

    fn example_page() -> String {
        let options = Options {
            rows: Vec::new(),
            columns: Vec::new(),
            clients: Vec::new(),
            rounds: 3,
            seconds: 2,
            output: None,
        };
        page(&example(), &options, "- CPU: one\n", "plot.svg")
    }

    #[test]
    fn a_page_has_a_table_for_each_group_that_was_measured() {
        let page = example_page();
        let row =
            "| `sshvpn up --via tun` | 16380 | 5000 (5000–5000)<br>10.0× ssh -w, 0.500× veth |";
        for part in [
            "3 rounds",
            "- CPU: one\n",
            "(plot.svg)",
            "| | MTU | TCP up, Mbit/s |\n|---|---|---|\n| no tunnel (veth) | – |",
            row,
            "## Round trips",
            "## Goals\n\n- sshvpn up --via tun ÷ ssh -w, TCP up: 10.0×",
            "- `sshvpn up --via agent`: this sshvpn has no --via agent",
        ] {
            assert!(page.contains(part), "{part} is missing in\n{page}");
        }
        assert!(!page.contains("## Memory"), "{page}");
    }

    #[test]
    fn every_column_belongs_to_a_group() {
        for column in Column::ALL {
            let group = column.description().name.split('-').next();
            assert!(
                GROUPS.iter().any(|(name, ..)| Some(*name) == group),
                "{group:?}"
            );
        }
    }

    #[test]
    fn every_line_of_a_table_has_as_many_cells() {
        let page = example_page();
        let rows = page.lines().filter(|line| line.starts_with('|'));
        for line in rows {
            assert_eq!(line.matches('|').count(), 4, "{line}");
        }
    }
}
