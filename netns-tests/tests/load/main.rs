//! Scenarios of many connections at once, with limits on memory and time.

mod crowd;
mod memory;
