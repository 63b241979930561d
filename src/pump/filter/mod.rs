//! The pump's filters: addresses that the peer may use, stations that it hears, rate
//! limits. Each wraps a side of a device or of a channel.

pub(super) mod egress;
pub(super) mod ingress;
pub(super) mod rate;

use super::Counters;

/// The source of a direction's packets, the device or the deframer, without those that a
/// filter drops and counts.
#[derive(Debug)]
pub struct Filtered<'a, F, S> {
    filter: F,
    /// The wrapped source.
    pub(super) source: S,
    counters: &'a Counters,
}

impl<'a, F, S> Filtered<'a, F, S> {
    /// Applies `filter` to `source`, and counts in `counters`.
    pub fn new(filter: F, source: S, counters: &'a Counters) -> Self {
        Filtered {
            filter,
            source,
            counters,
        }
    }
}
