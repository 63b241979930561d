//! Counts the packets that passed, and those dropped by reason.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::frame::FrameError;
use crate::packet::PacketError;
use crate::packet::guard::Refused;
use crate::packet::offload::OffloadError;
use crate::process::message::Counted;

/// Why a packet was dropped. A bad packet costs only itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// Too short for a packet, or one that makes the peer close its read side.
    TooShort,
    /// Larger than a frame may be.
    TooLong,
    /// The address family contradicts the packet.
    WrongFamily,
    /// Not a whole IP packet.
    Malformed,
    /// The device is down (EIO).
    DeviceDown,
    /// The kernel refused it (EINVAL, ENOBUFS and others).
    Refused,
    /// The queue was full.
    QueueFull,
    /// The packets of its flow waited too long (CoDel).
    Delayed,
    /// The source address is not the sender's.
    Source,
    /// The sender may not reach the destination.
    Destination,
    /// Link traffic that such a tunnel does not carry.
    NotCarried,
    /// A router message that would change the receiving host's routes.
    RouterControl,
}

impl Dropped {
    const ALL: [Dropped; 12] = [
        Dropped::TooShort,
        Dropped::TooLong,
        Dropped::WrongFamily,
        Dropped::Malformed,
        Dropped::DeviceDown,
        Dropped::Refused,
        Dropped::QueueFull,
        Dropped::Delayed,
        Dropped::Source,
        Dropped::Destination,
        Dropped::NotCarried,
        Dropped::RouterControl,
    ];

    /// The name that is shown.
    pub fn name(self) -> &'static str {
        match self {
            Dropped::TooShort => "too short",
            Dropped::TooLong => "too long",
            Dropped::WrongFamily => "wrong family",
            Dropped::Malformed => "malformed",
            Dropped::DeviceDown => "device down",
            Dropped::Refused => "refused by the kernel",
            Dropped::QueueFull => "queue full",
            Dropped::Delayed => "queued too long",
            Dropped::Source => "source not allowed",
            Dropped::Destination => "destination not allowed",
            Dropped::NotCarried => "link traffic not carried",
            Dropped::RouterControl => "router advertisement or redirect",
        }
    }
}

impl From<FrameError> for Dropped {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::TooShort => Dropped::TooShort,
            FrameError::TooLong => Dropped::TooLong,
            FrameError::WrongFamily => Dropped::WrongFamily,
            FrameError::Malformed => Dropped::Malformed,
        }
    }
}

impl From<PacketError> for Dropped {
    fn from(error: PacketError) -> Self {
        FrameError::from(error).into()
    }
}

impl From<OffloadError> for Dropped {
    fn from(_: OffloadError) -> Self {
        Dropped::Malformed
    }
}

impl From<Refused> for Dropped {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Source => Dropped::Source,
            Refused::Destination => Dropped::Destination,
            Refused::NotCarried => Dropped::NotCarried,
            Refused::RouterControl => Dropped::RouterControl,
            Refused::Malformed => Dropped::Malformed,
        }
    }
}

/// The counters of one direction; shared, never locked.
#[derive(Debug, Default)]
pub struct Counters {
    packets: AtomicU64,
    bytes: AtomicU64,
    dropped: [AtomicU64; Dropped::ALL.len()],
}

impl Counters {
    /// Counts a packet of `bytes` that passed.
    pub fn passed(&self, bytes: usize) {
        self.passed_many(1, bytes);
    }

    /// Counts `packets` that passed, with `bytes` in all.
    pub fn passed_many(&self, packets: u64, bytes: usize) {
        self.packets.fetch_add(packets, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts a dropped packet.
    pub fn dropped(&self, reason: Dropped) {
        self.dropped_many(reason, 1);
    }

    /// Counts a packet of `bytes` as dropped that was counted as passed.
    pub fn taken_back(&self, bytes: usize, reason: Dropped) {
        self.packets.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes as u64, Ordering::Relaxed);
        self.dropped(reason);
    }

    /// Counts dropped packets.
    pub fn dropped_many(&self, reason: Dropped, packets: u64) {
        if packets > 0
            && let Some(counter) = self.dropped.get(reason as usize)
        {
            counter.fetch_add(packets, Ordering::Relaxed);
        }
    }

    /// The current values.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            packets: self.packets.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            dropped: Dropped::ALL
                .iter()
                .zip(&self.dropped)
                .map(|(reason, count)| (reason.name(), count.load(Ordering::Relaxed)))
                .filter(|(_, count)| *count > 0)
                .collect(),
        }
    }
}

/// The values of [`Counters`] at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Packets that passed.
    pub packets: u64,
    /// Their bytes, IP headers included, frame headers not.
    pub bytes: u64,
    /// Drops by reason, without zeros.
    pub dropped: Vec<(&'static str, u64)>,
}

impl Snapshot {
    /// Drops by the guard, except link traffic, which every kernel sends: `3 source not
    /// allowed, 1 destination not allowed`; `None` without any.
    pub fn refused(&self) -> Option<String> {
        let by_guard = [
            Dropped::Source,
            Dropped::Destination,
            Dropped::RouterControl,
        ]
        .map(Dropped::name);
        let refused = self
            .dropped
            .iter()
            .filter(|(name, _)| by_guard.contains(name));
        let texts: Vec<String> = refused
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        (!texts.is_empty()).then(|| texts.join(", "))
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (packets, bytes) = (Counted(self.packets, "packet"), Counted(self.bytes, "byte"));
        write!(f, "{packets}, {bytes}")?;
        for (reason, count) in &self.dropped {
            write!(f, ", {count} dropped ({reason})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_counter() {
        for (index, reason) in Dropped::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
            let counters = Counters::default();
            counters.dropped(reason);
            assert_eq!(counters.snapshot().dropped, [(reason.name(), 1)]);
        }
    }

    #[test]
    fn a_snapshot_reads_as_a_sentence() {
        let counters = Counters::default();
        counters.passed(1500);
        counters.dropped(Dropped::Malformed);
        assert_eq!(
            counters.snapshot().to_string(),
            "1 packet, 1500 bytes, 1 dropped (malformed)"
        );
        assert_eq!(counters.snapshot().refused(), None);
        counters.dropped_many(Dropped::Source, 3);
        counters.dropped(Dropped::NotCarried);
        counters.dropped(Dropped::RouterControl);
        let refused = counters.snapshot().refused().unwrap();
        assert_eq!(
            refused,
            "3 source not allowed, 1 router advertisement or redirect"
        );
    }
}
