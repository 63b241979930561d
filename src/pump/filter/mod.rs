//! The pump's filters: addresses that the peer may use, stations that it hears, rate
//! limits.

pub(super) mod egress;
pub(super) mod guard;
pub(super) mod rate;
