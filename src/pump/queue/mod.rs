//! The queue between device and channel: bounded, fair, with CoDel.

pub(super) mod codel;
pub(super) mod fair_queue;
pub(super) mod fifo;
pub(super) mod settings;
