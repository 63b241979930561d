//! Scenarios of the lab itself.

mod emulator;
mod topology;
