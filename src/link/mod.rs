//! Connects the pump: a device on one side, an SSH channel, process or stream on the
//! other.

pub mod control;
pub mod datagram;
pub mod device;
pub(crate) mod dialogue;
pub(crate) mod last_words;
pub(crate) mod page_lending;
pub(crate) mod process_stream;
pub(crate) mod stdio;
pub mod stream;

#[cfg(test)]
mod two_ends_tests;
