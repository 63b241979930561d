//! The process itself: accepting connections, exit, signals, background, memory, messages, rate limits.

pub(crate) mod accept;
pub mod background;
pub mod cleanup;
pub(crate) mod confinement;
pub mod failure;
pub(crate) mod listen;
pub mod memory;
pub mod message;
pub(crate) mod open_connections;
pub(crate) mod shutdown;
pub mod token_bucket;
