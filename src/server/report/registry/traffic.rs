//! Transferred and dropped packets, summed over tunnels and sessions.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::pump::Snapshot;

/// Both directions, named as the client sees them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// From the client.
    pub upload: DirectionTraffic,
    /// To the client.
    pub download: DirectionTraffic,
}

/// One direction of the tunnels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectionTraffic {
    /// Transferred packets.
    pub packets: u64,
    /// Bytes of these packets.
    pub bytes: u64,
    /// Dropped packets by reason, without reasons that never occurred.
    pub dropped: BTreeMap<Cow<'static, str>, u64>,
}

impl Traffic {
    /// Adds the traffic of another.
    pub fn add(&mut self, other: &Traffic) {
        self.upload.add(&other.upload);
        self.download.add(&other.download);
    }

    /// Raises each number to that of another if it is larger, for counters that must not fall.
    pub fn raise(&mut self, other: &Traffic) {
        self.upload.raise(&other.upload);
        self.download.raise(&other.download);
    }
}

impl DirectionTraffic {
    fn add(&mut self, other: &DirectionTraffic) {
        self.merge(other, u64::saturating_add);
    }

    fn raise(&mut self, other: &DirectionTraffic) {
        self.merge(other, u64::max);
    }

    fn merge(&mut self, other: &DirectionTraffic, merged: fn(u64, u64) -> u64) {
        self.packets = merged(self.packets, other.packets);
        self.bytes = merged(self.bytes, other.bytes);
        for (reason, count) in &other.dropped {
            let sum = self.dropped.entry(reason.clone()).or_default();
            *sum = merged(*sum, *count);
        }
    }

    /// Dropped packets, for any reason.
    pub fn dropped_packets(&self) -> u64 {
        self.dropped.values().copied().fold(0, u64::saturating_add)
    }
}

impl From<Snapshot> for DirectionTraffic {
    fn from(snapshot: Snapshot) -> Self {
        let mut dropped = BTreeMap::new();
        for (reason, count) in snapshot.dropped {
            dropped.insert(Cow::Borrowed(reason), count);
        }
        Self {
            packets: snapshot.packets,
            bytes: snapshot.bytes,
            dropped,
        }
    }
}
