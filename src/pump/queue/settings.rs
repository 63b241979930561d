//! The bounds and times of a queue between the device and a channel.

use std::num::NonZeroU32;

use super::codel::CodelSettings;
use crate::frame::waiting::Waiting;

/// The bounds and times of a [`FairQueue`](crate::pump::FairQueue).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueSettings {
    /// Bytes of memory that the packets may keep allocated, at most.
    pub max_memory: usize,
    /// Packets at most, which bounds the queue's own memory.
    pub max_packets: usize,
    /// Bytes that a flow may send in a turn (RFC 8290, section 5.2.4); CoDel drops
    /// nothing while no more wait in a flow.
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
