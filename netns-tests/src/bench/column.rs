//! The measured figures: the columns of the table.

use crate::bench::network::Kind;

/// One figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)] // said by `Column::description`
pub enum Column {
    TcpUp,
    TcpDown,
    TcpEight,
    TcpBoth,
    UdpUp,
    UdpDown,
    PingMedian,
    PingWorst,
    PingUpMedian,
    PingUpWorst,
    PingDownMedian,
    PingDownWorst,
    DelayLossless,
    DelayLossTenth,
    DelayLossOne,
    CpuUp,
    CpuDown,
    MachineUp,
    MachineDown,
    MemoryLocal,
    MemoryRemote,
    Start,
}

/// The description of a column.
pub struct Description {
    /// Its name in options: a group, or a group and a part after a hyphen.
    pub name: &'static str,
    /// The head of the column.
    pub title: &'static str,
    /// The unit of its figures.
    pub unit: &'static str,
    /// Decimal places.
    pub digits: usize,
    /// The network that it is measured on.
    pub network: Kind,
}

impl Column {
    /// All columns, in the order of the table.
    pub const ALL: [Self; 22] = [
        Self::TcpUp,
        Self::TcpDown,
        Self::TcpEight,
        Self::TcpBoth,
        Self::UdpUp,
        Self::UdpDown,
        Self::PingMedian,
        Self::PingWorst,
        Self::PingUpMedian,
        Self::PingUpWorst,
        Self::PingDownMedian,
        Self::PingDownWorst,
        Self::DelayLossless,
        Self::DelayLossTenth,
        Self::DelayLossOne,
        Self::CpuUp,
        Self::CpuDown,
        Self::MachineUp,
        Self::MachineDown,
        Self::MemoryLocal,
        Self::MemoryRemote,
        Self::Start,
    ];

    /// The description.
    pub fn description(self) -> Description {
        use Kind::{Bottleneck, Distant, Plain};
        let (name, title, unit, digits, network) = match self {
            Self::TcpUp => ("tcp-up", "TCP up", "Mbit/s", 0, Plain),
            Self::TcpDown => ("tcp-down", "TCP down", "Mbit/s", 0, Plain),
            Self::TcpEight => ("tcp-8", "TCP up, 8 streams", "Mbit/s", 0, Plain),
            Self::TcpBoth => ("tcp-both", "TCP both ways, sum", "Mbit/s", 0, Plain),
            Self::UdpUp => ("udp-up", "UDP 200 B up", "kpps", 1, Plain),
            Self::UdpDown => ("udp-down", "UDP 200 B down", "kpps", 1, Plain),
            Self::PingMedian => ("ping-p50", "ping p50, idle", "ms", 2, Bottleneck),
            Self::PingWorst => ("ping-p99", "ping p99, idle", "ms", 2, Bottleneck),
            Self::PingUpMedian => ("ping-up-p50", "ping p50, TCP up", "ms", 1, Bottleneck),
            Self::PingUpWorst => ("ping-up-p99", "ping p99, TCP up", "ms", 1, Bottleneck),
            Self::PingDownMedian => ("ping-down-p50", "ping p50, TCP down", "ms", 1, Bottleneck),
            Self::PingDownWorst => ("ping-down-p99", "ping p99, TCP down", "ms", 1, Bottleneck),
            Self::DelayLossless => ("delay-0", "TCP up, 40 ms", "Mbit/s", 1, Distant),
            Self::DelayLossTenth => ("delay-0.1", "…, 0.1 % loss", "Mbit/s", 1, Distant),
            Self::DelayLossOne => ("delay-1", "…, 1 % loss", "Mbit/s", 1, Distant),
            Self::CpuUp => ("cpu-up", "CPU up, both ends", "s/GB", 2, Plain),
            Self::CpuDown => ("cpu-down", "CPU down, both ends", "s/GB", 2, Plain),
            Self::MachineUp => ("machine-up", "machine busy, up", "s/GB", 2, Plain),
            Self::MachineDown => ("machine-down", "machine busy, down", "s/GB", 2, Plain),
            Self::MemoryLocal => ("rss-local", "peak RSS, local end", "MiB", 1, Plain),
            Self::MemoryRemote => ("rss-remote", "peak RSS, remote end", "MiB", 1, Plain),
            Self::Start => ("start", "start to first ping", "s", 2, Plain),
        };
        Description {
            name,
            title,
            unit,
            digits,
            network,
        }
    }

    /// The columns that `word` names, which may be a group; empty if there is none.
    pub fn named(word: &str) -> Vec<Self> {
        let is_meant = |column: &Self| {
            let name = column.description().name;
            let rest = name.strip_prefix(word);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        };
        Self::ALL.into_iter().filter(is_meant).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_means_a_column_or_a_group() {
        assert_eq!(Column::named("tcp-8"), [Column::TcpEight]);
        assert_eq!(Column::named("udp"), [Column::UdpUp, Column::UdpDown]);
        assert_eq!(Column::named("ping").len(), 6);
        assert_eq!(Column::named("tc"), []);
        assert_eq!(Column::named(""), []);
    }

    #[test]
    fn names_are_unique_and_all_is_in_order() {
        for column in Column::ALL {
            assert!(Column::named(column.description().name).contains(&column));
        }
        assert!(Column::ALL.is_sorted());
        let mut names = Column::ALL.map(|column| column.description().name);
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
