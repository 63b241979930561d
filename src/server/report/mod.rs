//! The server's reports: audit log, registry, status, metrics.

pub mod audit;
pub(super) mod bounded_listener;
pub mod metrics;
pub mod registry;
pub mod status;
