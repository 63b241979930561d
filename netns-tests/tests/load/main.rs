//! Scenarios of many connections at once, which are judged by memory and by time.

mod crowd;
mod memory;
