//! The bounds and times of a queue between the device and a channel.

use std::num::NonZeroU32;

use super::codel::CodelSettings;
use crate::frame::waiting::Waiting;

/// The bounds and times of a [`FairQueue`](crate::pump::FairQueue).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueSettings {
    /// The most bytes of memory that the packets keep allocated.
    pub max_memory: usize,
    /// The most packets that wait, which bounds what is kept about each.
    pub max_packets: usize,
    /// Bytes that a flow may send in a turn (RFC 8290, section 5.2.4), and that
    /// may wait in a flow however long without a drop by CoDel.
    pub quantum: NonZeroU32,
    /// How long the packets of a flow may wait.
    pub codel: CodelSettings,
}

impl QueueSettings {
    /// An Ethernet frame of MTU 1500.
    const DEFAULT_QUANTUM: NonZeroU32 = match NonZeroU32::new(1514) {
        Some(quantum) => quantum,
        None => NonZeroU32::MIN,
    };
}

impl Default for QueueSettings {
    /// About one MiB: sixteen of the largest packets.
    fn default() -> Self {
        QueueSettings {
            max_memory: 16 * Waiting::ROOM,
            max_packets: 4096,
            quantum: Self::DEFAULT_QUANTUM,
            codel: CodelSettings::default(),
        }
    }
}
